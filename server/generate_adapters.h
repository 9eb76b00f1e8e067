// SPDX-License-Identifier: Apache-2.0
// The adapters of one request: what it names becomes pinned versions, in the order in which their
// ranks are added, each at the ranks it may use. Belongs to the HTTP worker of the call.
#ifndef SERVER_GENERATE_ADAPTERS_H
#define SERVER_GENERATE_ADAPTERS_H

#include "server/api_decode.h"
#include "server/request.h"
#include "server/server.h"

struct generate_adapters {
    sora_pin *pins[SORA_REQUEST_ADAPTERS_MAX];
    int32_t pin_count;
    struct request_adapter list[SORA_REQUEST_ADAPTERS_MAX]; // those whose scale is not 0
    int32_t count;
    int32_t rank_limit; // what load has left an elastic request; 0: all it asked for
};

// All or none are pinned. Unknown: SORA_NOT_FOUND, never the base instead.
SORA_CHECKED sora_status generate_take_adapters(struct server *server,
                                                const struct auth_caller *caller,
                                                const struct api_request *api,
                                                struct generate_adapters *adapters,
                                                struct api_error *error);
void generate_release_adapters(struct server *server, struct generate_adapters *adapters);
// Counts tokens for each of them.
void generate_count_tokens(struct server *server, const struct generate_adapters *adapters,
                           int64_t tokens);

#endif

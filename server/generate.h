// SPDX-License-Identifier: Apache-2.0
// From a decoded completion or chat request to its answer: the adapter is pinned, prompts become
// tokens, the engine works, events become JSON. Runs on the HTTP worker of the call.
#ifndef SERVER_GENERATE_H
#define SERVER_GENERATE_H

#include "server/api_decode.h"
#include "server/server.h"

enum generate_door { GENERATE_COMPLETION, GENERATE_CHAT, GENERATE_TGI, GENERATE_TGI_STREAM };
// Replies to the call in every case, the refusals included.
void generate_reply(struct server *server, struct http_call *call, enum generate_door door);

// Resolves a model's name as the caller knows it: *pin stays NULL for the base (or no name at all).
SORA_CHECKED sora_status generate_pin(struct server *server, const struct auth_caller *caller,
                                      const char *name, sora_pin **pin, struct api_error *error);
// The same of an adapter's stored name; field: where the request has it.
SORA_CHECKED sora_status generate_pin_stored(struct server *server,
                                             const struct auth_caller *caller, const char *stored,
                                             const char *field, sora_pin **pin,
                                             struct api_error *error);
// The error of a name that means nothing here; returns SORA_NOT_FOUND.
sora_status generate_unknown(const struct server *server, const char *name, const char *field,
                             struct api_error *error);
// Tokens of a prompt, or of the chat when prompt is NULL; malloc'ed.
SORA_CHECKED sora_status generate_tokens(struct server *server, const struct api_request *api,
                                         const struct api_prompt *prompt, int32_t **tokens,
                                         int32_t *token_count, struct api_error *error);
struct api_limits generate_limits(const struct server *server);

#endif

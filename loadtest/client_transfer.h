// SPDX-License-Identifier: Apache-2.0
// One request under way (internal to client*.c): what is sent, what has come, and what that makes
// of it. The client's thread.
#ifndef LOADTEST_CLIENT_TRANSFER_H
#define LOADTEST_CLIENT_TRANSFER_H

#include <curl/curl.h>

#include "loadtest/client.h"
#include "loadtest/client_reply.h"
#include "loadtest/sse_parse.h"

struct transfer {
    const struct client_load *load;
    struct transfer *next_free;
    CURL *easy;
    struct curl_slist *headers;
    bool running, is_churn;
    int64_t start_us; // clock of the run's start

    const struct plan_request *request;
    struct record record;
    struct buf body; // sent
    struct buf scratch;
    struct buf text; // of the reply: its words when they are compared, the body when not streamed
    struct sse_parse sse;
    long http_status;
    bool is_stream, began, done, finished, dropped;
    int32_t token_events;
    int64_t last_token_us;
    int64_t events; // for the client's cost
    enum record_outcome problem;
    char problem_text[CLIENT_PROBLEM_BYTES];
    char curl_text[CURL_ERROR_SIZE];
};

SORA_CHECKED sora_status transfer_create(const struct client_load *load, int64_t start_us,
                                         bool is_churn, struct transfer **transfer,
                                         struct sora_error *err);
void transfer_destroy(struct transfer *transfer); // accepts NULL; not while in a multi handle

// Ready for curl_multi_add_handle.
SORA_CHECKED sora_status transfer_prepare(struct transfer *transfer, int32_t index, bool warmup,
                                          struct sora_error *err);
void transfer_prepare_churn(struct transfer *transfer, const struct churn_call *call);
// Decides the outcome; record is complete afterwards.
void transfer_finish(struct transfer *transfer, CURLcode code);

#endif

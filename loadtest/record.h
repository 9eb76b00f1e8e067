// SPDX-License-Identifier: Apache-2.0
// What is known of one request after it ended: the only thing that passes from the client to the
// statistics. Times are monotonic microseconds since the start of the run.
#ifndef LOADTEST_RECORD_H
#define LOADTEST_RECORD_H

#include <stdbool.h>
#include <stdint.h>

enum record_outcome {
    RECORD_OK,
    RECORD_DROPPED, // the plan closed the connection midway, as intended
    RECORD_CONNECT, // no connection
    RECORD_TIMEOUT,
    RECORD_HTTP_4XX, // but 429
    RECORD_HTTP_429,
    RECORD_HTTP_5XX,
    RECORD_STREAM,    // an error event, or SSE or JSON that does not parse
    RECORD_TRUNCATED, // the stream ended without [DONE] or a finish reason
    RECORD_VERIFY,    // --verify: another reply than before for the same request
    RECORD_OUTCOME_COUNT
};

struct record {
    int32_t request; // index in the plan
    int32_t adapter; // index in the plan's list of models
    enum record_outcome outcome;
    int32_t http_status; // 0: none came
    int64_t planned_us;  // when the plan wanted it sent; latency counts from here
    int64_t sent_us;     // when it was handed to the socket
    int64_t first_us;    // first token, 0: none
    int64_t end_us;
    int32_t prompt_tokens; // as the server counted them, else as planned
    int32_t output_tokens;
    bool warmup; // not counted in results
};

#endif

// SPDX-License-Identifier: Apache-2.0
// The one engine thread: takes requests, lets the planner fill steps, runs them, samples, and puts
// events into the requests' rings. It never touches a socket, a file or JSON, never waits for a
// client, and allocates nothing in a step. submit may be called by any thread.
#ifndef SERVER_ENGINE_LOOP_H
#define SERVER_ENGINE_LOOP_H

#include <stdint.h>

#include "server/metrics.h"
#include "server/request.h"
#include "sora/engine.h"

struct engine_loop;

struct engine_loop_options {
    sora_engine *engine; // borrowed; only the loop calls it while it runs
    int32_t vocab_size;
    int32_t seqs_max, rows_max, logit_rows_max; // as the engine was made with
    int32_t queue_max;                          // waiting requests
    int64_t step_us_max;                        // see sched.h
    struct metrics *metrics;                    // borrowed
};

SORA_CHECKED sora_status engine_loop_start(const struct engine_loop_options *options,
                                           struct engine_loop **loop, struct sora_error *err);
// Ends the thread; what still runs gets FINISH_SHUTDOWN. Later submits are refused.
void engine_loop_stop(struct engine_loop *loop);    // accepts NULL; the struct stays usable
void engine_loop_destroy(struct engine_loop *loop); // after stop; accepts NULL

// SORA_BUSY: queue_max requests are waiting, or the loop has stopped. SORA_OK: the request now
// belongs to the engine until its EVENT_END and request_await.
SORA_CHECKED sora_status engine_loop_submit(struct engine_loop *loop, struct request *request,
                                            struct sora_error *err);
// Most tokens (prompt and output) one sequence may have with this KV memory.
int32_t engine_loop_tokens_max(const struct engine_loop *loop);

#endif

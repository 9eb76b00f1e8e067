// SPDX-License-Identifier: Apache-2.0
// One request on its way through the engine. An HTTP worker makes it, submits it, reads its events
// and destroys it; between engine_loop_submit and the moment the engine lets go (request_await),
// the engine thread owns everything in it but the cancel flags and the reading end of the ring.
#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "server/event_ring.h"
#include "server/sched.h"
#include "sora/engine.h"
#include "sora/lora.h"
#include "sora/sampler.h"

struct request_seq {
    struct sched_item item; // item.owner is this
    struct request *request;
    int32_t index;   // in request->seqs
    int32_t *tokens; // [prompt_count + max_tokens]; the first item.length are known
    int32_t prompt_count;
    int32_t generated;
    sora_sampler *sampler;
    int32_t handle; // of the engine's sequence, -1: none
    bool done;
    int64_t last_token_us;
    atomic_bool cancel; // HTTP side: nobody wants the rest (a stop string was found)
};

struct request {
    struct request_seq *seqs;
    int32_t seq_count, seqs_open; // not done yet
    int32_t max_tokens, min_tokens;
    bool ignore_eos;
    const int32_t *end_tokens; // of the model, borrowed
    int32_t end_token_count;
    int32_t stop_tokens[SORA_STOP_TOKEN_COUNT_MAX]; // of the request; hold despite ignore_eos
    int32_t stop_token_count;
    int32_t logprobs; // top log-probabilities per token; -1: none at all
    struct sora_lora_part parts[SORA_REQUEST_ADAPTERS_MAX]; // pinned by the request's owner
    int32_t part_count;                                     // 0: the base
    struct sora_prefix_view view; // the same, as the prefix cache knows it
    int32_t tenant;               // of struct rate_tenant; 0: none
    int32_t choices;              // of each prompt
    atomic_int cached_tokens;     // engine: prompt tokens that were in the cache
    int64_t arrival_us;
    struct event_ring *ring;
    atomic_bool cancel;   // HTTP side: the client is gone
    atomic_bool admitted; // engine: a sequence of it has run
    sem_t released;       // posted by the engine as its very last touch

    struct request *prev, *next;                  // the engine's list
    struct request *inbox_next;                   // the loop's inbox
    const char *names[SORA_REQUEST_ADAPTERS_MAX]; // of the parts; for the table
    struct request *table_prev, *table_next;
};

// One adapter of a request; all of it is borrowed until the request is destroyed.
struct request_adapter {
    struct sora_lora_part part;
    const char *name;
    const char *digest; // hex
};

// Everything a request needs to know; copied, except what is said to be borrowed above.
struct request_spec {
    const struct sora_sampling *sampling; // seed: of the first choice; choice i uses seed + i
    const int32_t *const *prompts;        // [prompt_count] token lists
    const int32_t *prompt_token_counts;
    int32_t prompt_count, choices; // sequences = prompt_count x choices, prompt-major
    int32_t max_tokens, min_tokens;
    bool ignore_eos;
    bool score_prompt; // EVENT_PROMPT for every prompt token but the first
    const int32_t *end_tokens;
    int32_t end_token_count;
    const int32_t *stop_tokens;
    int32_t stop_token_count;
    int32_t logprobs;
    int32_t vocab_size;
    const struct request_adapter *adapters; // in the order in which they are added
    int32_t adapter_count;                  // 0: the base
    int32_t tenant;                         // of struct rate_tenant; 0: none
};

// SORA_LIMIT when its events would take more than SORA_EVENT_BYTES_MAX; SORA_MALFORMED of a
// sampling setting.
SORA_CHECKED sora_status request_create(const struct request_spec *spec, struct request **request,
                                        struct sora_error *err);
void request_destroy(struct request *request); // accepts NULL; never while submitted
// After EVENT_END: waits for the engine's last touch, which is at hand.
void request_await(struct request *request);
// Any thread: the client is gone.
void request_cancel(struct request *request);

// One that has no request yet: its adapter is being brought into memory. On its thread's stack.
struct request_wait {
    const char *adapter; // name, or name@version
    struct request_wait *prev, *next;
};

// All requests that are queued or running, for /metrics and for draining. Any thread.
struct request_table {
    pthread_mutex_t mutex;
    struct request *first;
    struct request_wait *first_wait;
    int32_t count;
    int64_t changed_s; // Unix time of the last change
};
void request_table_init(struct request_table *table);
void request_table_deinit(struct request_table *table);
void request_table_add(struct request_table *table, struct request *request);
void request_table_remove(struct request_table *table, struct request *request);
void request_table_wait(struct request_table *table, struct request_wait *wait);
void request_table_forget(struct request_table *table, struct request_wait *wait);
int32_t request_table_count(struct request_table *table);
// "a,b" of the adapters that run, and of those that only wait; each name once.
void request_table_adapters(struct request_table *table, struct buf *running, struct buf *waiting,
                            int64_t *changed_s);

#endif

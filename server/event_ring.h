// SPDX-License-Identifier: Apache-2.0
// What the engine thread tells the HTTP worker of one request. One producer (engine), one consumer
// (HTTP worker). The ring is made large enough for every event its request may ever produce, so
// put never waits: a slow client fills its own ring and stalls no step. Lock-free but for a
// semaphore that wakes the consumer.
#ifndef SERVER_EVENT_RING_H
#define SERVER_EVENT_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct event_ring;

enum event_kind {
    EVENT_PROMPT, // log-probability of a prompt token (echo with logprobs), in order
    EVENT_TOKEN,  // one chosen token
    EVENT_DONE,   // the sequence ends; finish says why
    EVENT_END     // all sequences have ended; nothing follows
};

enum event_finish {
    FINISH_NONE,
    FINISH_STOP,      // an end token, which is the last EVENT_TOKEN
    FINISH_LENGTH,    // max_tokens
    FINISH_CANCELLED, // the HTTP side asked for it
    FINISH_SHUTDOWN   // the server ends before the request did
};

struct event {
    enum event_kind kind;
    int32_t seq; // index of the sequence in the request
    int32_t token;
    enum event_finish finish;
    float logprob; // 0 when nobody asked
    int32_t rank;
    int32_t top_count;
    const int32_t *top_tokens; // [top_count], most likely first
    const float *top_logprobs; // [top_count]
};

// Bytes that a ring takes, to be checked against a bound before it is made; SIZE_MAX on overflow.
size_t event_ring_bytes(size_t capacity, int32_t top_max);
SORA_CHECKED sora_status event_ring_create(size_t capacity, int32_t top_max,
                                           struct event_ring **ring, struct sora_error *err);
void event_ring_destroy(struct event_ring *ring); // accepts NULL

// Engine thread. Copies the event and its top lists. More events than the capacity are our own bug.
void event_ring_put(struct event_ring *ring, const struct event *event);
// HTTP worker. The next event, or false after timeout_us (0: at once) or a wake. The top lists stay
// valid until the next take.
bool event_ring_take(struct event_ring *ring, struct event *event, int64_t timeout_us);
// Any thread: makes a waiting take return.
void event_ring_wake(struct event_ring *ring);

#endif

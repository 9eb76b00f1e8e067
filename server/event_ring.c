// SPDX-License-Identifier: Apache-2.0
// See event_ring.h. Positions grow without bound; a slot is position modulo capacity. The producer
// alone writes `tail`, the consumer alone writes `head`.
#include "server/event_ring.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/assert.h"

struct event_ring {
    struct event *events; // [capacity]
    int32_t *top_tokens;  // [capacity, top_max]
    float *top_logprobs;  // [capacity, top_max]
    size_t capacity;
    int32_t top_max;
    bool holds; // consumer: the event at head is in the caller's hands
    _Atomic size_t head, tail;
    sem_t wake;
};

size_t event_ring_bytes(size_t capacity, int32_t top_max)
{
    size_t each = sizeof(struct event) + (size_t)top_max * (sizeof(int32_t) + sizeof(float));
    size_t bytes;
    return checked_mul(capacity, each, &bytes) ? bytes : SIZE_MAX;
}

sora_status event_ring_create(size_t capacity, int32_t top_max, struct event_ring **ring,
                              struct sora_error *err)
{
    ASSERT(capacity > 0 && top_max >= 0);
    struct event_ring *made = calloc(1, sizeof *made);
    size_t tops = capacity * (size_t)top_max;
    if (made == NULL || event_ring_bytes(capacity, top_max) == SIZE_MAX)
        goto failed;
    made->events = calloc(capacity, sizeof *made->events);
    if (tops > 0) {
        made->top_tokens = calloc(tops, sizeof *made->top_tokens);
        made->top_logprobs = calloc(tops, sizeof *made->top_logprobs);
    }
    if (made->events == NULL ||
        (tops > 0 && (made->top_tokens == NULL || made->top_logprobs == NULL)))
        goto failed;
    made->capacity = capacity;
    made->top_max = top_max;
    sem_init(&made->wake, 0, 0);
    *ring = made;
    return SORA_OK;
failed:
    if (made != NULL) {
        free(made->events);
        free(made->top_tokens);
        free(made->top_logprobs);
        free(made);
    }
    return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu events", capacity);
}

void event_ring_destroy(struct event_ring *ring)
{
    if (ring == NULL)
        return;
    sem_destroy(&ring->wake);
    free(ring->events);
    free(ring->top_tokens);
    free(ring->top_logprobs);
    free(ring);
}

void event_ring_put(struct event_ring *ring, const struct event *event)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    ASSERT(tail - head < ring->capacity && event->top_count <= ring->top_max);
    size_t slot = tail % ring->capacity;
    struct event *to = &ring->events[slot];
    *to = *event;
    if (event->top_count > 0) {
        int32_t *tokens = ring->top_tokens + slot * (size_t)ring->top_max;
        float *logprobs = ring->top_logprobs + slot * (size_t)ring->top_max;
        memcpy(tokens, event->top_tokens, (size_t)event->top_count * sizeof *tokens);
        memcpy(logprobs, event->top_logprobs, (size_t)event->top_count * sizeof *logprobs);
        to->top_tokens = tokens;
        to->top_logprobs = logprobs;
    }
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    sem_post(&ring->wake);
}

static bool take_now(struct event_ring *ring, struct event *event)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (ring->holds) {
        ring->holds = false;
        atomic_store_explicit(&ring->head, ++head, memory_order_release);
    }
    if (atomic_load_explicit(&ring->tail, memory_order_acquire) == head)
        return false;
    *event = ring->events[head % ring->capacity];
    ring->holds = true;
    return true;
}

bool event_ring_take(struct event_ring *ring, struct event *event, int64_t timeout_us)
{
    // Every put also posts: what was posted for events already taken is used up here.
    while (sem_trywait(&ring->wake) == 0)
        continue;
    if (take_now(ring, event))
        return true;
    if (timeout_us <= 0)
        return false;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + timeout_us % 1000000 * 1000;
    until.tv_sec += (time_t)(timeout_us / 1000000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    while (sem_clockwait(&ring->wake, CLOCK_MONOTONIC, &until) != 0)
        if (errno != EINTR)
            return false;
    return take_now(ring, event);
}

void event_ring_wake(struct event_ring *ring)
{
    sem_post(&ring->wake);
}

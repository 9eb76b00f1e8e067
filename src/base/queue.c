// SPDX-License-Identifier: Apache-2.0
// The bounded queue: a ring under one mutex. Any thread.
#include "base/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/arena.h"
#include "base/assert.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled; // waits on CLOCK_MONOTONIC
    size_t capacity, first, count;
    bool closed;
    void *items[];
};

sora_status queue_create(size_t capacity, struct queue **queue, struct sora_error *err)
{
    ASSERT(capacity > 0);
    size_t bytes;
    struct queue *made = NULL;
    if (checked_mul(capacity, sizeof(void *), &bytes) && checked_add(bytes, sizeof *made, &bytes))
        made = calloc(1, bytes);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a queue of %zu items", capacity);
    made->capacity = capacity;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->filled, &attributes);
    pthread_condattr_destroy(&attributes);
    *queue = made;
    return SORA_OK;
}

void queue_destroy(struct queue *queue)
{
    if (queue == NULL)
        return;
    ASSERT(queue->count == 0);
    pthread_cond_destroy(&queue->filled);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

bool queue_put(struct queue *queue, void *item)
{
    ASSERT(item != NULL); // NULL is what an empty queue gives
    pthread_mutex_lock(&queue->lock);
    bool room = !queue->closed && queue->count < queue->capacity;
    if (room) {
        queue->items[(queue->first + queue->count) % queue->capacity] = item;
        ++queue->count;
        pthread_cond_signal(&queue->filled);
    }
    pthread_mutex_unlock(&queue->lock);
    return room;
}

static struct timespec deadline_after(int64_t us)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += us / 1000000;
    at.tv_nsec += us % 1000000 * 1000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_nsec -= 1000000000;
        ++at.tv_sec;
    }
    return at;
}

// Under the lock: waits for an item, the close or the deadline.
static void wait_filled(struct queue *queue, int64_t timeout_us)
{
    if (timeout_us == 0)
        return;
    struct timespec deadline = {0};
    if (timeout_us > 0)
        deadline = deadline_after(timeout_us);
    while (queue->count == 0 && !queue->closed) {
        if (timeout_us < 0)
            pthread_cond_wait(&queue->filled, &queue->lock);
        else if (pthread_cond_timedwait(&queue->filled, &queue->lock, &deadline) == ETIMEDOUT)
            return;
    }
}

void *queue_take(struct queue *queue, int64_t timeout_us)
{
    void *item = NULL;
    pthread_mutex_lock(&queue->lock);
    wait_filled(queue, timeout_us);
    if (queue->count > 0) {
        item = queue->items[queue->first];
        queue->first = (queue->first + 1) % queue->capacity;
        --queue->count;
    }
    pthread_mutex_unlock(&queue->lock);
    return item;
}

void queue_close(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}

size_t queue_length(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    size_t count = queue->count;
    pthread_mutex_unlock(&queue->lock);
    return count;
}

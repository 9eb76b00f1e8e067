// SPDX-License-Identifier: Apache-2.0
// A bounded multi-producer, multi-consumer queue of pointers with blocking take. All calls are
// thread-safe.
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct queue;

SORA_CHECKED sora_status queue_create(size_t capacity, struct queue **queue,
                                      struct sora_error *err);
void queue_destroy(struct queue *queue);         // must be empty
bool queue_put(struct queue *queue, void *item); // false: full or closed
// Waits up to timeout_us (0: not at all, -1: for ever) for an item; NULL: none, or closed.
void *queue_take(struct queue *queue, int64_t timeout_us);
void queue_close(struct queue *queue); // wakes all; later puts fail, takes drain what is left
size_t queue_length(struct queue *queue);

#endif

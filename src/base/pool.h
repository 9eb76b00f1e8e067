// SPDX-License-Identifier: Apache-2.0
// A fixed fork-join pool for the inside of kernel calls. The caller takes part; workers spin
// briefly between calls, then sleep. One thread at a time may call pool_run; no nesting.
// pool_create asks for `threads` in all (the caller included); 1 makes no thread.
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdint.h>

#include "sora/status.h"

struct pool;

SORA_CHECKED sora_status pool_create(int32_t threads, struct pool **pool, struct sora_error *err);
void pool_destroy(struct pool *pool);
int32_t pool_threads(const struct pool *pool); // NULL pool: 1

// Calls task(context, index, thread) for every index in [0, count), each once, in any order, on
// any thread; thread is in [0, pool_threads). Returns when all are done. A NULL pool runs inline.
void pool_run(struct pool *pool, int32_t count,
              void (*task)(void *context, int32_t index, int32_t thread), void *context);

#endif

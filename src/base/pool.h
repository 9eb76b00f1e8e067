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

// Simple work on rows of `width` values: calls task(context, first, end, thread) for ranges of
// `each` rows that make up [0, rows), as pool_run does; inline where all is done before another
// thread would have begun.
void pool_run_rows(struct pool *pool, int32_t rows, int32_t width, int32_t each,
                   void (*task)(void *context, int32_t first, int32_t end, int32_t thread),
                   void *context);

#endif

// SPDX-License-Identifier: Apache-2.0
// A count that some tasks of a pool_run bring to zero and others wait for. A waiter keeps its
// thread, so what it waits for must have been taken by then: tasks of lower index.
#ifndef BASE_LATCH_H
#define BASE_LATCH_H

#include <stdatomic.h>
#include <stdint.h>

struct latch {
    _Atomic int32_t left;
};

void latch_set(struct latch *latch, int32_t count);
// What was written before it is seen by whoever has waited.
void latch_count_down(struct latch *latch);
void latch_wait(struct latch *latch);

#endif

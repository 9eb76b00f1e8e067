// SPDX-License-Identifier: Apache-2.0
// See latch.h.
#include "base/latch.h"

#include <sched.h>

#define LOOKS 1000 // before the processor is left to others, who may have what is waited for

void latch_set(struct latch *latch, int32_t count)
{
    atomic_store_explicit(&latch->left, count, memory_order_relaxed);
}

void latch_count_down(struct latch *latch)
{
    atomic_fetch_sub_explicit(&latch->left, 1, memory_order_release);
}

void latch_wait(struct latch *latch)
{
    for (int looks = 0; atomic_load_explicit(&latch->left, memory_order_acquire) > 0; looks++) {
        if (looks >= LOOKS)
            sched_yield();
#if defined(__x86_64__)
        else
            __builtin_ia32_pause();
#endif
    }
}

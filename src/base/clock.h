// SPDX-License-Identifier: Apache-2.0
// Monotonic time for durations and deadlines, Unix time for records only.
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t clock_now_us(void); // monotonic
int64_t clock_now_ns(void); // the same clock, for what lasts less than some microseconds
int64_t clock_unix_s(void);
// Counts at a pace of its own, for a few nanoseconds a call: for shares of a time measured
// otherwise.
static inline int64_t clock_ticks(void)
{
#if defined(__x86_64__)
    return (int64_t)__builtin_ia32_rdtsc();
#else
    return clock_now_ns();
#endif
}
void clock_sleep_us(int64_t us);

#endif

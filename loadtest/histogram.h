// SPDX-License-Identifier: Apache-2.0
// Counts of durations in log-linear buckets (64 to an octave, after HdrHistogram): constant memory,
// any quantile within 1 % of an observed value from 10 us to 10 min (the bucket's middle is at most
// 0.8 % off), minimum, maximum and mean exact. All zeros is an empty histogram. One owner at a
// time.
#ifndef LOADTEST_HISTOGRAM_H
#define LOADTEST_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_MAX_US 600000000ll // longer durations count as the last bucket (max stays exact)
#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_SUB_COUNT (1 << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BUCKETS ((30 - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB_COUNT) // below 2^30 us

struct histogram {
    uint32_t buckets[HISTOGRAM_BUCKETS]; // 32 bits: 4 billion in one bucket is a year of load
    int64_t count, min_us, max_us;       // min and max: of what was added, 0 when empty
    double sum_us;
};

void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, int64_t us); // negative counts as 0
void histogram_merge(struct histogram *into, const struct histogram *from);
// The smallest value with at least quantile * count values at or below it, quantile in [0, 1];
// 0 when empty.
int64_t histogram_quantile(const struct histogram *histogram, double quantile);
double histogram_mean(const struct histogram *histogram); // 0 when empty
// Bounds of a bucket, for pictures: values in [low, high).
int64_t histogram_bucket_low(int32_t bucket);
int64_t histogram_bucket_high(int32_t bucket);
int32_t histogram_bucket_of(int64_t us);

#endif

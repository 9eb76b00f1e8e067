// SPDX-License-Identifier: Apache-2.0
// Log-linear buckets: below 64 us one for each microsecond, then 64 of equal width in every octave.
// Pure but for the histogram it is given.
#include "loadtest/histogram.h"

#include <math.h>
#include <string.h>

#include "base/assert.h"

void histogram_clear(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

int32_t histogram_bucket_of(int64_t us)
{
    if (us < 0)
        us = 0;
    if (us > HISTOGRAM_MAX_US)
        us = HISTOGRAM_MAX_US;
    if (us < HISTOGRAM_SUB_COUNT)
        return (int32_t)us;
    int32_t octave = 63 - __builtin_clzll((unsigned long long)us) - HISTOGRAM_SUB_BITS;
    return octave * HISTOGRAM_SUB_COUNT + (int32_t)(us >> octave);
}

int64_t histogram_bucket_low(int32_t bucket)
{
    ASSERT(bucket >= 0 && bucket < HISTOGRAM_BUCKETS);
    if (bucket < HISTOGRAM_SUB_COUNT)
        return bucket;
    int32_t octave = bucket / HISTOGRAM_SUB_COUNT - 1;
    return (int64_t)(bucket - octave * HISTOGRAM_SUB_COUNT) << octave;
}

int64_t histogram_bucket_high(int32_t bucket)
{
    int32_t octave = bucket / HISTOGRAM_SUB_COUNT - 1;
    return histogram_bucket_low(bucket) + (octave > 0 ? 1ll << octave : 1);
}

static uint32_t add_saturated(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

void histogram_add(struct histogram *histogram, int64_t us)
{
    if (us < 0)
        us = 0;
    uint32_t *bucket = &histogram->buckets[histogram_bucket_of(us)];
    *bucket = add_saturated(*bucket, 1);
    if (histogram->count == 0 || us < histogram->min_us)
        histogram->min_us = us;
    if (us > histogram->max_us)
        histogram->max_us = us;
    histogram->sum_us += (double)us;
    ++histogram->count;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->count == 0)
        return;
    for (int32_t i = 0; i < HISTOGRAM_BUCKETS; ++i)
        into->buckets[i] = add_saturated(into->buckets[i], from->buckets[i]);
    if (into->count == 0 || from->min_us < into->min_us)
        into->min_us = from->min_us;
    if (from->max_us > into->max_us)
        into->max_us = from->max_us;
    into->sum_us += from->sum_us;
    into->count += from->count;
}

int64_t histogram_quantile(const struct histogram *histogram, double quantile)
{
    ASSERT(quantile >= 0 && quantile <= 1);
    if (histogram->count == 0)
        return 0;
    // 0.95 * 20 must be 19, whatever the last bit of 0.95 is.
    int64_t rank = (int64_t)ceil(quantile * (double)histogram->count - 1e-9);
    if (rank >= histogram->count)
        return histogram->max_us;
    if (rank <= 1)
        return histogram->min_us;
    int64_t below = 0;
    for (int32_t i = 0; i < HISTOGRAM_BUCKETS; ++i) {
        below += histogram->buckets[i];
        if (below < rank)
            continue;
        int64_t low = histogram_bucket_low(i), high = histogram_bucket_high(i) - 1;
        int64_t middle = low + (high - low) / 2;
        if (middle < histogram->min_us)
            return histogram->min_us;
        return middle > histogram->max_us ? histogram->max_us : middle;
    }
    return histogram->max_us; // only when a bucket is full
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count == 0 ? 0 : histogram->sum_us / (double)histogram->count;
}

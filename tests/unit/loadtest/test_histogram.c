// SPDX-License-Identifier: Apache-2.0
// The load test's histogram against sorted samples and against known distributions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/rng.h"
#include "loadtest/histogram.h"

#define RELATIVE_MAX 0.01
#define SAMPLES 400000

static bool within(double found, double expected, double relative)
{
    return fabs(found - expected) <= relative * expected;
}

static struct histogram *make(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);
    assert_non_null(histogram);
    return histogram;
}

static int compare_int64(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

static void every_value_up_to_ten_minutes_is_known_to_one_percent(void **state)
{
    (void)state;
    for (double exact = 10; exact <= HISTOGRAM_MAX_US; exact *= 1.0007) {
        int64_t us = (int64_t)exact;
        int32_t bucket = histogram_bucket_of(us);
        int64_t low = histogram_bucket_low(bucket), high = histogram_bucket_high(bucket);
        assert_true(low <= us && us < high);
        double middle = (double)(low + (high - 1 - low) / 2);
        assert_true(within(middle, (double)us, RELATIVE_MAX));
    }
}

static void buckets_follow_each_other_without_holes(void **state)
{
    (void)state;
    for (int32_t i = 0; i + 1 < HISTOGRAM_BUCKETS; ++i) {
        assert_int_equal(histogram_bucket_high(i), histogram_bucket_low(i + 1));
        if (histogram_bucket_low(i) <= HISTOGRAM_MAX_US)
            assert_int_equal(histogram_bucket_of(histogram_bucket_low(i)), i);
    }
    assert_true(histogram_bucket_of(HISTOGRAM_MAX_US) < HISTOGRAM_BUCKETS);
}

static void an_empty_histogram_is_zero(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    assert_int_equal(histogram_quantile(histogram, 0.5), 0);
    assert_true(histogram_mean(histogram) == 0);
    free(histogram);
}

static void one_value_is_every_quantile(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    histogram_add(histogram, 123457);
    const double quantiles[] = {0, 0.5, 0.99, 1};
    for (size_t i = 0; i < 4; ++i)
        assert_int_equal(histogram_quantile(histogram, quantiles[i]), 123457);
    free(histogram);
}

static void values_out_of_range_are_clamped_and_extremes_stay_exact(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    histogram_add(histogram, -5);
    histogram_add(histogram, 50);
    histogram_add(histogram, 7000000000ll);
    assert_int_equal(histogram->count, 3);
    assert_int_equal(histogram->min_us, 0);
    assert_int_equal(histogram->max_us, 7000000000ll);
    assert_int_equal(histogram_quantile(histogram, 0.5), 50);
    assert_int_equal(histogram_quantile(histogram, 1), 7000000000ll);
    histogram_clear(histogram);
    assert_int_equal(histogram->count, 0);
    free(histogram);
}

static void quantiles_of_small_sets_are_nearest_ranks(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    for (int64_t us = 1; us <= 20; ++us)
        histogram_add(histogram, us);
    assert_int_equal(histogram_quantile(histogram, 0.5), 10);
    assert_int_equal(histogram_quantile(histogram, 0.95), 19); // not 20 for a rounding error
    assert_int_equal(histogram_quantile(histogram, 0.951), 20);
    assert_int_equal(histogram_quantile(histogram, 0), 1);
    free(histogram);
}

// --- known distributions ---

static double exponential(double u)
{
    return -80000 * log(1 - u); // mean 80 ms
}

static double uniform(double u)
{
    return 1000 + u * 900000;
}

// The quantile function of the normal distribution by bisection on erf.
static double normal_quantile(double u)
{
    double low = -9, high = 9;
    for (int i = 0; i < 80; ++i) {
        double middle = (low + high) / 2;
        if (0.5 * (1 + erf(middle / sqrt(2))) < u)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static double log_normal(double u)
{
    return exp(log(120000) + 0.6 * normal_quantile(u));
}

// Stratified samples: the sample's quantiles are the distribution's to far under 1 %, so that what
// is left is the histogram's own error.
static void fill(struct histogram *histogram, double (*inverse)(double))
{
    struct rng rng;
    rng_seed(&rng, 42);
    for (int i = 0; i < SAMPLES; ++i)
        histogram_add(histogram, llround(inverse((i + rng_uniform(&rng)) / SAMPLES)));
}

static const double quantiles[] = {0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999};
#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

static void quantiles_of_known_distributions_are_within_one_percent(void **state)
{
    (void)state;
    double (*const inverses[])(double) = {exponential, uniform, log_normal};
    const double means[] = {80000, 451000, 120000 * exp(0.18)};
    for (size_t d = 0; d < 3; ++d) {
        struct histogram *histogram = make();
        fill(histogram, inverses[d]);
        for (size_t i = 0; i < QUANTILES; ++i) {
            double expected = inverses[d](quantiles[i]);
            double found = (double)histogram_quantile(histogram, quantiles[i]);
            if (!within(found, expected, RELATIVE_MAX))
                fail_msg("distribution %zu, quantile %g: found %g, expected %g", d, quantiles[i],
                         found, expected);
        }
        assert_true(within(histogram_mean(histogram), means[d], 0.001));
        free(histogram);
    }
}

// The comparer above must be able to fail: another distribution, and a shift of 2 %.
static void a_wrong_distribution_is_told_apart(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    fill(histogram, exponential);
    int apart = 0, shifted = 0;
    for (size_t i = 0; i < QUANTILES; ++i) {
        double found = (double)histogram_quantile(histogram, quantiles[i]);
        apart += !within(found, log_normal(quantiles[i]), RELATIVE_MAX);
        shifted += !within(found, 1.02 * exponential(quantiles[i]), RELATIVE_MAX);
    }
    assert_true(apart >= 8);
    assert_int_equal(shifted, QUANTILES);
    free(histogram);
}

static void quantiles_are_those_of_the_sorted_values(void **state)
{
    (void)state;
    enum { COUNT = 5003 };
    struct histogram *histogram = make();
    int64_t *values = calloc(COUNT, sizeof *values);
    struct rng rng;
    assert_non_null(values);
    rng_seed(&rng, 3);
    for (int i = 0; i < COUNT; ++i) {
        values[i] = (int64_t)exp(2.5 + 17 * rng_uniform(&rng)); // 12 us to 5 min
        histogram_add(histogram, values[i]);
    }
    qsort(values, COUNT, sizeof *values, compare_int64);
    for (int rank = 1; rank <= COUNT; rank += 7) {
        int64_t found = histogram_quantile(histogram, (double)rank / COUNT);
        assert_true(within((double)found, (double)values[rank - 1], RELATIVE_MAX));
    }
    free(values);
    free(histogram);
}

static void merged_histograms_are_one_histogram_of_all_values(void **state)
{
    (void)state;
    struct histogram *whole = make(), *a = make(), *b = make(), *empty = make();
    struct rng rng;
    rng_seed(&rng, 9);
    for (int i = 0; i < 10000; ++i) {
        int64_t us = llround(log_normal(rng_uniform(&rng)));
        histogram_add(whole, us);
        histogram_add(i % 3 == 0 ? a : b, us);
    }
    histogram_merge(a, empty);
    histogram_merge(a, b);
    histogram_merge(empty, a);
    assert_memory_equal(a->buckets, whole->buckets, sizeof whole->buckets);
    assert_int_equal(empty->count, whole->count);
    assert_int_equal(empty->min_us, whole->min_us);
    assert_int_equal(empty->max_us, whole->max_us);
    assert_true(within(histogram_mean(empty), histogram_mean(whole), 1e-9));
    free(whole);
    free(a);
    free(b);
    free(empty);
}

static void a_full_bucket_stays_full(void **state)
{
    (void)state;
    struct histogram *histogram = make();
    histogram->buckets[histogram_bucket_of(100)] = UINT32_MAX;
    histogram->count = UINT32_MAX;
    histogram_add(histogram, 100);
    assert_int_equal(histogram->buckets[histogram_bucket_of(100)], UINT32_MAX);
    assert_int_equal(histogram_quantile(histogram, 0.5), 100);
    free(histogram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_up_to_ten_minutes_is_known_to_one_percent),
        cmocka_unit_test(buckets_follow_each_other_without_holes),
        cmocka_unit_test(an_empty_histogram_is_zero),
        cmocka_unit_test(one_value_is_every_quantile),
        cmocka_unit_test(values_out_of_range_are_clamped_and_extremes_stay_exact),
        cmocka_unit_test(quantiles_of_small_sets_are_nearest_ranks),
        cmocka_unit_test(quantiles_of_known_distributions_are_within_one_percent),
        cmocka_unit_test(a_wrong_distribution_is_told_apart),
        cmocka_unit_test(quantiles_are_those_of_the_sorted_values),
        cmocka_unit_test(merged_histograms_are_one_histogram_of_all_values),
        cmocka_unit_test(a_full_bucket_stays_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

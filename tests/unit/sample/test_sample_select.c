// SPDX-License-Identifier: Apache-2.0
// Selection against sorting, and the exponential against libm.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "sample/sample_math.h"
#include "sample/sample_select.h"

#define COUNT_MAX 3000

static int larger_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

// Keys with many equal weights when `values` is small.
static int32_t random_keys(struct rng *rng, uint64_t *keys, uint64_t values)
{
    int32_t count = 1 + (int32_t)rng_below(rng, COUNT_MAX);
    for (int32_t i = 0; i < count; i++)
        keys[i] = select_key((float)(1 + rng_below(rng, values)) / (float)values, i);
    return count;
}

// Whether the first `wanted` keys are, as a set, the largest ones of `sorted`.
static bool is_front(const uint64_t *keys, const uint64_t *sorted, int32_t wanted)
{
    uint64_t front[COUNT_MAX];
    memcpy(front, keys, (size_t)wanted * sizeof *front);
    qsort(front, (size_t)wanted, sizeof *front, larger_first);
    return memcmp(front, sorted, (size_t)wanted * sizeof *front) == 0;
}

static void the_largest_keys_come_to_the_front(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 3);
    uint64_t keys[COUNT_MAX], sorted[COUNT_MAX];
    for (int round = 0; round < 300; round++) {
        int32_t count = random_keys(&rng, keys, round % 3 == 0 ? 2 : 1000000);
        memcpy(sorted, keys, (size_t)count * sizeof *keys);
        qsort(sorted, (size_t)count, sizeof *sorted, larger_first);
        int32_t wanted = (int32_t)rng_below(&rng, (uint64_t)count + 1);
        select_largest(keys, count, wanted);
        assert_true(is_front(keys, sorted, wanted));
    }
    uint64_t wrong[2] = {select_key(1, 0), select_key(2, 1)};
    uint64_t right[2] = {wrong[1], wrong[0]};
    assert_false(is_front(wrong, right, 1)); // the comparer sees a wrong front
}

static void the_fewest_keys_that_reach_a_mass_come_to_the_front(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 4);
    uint64_t keys[COUNT_MAX], sorted[COUNT_MAX];
    for (int round = 0; round < 300; round++) {
        // Weights of a few bits sum exactly in any order.
        int32_t count = random_keys(&rng, keys, round % 3 == 0 ? 2 : 1024);
        memcpy(sorted, keys, (size_t)count * sizeof *keys);
        qsort(sorted, (size_t)count, sizeof *sorted, larger_first);
        double total = 0, sum = 0;
        for (int32_t i = 0; i < count; i++)
            total += select_weight(keys[i]);
        double mass = rng_uniform(&rng) * total;
        int32_t wanted = 0;
        do
            sum += select_weight(sorted[wanted++]);
        while (wanted < count && sum < mass);
        assert_int_equal(select_mass(keys, count, mass), wanted);
        assert_true(is_front(keys, sorted, wanted));
    }
}

static void a_mass_out_of_reach_takes_all_and_none_takes_one(void **state)
{
    (void)state;
    uint64_t keys[100];
    for (int32_t i = 0; i < 100; i++)
        keys[i] = select_key(1, i);
    assert_int_equal(select_mass(keys, 100, 1000), 100);
    assert_int_equal(select_mass(keys, 100, 0), 1);
    assert_int_equal(select_token(keys[0]), 0); // of equal weights the smallest id
    assert_int_equal(select_mass(keys, 1, 5), 1);
}

static void the_nth_value_is_that_of_sorting(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    float values[COUNT_MAX];
    uint64_t keys[COUNT_MAX];
    for (int round = 0; round < 300; round++) {
        int32_t count = random_keys(&rng, keys, round % 2 == 0 ? 3 : 100000);
        for (int32_t i = 0; i < count; i++)
            values[i] = select_weight(keys[i]);
        qsort(keys, (size_t)count, sizeof *keys, larger_first);
        int32_t wanted = 1 + (int32_t)rng_below(&rng, (uint64_t)count);
        assert_true(select_nth_value(values, count, wanted) == select_weight(keys[wanted - 1]));
    }
}

static void ordered_and_equal_keys_take_no_quadratic_time(void **state)
{
    (void)state;
    int32_t count = 1 << 20;
    uint64_t *keys = malloc((size_t)count * sizeof *keys);
    for (int shape = 0; shape < 3; shape++) {
        for (int32_t i = 0; i < count; i++)
            keys[i] = select_key(shape == 0 ? 1.0f : shape == 1 ? (float)i : (float)(count - i), i);
        int64_t start = clock_now_us();
        select_largest(keys, count, count / 2);
        assert_true(clock_now_us() - start < 5000000);
    }
    free(keys);
}

static void the_exponential_is_close_to_libm_and_never_negative(void **state)
{
    (void)state;
    for (double x = 0; x > -87; x -= 0.0037) {
        double want = exp((double)(float)x), got = sample_exp((float)x);
        assert_true(fabs(got - want) <= 3e-7 * want);
    }
    assert_true(sample_exp(0) == 1.0f);
    assert_true(sample_exp(-88) == 0.0f);
    assert_true(sample_exp(-INFINITY) == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_keys_come_to_the_front),
        cmocka_unit_test(the_fewest_keys_that_reach_a_mass_come_to_the_front),
        cmocka_unit_test(a_mass_out_of_reach_takes_all_and_none_takes_one),
        cmocka_unit_test(the_nth_value_is_that_of_sorting),
        cmocka_unit_test(ordered_and_equal_keys_take_no_quadratic_time),
        cmocka_unit_test(the_exponential_is_close_to_libm_and_never_negative),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

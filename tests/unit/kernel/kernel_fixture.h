// SPDX-License-Identifier: Apache-2.0
// What the tests of the kernels share: random data, comparing to the bit, and running a kernel for
// each instruction set of this machine. Included by the test files of this folder only.
#ifndef TEST_KERNEL_FIXTURE_H
#define TEST_KERNEL_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/half.h"
#include "base/pool.h"
#include "base/rng.h"

static inline float *floats(size_t count)
{
    float *values = calloc(count + 1, sizeof(float));
    assert_non_null(values);
    return values;
}

static inline float *normals(struct rng *rng, size_t count)
{
    float *values = floats(count);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)rng_normal(rng);
    return values;
}

static inline float *copy_of(const float *from, size_t count)
{
    float *values = floats(count);
    memcpy(values, from, count * sizeof(float));
    return values;
}

// Index of the first float whose bits differ, or -1.
static inline int64_t bits_differ(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0)
            return (int64_t)i;
    return -1;
}

// Index of the first float further apart than tolerance * (1 + |b|), NaN included, or -1.
static inline int64_t values_differ(const float *a, const float *b, size_t count, double tolerance)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= tolerance * (1 + fabs((double)b[i]))))
            return (int64_t)i;
    return -1;
}

static inline struct pool *pool_of(int32_t threads)
{
    struct pool *pool = NULL;
    struct sora_error err;
    assert_int_equal(pool_create(threads, &pool, &err), SORA_OK);
    return pool;
}

// Skips the running test, by name, where the machine cannot run it.
static inline void need_isa(enum cpu_isa isa, const char *test)
{
    if (cpu_isa() >= isa)
        return;
    printf("SKIPPED %s: this machine lacks %s\n", test, cpu_isa_name(isa));
    skip();
}

static inline void the_comparers_see_a_difference(void **state)
{
    (void)state;
    const float a[3] = {0.0f, 1.0f, 2.0f}, b[3] = {0.0f, 1.0f, 2.0000002f};
    const float minus[1] = {-0.0f}, nan[1] = {NAN};
    assert_int_equal(bits_differ(a, a, 3), -1);
    assert_int_equal(bits_differ(a, b, 3), 2);
    assert_int_equal(bits_differ(a, minus, 1), 0);
    assert_int_equal(values_differ(a, b, 3, 1e-6), -1);
    assert_int_equal(values_differ(a, b, 3, 1e-8), 2);
    assert_int_equal(values_differ(nan, a, 1, 1e9), 0);
}

#endif

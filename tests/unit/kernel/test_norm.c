// SPDX-License-Identifier: Apache-2.0
// RMSNorm against its reference, row by row, and its gradient against finite differences.
#include "kernel_fixture.h"

#include "kernel/norm.h"

static void every_width_equals_the_reference(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 50);
    const int32_t widths[] = {1, 7, 8, 9, 64, 576, 2047};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        const int32_t d = widths[w];
        const size_t count = 3 * (size_t)d;
        float *x = normals(&rng, count), *weight = normals(&rng, (size_t)d);
        float *found = floats(count), *expected = floats(count);
        rmsnorm(x, weight, 1e-5f, 3, d, found);
        rmsnorm_ref(x, weight, 1e-5f, 3, d, expected);
        assert_int_equal(values_differ(found, expected, count, 1e-6), -1);
        rmsnorm_ref(x, weight, 1e-2f, 3, d, expected);
        assert_int_not_equal(values_differ(found, expected, count, 1e-6), -1);
        rmsnorm(x, weight, 1e-5f, 3, d, x); // in place
        assert_int_equal(bits_differ(x, found, count), -1);
        free(x);
        free(weight);
        free(found);
        free(expected);
    }
}

static void a_row_is_the_same_alone_and_in_the_batch(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 51);
    float *x = normals(&rng, 5 * 77), *weight = normals(&rng, 77);
    float batch[5 * 77], alone[77];
    rmsnorm(x, weight, 1e-6f, 5, 77, batch);
    for (int row = 0; row < 5; row++) {
        rmsnorm(x + row * 77, weight, 1e-6f, 1, 77, alone);
        assert_int_equal(bits_differ(alone, batch + row * 77, 77), -1);
    }
    free(x);
    free(weight);
}

static void a_zero_row_stays_zero(void **state)
{
    (void)state;
    const float x[9] = {0}, weight[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    float found[9];
    rmsnorm(x, weight, 1e-6f, 1, 9, found);
    assert_int_equal(bits_differ(found, x, 9), -1);
}

static double loss(const float *x, const float *weight, const float *dout, int32_t d)
{
    double sum = 0, total = 0;
    for (int32_t i = 0; i < d; i++)
        sum += (double)x[i] * (double)x[i];
    for (int32_t i = 0; i < d; i++)
        total += (double)dout[i] * (double)weight[i] * (double)x[i] / sqrt(sum / d + 1e-3);
    return total;
}

static void backward_adds_the_slope_of_finite_differences(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 52);
    enum { D = 37, M = 2 };
    float *x = normals(&rng, M * D), *weight = normals(&rng, D), *dout = normals(&rng, M * D);
    float dx[M * D];
    for (int i = 0; i < M * D; i++)
        dx[i] = 10;
    rmsnorm_backward(x, weight, 1e-3f, dout, M, D, dx);
    for (int i = 0; i < M * D; i++) {
        const float *row = x + i / D * D, *out_row = dout + i / D * D;
        const float kept = x[i];
        x[i] = kept + 1e-3f;
        double high = loss(row, weight, out_row, D), top = x[i];
        x[i] = kept - 1e-3f;
        double low = loss(row, weight, out_row, D), bottom = x[i];
        x[i] = kept;
        double slope = (high - low) / (top - bottom);
        assert_true(fabs((double)dx[i] - 10 - slope) < 5e-6);
        assert_false(fabs((double)dx[i] - 10.001 - slope) < 5e-6);
    }
    free(x);
    free(weight);
    free(dout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(every_width_equals_the_reference),
        cmocka_unit_test(a_row_is_the_same_alone_and_in_the_batch),
        cmocka_unit_test(a_zero_row_stays_zero),
        cmocka_unit_test(backward_adds_the_slope_of_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

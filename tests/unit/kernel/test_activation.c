// SPDX-License-Identifier: Apache-2.0
// SwiGLU and the e^x under it: accuracy, extremes, places and instruction sets, gradients.
#include "kernel_fixture.h"

#include <float.h>

#include "kernel/kernel_dispatch.h"

#define COUNT 1003

static void check_exp(exp_fn *exp_of)
{
    enum { POINTS = 200000 };
    float *x = floats(POINTS), *found = floats(POINTS);
    for (int i = 0; i < POINTS; i++)
        x[i] = -87.0f + 175.0f * (float)i / POINTS;
    exp_of(x, POINTS, found);
    double worst = 0;
    for (int i = 0; i < POINTS; i++)
        worst = fmax(worst, fabs((double)found[i] / exp((double)x[i]) - 1));
    assert_true(worst < 2 * (double)FLT_EPSILON);
    assert_true(worst > 0); // the comparison compares
    free(x);
    free(found);
}

static void portable_exp_is_within_two_ulp(void **state)
{
    (void)state;
    check_exp(exp_portable);
}

static void avx2_exp_is_within_two_ulp(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    check_exp(exp_avx2);
}

static void avx512_exp_is_within_two_ulp(void **state)
{
    (void)state;
    need_isa(CPU_AVX512, __func__);
    check_exp(exp_avx512);
}

static void exp_is_right_at_the_extremes(void **state)
{
    (void)state;
    const float x[9] = {0.0f, -0.0f, -INFINITY, INFINITY, NAN, 1e30f, -1e30f, -104.0f, -100.0f};
    float found[9];
    exp_portable(x, 9, found);
    assert_true(found[0] == 1 && found[1] == 1);
    assert_true(found[2] == 0 && found[6] == 0 && found[7] == 0);
    assert_true(isinf(found[3]) && isinf(found[5]));
    assert_true(isnan(found[4]));
    assert_true(fabs((double)found[8] - exp(-100.0)) < 2e-45); // subnormal: one step of it
}

static void swiglu_equals_the_reference(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 40);
    float *gate = normals(&rng, COUNT), *up = normals(&rng, COUNT);
    float *expected = floats(COUNT), *found = floats(COUNT);
    for (int i = 0; i < COUNT; i++)
        gate[i] *= 8;
    gate[0] = 200;
    gate[1] = -200;
    gate[2] = -85;
    swiglu_ref(gate, up, COUNT, expected);
    swiglu(gate, up, COUNT, found);
    assert_int_equal(values_differ(found, expected, COUNT, 1e-6), -1);
    found[500] += 1e-4f;
    assert_int_equal(values_differ(found, expected, COUNT, 1e-6), 500);
    free(gate);
    free(up);
    free(expected);
    free(found);
}

static void check_bits(swiglu_fn *forward, swiglu_backward_fn *backward, exp_fn *exp_of)
{
    struct rng rng;
    rng_seed(&rng, 41);
    float *gate = normals(&rng, COUNT), *up = normals(&rng, COUNT), *dout = normals(&rng, COUNT);
    float *a = floats(4 * COUNT), *b = floats(4 * COUNT);
    for (int i = 0; i < COUNT; i++)
        gate[i] *= 20;
    swiglu_portable(gate, up, COUNT, a);
    swiglu_backward_portable(gate, up, dout, COUNT, a + COUNT, a + 2 * COUNT);
    exp_portable(gate, COUNT, a + 3 * COUNT);
    forward(gate, up, COUNT, b);
    backward(gate, up, dout, COUNT, b + COUNT, b + 2 * COUNT);
    exp_of(gate, COUNT, b + 3 * COUNT);
    assert_int_equal(bits_differ(a, b, 4 * COUNT), -1);
    free(gate);
    free(up);
    free(dout);
    free(a);
    free(b);
}

static void avx2_gives_the_bits_of_portable(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    check_bits(swiglu_avx2, swiglu_backward_avx2, exp_avx2);
}

static void avx512_gives_the_bits_of_portable(void **state)
{
    (void)state;
    need_isa(CPU_AVX512, __func__);
    check_bits(swiglu_avx512, swiglu_backward_avx512, exp_avx512);
}

static void a_value_does_not_depend_on_its_place(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 42);
    float *gate = normals(&rng, 40), *up = normals(&rng, 40), whole[40], part[40];
    swiglu(gate, up, 40, whole);
    for (size_t first = 0; first < 17; first++)
        for (size_t count = 1; count < 20; count++) {
            part[count] = 77;
            swiglu(gate + first, up + first, count, part);
            assert_int_equal(bits_differ(part, whole + first, count), -1);
            assert_true(part[count] == 77);
        }
    swiglu(gate, up, 40, gate); // in place
    assert_int_equal(bits_differ(gate, whole, 40), -1);
    free(gate);
    free(up);
}

static double loss(const float *gate, const float *up, const float *dout)
{
    double sum = 0;
    for (int i = 0; i < 33; i++) {
        double z = gate[i];
        sum += z / (1 + exp(-z)) * (double)up[i] * (double)dout[i];
    }
    return sum;
}

static double slope(float *at, const float *gate, const float *up, const float *dout)
{
    const float kept = *at, step = 1e-3f;
    *at = kept + step;
    double high = loss(gate, up, dout), top = *at;
    *at = kept - step;
    double low = loss(gate, up, dout), bottom = *at;
    *at = kept;
    return (high - low) / (top - bottom);
}

static void backward_equals_finite_differences(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 43);
    float *gate = normals(&rng, 33), *up = normals(&rng, 33), *dout = normals(&rng, 33);
    float dgate[33], dup[33];
    swiglu_backward(gate, up, dout, 33, dgate, dup);
    for (int i = 0; i < 33; i++) {
        assert_true(fabs(slope(&gate[i], gate, up, dout) - (double)dgate[i]) < 2e-6);
        assert_true(fabs(slope(&up[i], gate, up, dout) - (double)dup[i]) < 2e-6);
        assert_false(fabs(slope(&up[i], gate, up, dout) - (double)dup[i] - 1e-3) < 2e-6);
    }
    swiglu_backward(gate, up, dout, 33, gate, up); // in place
    assert_int_equal(bits_differ(gate, dgate, 33), -1);
    assert_int_equal(bits_differ(up, dup, 33), -1);
    free(gate);
    free(up);
    free(dout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(portable_exp_is_within_two_ulp),
        cmocka_unit_test(avx2_exp_is_within_two_ulp),
        cmocka_unit_test(avx512_exp_is_within_two_ulp),
        cmocka_unit_test(exp_is_right_at_the_extremes),
        cmocka_unit_test(swiglu_equals_the_reference),
        cmocka_unit_test(avx2_gives_the_bits_of_portable),
        cmocka_unit_test(avx512_gives_the_bits_of_portable),
        cmocka_unit_test(a_value_does_not_depend_on_its_place),
        cmocka_unit_test(backward_equals_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Rotary embedding: frequencies as Hugging Face computes them, the rotation and its inverse.
#include "kernel_fixture.h"

#include "kernel/rope.h"

static int close_to(double found, double expected)
{
    return fabs(found - expected) <= 1e-6 * fabs(expected);
}

static void plain_frequencies_fall_by_powers_of_theta(void **state)
{
    (void)state;
    const struct rope_scaling off = {0};
    float inv_freq[32];
    rope_frequencies(10000, 64, &off, inv_freq);
    assert_true(inv_freq[0] == 1);
    assert_true(close_to(inv_freq[8], 0.1) && close_to(inv_freq[16], 0.01));
    assert_true(close_to(inv_freq[31], 1.3335214321633240e-4));
    assert_false(close_to(inv_freq[31], 1.33353e-4));
    float again[32];
    rope_frequencies(10000, 64, NULL, again);
    assert_int_equal(bits_differ(again, inv_freq, 32), -1);
}

// Llama 3.1 8B: theta 500000, head_dim 128, factor 8, low 1, high 4, 8192 positions. The numbers
// are those of transformers' formula in double precision.
static void llama3_scaling_gives_the_published_frequencies(void **state)
{
    (void)state;
    const struct {
        int i;
        double expected;
    } rows[] = {
        {0, 1.0},
        {10, 0.12868737343265052},   // short wavelength: as it was
        {28, 0.0032114459947525913}, // the last of them
        {29, 0.002166570763503359},  // in between
        {31, 0.0008567514129196321},
        {34, 0.00017850781276799638},
        {35, 9.556212353964683e-05}, // long wavelength: divided by 8
        {63, 3.068925988914511e-07},
    };
    const struct rope_scaling scaling = {8, 1, 4, 8192};
    float inv_freq[64];
    rope_frequencies(500000, 128, &scaling, inv_freq);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        assert_true(close_to(inv_freq[rows[r].i], rows[r].expected));
}

static void the_table_holds_cosines_then_sines(void **state)
{
    (void)state;
    const float inv_freq[2] = {1.0f, 0.01f};
    float table[8 * 4];
    rope_table(inv_freq, 4, 8, table);
    for (int p = 0; p < 8; p++) {
        assert_true(fabs((double)table[p * 4] - cos(p)) < 1e-7);
        assert_true(fabs((double)table[p * 4 + 1] - cos(p * 0.01)) < 1e-7);
        assert_true(fabs((double)table[p * 4 + 2] - sin(p)) < 1e-7);
        assert_true(fabs((double)table[p * 4 + 3] - sin(p * 0.01)) < 1e-7);
    }
}

#define HEADS 3
#define DIM 20
#define ROWS 4
#define COUNT (ROWS * HEADS * DIM)
static const int32_t positions[ROWS] = {7, 0, 31, 7};

static float *table_of(void)
{
    float inv_freq[DIM / 2];
    float *table = floats(32 * DIM);
    rope_frequencies(10000, DIM, NULL, inv_freq);
    rope_table(inv_freq, DIM, 32, table);
    return table;
}

// Hugging Face: x * cos + rotate_half(x) * sin, rotate_half(x) = [-x2, x1].
static void rotation_is_hugging_faces(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 60);
    float *table = table_of(), *x = normals(&rng, COUNT), *found = copy_of(x, COUNT);
    float expected[COUNT];
    for (int i = 0; i < COUNT; i++) {
        int row = i / (HEADS * DIM), e = i % DIM;
        double angle = positions[row] * pow(10000, -2.0 * (e % (DIM / 2)) / DIM);
        double other = e < DIM / 2 ? -(double)x[i + DIM / 2] : (double)x[i - DIM / 2];
        expected[i] = (float)((double)x[i] * cos(angle) + other * sin(angle));
    }
    rope_apply(found, ROWS, HEADS, DIM, table, positions);
    assert_int_equal(values_differ(found, expected, COUNT, 2e-6), -1);
    rope_apply(found, ROWS, HEADS, DIM, table, positions);
    assert_int_not_equal(values_differ(found, expected, COUNT, 2e-6), -1);
    free(table);
    free(x);
    free(found);
}

static void backward_is_the_inverse(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 61);
    float *table = table_of(), *x = normals(&rng, COUNT), *turned = copy_of(x, COUNT);
    rope_apply(turned, ROWS, HEADS, DIM, table, positions);
    assert_int_not_equal(values_differ(turned, x, COUNT, 1e-2), -1);
    rope_backward(turned, ROWS, HEADS, DIM, table, positions);
    assert_int_equal(values_differ(turned, x, COUNT, 1e-6), -1);
    free(table);
    free(x);
    free(turned);
}

// The gradient of <dout, R x> with respect to x is R^T dout.
static void backward_is_the_transpose(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 62);
    float *table = table_of(), *x = normals(&rng, COUNT), *dout = normals(&rng, COUNT);
    float *turned = copy_of(x, COUNT), *dx = copy_of(dout, COUNT);
    rope_apply(turned, ROWS, HEADS, DIM, table, positions);
    rope_backward(dx, ROWS, HEADS, DIM, table, positions);
    double left = 0, right = 0;
    for (int i = 0; i < COUNT; i++) {
        left += (double)dout[i] * (double)turned[i];
        right += (double)dx[i] * (double)x[i];
    }
    assert_true(fabs(left - right) < 1e-5);
    assert_true(fabs(left) > 1e-2);
    free(table);
    free(x);
    free(dout);
    free(turned);
    free(dx);
}

static void a_row_is_the_same_alone_and_in_the_batch(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 63);
    float *table = table_of(), *batch = normals(&rng, COUNT), *alone = copy_of(batch, COUNT);
    rope_apply(batch, ROWS, HEADS, DIM, table, positions);
    for (int row = 0; row < ROWS; row++)
        rope_apply(alone + row * HEADS * DIM, 1, HEADS, DIM, table, &positions[row]);
    assert_int_equal(bits_differ(alone, batch, COUNT), -1);
    free(table);
    free(batch);
    free(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(plain_frequencies_fall_by_powers_of_theta),
        cmocka_unit_test(llama3_scaling_gives_the_published_frequencies),
        cmocka_unit_test(the_table_holds_cosines_then_sines),
        cmocka_unit_test(rotation_is_hugging_faces),
        cmocka_unit_test(backward_is_the_inverse),
        cmocka_unit_test(backward_is_the_transpose),
        cmocka_unit_test(a_row_is_the_same_alone_and_in_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The gated low-rank module in training: forward against plain sums, every gradient against finite
// differences in double, dropout's mask, and independence of the number of threads.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernel/lora_train.h"

enum { N = 7, D_IN = 11, D_OUT = 9, R = 3 };
static const float scale = 1.5f;

// Parameters and input in one row of doubles, so that a slope can be taken along each.
struct point {
    double x[N * D_IN], a[R * D_IN], b[D_OUT * R], g[R];
};

static void random_point(struct point *point)
{
    struct rng rng;
    rng_seed(&rng, 3);
    double *values = (double *)point;
    for (size_t i = 0; i < sizeof(*point) / sizeof(double); i++)
        values[i] = (double)(float)rng_normal(&rng);
}

// The scalar sum_(n, o) weight[n, o] y[n, o] with y = scale B (g o (A x)).
static double objective(const struct point *point, const float *dy)
{
    double sum = 0.0;
    for (int32_t n = 0; n < N; n++) {
        for (int32_t j = 0; j < R; j++) {
            double t = 0.0, w = 0.0;
            for (int32_t i = 0; i < D_IN; i++)
                t += point->a[j * D_IN + i] * point->x[n * D_IN + i];
            for (int32_t o = 0; o < D_OUT; o++)
                w += point->b[o * R + j] * (double)dy[n * D_OUT + o];
            sum += (double)scale * point->g[j] * t * w;
        }
    }
    return sum;
}

static void to_floats(const double *from, float *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        to[i] = (float)from[i];
}

struct run {
    float x[N * D_IN], a[R * D_IN], b[D_OUT * R], g[R];
    float dx[N * D_IN], da[R * D_IN], db[D_OUT * R], dg[R];
    float t[N * R], u[N * R], y[N * D_OUT], dy[N * D_OUT], dt[N * R], scratch[4 * N * R];
};

static void run_module(struct run *run, const struct point *point, bool gated)
{
    memset(run, 0, sizeof(*run));
    to_floats(point->x, run->x, N * D_IN);
    to_floats(point->a, run->a, R * D_IN);
    to_floats(point->b, run->b, D_OUT * R);
    to_floats(point->g, run->g, R);
    for (int32_t i = 0; i < N * D_OUT; i++)
        run->dy[i] = (float)((i * 7) % 11 - 5) / 5.0f;
    const struct lora_train module = {.rank = R,
                                      .d_in = D_IN,
                                      .d_out = D_OUT,
                                      .scale = scale,
                                      .a = run->a,
                                      .b = run->b,
                                      .g = gated ? run->g : NULL,
                                      .da = run->da,
                                      .db = run->db,
                                      .dg = gated ? run->dg : NULL};
    assert_true(lora_train_scratch_count(N, R) <= sizeof(run->scratch) / sizeof(float));
    lora_train_shrink(NULL, &module, run->x, N, run->t, run->u);
    lora_train_expand(&module, run->u, 0, 4, 0, D_OUT, run->y);
    lora_train_expand(&module, run->u, 4, N - 4, 0, D_OUT, run->y);
    lora_train_backward(NULL, &module, run->x, run->t, N, run->dy, run->dt, run->scratch);
    lora_train_input_gradient(NULL, &module, run->dt, N, run->dx);
}

static double slope(struct point *point, double *value, const float *dy)
{
    const double before = *value;
    *value = before + 1e-4;
    const double up = objective(point, dy);
    *value = before - 1e-4;
    const double down = objective(point, dy);
    *value = before;
    return (up - down) / 2e-4;
}

static double worst_error(struct point *point, double *values, const float *gradients, size_t count,
                          const float *dy)
{
    double worst = 0.0;
    for (size_t i = 0; i < count; i++)
        worst = fmax(worst, fabs(slope(point, &values[i], dy) - (double)gradients[i]));
    return worst;
}

static void the_output_grows_by_the_gated_product(void **state)
{
    (void)state;
    struct point point;
    struct run run;
    random_point(&point);
    run_module(&run, &point, true);
    double sum = 0.0;
    for (int32_t i = 0; i < N * D_OUT; i++)
        sum += (double)run.dy[i] * (double)run.y[i];
    assert_true(fabs(sum - objective(&point, run.dy)) < 1e-3);
}

static void every_gradient_is_a_slope(void **state)
{
    (void)state;
    struct point point;
    struct run run;
    random_point(&point);
    run_module(&run, &point, true);
    assert_true(worst_error(&point, point.x, run.dx, N * D_IN, run.dy) < 1e-3);
    assert_true(worst_error(&point, point.a, run.da, R * D_IN, run.dy) < 1e-3);
    assert_true(worst_error(&point, point.b, run.db, D_OUT * R, run.dy) < 1e-3);
    assert_true(worst_error(&point, point.g, run.dg, R, run.dy) < 1e-3);
    run.dg[1] *= 1.01f; // the comparison can fail
    assert_false(worst_error(&point, point.g, run.dg, R, run.dy) < 1e-3);
}

static void without_gates_every_rank_counts_fully(void **state)
{
    (void)state;
    struct point point;
    struct run run;
    random_point(&point);
    for (int32_t j = 0; j < R; j++)
        point.g[j] = 1.0;
    run_module(&run, &point, false);
    assert_true(worst_error(&point, point.x, run.dx, N * D_IN, run.dy) < 1e-3);
    assert_true(worst_error(&point, point.a, run.da, R * D_IN, run.dy) < 1e-3);
    assert_true(worst_error(&point, point.b, run.db, D_OUT * R, run.dy) < 1e-3);
    assert_true(run.dg[0] == 0.0f);
}

static void dropout_keeps_the_mean_and_repeats_its_mask(void **state)
{
    (void)state;
    enum { COUNT = 40000 };
    float *x = malloc(3 * COUNT * sizeof(float));
    assert_non_null(x);
    float *out = x + COUNT, *grown = out + COUNT;
    for (int32_t i = 0; i < COUNT; i++) {
        x[i] = 1.0f;
        grown[i] = 5.0f;
    }
    dropout(NULL, x, COUNT, 0.25f, 99, out);
    dropout_backward(NULL, x, COUNT, 0.25f, 99, grown);
    double sum = 0.0;
    for (int32_t i = 0; i < COUNT; i++) {
        sum += (double)out[i];
        assert_true(out[i] == 0.0f || fabsf(out[i] - 4.0f / 3.0f) < 1e-6f);
        assert_true(grown[i] == 5.0f + out[i]);
    }
    assert_true(fabs(sum / COUNT - 1.0) < 0.02);
    dropout(NULL, x, COUNT, 0.25f, 100, grown);
    assert_memory_not_equal(out, grown, COUNT * sizeof(float)); // another seed, another mask
    free(x);
}

// A module larger than every tile, computed on some threads; returns all results in one block.
static float *run_large(int32_t threads, size_t *count)
{
    enum { LN = 300, LIN = 520, LOUT = 530, LR = 8 };
    const size_t inputs = LN * LIN + LR * LIN + LOUT * LR + LR + LN * LOUT;
    const size_t outputs = LN * LIN + LR * LIN + LOUT * LR + LR + LN * LOUT + 3 * LN * LR;
    float *block = calloc(inputs + outputs + 4 * LN * LR, sizeof(float));
    assert_non_null(block);
    struct rng rng;
    rng_seed(&rng, 4);
    for (size_t i = 0; i < inputs; i++)
        block[i] = (float)rng_normal(&rng);
    float *x = block, *a = x + LN * LIN, *b = a + LR * LIN, *g = b + LOUT * LR, *dy = g + LR;
    float *dx = dy + LN * LOUT, *da = dx + LN * LIN, *db = da + LR * LIN, *dg = db + LOUT * LR;
    float *y = dg + LR, *t = y + LN * LOUT, *u = t + LN * LR, *dt = u + LN * LR;
    float *scratch = dt + LN * LR;
    const struct lora_train module = {LR, LIN, LOUT, scale, a, b, g, da, db, dg};
    struct pool *pool;
    struct sora_error err;
    assert_int_equal(pool_create(threads, &pool, &err), SORA_OK);
    lora_train_shrink(pool, &module, x, LN, t, u);
    lora_train_expand(&module, u, 0, LN, 0, LOUT, y);
    lora_train_backward(pool, &module, x, t, LN, dy, dt, scratch);
    lora_train_input_gradient(pool, &module, dt, LN, dx);
    pool_destroy(pool);
    *count = inputs + outputs;
    return block;
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    size_t count;
    float *one = run_large(1, &count), *three = run_large(3, &count);
    assert_memory_equal(one, three, count * sizeof(float));
    free(one);
    free(three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_output_grows_by_the_gated_product),
        cmocka_unit_test(every_gradient_is_a_slope),
        cmocka_unit_test(without_gates_every_rank_counts_fully),
        cmocka_unit_test(dropout_keeps_the_mean_and_repeats_its_mask),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Products with frozen matrices: forward and gradient of every weight type against plain sums over
// unpacked rows, with bias and module, on ragged shapes; the gradient as the slope of the forward;
// independence of the number of threads.
#include "kernel/frozen_linear.h"
#include "kernel/weight_tile.h"
#include "weight_fixture.h"

enum { N = 301, R = 5 }; // rows: more than a task's, in no whole tiles

// Two matrices with one input, the first with a module.
struct fixture {
    int32_t d_in, d_out[2];
    struct weight weights[2];
    float *dense[2]; // [d_out, d_in]
    float *x, *bias, *a, *b, *u, *dt, *dy[2];
    float *y[2], *dx;
};

static float *dense_of(const struct weight *weight)
{
    float *rows = floats((size_t)weight->d_out * (size_t)weight->d_in);
    for (int32_t i = 0; i < weight->d_out; i++)
        weight_row_to_f32(weight, i, rows + (size_t)i * (size_t)weight->d_in);
    return rows;
}

static struct fixture make(enum weight_type type, int32_t d_in, int32_t d_out)
{
    struct rng rng;
    rng_seed(&rng, 21);
    struct fixture f = {.d_in = d_in, .d_out = {d_out, d_out / 2 + 3}};
    const size_t n = N, in = (size_t)d_in;
    f.x = normals(&rng, n * in);
    f.dx = floats(n * in);
    f.a = normals(&rng, R * in);
    f.u = normals(&rng, n * R);
    f.dt = normals(&rng, n * R);
    f.b = normals(&rng, (size_t)d_out * R);
    f.bias = normals(&rng, (size_t)d_out);
    for (int32_t i = 0; i < 2; i++) {
        f.weights[i] = random_weight(&rng, type, f.d_out[i], d_in);
        f.dense[i] = dense_of(&f.weights[i]);
        f.dy[i] = normals(&rng, n * (size_t)f.d_out[i]);
        f.y[i] = floats(n * (size_t)f.d_out[i]);
    }
    return f;
}

static void release(struct fixture *f)
{
    float *const all[] = {f->x,        f->dx,       f->a,     f->u,     f->dt,   f->b,   f->bias,
                          f->dense[0], f->dense[1], f->dy[0], f->dy[1], f->y[0], f->y[1]};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    for (int32_t i = 0; i < 2; i++)
        weight_deinit(&f->weights[i]);
}

static void run(struct fixture *f, int32_t threads)
{
    struct pool *pool = pool_of(threads);
    float *scratch = floats(frozen_linear_scratch_count(threads));
    struct frozen_part parts[2];
    for (int32_t i = 0; i < 2; i++)
        parts[i] = (struct frozen_part){.weight = &f->weights[i], .y = f->y[i], .dy = f->dy[i]};
    parts[0].bias = f->bias;
    parts[0].lora = (struct lora_train){
        .rank = R, .d_in = f->d_in, .d_out = f->d_out[0], .scale = 1, .a = f->a, .b = f->b};
    parts[0].side = f->u;
    frozen_linear(pool, parts, 2, f->x, N, scratch);
    parts[0].side = f->dt;
    frozen_linear_backward(pool, parts, 2, N, f->dx, scratch);
    free(scratch);
    pool_destroy(pool);
}

// sum_k |a_k b_k| and sum_k a_k b_k: f32 chains err by a small part of the first.
struct sum {
    double value, size;
};

static void add_product(struct sum *sum, double a, double b)
{
    sum->value += a * b;
    sum->size += fabs(a * b);
}

static bool agrees(float found, const struct sum *want)
{
    return fabs((double)found - want->value) <= 3e-6 * want->size + 1e-6;
}

static struct sum want_y(const struct fixture *f, int32_t part, int32_t row, int32_t o)
{
    struct sum sum = {0};
    for (int32_t k = 0; k < f->d_in; k++)
        add_product(&sum, (double)f->x[row * f->d_in + k], (double)f->dense[part][o * f->d_in + k]);
    if (part > 0)
        return sum;
    add_product(&sum, (double)f->bias[o], 1.0);
    for (int32_t j = 0; j < R; j++)
        add_product(&sum, (double)f->u[row * R + j], (double)f->b[o * R + j]);
    return sum;
}

static struct sum want_dx(const struct fixture *f, int32_t row, int32_t k)
{
    struct sum sum = {0};
    for (int32_t part = 0; part < 2; part++)
        for (int32_t o = 0; o < f->d_out[part]; o++)
            add_product(&sum, (double)f->dy[part][row * f->d_out[part] + o],
                        (double)f->dense[part][o * f->d_in + k]);
    for (int32_t j = 0; j < R; j++)
        add_product(&sum, (double)f->dt[row * R + j], (double)f->a[j * f->d_in + k]);
    return sum;
}

// Some rows, all columns.
static void check(enum weight_type type, int32_t d_in, int32_t d_out)
{
    struct fixture f = make(type, d_in, d_out);
    run(&f, 2);
    for (int32_t row = 0; row < N; row += 50) {
        for (int32_t part = 0; part < 2; part++)
            for (int32_t o = 0; o < f.d_out[part]; o++) {
                const struct sum want = want_y(&f, part, row, o);
                if (!agrees(f.y[part][row * f.d_out[part] + o], &want))
                    fail_msg("%s %d x %d: y[%d, %d] of part %d", weight_type_name((int32_t)type),
                             d_out, d_in, row, o, part);
            }
        for (int32_t k = 0; k < d_in; k++) {
            const struct sum want = want_dx(&f, row, k);
            if (!agrees(f.dx[row * d_in + k], &want))
                fail_msg("%s %d x %d: dx[%d, %d]", weight_type_name((int32_t)type), d_out, d_in,
                         row, k);
        }
    }
    const struct sum want = want_dx(&f, 0, 0); // the comparison can fail
    assert_false(agrees(f.dx[0] + 0.01f * (1 + fabsf(f.dx[0])), &want));
    release(&f);
}

static void every_weight_type_gives_the_plain_sums(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        check(weight_types[i], 96, 70);
        check(weight_types[i], 608, 33);
        check(weight_types[i], 32, 530);
    }
}

static void dense_matrices_may_have_any_width(void **state)
{
    (void)state;
    check(WEIGHT_F32, 1, 1);
    check(WEIGHT_BF16, 45, 18);
    check(WEIGHT_F16, 300, 7);
}

// <y(x + h d) - y(x - h d), dy> = 2 h <dx, d>: exact up to rounding, as y is linear in x.
static void the_gradient_is_the_slope_of_the_forward(void **state)
{
    (void)state;
    struct fixture f = make(WEIGHT_Q4_1, 64, 50);
    struct rng rng;
    rng_seed(&rng, 22);
    memset(f.dt, 0, N * R * sizeof(float)); // u is held fixed
    run(&f, 1);
    float *direction = normals(&rng, N * 64), *dx = copy_of(f.dx, N * 64);
    double slope = 0.0, measured = 0.0;
    for (int32_t side = -1; side <= 1; side += 2) {
        for (int32_t i = 0; i < N * 64; i++)
            f.x[i] += (float)(side * (side < 0 ? 1 : 2)) * direction[i];
        run(&f, 1);
        for (int32_t part = 0; part < 2; part++)
            for (int32_t i = 0; i < N * f.d_out[part]; i++)
                measured += side * 0.5 * (double)f.y[part][i] * (double)f.dy[part][i];
    }
    for (int32_t i = 0; i < N * 64; i++)
        slope += (double)dx[i] * (double)direction[i];
    assert_true(fabs(measured - slope) < 1e-4 * fabs(slope));
    assert_false(fabs(measured - 1.01 * slope) < 1e-4 * fabs(slope));
    free(direction);
    free(dx);
    release(&f);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    struct fixture one = make(WEIGHT_Q4_0, 320, 200), three = make(WEIGHT_Q4_0, 320, 200);
    run(&one, 1);
    run(&three, 3);
    assert_int_equal(bits_differ(one.dx, three.dx, N * 320), -1);
    for (int32_t part = 0; part < 2; part++)
        assert_int_equal(bits_differ(one.y[part], three.y[part], (size_t)(N * one.d_out[part])),
                         -1);
    release(&one);
    release(&three);
}

static void columns_are_unpacked_as_rows_are(void **state)
{
    (void)state;
    for (size_t i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        const bool dense = weight_types[i] == WEIGHT_F32;
        struct fixture f = make(weight_types[i], dense ? 75 : 96, 53);
        float tiles[2 * 21 * 16];
        for (int32_t first = 0; first < f.d_in; first += WEIGHT_TILE_COLUMNS) {
            weight_tile_unpack(&f.weights[0], first, 32, 21, tiles);
            for (int32_t row = 0; row < 21; row++)
                for (int32_t j = 0; j < WEIGHT_TILE_COLUMNS; j++) {
                    const float want =
                        first + j < f.d_in ? f.dense[0][(32 + row) * f.d_in + first + j] : 0.0f;
                    assert_true(tiles[(j / 16 * 21 + row) * 16 + j % 16] == want);
                }
        }
        release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_weight_type_gives_the_plain_sums),
        cmocka_unit_test(dense_matrices_may_have_any_width),
        cmocka_unit_test(the_gradient_is_the_slope_of_the_forward),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
        cmocka_unit_test(columns_are_unpacked_as_rows_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

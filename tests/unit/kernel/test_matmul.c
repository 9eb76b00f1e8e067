// SPDX-License-Identifier: Apache-2.0
// matmul against its reference, to the bit: every weight type, instruction set, number of rows and
// threads, on ragged shapes.
#include "weight_fixture.h"

#include "base/arena.h"
#include "kernel/kernel_dispatch.h"

#define ROWS_MAX 64
static const int32_t row_counts[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                     11, 12, 13, 14, 15, 16, 17, 18, 19, 64};

struct shape {
    int32_t d_out, d_in;
};
static const struct shape block_shapes[] = {{16, 32}, {83, 64}, {40, 288}, {130, 544}};
static const struct shape dense_shapes[] = {{1, 1}, {17, 7}, {48, 33}, {83, 257}, {35, 301}};

struct fixture {
    struct weight weight;
    float *x, *expected, *y, *scratch;
};

static struct fixture fixture_of(struct rng *rng, enum weight_type type, struct shape shape)
{
    struct fixture f;
    f.weight = random_weight(rng, type, shape.d_out, shape.d_in);
    f.x = normals(rng, (size_t)ROWS_MAX * (size_t)shape.d_in);
    f.expected = floats((size_t)ROWS_MAX * (size_t)shape.d_out);
    f.y = floats((size_t)ROWS_MAX * (size_t)shape.d_out);
    f.scratch = floats(matmul_scratch_count(shape.d_in, 3));
    float *row = floats((size_t)shape.d_in);
    matmul_ref(&f.weight, f.x, ROWS_MAX, f.expected, row);
    free(row);
    return f;
}

static void fixture_free(struct fixture *f)
{
    weight_deinit(&f->weight);
    free(f->x);
    free(f->expected);
    free(f->y);
    free(f->scratch);
}

// Runs m rows from `first` on and compares with those rows of the reference; what lies behind y
// stays untouched.
static int64_t run_rows(struct fixture *f, enum cpu_isa isa, struct pool *pool, int32_t first,
                        int32_t m)
{
    const size_t d_in = (size_t)f->weight.d_in, d_out = (size_t)f->weight.d_out;
    const size_t count = (size_t)m * d_out;
    for (size_t i = 0; i <= count; i++)
        f->y[i] = NAN;
    f->y[count] = 77;
    alloc_guard_enter();
    const struct matmul_call call = {.weight = &f->weight, .y = f->y};
    const struct matmul_work work = {
        .calls = &call, .call_count = 1, .x = f->x + (size_t)first * d_in, .m = m};
    matmul_run_on(isa, pool, &work, f->scratch);
    alloc_guard_leave();
    assert_true(f->y[count] == 77);
    return bits_differ(f->y, f->expected + (size_t)first * d_out, count);
}

static void check_shapes(enum cpu_isa isa, enum weight_type type, const struct shape *shapes,
                         size_t count, struct pool *const *pools)
{
    struct rng rng;
    rng_seed(&rng, 10);
    for (size_t s = 0; s < count; s++) {
        struct fixture f = fixture_of(&rng, type, shapes[s]);
        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++)
            for (int p = 0; p < 3; p++)
                assert_int_equal(run_rows(&f, isa, pools[p], 0, row_counts[i]), -1);
        for (int32_t row = 0; row < 20; row++) // alone as in the batch
            assert_int_equal(run_rows(&f, isa, NULL, row, 1), -1);
        assert_int_equal(run_rows(&f, isa, NULL, 9, 5), -1);
        fixture_free(&f);
    }
}

static void check_isa(enum cpu_isa isa)
{
    struct pool *pools[3] = {NULL, pool_of(2), pool_of(3)};
    const size_t blocks = sizeof block_shapes / sizeof block_shapes[0];
    for (size_t t = 0; t < WEIGHT_TYPE_COUNT; t++) {
        check_shapes(isa, weight_types[t], block_shapes, blocks, pools);
        if (weight_type_block_values(weight_types[t]) == 1)
            check_shapes(isa, weight_types[t], dense_shapes,
                         sizeof dense_shapes / sizeof dense_shapes[0], pools);
    }
    pool_destroy(pools[1]);
    pool_destroy(pools[2]);
}

static void portable_equals_the_reference_to_the_bit(void **state)
{
    (void)state;
    check_isa(CPU_PORTABLE);
}

static void avx2_equals_the_reference_to_the_bit(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    check_isa(CPU_AVX2);
}

static void avx512_equals_the_reference_to_the_bit(void **state)
{
    (void)state;
    need_isa(CPU_AVX512, __func__);
    check_isa(CPU_AVX512);
}

static void many_panels_are_shared_without_gaps(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 11);
    struct pool *pool = pool_of(3);
    const struct shape shape = {1999, 32};
    struct fixture f = fixture_of(&rng, WEIGHT_Q4_1, shape);
    for (int32_t m = 1; m <= 8; m += 7)
        assert_int_equal(run_rows(&f, cpu_isa(), pool, 0, m), -1);
    fixture_free(&f);
    pool_destroy(pool);
}

// Work beside a product: how often each task was run and each column handed out.
#define COLUMNS_MAX 200
#define BEFORE_COUNT 5
struct beside_log {
    float *const *y;
    const int32_t *d_out;
    int32_t m;
    int32_t *times; // [call][COLUMNS_MAX]
    _Atomic int32_t tasks[BEFORE_COUNT];
};

static void count_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    struct beside_log *log = context;
    log->tasks[index]++;
}

static void add_to_columns(void *context, int32_t call, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    struct beside_log *log = context;
    for (int32_t column = first; column < end; column++) {
        log->times[call * COLUMNS_MAX + column]++;
        for (int32_t row = 0; row < log->m; row++)
            log->y[call][row * log->d_out[call] + column] += (float)(row + column % 5);
    }
}

// Three products of one x, to which something is added.
static void check_products_together(enum cpu_isa isa, struct pool *pool, int32_t m)
{
    static const int32_t d_out[3] = {83, 16, 200};
    enum { D_IN = 64 };
    struct rng rng;
    rng_seed(&rng, 13);
    struct weight weights[3];
    struct matmul_call calls[3];
    float *y[3], *x = normals(&rng, (size_t)m * D_IN), *row = floats(D_IN);
    for (int i = 0; i < 3; i++) {
        weights[i] = random_weight(&rng, i == 1 ? WEIGHT_F16 : WEIGHT_Q4_1, d_out[i], D_IN);
        y[i] = floats((size_t)(m * d_out[i]));
        calls[i] = (struct matmul_call){&weights[i], y[i]};
    }
    int32_t times[3 * COLUMNS_MAX] = {0};
    struct beside_log log = {y, d_out, m, times, {0}};
    const struct matmul_beside beside = {count_task, BEFORE_COUNT, add_to_columns, NULL, &log};
    float *scratch = floats(matmul_scratch_count(D_IN, 3));
    const struct matmul_work work = {
        .calls = calls, .call_count = 3, .x = x, .m = m, .beside = &beside};
    matmul_run_on(isa, pool, &work, scratch);
    for (int i = 0; i < BEFORE_COUNT; i++)
        assert_int_equal(log.tasks[i], 1);
    for (int i = 0; i < 3; i++) {
        float *expected = floats((size_t)(m * d_out[i]));
        matmul_ref(&weights[i], x, m, expected, row);
        for (int32_t c = 0; c < d_out[i]; c++) {
            assert_int_equal(times[i * COLUMNS_MAX + c], 1);
            for (int32_t r = 0; r < m; r++)
                assert_true(y[i][r * d_out[i] + c] ==
                            expected[r * d_out[i] + c] + (float)(r + c % 5));
        }
        free(expected);
        free(y[i]);
        weight_deinit(&weights[i]);
    }
    free(x);
    free(row);
    free(scratch);
}

static void products_of_one_x_run_together(void **state)
{
    (void)state;
    struct pool *pool = pool_of(3);
    for (int isa = CPU_PORTABLE; isa <= (int)cpu_isa(); isa++)
        for (int32_t m = 1; m <= 17; m += 4) {
            check_products_together((enum cpu_isa)isa, NULL, m);
            check_products_together((enum cpu_isa)isa, pool, m);
        }
    pool_destroy(pool);
}

static void the_public_call_equals_the_reference(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 12);
    const struct shape shape = {83, 64};
    struct fixture f = fixture_of(&rng, WEIGHT_Q8_0, shape);
    matmul(NULL, &f.weight, f.x, 5, f.y, f.scratch);
    assert_int_equal(bits_differ(f.y, f.expected, 5 * 83), -1);
    f.y[0] = 5;
    matmul(NULL, &f.weight, f.x, 0, f.y, f.scratch);
    assert_true(f.y[0] == 5);
    fixture_free(&f);
}

// The contract is a chain over k in order; another order shows.
static void another_order_of_sums_is_noticed(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 13);
    const struct shape shape = {83, 544};
    struct fixture f = fixture_of(&rng, WEIGHT_Q4_1, shape);
    float *row = floats(544);
    for (int32_t o = 0; o < shape.d_out; o++) {
        weight_row_to_f32(&f.weight, o, row);
        f.y[o] = 0;
        for (int32_t k = shape.d_in - 1; k >= 0; k--)
            f.y[o] = fmaf(row[k], f.x[k], f.y[o]);
    }
    assert_int_not_equal(bits_differ(f.y, f.expected, (size_t)shape.d_out), -1);
    assert_int_equal(values_differ(f.y, f.expected, (size_t)shape.d_out, 1e-4), -1);
    free(row);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(portable_equals_the_reference_to_the_bit),
        cmocka_unit_test(avx2_equals_the_reference_to_the_bit),
        cmocka_unit_test(avx512_equals_the_reference_to_the_bit),
        cmocka_unit_test(many_panels_are_shared_without_gaps),
        cmocka_unit_test(products_of_one_x_run_together),
        cmocka_unit_test(the_public_call_equals_the_reference),
        cmocka_unit_test(another_order_of_sums_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

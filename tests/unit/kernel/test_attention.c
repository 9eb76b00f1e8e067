// SPDX-License-Identifier: Apache-2.0
// attention over a block-wise cache: against the reference, and the same bits for a row whatever
// its company, its blocks' places, the instruction set and the threads.
#include "kernel_fixture.h"

#include "kernel/kernel_dispatch.h"

#define CONTEXT_MAX 131
#define BLOCK_COUNT ((CONTEXT_MAX + SORA_KV_BLOCK_TOKENS - 1) / SORA_KV_BLOCK_TOKENS)
#define SEQ_COUNT 2
#define ROW_COUNT 10

struct fixture {
    struct attention_shape shape;
    struct attention_cache cache;
    int32_t blocks[SEQ_COUNT][BLOCK_COUNT];
    struct attention_row rows[ROW_COUNT];
    float *q, *expected, *out, *scratch;
    size_t row_width;
};

static const struct attention_shape shapes[] = {
    {9, 3, 64, 0, 0.125f}, {4, 4, 16, 0, 0.25f}, {4, 1, 8, 5, 0.3f},    {2, 1, 10, 17, 0.3f},
    {6, 2, 80, 16, 0.11f}, {2, 2, 96, 0, 0.1f},  {2, 1, 128, 40, 0.1f}, {3, 1, 2, 1, 0.7f},
};
#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])
static const int32_t positions[ROW_COUNT] = {0, 1, 7, 8, 15, 16, 17, 40, 100, CONTEXT_MAX - 1};

static void fixture_open(struct fixture *f, const struct attention_shape *shape)
{
    struct rng rng;
    rng_seed(&rng, 30);
    memset(f, 0, sizeof *f);
    f->shape = *shape;
    f->cache.block_stride =
        (size_t)(shape->kv_head_count * SORA_KV_BLOCK_TOKENS * shape->head_dim) + 8;
    const size_t cells = f->cache.block_stride * SEQ_COUNT * BLOCK_COUNT;
    f->cache.keys = normals(&rng, cells);
    f->cache.values = normals(&rng, cells);
    int32_t order[SEQ_COUNT * BLOCK_COUNT];
    for (int32_t i = 0; i < SEQ_COUNT * BLOCK_COUNT; i++)
        order[i] = i;
    rng_shuffle(&rng, order, SEQ_COUNT * BLOCK_COUNT);
    memcpy(f->blocks, order, sizeof order);
    for (int32_t i = 0; i < ROW_COUNT; i++)
        f->rows[i] = (struct attention_row){f->blocks[i % SEQ_COUNT], positions[i]};
    f->row_width = (size_t)(shape->head_count * shape->head_dim);
    f->q = normals(&rng, ROW_COUNT * f->row_width);
    f->expected = floats(ROW_COUNT * f->row_width);
    f->out = floats(ROW_COUNT * f->row_width);
    f->scratch = floats(attention_scratch_count(shape, CONTEXT_MAX, 3));
    attention_ref(shape, &f->cache, f->rows, ROW_COUNT, f->q, f->expected, f->scratch);
}

static void fixture_close(struct fixture *f)
{
    free(f->cache.keys);
    free(f->cache.values);
    free(f->q);
    free(f->expected);
    free(f->out);
    free(f->scratch);
}

static void run(struct fixture *f, enum cpu_isa isa, struct pool *pool, int32_t first, int32_t m)
{
    const size_t count = (size_t)m * f->row_width;
    for (size_t i = 0; i <= count; i++)
        f->out[i] = i < count ? NAN : 77;
    attention_on(isa, pool, &f->shape, &f->cache, f->rows + first, m,
                 f->q + (size_t)first * f->row_width, f->out, f->scratch, CONTEXT_MAX);
    assert_true(f->out[count] == 77);
}

static void check_against_reference(enum cpu_isa isa)
{
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, &shapes[s]);
        run(&f, isa, NULL, 0, ROW_COUNT);
        assert_int_equal(values_differ(f.out, f.expected, ROW_COUNT * f.row_width, 1e-6), -1);
        fixture_close(&f);
    }
}

static void portable_equals_the_reference(void **state)
{
    (void)state;
    check_against_reference(CPU_PORTABLE);
}

static void avx2_equals_the_reference(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    check_against_reference(CPU_AVX2);
}

static void company_and_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    struct pool *pools[3] = {NULL, pool_of(2), pool_of(3)};
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, &shapes[s]);
        const size_t width = f.row_width;
        run(&f, CPU_PORTABLE, NULL, 0, ROW_COUNT);
        float *portable = copy_of(f.out, ROW_COUNT * width);
        for (int p = 0; p < 3; p++) {
            run(&f, cpu_isa(), pools[p], 0, ROW_COUNT);
            assert_int_equal(bits_differ(f.out, portable, ROW_COUNT * width), -1);
        }
        for (int32_t row = 0; row < ROW_COUNT; row++) {
            run(&f, cpu_isa(), NULL, row, 1);
            assert_int_equal(bits_differ(f.out, portable + (size_t)row * width, width), -1);
        }
        free(portable);
        fixture_close(&f);
    }
    pool_destroy(pools[1]);
    pool_destroy(pools[2]);
}

static void swap_floats(float *a, float *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float kept = a[i];
        a[i] = b[i];
        b[i] = kept;
    }
}

static void moving_a_block_does_not_change_a_bit(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &shapes[0]);
    run(&f, cpu_isa(), NULL, 0, ROW_COUNT);
    float *before = copy_of(f.out, ROW_COUNT * f.row_width);
    const size_t stride = f.cache.block_stride;
    int32_t *a = &f.blocks[0][0], *b = &f.blocks[1][2], kept = *a;
    swap_floats(f.cache.keys + (size_t)*a * stride, f.cache.keys + (size_t)*b * stride, stride);
    swap_floats(f.cache.values + (size_t)*a * stride, f.cache.values + (size_t)*b * stride, stride);
    *a = *b;
    *b = kept;
    run(&f, cpu_isa(), NULL, 0, ROW_COUNT);
    assert_int_equal(bits_differ(f.out, before, ROW_COUNT * f.row_width), -1);
    free(before);
    fixture_close(&f);
}

// What lies after a row's position, or before its window, must not be read as data.
static void positions_out_of_reach_do_not_matter(void **state)
{
    (void)state;
    struct attention_shape shape = {4, 2, 16, 20, 0.25f};
    struct fixture f;
    fixture_open(&f, &shape);
    const int32_t pos = f.rows[8].pos; // 100: reads 81 .. 100
    run(&f, cpu_isa(), NULL, 8, 1);
    float *before = copy_of(f.out, f.row_width);
    for (int32_t p = 0; p < CONTEXT_MAX; p++) {
        if (p > pos - 20 && p <= pos)
            continue;
        for (int32_t g = 0; g < 2; g++) {
            size_t cell =
                (size_t)f.rows[8].blocks[p / SORA_KV_BLOCK_TOKENS] * f.cache.block_stride +
                (size_t)((g * SORA_KV_BLOCK_TOKENS + p % SORA_KV_BLOCK_TOKENS) * 16);
            for (size_t i = 0; i < 16; i++)
                f.cache.keys[cell + i] = f.cache.values[cell + i] = NAN;
        }
    }
    run(&f, cpu_isa(), NULL, 8, 1);
    assert_int_equal(bits_differ(f.out, before, f.row_width), -1);
    fixture_close(&f);
    free(before);
}

static void large_scores_do_not_overflow(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &shapes[0]);
    f.shape.scale = 300;
    attention_ref(&f.shape, &f.cache, f.rows, ROW_COUNT, f.q, f.expected, f.scratch);
    run(&f, cpu_isa(), NULL, 0, ROW_COUNT);
    // A score near 5000 has an ulp of 5e-4, which e^x turns into a relative error.
    assert_int_equal(values_differ(f.out, f.expected, ROW_COUNT * f.row_width, 5e-3), -1);
    fixture_close(&f);
}

static void a_wrong_scale_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &shapes[0]);
    f.shape.scale *= 1.0001f;
    run(&f, cpu_isa(), NULL, 0, ROW_COUNT);
    assert_int_not_equal(values_differ(f.out, f.expected, ROW_COUNT * f.row_width, 1e-6), -1);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(portable_equals_the_reference),
        cmocka_unit_test(avx2_equals_the_reference),
        cmocka_unit_test(company_and_threads_do_not_change_a_bit),
        cmocka_unit_test(moving_a_block_does_not_change_a_bit),
        cmocka_unit_test(positions_out_of_reach_do_not_matter),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(a_wrong_scale_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// attention over a block-wise cache: against the reference, and the same bits for a row whatever
// its company, its blocks' places, the instruction set and the threads.
#include "kernel_fixture.h"

#include "base/arena.h"
#include "kernel/kernel_dispatch.h"

#define CONTEXT_MAX 1100 // three chunks
#define BLOCK_COUNT ((CONTEXT_MAX + SORA_KV_BLOCK_TOKENS - 1) / SORA_KV_BLOCK_TOKENS)
#define SEQ_COUNT 2
#define ROW_COUNT 14

struct fixture {
    struct attention_shape shape;
    struct attention_cache cache;
    int32_t blocks[SEQ_COUNT][BLOCK_COUNT];
    struct attention_row rows[ROW_COUNT];
    float *q, *expected, *out;
    void *scratch;
    size_t row_width;
};

static const struct attention_shape shapes[] = {
    {9, 3, 64, 0, 0.125f}, {4, 4, 16, 0, 0.25f}, {4, 1, 8, 5, 0.3f},    {2, 1, 10, 17, 0.3f},
    {6, 2, 80, 16, 0.11f}, {2, 2, 96, 0, 0.1f},  {2, 1, 128, 40, 0.1f}, {3, 1, 2, 1, 0.7f},
};
#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])
// With 16-bit integers queries and weights are rounded, too.
static const struct {
    enum sora_dtype dtype;
    double tolerance;
} kinds[] = {{SORA_F32, 1e-6}, {SORA_F16, 1e-6}, {SORA_I16, 1e-3}};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])
// Neighbours of one sequence, within a chunk and over its end, and single rows.
static const struct {
    int32_t seq, pos;
} places[ROW_COUNT] = {{0, 0},   {0, 1},  {0, 2},   {0, 3},   {0, 4},   {1, 7},   {1, 8},
                       {1, 100}, {0, 40}, {0, 510}, {0, 511}, {0, 512}, {0, 513}, {1, 1099}};
#define LONE_ROW 7 // at position 100

static void *cells_of(struct rng *rng, enum sora_dtype dtype, int32_t levels, size_t count)
{
    float *values = normals(rng, count);
    if (dtype == SORA_F32)
        return values;
    uint16_t *halves = calloc(count + 1, sizeof *halves);
    assert_non_null(halves);
    for (size_t i = 0; i < count; i++)
        halves[i] = dtype == SORA_F16
                        ? half_to_f16(values[i])
                        : (uint16_t)((int32_t)rng_below(rng, 2 * levels + 1) - levels);
    free(values);
    return halves;
}

// Where an I16 cache has the scales of a kv head's tokens in a block, in elements.
static size_t scales_at(const struct fixture *f, int32_t block, int32_t head)
{
    const size_t d = (size_t)f->shape.head_dim;
    return (size_t)block * f->cache.block_stride +
           (size_t)head * attention_head_elements(SORA_I16, f->shape.head_dim) +
           d * SORA_KV_BLOCK_TOKENS;
}

static void set_scales(const struct fixture *f, struct rng *rng, int32_t levels, void *cells)
{
    for (int32_t block = 0; block < SEQ_COUNT * BLOCK_COUNT; block++)
        for (int32_t head = 0; head < f->shape.kv_head_count; head++)
            for (size_t t = 0; t < SORA_KV_BLOCK_TOKENS; t++) {
                const float scale = (float)((1 + rng_uniform(rng)) / levels);
                memcpy((int16_t *)cells + scales_at(f, block, head) + 2 * t, &scale, sizeof scale);
            }
}

static void fixture_open(struct fixture *f, const struct attention_shape *shape,
                         enum sora_dtype dtype)
{
    struct rng rng;
    rng_seed(&rng, 30);
    memset(f, 0, sizeof *f);
    f->shape = *shape;
    f->cache.block_stride =
        (size_t)shape->kv_head_count * attention_head_elements(dtype, shape->head_dim) + 8;
    const size_t cells = f->cache.block_stride * SEQ_COUNT * BLOCK_COUNT;
    f->cache.dtype = dtype;
    f->cache.keys = cells_of(&rng, dtype, ATTENTION_KEY_LEVELS, cells);
    f->cache.values = cells_of(&rng, dtype, ATTENTION_VALUE_LEVELS, cells);
    if (dtype == SORA_I16) {
        set_scales(f, &rng, ATTENTION_KEY_LEVELS, f->cache.keys);
        set_scales(f, &rng, ATTENTION_VALUE_LEVELS, f->cache.values);
    }
    int32_t order[SEQ_COUNT * BLOCK_COUNT];
    for (int32_t i = 0; i < SEQ_COUNT * BLOCK_COUNT; i++)
        order[i] = i;
    rng_shuffle(&rng, order, SEQ_COUNT * BLOCK_COUNT);
    memcpy(f->blocks, order, sizeof order);
    for (int32_t i = 0; i < ROW_COUNT; i++)
        f->rows[i] = (struct attention_row){f->blocks[places[i].seq], places[i].pos};
    f->row_width = (size_t)(shape->head_count * shape->head_dim);
    f->q = normals(&rng, ROW_COUNT * f->row_width);
    f->expected = floats(ROW_COUNT * f->row_width);
    f->out = floats(ROW_COUNT * f->row_width);
    f->scratch = aligned_calloc(attention_scratch_bytes(shape, ROW_COUNT, 3), 1);
    assert_non_null(f->scratch);
    float scores[CONTEXT_MAX];
    attention_ref(shape, &f->cache, f->rows, ROW_COUNT, f->q, f->expected, scores);
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
                 f->q + (size_t)first * f->row_width, f->out, f->scratch);
    assert_true(f->out[count] == 77);
}

static void check_against_reference(enum cpu_isa isa)
{
    for (size_t s = 0; s < KIND_COUNT * SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, &shapes[s / KIND_COUNT], kinds[s % KIND_COUNT].dtype);
        run(&f, isa, NULL, 0, ROW_COUNT);
        assert_int_equal(values_differ(f.out, f.expected, ROW_COUNT * f.row_width,
                                       kinds[s % KIND_COUNT].tolerance),
                         -1);
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

static void avx512_equals_the_reference(void **state)
{
    (void)state;
    need_isa(CPU_AVX512, __func__);
    check_against_reference(CPU_AVX512);
}

static void vnni_equals_the_reference(void **state)
{
    (void)state;
    need_isa(CPU_VNNI, __func__);
    check_against_reference(CPU_VNNI);
}

static void company_and_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    struct pool *pools[3] = {NULL, pool_of(2), pool_of(3)};
    for (size_t s = 0; s < KIND_COUNT * SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, &shapes[s / KIND_COUNT], kinds[s % KIND_COUNT].dtype);
        const size_t width = f.row_width;
        run(&f, CPU_PORTABLE, NULL, 0, ROW_COUNT);
        float *portable = copy_of(f.out, ROW_COUNT * width);
        for (int isa = CPU_AVX2; isa <= (int)cpu_isa(); isa++) {
            run(&f, (enum cpu_isa)isa, NULL, 0, ROW_COUNT);
            assert_int_equal(bits_differ(f.out, portable, ROW_COUNT * width), -1);
        }
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
    fixture_open(&f, &shapes[0], SORA_F32);
    run(&f, cpu_isa(), NULL, 0, ROW_COUNT);
    float *before = copy_of(f.out, ROW_COUNT * f.row_width);
    const size_t stride = f.cache.block_stride;
    int32_t *a = &f.blocks[0][0], *b = &f.blocks[1][2], kept = *a;
    float *keys = f.cache.keys, *values = f.cache.values;
    swap_floats(keys + (size_t)*a * stride, keys + (size_t)*b * stride, stride);
    swap_floats(values + (size_t)*a * stride, values + (size_t)*b * stride, stride);
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
    fixture_open(&f, &shape, SORA_F32);
    const int32_t pos = f.rows[LONE_ROW].pos; // 100: reads 81 .. 100
    run(&f, cpu_isa(), NULL, LONE_ROW, 1);
    float *before = copy_of(f.out, f.row_width);
    for (int32_t p = 0; p < CONTEXT_MAX; p++) {
        if (p > pos - 20 && p <= pos)
            continue;
        for (int32_t g = 0; g < 2; g++) {
            size_t block =
                (size_t)f.rows[LONE_ROW].blocks[p / SORA_KV_BLOCK_TOKENS] * f.cache.block_stride;
            size_t t = (size_t)(p % SORA_KV_BLOCK_TOKENS);
            for (size_t i = 0; i < 16; i++) {
                size_t head = (size_t)g * SORA_KV_BLOCK_TOKENS * 16;
                ((float *)f.cache.keys)[block + head + i * SORA_KV_BLOCK_TOKENS + t] = NAN;
                ((float *)f.cache.values)[block + head + t * 16 + i] = NAN;
            }
        }
    }
    run(&f, cpu_isa(), NULL, LONE_ROW, 1);
    assert_int_equal(bits_differ(f.out, before, f.row_width), -1);
    fixture_close(&f);
    free(before);
}

// The same of integers: what they are there, and their scales.
static void integers_out_of_reach_do_not_matter(void **state)
{
    (void)state;
    struct attention_shape shape = {4, 2, 16, 20, 0.25f};
    struct fixture f;
    fixture_open(&f, &shape, SORA_I16);
    const int32_t pos = f.rows[LONE_ROW].pos;
    const float none = NAN;
    run(&f, cpu_isa(), NULL, LONE_ROW, 1);
    float *before = copy_of(f.out, f.row_width);
    for (int32_t p = 0; p < CONTEXT_MAX; p++) {
        if (p > pos - 20 && p <= pos)
            continue;
        const int32_t block = f.rows[LONE_ROW].blocks[p / SORA_KV_BLOCK_TOKENS];
        const size_t t = (size_t)(p % SORA_KV_BLOCK_TOKENS);
        for (int32_t g = 0; g < 2; g++) {
            int16_t *keys = (int16_t *)f.cache.keys + scales_at(&f, block, g);
            int16_t *values = (int16_t *)f.cache.values + scales_at(&f, block, g);
            memcpy(keys + 2 * t, &none, sizeof none);
            memcpy(values + 2 * t, &none, sizeof none);
            for (size_t i = 0; i < 16; i++) {
                keys[2 * (i / 2 * SORA_KV_BLOCK_TOKENS + t) + i % 2 - 16 * SORA_KV_BLOCK_TOKENS] =
                    -7;
                values[2 * (t / 2 * 16 + i) + t % 2 - 16 * SORA_KV_BLOCK_TOKENS] = INT16_MIN;
            }
        }
    }
    run(&f, cpu_isa(), NULL, LONE_ROW, 1);
    assert_int_equal(bits_differ(f.out, before, f.row_width), -1);
    fixture_close(&f);
    free(before);
}

static void large_scores_do_not_overflow(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &shapes[0], SORA_F32);
    f.shape.scale = 300;
    float scores[CONTEXT_MAX];
    attention_ref(&f.shape, &f.cache, f.rows, ROW_COUNT, f.q, f.expected, scores);
    run(&f, cpu_isa(), NULL, 0, ROW_COUNT);
    // A score near 5000 has an ulp of 5e-4, which e^x turns into a relative error.
    assert_int_equal(values_differ(f.out, f.expected, ROW_COUNT * f.row_width, 5e-3), -1);
    fixture_close(&f);
}

// What is stored is found where attention reads it; f16 saturates.
static void stored_entries_are_read_back(void **state)
{
    (void)state;
    const struct attention_shape shape = {2, 2, 4, 0, 1.0f};
    for (int half = 0; half < 2; half++) {
        struct fixture f;
        fixture_open(&f, &shape, half ? SORA_F16 : SORA_F32);
        const float key[8] = {0}, value[8] = {1, -2, 1e9f, -1e9f, 5, 6, 7, 8};
        const int32_t slot = f.blocks[0][0] * SORA_KV_BLOCK_TOKENS;
        attention_store(&shape, &f.cache, slot, key, value);
        run(&f, cpu_isa(), NULL, 0, 1); // one position: its value is the result
        const float most = half ? 65504.0f : 1e9f;
        const float expected[8] = {1, -2, most, -most, 5, 6, 7, 8};
        assert_int_equal(bits_differ(f.out, expected, 8), -1);
        fixture_close(&f);
    }
}

// Keys and values of all positions of a sequence, stored in `dtype`; what its last row makes of
// them.
static void attend_to_stored(enum sora_dtype dtype, enum cpu_isa isa, float spoiled, float *out)
{
    const struct attention_shape shape = {6, 2, 32, 0, 0.2f};
    struct rng rng;
    struct fixture f;
    rng_seed(&rng, 8);
    fixture_open(&f, &shape, dtype);
    float *key = normals(&rng, (size_t)CONTEXT_MAX * 64),
          *value = normals(&rng, (size_t)CONTEXT_MAX * 64);
    key[40 * 64] = spoiled; // kv head 0 at position 40
    for (size_t i = 0; i < ROW_COUNT * f.row_width; i++)
        f.q[i] = (float)rng_normal(&rng);
    for (int32_t p = 0; p < CONTEXT_MAX; p++) {
        const int32_t block = f.blocks[1][p / SORA_KV_BLOCK_TOKENS];
        attention_store(&shape, &f.cache, block * SORA_KV_BLOCK_TOKENS + p % SORA_KV_BLOCK_TOKENS,
                        key + (size_t)p * 64, value + (size_t)p * 64);
    }
    run(&f, isa, NULL, ROW_COUNT - 1, 1);
    memcpy(out, f.out, f.row_width * sizeof *out);
    free(key);
    free(value);
    fixture_close(&f);
}

static void stored_integers_stand_for_what_was_stored(void **state)
{
    (void)state;
    enum { WIDTH = 6 * 32 };
    float exact[WIDTH], found[WIDTH], portable[WIDTH];
    attend_to_stored(SORA_F32, cpu_isa(), 1, exact);
    attend_to_stored(SORA_I16, cpu_isa(), 1, found);
    attend_to_stored(SORA_I16, CPU_PORTABLE, 1, portable);
    assert_int_equal(values_differ(found, exact, WIDTH, 3e-4), -1);
    assert_int_equal(bits_differ(found, portable, WIDTH), -1);
    attend_to_stored(SORA_I16, cpu_isa(), INFINITY, found); // seen by the three heads that read it
    for (int i = 0; i < WIDTH; i++)
        assert_int_equal(isnan(found[i]) != 0, i < WIDTH / 2);
    assert_int_equal(bits_differ(found + WIDTH / 2, portable + WIDTH / 2, WIDTH / 2), -1);
}

// No element leaves its bound, and the sum does not, where one value has it all and where all are
// alike; zeros stay zeros.
static void integers_keep_to_their_bounds(void **state)
{
    (void)state;
    attention_to_i16_fn *const bodies[] = {attention_to_i16_portable, attention_to_i16_avx2,
                                           attention_to_i16_avx512, attention_to_i16_vnni};
    enum { COUNT = 70 };
    const float sum_max = I16_SUM_MAX(ATTENTION_KEY_LEVELS, COUNT);
    for (int kind = 0; kind < 3; kind++)
        for (int isa = CPU_PORTABLE; isa <= (int)cpu_isa(); isa++) {
            float x[COUNT];
            int16_t q[COUNT + 1];
            int64_t sum = 0;
            for (int i = 0; i < COUNT; i++)
                x[i] = kind == 0 ? 0 : kind == 1 ? (i % 2 ? 3.7f : -3.7f) : i == 69 ? -1e30f : 1;
            q[COUNT] = 77;
            const float scale = bodies[isa](x, COUNT, INT16_MAX, sum_max, q);
            for (int i = 0; i < COUNT; i++) {
                assert_true(fabsf((float)q[i] * scale - x[i]) <= 0.5001f * scale);
                sum += abs(q[i]);
            }
            assert_true(sum * ATTENTION_KEY_LEVELS <= INT32_MAX);
            assert_int_equal(q[COUNT], 77);
            assert_true(kind != 0 || sum == 0);
            assert_true(kind != 2 || q[69] == -INT16_MAX);
            assert_true(kind != 1 || sum >= (int64_t)sum_max - COUNT);
        }
}

// Many long rows take the way without a split over chunks: the same bits.
static void a_long_row_is_the_same_among_many_long_rows(void **state)
{
    (void)state;
    enum { MANY = 80 };
    struct fixture f;
    fixture_open(&f, &shapes[1], SORA_F32);
    run(&f, cpu_isa(), NULL, ROW_COUNT - 1, 1);
    float *alone = copy_of(f.out, f.row_width);
    struct attention_row rows[MANY];
    float *q = floats(MANY * f.row_width), *out = floats(MANY * f.row_width);
    for (int32_t i = 0; i < MANY; i++) {
        rows[i] = f.rows[ROW_COUNT - 1];
        memcpy(q + (size_t)i * f.row_width, f.q + (ROW_COUNT - 1) * f.row_width,
               f.row_width * sizeof *q);
    }
    void *scratch = aligned_calloc(attention_scratch_bytes(&f.shape, MANY, 3), 1);
    struct pool *pool = pool_of(3);
    attention(pool, &f.shape, &f.cache, rows, MANY, q, out, scratch);
    for (int32_t i = 0; i < MANY; i++)
        assert_int_equal(bits_differ(out + (size_t)i * f.row_width, alone, f.row_width), -1);
    pool_destroy(pool);
    free(scratch);
    free(alone);
    free(q);
    free(out);
    fixture_close(&f);
}

static void a_wrong_scale_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, &shapes[0], SORA_F32);
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
        cmocka_unit_test(avx512_equals_the_reference),
        cmocka_unit_test(vnni_equals_the_reference),
        cmocka_unit_test(company_and_threads_do_not_change_a_bit),
        cmocka_unit_test(moving_a_block_does_not_change_a_bit),
        cmocka_unit_test(positions_out_of_reach_do_not_matter),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(integers_out_of_reach_do_not_matter),
        cmocka_unit_test(stored_entries_are_read_back),
        cmocka_unit_test(stored_integers_stand_for_what_was_stored),
        cmocka_unit_test(integers_keep_to_their_bounds),
        cmocka_unit_test(a_long_row_is_the_same_among_many_long_rows),
        cmocka_unit_test(a_wrong_scale_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

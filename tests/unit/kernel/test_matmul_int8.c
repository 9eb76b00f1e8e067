// SPDX-License-Identifier: Apache-2.0
// Products with activations as integers: every kernel gives the bits of the plain reference, for
// any shape, tile, split and company; the reference is as near to f32 as 8 bits allow.
#include "weight_fixture.h"

#include "base/arena.h"
#include "kernel/kernel_dispatch.h"
#include "kernel/panel.h"

// What is multiplied: a type and which form of x goes with it.
static const struct kind {
    enum weight_type type;
    bool coarse;
} kinds[] = {{WEIGHT_Q4_0, false}, {WEIGHT_Q4_1, true}, {WEIGHT_Q8_0, false}, {WEIGHT_Q8_0, true}};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])
static const struct shape {
    int32_t d_out, d_in;
} shapes[] = {{1, 32}, {16, 64}, {17, 96}, {83, 576}, {130, 1536}, {31, 2080}, {17, 8224}};
#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])
#define ROWS_MAX 133

static const char *const isa_tests[] = {"portable", "avx2", "avx512", "vnni"};

// Rows of several kinds: plain, with spikes, zero, tiny, huge.
static float *rows_of(struct rng *rng, int32_t m, int32_t d_in)
{
    float *x = normals(rng, (size_t)m * (size_t)d_in);
    for (int32_t row = 0; row < m; row++) {
        float *at = x + (size_t)row * (size_t)d_in;
        for (int32_t k = 0; k < d_in; k++) {
            if (row % 5 == 1 && k % 37 == row % 37)
                at[k] *= 60;
            if (row % 7 == 3)
                at[k] *= 1e-30f;
            if (row % 11 == 4)
                at[k] *= 1e30f;
            if (row % 13 == 6)
                at[k] = 0;
        }
    }
    return x;
}

static void *memory_of(int32_t m, int32_t d_in)
{
    void *memory = aligned_calloc(row_quant_bytes(m, d_in), 1);
    assert_non_null(memory);
    return memory;
}

struct fixture {
    struct weight weight;
    unsigned form;
    struct row_quant quant;
    float *x, *expected, *y, *scratch;
    void *memory;
};

static struct fixture fixture_of(struct kind kind, struct shape shape, int32_t m)
{
    struct rng rng;
    rng_seed(&rng, 31);
    struct fixture f = {.weight = random_weight(&rng, kind.type, shape.d_out, shape.d_in)};
    f.form = matmul_int8_form(&f.weight, kind.coarse);
    f.x = rows_of(&rng, m, shape.d_in);
    f.memory = memory_of(m, shape.d_in);
    row_quant_fill_on(CPU_PORTABLE, NULL, f.x, m, shape.d_in, f.form, f.memory, &f.quant);
    f.expected = floats((size_t)(m * shape.d_out));
    f.y = floats((size_t)(m * shape.d_out));
    f.scratch = floats(matmul_scratch_count(shape.d_in, 3));
    float *row = floats((size_t)shape.d_in);
    matmul_int8_ref(&f.weight, &f.quant, f.expected, row);
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
    free(f->memory);
}

// Quantizes and multiplies rows [first, first + m) as a caller does. Index of the first difference
// to the reference, or -1.
static int64_t run_rows(struct fixture *f, enum cpu_isa isa, struct pool *pool, int32_t first,
                        int32_t m)
{
    const size_t d_in = (size_t)f->weight.d_in, d_out = (size_t)f->weight.d_out;
    const float *x = f->x + (size_t)first * d_in;
    void *memory = memory_of(m, f->weight.d_in);
    struct row_quant quant;
    for (size_t i = 0; i <= (size_t)m * d_out; i++)
        f->y[i] = NAN;
    f->y[(size_t)m * d_out] = 77;
    const struct matmul_call call = {.weight = &f->weight, .y = f->y};
    alloc_guard_enter();
    row_quant_fill_on(isa, pool, x, m, f->weight.d_in, f->form, memory, &quant);
    // What is fetched ahead is a hint: pieces of any size, mapped or not, change nothing.
    const struct matmul_region regions[] = {
        {f->y, 1, 0}, {NULL, 0, 1}, {x, 70000, 1}, {(void *)64, 4097, 70001}};
    const struct matmul_ahead ahead = {regions, 4, 74098};
    const struct matmul_work work = {.calls = &call,
                                     .call_count = 1,
                                     .x = x,
                                     .m = m,
                                     .quant = &quant,
                                     .ahead = pool != NULL ? &ahead : NULL};
    matmul_run_on(isa, pool, &work, f->scratch);
    alloc_guard_leave();
    assert_true(f->y[(size_t)m * d_out] == 77);
    free(memory);
    return bits_differ(f->y, f->expected + (size_t)first * d_out, (size_t)m * d_out);
}

static void check_isa(enum cpu_isa isa)
{
    need_isa(isa, isa_tests[isa]);
    struct pool *pool = pool_of(3);
    for (size_t t = 0; t < KIND_COUNT; t++)
        for (size_t s = 0; s < SHAPE_COUNT; s++) {
            struct fixture f = fixture_of(kinds[t], shapes[s], ROWS_MAX);
            for (int32_t m = 1; m <= 9; m++)
                assert_int_equal(run_rows(&f, isa, NULL, m, m), -1);
            assert_int_equal(run_rows(&f, isa, NULL, 0, ROWS_MAX), -1);
            assert_int_equal(run_rows(&f, isa, pool, 0, ROWS_MAX), -1);
            assert_int_equal(run_rows(&f, isa, pool, 3, 16), -1);
            fixture_free(&f);
        }
    pool_destroy(pool);
}

// What is read after columns are set is asked for beside just these columns.
struct reads_log {
    const float *memory;
    _Atomic int32_t asked[100], set[100]; // each column
    _Atomic int32_t unasked;              // columns that were set before
};

static int32_t ask(void *context, int32_t call, int32_t first, int32_t end,
                   struct matmul_region *regions, int32_t max)
{
    struct reads_log *log = context;
    (void)call;
    for (int32_t o = first; o < end; o++)
        log->asked[o]++;
    if (max < 2)
        return 0;
    regions[0] = (struct matmul_region){log->memory, 100, 0};
    regions[1] = (struct matmul_region){log->memory + 100, 3000, 100};
    return 2;
}

static void set_after(void *context, int32_t call, int32_t first, int32_t end, int32_t thread)
{
    (void)call;
    (void)thread;
    struct reads_log *log = context;
    for (int32_t o = first; o < end; o++) {
        log->unasked += log->asked[o] == 0;
        log->set[o]++;
    }
}

static void what_columns_read_is_asked_for_once(void **state)
{
    (void)state;
    const struct shape shape = {83, 576};
    struct pool *pool = pool_of(3);
    struct fixture f = fixture_of(kinds[0], shape, ROWS_MAX);
    const struct matmul_call call = {.weight = &f.weight, .y = f.y};
    for (int32_t threads = 1; threads <= 3; threads += 2) {
        struct reads_log log = {.memory = f.x};
        const struct matmul_beside beside = {.after = set_after, .reads = ask, .context = &log};
        const struct matmul_work work = {.calls = &call,
                                         .call_count = 1,
                                         .x = f.x,
                                         .m = ROWS_MAX,
                                         .quant = &f.quant,
                                         .beside = &beside};
        matmul_run_on(cpu_isa(), threads == 1 ? NULL : pool, &work, f.scratch);
        assert_int_equal(log.unasked, 0);
        for (int32_t o = 0; o < 83; o++)
            assert_true(log.asked[o] == 1 && log.set[o] == 1);
        assert_int_equal(bits_differ(f.y, f.expected, ROWS_MAX * 83), -1);
    }
    fixture_free(&f);
    pool_destroy(pool);
}

static void portable_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_isa(CPU_PORTABLE);
}

static void avx2_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_isa(CPU_AVX2);
}

static void avx512_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_isa(CPU_AVX512);
}

static void vnni_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    check_isa(CPU_VNNI);
}

// Weights at the ends of their range against activations at theirs: no sum overflows on the way.
static void the_largest_values_do_not_overflow(void **state)
{
    (void)state;
    for (size_t t = 0; t < KIND_COUNT; t++) {
        const struct shape shape = {16, 64};
        const enum weight_type type = kinds[t].type;
        struct fixture f = fixture_of(kinds[t], shape, 8);
        const size_t scale_bytes = panel_scale_bytes(type);
        uint8_t *data = f.weight.panels;
        for (int block = 0; block < 2; block++, data += panel_block_bytes(type)) {
            uint8_t extreme = type == WEIGHT_Q8_0 && block == 0 ? 0 : 0xff;
            memset(data + scale_bytes, extreme, panel_block_bytes(type) - scale_bytes);
        }
        for (int32_t i = 0; i < 8 * 64; i++)
            f.x[i] = i / 64 % 2 == 0 ? 3.5f : -3.5f;
        row_quant_fill_on(CPU_PORTABLE, NULL, f.x, 8, 64, f.form, f.memory, &f.quant);
        float row[64];
        matmul_int8_ref(&f.weight, &f.quant, f.expected, row);
        for (int isa = CPU_PORTABLE; isa <= (int)cpu_isa(); isa++)
            assert_int_equal(run_rows(&f, (enum cpu_isa)isa, NULL, 0, 8), -1);
        fixture_free(&f);
    }
}

static void check_quantizing(unsigned forms)
{
    enum { D_IN = 576 };
    struct rng rng;
    rng_seed(&rng, 32);
    float *x = rows_of(&rng, ROWS_MAX, D_IN);
    x[5] = INFINITY;
    x[D_IN * 9 + 40] = NAN;
    x[D_IN * 10] = x[D_IN * 10 + 1] = -9; // two as large: no spike
    void *a = memory_of(ROWS_MAX, D_IN), *b = memory_of(ROWS_MAX, D_IN);
    struct row_quant plain, fast;
    struct pool *pool = pool_of(3);
    row_quant_fill_on(CPU_PORTABLE, NULL, x, ROWS_MAX, D_IN, forms, a, &plain);
    row_quant_fill_on(CPU_AVX2, pool, x, ROWS_MAX, D_IN, forms, b, &fast);
    const size_t blocks = ROWS_MAX * D_IN / 32;
    assert_memory_equal(plain.wide.q, fast.wide.q, ROWS_MAX * D_IN * sizeof(int16_t));
    assert_memory_equal(plain.wide.minus_sums, fast.wide.minus_sums, blocks * sizeof(int32_t));
    assert_memory_equal(plain.narrow.q, fast.narrow.q, ROWS_MAX * D_IN);
    assert_memory_equal(plain.narrow.minus_sums, fast.narrow.minus_sums, blocks * sizeof(int32_t));
    assert_memory_equal(plain.narrow.offsets, fast.narrow.offsets, blocks * sizeof(float));
    if (forms & ROW_QUANT_NARROW)
        assert_memory_equal(plain.narrow.factors, fast.narrow.factors, blocks * sizeof(uint32_t));
    assert_memory_equal(plain.narrow.spike_counts, fast.narrow.spike_counts,
                        ROWS_MAX * sizeof(int32_t));
    int32_t spikes = 0;
    for (int32_t row = 0; row < ROWS_MAX; row++) {
        size_t first = (size_t)row * (D_IN / 32);
        assert_true(plain.narrow.row_scales[row] == fast.narrow.row_scales[row] ||
                    (isnan(plain.narrow.row_scales[row]) && isnan(fast.narrow.row_scales[row])));
        for (int32_t i = 0; i < plain.narrow.spike_counts[row]; i++) {
            assert_int_equal(plain.narrow.spikes[first + (size_t)i].k,
                             fast.narrow.spikes[first + (size_t)i].k);
            assert_true(plain.narrow.spikes[first + (size_t)i].value ==
                        fast.narrow.spikes[first + (size_t)i].value);
        }
        spikes += plain.narrow.spike_counts[row];
    }
    assert_in_range(spikes, 27, (uintmax_t)blocks); // the rows that were given some
    for (size_t i = 0; i < blocks; i++) {
        assert_true(plain.narrow.scales[i] == fast.narrow.scales[i] ||
                    (isnan(plain.narrow.scales[i]) && isnan(fast.narrow.scales[i])));
        assert_true(plain.wide.scales[i] == fast.wide.scales[i] ||
                    (isnan(plain.wide.scales[i]) && isnan(fast.wide.scales[i])));
    }
    assert_true(isnan(plain.narrow.row_scales[0]) && isnan(plain.narrow.row_scales[9]));
    free(x);
    free(a);
    free(b);
    pool_destroy(pool);
}

static void quantizing_gives_the_same_rows_everywhere(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    check_quantizing(ROW_QUANT_NARROW | ROW_QUANT_WIDE);
    check_quantizing(ROW_QUANT_PAIRS | ROW_QUANT_WIDE);
}

// Two products with 255 and their sum fit 16 bits, and the range is used.
static void pairs_of_one_sign_stay_within_128(void **state)
{
    (void)state;
    enum { M = 4000, D_IN = 64 };
    struct rng rng;
    rng_seed(&rng, 34);
    float *x = normals(&rng, M * D_IN);
    for (int32_t i = 0; i < M * D_IN; i++)
        if (i / D_IN % 3 == 0) // many ties between integers
            x[i] = roundf(x[i] * 8) / 8;
    void *memory = memory_of(M, D_IN);
    struct row_quant quant;
    row_quant_fill(NULL, x, M, D_IN, ROW_QUANT_PAIRS, memory, &quant);
    int32_t largest = 0, single = 0;
    for (int32_t i = 0; i < M * D_IN; i += 2) {
        const int32_t a = quant.narrow.q[i], b = quant.narrow.q[i + 1];
        const int32_t above = (a > 0 ? a : 0) + (b > 0 ? b : 0), below = above - a - b;
        assert_true(above <= 128 && below <= 128);
        largest = above > largest ? above : largest;
        single = a > single ? a : single;
    }
    assert_in_range(largest, 127, 128);
    assert_int_equal(single, 127);
    free(x);
    free(memory);
}

// A block's scale; block: of all rows.
static float narrow_scale(const struct row_quant *quant, int32_t row, int32_t block)
{
    return quant->narrow.row_scales[row] * quant->narrow.scales[block];
}

// A block's scale is a whole number of its row's, two words alike, and little more than it needs.
static void scales_of_4_bits_are_whole_factors_of_the_rows(void **state)
{
    (void)state;
    enum { D_IN = 576, BLOCKS = D_IN / 32 };
    struct rng rng;
    rng_seed(&rng, 35);
    float *x = normals(&rng, ROWS_MAX * D_IN);
    for (int32_t i = 0; i < ROWS_MAX * D_IN; i++)
        x[i] *= exp2f((float)-(i / 32 % BLOCKS)); // the row's last block: 2^-17 of its first
    void *memory = memory_of(ROWS_MAX, D_IN);
    struct row_quant quant;
    row_quant_fill(NULL, x, ROWS_MAX, D_IN, ROW_QUANT_NARROW, memory, &quant);
    for (int32_t row = 0; row < ROWS_MAX; row++) {
        uint32_t largest_factor = 0;
        for (int32_t b = 0; b < BLOCKS; b++) {
            const int32_t block = row * BLOCKS + b;
            const uint32_t words = quant.narrow.factors[block], factor = words & 0xffff;
            float largest = 0;
            for (int32_t k = 0; k < 32; k++)
                largest = fmaxf(largest, fabsf(x[block * 32 + k]));
            assert_int_equal(words >> 16, factor);
            assert_in_range(factor, 1, 32767);
            assert_true(quant.narrow.scales[block] == (float)factor);
            const float needed = largest / 127, scale = narrow_scale(&quant, row, block);
            assert_true(scale >= needed * 0.999999f);
            assert_true(scale <= needed + 1.001f * quant.narrow.row_scales[row]);
            largest_factor = factor > largest_factor ? factor : largest_factor;
        }
        assert_int_equal(largest_factor, 32767);
    }
    free(x);
    free(memory);
}

// The error of an output is at most that of its activations: half a step each, times |w|.
static void the_error_is_that_of_rounding_to_8_bits(void **state)
{
    (void)state;
    enum { D_OUT = 83, D_IN = 576, M = 40 };
    for (size_t t = 0; t < KIND_COUNT; t++) {
        const struct shape shape = {D_OUT, D_IN};
        struct fixture f = fixture_of(kinds[t], shape, M);
        float *exact = floats(M * D_OUT), *w = floats(D_IN);
        matmul_ref(&f.weight, f.x, M, exact, w);
        for (int32_t o = 0; o < D_OUT; o++) {
            weight_row_to_f32(&f.weight, o, w);
            for (int32_t row = 0; row < M; row++) {
                double bound = 0, size = 0;
                for (int32_t k = 0; k < D_IN; k++) {
                    int32_t block = (row * D_IN + k) / 32;
                    float scale = f.form == ROW_QUANT_WIDE ? f.quant.wide.scales[block]
                                                           : narrow_scale(&f.quant, row, block);
                    bound += 0.51 * (double)scale * fabs((double)w[k]);
                    size += fabs((double)w[k] * (double)f.x[row * D_IN + k]);
                }
                double error =
                    fabs((double)exact[row * D_OUT + o] - (double)f.expected[row * D_OUT + o]);
                assert_true(error <= bound + 1e-5 * size);
            }
        }
        free(exact);
        free(w);
        fixture_free(&f);
    }
}

// Without taking spikes out, a value 60 times its neighbours would cost them six bits.
static void a_spike_does_not_coarsen_its_block(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 33);
    float *x = normals(&rng, 32);
    x[7] = 500;
    void *memory = memory_of(1, 32);
    struct row_quant quant;
    row_quant_fill(NULL, x, 1, 32, ROW_QUANT_NARROW, memory, &quant);
    assert_int_equal(quant.narrow.spike_counts[0], 1);
    assert_int_equal(quant.narrow.spikes[0].k, 7);
    assert_true(quant.narrow.spikes[0].value == 500);
    assert_int_equal(quant.narrow.q[7], 0); // k = 7 stands last in its word
    assert_true(narrow_scale(&quant, 0, 0) < 4.0f / 127);
    free(x);
    free(memory);
}

static void a_row_that_is_not_finite_gives_nan(void **state)
{
    (void)state;
    for (size_t i = 0; i < KIND_COUNT * 2 * ((size_t)cpu_isa() + 1); i++) {
        const struct shape shape = {16, 64};
        struct fixture f = fixture_of(kinds[i % KIND_COUNT], shape, 2);
        f.x[3] = i / KIND_COUNT % 2 == 0 ? INFINITY : NAN;
        run_rows(&f, (enum cpu_isa)(i / KIND_COUNT / 2), NULL, 0, 2);
        for (int o = 0; o < 16; o++) {
            assert_true(isnan(f.y[o]));
            assert_false(isnan(f.y[16 + o]));
        }
        fixture_free(&f);
    }
}

static void only_quantized_weights_are_taken(void **state)
{
    (void)state;
    struct weight weight = {.type = WEIGHT_F16};
    assert_false(matmul_int8_takes(&weight));
    for (size_t t = 0; t < KIND_COUNT; t++) {
        weight.type = kinds[t].type;
        assert_true(matmul_int8_takes(&weight));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(portable_gives_the_bits_of_the_reference),
        cmocka_unit_test(avx2_gives_the_bits_of_the_reference),
        cmocka_unit_test(avx512_gives_the_bits_of_the_reference),
        cmocka_unit_test(vnni_gives_the_bits_of_the_reference),
        cmocka_unit_test(the_largest_values_do_not_overflow),
        cmocka_unit_test(quantizing_gives_the_same_rows_everywhere),
        cmocka_unit_test(pairs_of_one_sign_stay_within_128),
        cmocka_unit_test(scales_of_4_bits_are_whole_factors_of_the_rows),
        cmocka_unit_test(what_columns_read_is_asked_for_once),
        cmocka_unit_test(the_error_is_that_of_rounding_to_8_bits),
        cmocka_unit_test(a_spike_does_not_coarsen_its_block),
        cmocka_unit_test(a_row_that_is_not_finite_gives_nan),
        cmocka_unit_test(only_quantized_weights_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

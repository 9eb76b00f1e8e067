// SPDX-License-Identifier: Apache-2.0
// lora_matmul: exact ranks on mixed batches, against the reference, and the same bits for a row
// whatever its company, the instruction set and the threads.
#include "kernel_fixture.h"

#include "base/arena.h"
#include "kernel/kernel_dispatch.h"

#define ADAPTER_COUNT 5
#define LAYER_COUNT 2
#define RANK_MAX 19
#define ROW_COUNT 12
#define GROUP_COUNT 6

static const int32_t ranks[ADAPTER_COUNT] = {4, 0, 1, 19, 6};
static const enum sora_dtype dtypes[ADAPTER_COUNT] = {SORA_F32, SORA_F32, SORA_F16, SORA_I8,
                                                      SORA_BF16};

// Adapters of which only layer 1's up projection is filled, and a batch that uses them.
struct fixture {
    int32_t d_in, d_out;
    struct sora_lora_module modules[ADAPTER_COUNT][LAYER_COUNT * SORA_PROJ_COUNT];
    struct sora_lora loras[ADAPTER_COUNT];
    struct lora_group groups[GROUP_COUNT];
    float *x, *expected, *y, *scratch;
};

// Rows 2 and 7 carry no adapter; group 4 is adapter 3 cut to its first 5 ranks.
static const int32_t group_rows[GROUP_COUNT][4] = {{0, 5, 11}, {1}, {3}, {10, 4}, {6}, {9, 8}};
static const int32_t group_sizes[GROUP_COUNT] = {3, 1, 1, 2, 1, 2};
static const int32_t group_adapters[GROUP_COUNT] = {0, 1, 2, 3, 3, 4};
static const int32_t group_rank_max[GROUP_COUNT] = {0, 0, 8, 0, 5, 0};
static const int32_t group_ranks[GROUP_COUNT] = {4, 0, 1, 19, 5, 6};
#define RANK_SUM (4 * 3 + 1 + 19 * 2 + 5 + 6 * 2)

static void *random_array(struct rng *rng, enum sora_dtype dtype, size_t count)
{
    float *values = normals(rng, count);
    if (dtype == SORA_F32)
        return values;
    if (dtype == SORA_I8) {
        int8_t *bytes = calloc(count + 1, sizeof *bytes);
        assert_non_null(bytes);
        for (size_t i = 0; i < count; i++)
            bytes[i] = (int8_t)fmaxf(-127.0f, fminf(127.0f, rintf(40.0f * values[i])));
        free(values);
        return bytes;
    }
    uint16_t *halves = calloc(count + 1, sizeof *halves);
    assert_non_null(halves);
    for (size_t i = 0; i < count; i++)
        halves[i] = dtype == SORA_F16 ? half_to_f16(values[i]) : half_to_bf16(values[i]);
    free(values);
    return halves;
}

static struct sora_lora_module *module_of(struct fixture *f, int32_t adapter)
{
    return &f->modules[adapter][SORA_PROJ_COUNT + SORA_PROJ_UP];
}

static void fixture_open(struct fixture *f, int32_t d_in, int32_t d_out)
{
    struct rng rng;
    rng_seed(&rng, 20);
    memset(f, 0, sizeof *f);
    f->d_in = d_in;
    f->d_out = d_out;
    for (int32_t i = 0; i < ADAPTER_COUNT; i++) {
        struct sora_lora_module *module = module_of(f, i);
        module->rank = ranks[i];
        module->scale = 0.25f * (float)(i + 1);
        module->dtype = dtypes[i];
        if (ranks[i] > 0) {
            module->a = random_array(&rng, dtypes[i], (size_t)(ranks[i] * d_in));
            module->bt = random_array(&rng, dtypes[i], (size_t)(ranks[i] * d_out));
        }
        if (dtypes[i] == SORA_I8) {
            float *scales = floats((size_t)ranks[i]);
            for (int32_t r = 0; r < ranks[i]; r++)
                scales[r] = (1.0f + 0.1f * (float)r) / 1600.0f;
            module->scales = scales;
        }
        f->loras[i] = (struct sora_lora){LAYER_COUNT, f->modules[i]};
    }
    for (int32_t g = 0; g < GROUP_COUNT; g++)
        f->groups[g] = (struct lora_group){&f->loras[group_adapters[g]], g == 2 ? 0.5f : 1.0f,
                                           group_rank_max[g], group_sizes[g], group_rows[g]};
    const size_t count = (size_t)ROW_COUNT * (size_t)d_out;
    f->x = normals(&rng, (size_t)ROW_COUNT * (size_t)d_in);
    f->scratch = floats(lora_scratch_count(ROW_COUNT, RANK_MAX));
    f->expected = floats(count);
    f->y = floats(count);
    int64_t sum = lora_matmul_ref(f->groups, GROUP_COUNT, 1, SORA_PROJ_UP, f->x, d_in, f->expected,
                                  d_out, f->scratch);
    assert_int_equal(sum, RANK_SUM);
}

static void fixture_close(struct fixture *f)
{
    for (int32_t i = 0; i < ADAPTER_COUNT; i++) {
        free((void *)(uintptr_t)module_of(f, i)->a);
        free((void *)(uintptr_t)module_of(f, i)->bt);
        free((void *)(uintptr_t)module_of(f, i)->scales);
    }
    free(f->x);
    free(f->expected);
    free(f->y);
    free(f->scratch);
}

struct shrinking {
    const struct lora_work *work;
    int32_t task_count;
};

static void shrink_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct shrinking *shrinking = context;
    lora_shrink_task(shrinking->work, index, shrinking->task_count);
}

static void shrink_all(struct pool *pool, const struct lora_work *work)
{
    struct shrinking shrinking = {work, lora_shrink_tasks(work, pool_threads(pool))};
    pool_run(pool, shrinking.task_count, shrink_task, &shrinking);
}

static struct lora_work work_of(const struct fixture *f, const struct lora_group *groups,
                                int32_t group_count)
{
    return (struct lora_work){.groups = groups,
                              .group_count = group_count,
                              .layer = 1,
                              .call_count = 1,
                              .projs = {SORA_PROJ_UP},
                              .x = f->x,
                              .d_in = f->d_in,
                              .scratch = f->scratch};
}

static int64_t run(struct fixture *f, enum cpu_isa isa, struct pool *pool,
                   const struct lora_group *groups, int32_t group_count)
{
    struct lora_work work = work_of(f, groups, group_count);
    for (int32_t i = 0; i < ROW_COUNT * f->d_out; i++)
        f->y[i] = 0;
    alloc_guard_enter();
    int64_t sum = lora_work_init_on(isa, &work);
    shrink_all(pool, &work);
    // In two ranges, as two threads would.
    int32_t middle = f->d_out / 2 / 16 * 16;
    lora_expand_columns(&work, 0, f->y, f->d_out, middle, f->d_out);
    lora_expand_columns(&work, 0, f->y, f->d_out, 0, middle);
    alloc_guard_leave();
    return sum;
}

static const struct {
    int32_t d_in, d_out;
} shapes[] = {{1, 1}, {7, 5}, {16, 64}, {31, 70}, {48, 33}, {64, 50}, {576, 192}, {579, 1537}};
#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])

static void check_against_reference(enum cpu_isa isa)
{
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, shapes[s].d_in, shapes[s].d_out);
        assert_int_equal(run(&f, isa, NULL, f.groups, GROUP_COUNT), RANK_SUM);
        // Sums of d_in products near 1, then of 19 of those, in f32.
        double tolerance = 2e-6 * sqrt((double)shapes[s].d_in) * 4;
        assert_int_equal(values_differ(f.y, f.expected, (size_t)(ROW_COUNT * f.d_out), tolerance),
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

static void avx2_gives_the_bits_of_portable(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, shapes[s].d_in, shapes[s].d_out);
        const size_t count = (size_t)ROW_COUNT * (size_t)f.d_out;
        run(&f, CPU_PORTABLE, NULL, f.groups, GROUP_COUNT);
        float *portable = copy_of(f.y, count);
        run(&f, CPU_AVX2, NULL, f.groups, GROUP_COUNT);
        assert_int_equal(bits_differ(f.y, portable, count), -1);
        free(portable);
        fixture_close(&f);
    }
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, shapes[s].d_in, shapes[s].d_out);
        const size_t count = (size_t)ROW_COUNT * (size_t)f.d_out;
        run(&f, cpu_isa(), NULL, f.groups, GROUP_COUNT);
        float *alone = copy_of(f.y, count);
        for (int32_t threads = 2; threads <= 3; threads++) {
            struct pool *pool = pool_of(threads);
            run(&f, cpu_isa(), pool, f.groups, GROUP_COUNT);
            assert_int_equal(bits_differ(f.y, alone, count), -1);
            pool_destroy(pool);
        }
        free(alone);
        fixture_close(&f);
    }
}

static void a_row_is_the_same_alone_and_in_the_batch(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPE_COUNT; s++) {
        struct fixture f;
        fixture_open(&f, shapes[s].d_in, shapes[s].d_out);
        const size_t d_out = (size_t)f.d_out;
        run(&f, cpu_isa(), NULL, f.groups, GROUP_COUNT);
        float *batch = copy_of(f.y, ROW_COUNT * d_out);
        for (int32_t g = 0; g < GROUP_COUNT; g++)
            for (int32_t i = 0; i < group_sizes[g]; i++) {
                struct lora_group one = f.groups[g];
                one.rows += i;
                one.row_count = 1;
                assert_int_equal(run(&f, cpu_isa(), NULL, &one, 1), group_ranks[g]);
                const size_t at = (size_t)one.rows[0] * d_out;
                assert_int_equal(bits_differ(f.y + at, batch + at, d_out), -1);
            }
        free(batch);
        fixture_close(&f);
    }
}

// Rows without ranks stay as they are, to the bit; the others' ranks are added to what is there.
static void ranks_are_added_to_what_is_there(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 48, 33);
    run(&f, cpu_isa(), NULL, f.groups, GROUP_COUNT);
    float *alone = copy_of(f.y, ROW_COUNT * 33);
    struct lora_work work = work_of(&f, f.groups, GROUP_COUNT);
    for (int32_t i = 0; i < ROW_COUNT * 33; i++)
        f.y[i] = 1000;
    assert_int_equal(lora_work_init(&work), RANK_SUM);
    shrink_all(NULL, &work);
    lora_expand_columns(&work, 0, f.y, 33, 0, 33);
    for (int32_t row = 0; row < ROW_COUNT; row++)
        for (int32_t c = 0; c < 33; c++) {
            const float added = alone[row * 33 + c];
            if (row == 1 || row == 2 || row == 7)
                assert_true(added == 0 && f.y[row * 33 + c] == 1000);
            else
                assert_float_equal(f.y[row * 33 + c], 1000 + added, 1e-3 + 1e-5 * fabsf(added));
        }
    const int32_t touched[] = {0, 3, 4, 6, 8};
    for (size_t i = 0; i < 5; i++)
        assert_true(fabsf(alone[touched[i] * 33]) > 1e-3f);
    free(alone);
    fixture_close(&f);
}

static void no_rank_means_no_work(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 48, 33);
    struct lora_work work = {.groups = &f.groups[1], .group_count = 1, .layer = 1, .call_count = 1};
    work.projs[0] = SORA_PROJ_UP;
    assert_int_equal(lora_work_init(&work), 0); // an adapter of rank 0
    work.groups = f.groups;
    work.group_count = GROUP_COUNT;
    work.layer = 0;
    assert_int_equal(lora_work_init(&work), 0); // a layer without ranks
    work.group_count = 0;
    assert_int_equal(lora_work_init(&work), 0);
    fixture_close(&f);
}

static void modules_of_one_x_run_together(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 48, 33);
    run(&f, cpu_isa(), NULL, f.groups, GROUP_COUNT);
    float *alone = copy_of(f.y, ROW_COUNT * 33);
    for (int32_t i = 0; i < ADAPTER_COUNT; i++) // a second module, the same but for its scale
        f.modules[i][SORA_PROJ_COUNT + SORA_PROJ_GATE] = *module_of(&f, i);
    f.modules[0][SORA_PROJ_COUNT + SORA_PROJ_GATE].scale *= 2;
    struct pool *pool = pool_of(3);
    float *scratch = floats(lora_scratch_count(ROW_COUNT, RANK_MAX));
    struct lora_work work = {.groups = f.groups,
                             .group_count = GROUP_COUNT,
                             .layer = 1,
                             .call_count = 3,
                             .projs = {SORA_PROJ_GATE, SORA_PROJ_Q, SORA_PROJ_UP},
                             .x = f.x,
                             .d_in = 48,
                             .scratch = scratch};
    memset(f.y, 0, ROW_COUNT * 33 * sizeof *f.y);
    assert_int_equal(lora_work_init(&work), 2 * RANK_SUM);
    assert_int_equal(work.part_counts[1], 0);
    shrink_all(pool, &work);
    lora_expand_columns(&work, 2, f.y, 33, 0, 33);
    assert_int_equal(bits_differ(f.y, alone, ROW_COUNT * 33), -1);
    memset(f.y, 0, ROW_COUNT * 33 * sizeof *f.y);
    lora_expand_columns(&work, 0, f.y, 33, 0, 33);
    for (int32_t row = 0; row < ROW_COUNT; row++) // doubling is exact
        for (int32_t c = 0; c < 33; c++)
            assert_true(f.y[row * 33 + c] ==
                        alone[row * 33 + c] * (row == 0 || row == 5 || row == 11 ? 2.0f : 1.0f));
    free(alone);
    free(scratch);
    pool_destroy(pool);
    fixture_close(&f);
}

static void a_rank_limit_equals_an_adapter_cut_to_it(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 31, 70);
    run(&f, cpu_isa(), NULL, &f.groups[4], 1);
    float *limited = copy_of(f.y, ROW_COUNT * 70);
    struct sora_lora_module *module = module_of(&f, 3);
    const int8_t *all = module->bt;
    int8_t *cut = calloc(5 * 70, 1); // of each 32 columns, then of the last 6, the first 5 ranks
    assert_non_null(cut);
    memcpy(cut, all, 5 * 32);
    memcpy(cut + 5 * 32, all + 19 * 32, 5 * 32);
    memcpy(cut + 5 * 64, all + 19 * 64, 5 * 6);
    module->rank = 5;
    module->bt = cut;
    struct lora_group whole = f.groups[4];
    whole.rank_max = 0;
    run(&f, cpu_isa(), NULL, &whole, 1);
    assert_int_equal(bits_differ(f.y, limited, ROW_COUNT * 70), -1);
    module->bt = all;
    free(cut);
    free(limited);
    fixture_close(&f);
}

static void expect_region(const struct matmul_region *region, size_t at, size_t bytes,
                          size_t before, const uint8_t *bt)
{
    assert_ptr_equal(region->first, bt + at);
    assert_int_equal(region->bytes, bytes);
    assert_int_equal(region->before, before);
}

// Of modules in 8 bits: all ranks of some columns are one piece, the first ranks one of each tile.
static void what_columns_read_is_named(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 31, 70);
    struct lora_work work = work_of(&f, f.groups, GROUP_COUNT);
    struct matmul_region regions[5];
    assert_int_equal(lora_work_init(&work), RANK_SUM);
    const uint8_t *bt = module_of(&f, 3)->bt; // of 19 ranks, in one group all, in another 5
    assert_int_equal(lora_expand_reads(&work, 0, 16, 70, regions, 5), 4);
    expect_region(&regions[0], 19 * 16, 19 * 54, 0, bt);
    expect_region(&regions[1], 0, 5 * 32, 19 * 54, bt);
    expect_region(&regions[2], 19 * 32, 5 * 32, 19 * 54 + 5 * 32, bt);
    expect_region(&regions[3], 19 * 64, 5 * 6, 19 * 54 + 5 * 64, bt);
    assert_int_equal(lora_expand_reads(&work, 0, 16, 70, regions, 2), 2);
    assert_int_equal(lora_expand_reads(&work, 0, 16, 70, regions, 0), 0);
    fixture_close(&f);
}

// Rows in several groups: the bits of one adapter that has all ranks, in the groups' order.
static void groups_that_share_rows_add_up_in_their_order(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 31, 70);
    const size_t first = 4, second = 3, count = (size_t)ROW_COUNT * 70;
    struct sora_lora_module *four = module_of(&f, 0), *six = module_of(&f, 4);
    float *a = floats((first + second) * 31), *bt = floats((first + second) * 70);
    for (size_t i = 0; i < first * 31; i++)
        a[i] = ((const float *)four->a)[i];
    for (size_t i = 0; i < second * 31; i++) // half the scale, as a power of two
        a[first * 31 + i] = half_from_bf16(((const uint16_t *)six->a)[i]) * 0.5f;
    for (size_t i = 0; i < first * 70; i++)
        bt[i] = ((const float *)four->bt)[i];
    for (size_t i = 0; i < second * 70; i++)
        bt[first * 70 + i] = half_from_bf16(((const uint16_t *)six->bt)[i]);
    four->scale = six->scale = 2.0f;
    struct lora_group both[2] = {f.groups[0], f.groups[0]};
    both[1].lora = &f.loras[4];
    both[1].scale = 0.5f;
    both[1].rank_max = (int32_t)second;
    assert_int_equal(run(&f, cpu_isa(), NULL, both, 2), (first + second) * 3);
    float *composed = copy_of(f.y, count);
    struct lora_group turned[2] = {both[1], both[0]};
    run(&f, cpu_isa(), NULL, turned, 2);
    assert_int_not_equal(bits_differ(f.y, composed, count), -1); // the order is what it claims
    // A first part without ranks here leaves the second as if it were alone.
    struct lora_group empty_first[2] = {both[0], both[1]};
    empty_first[0].lora = &f.loras[1];
    run(&f, cpu_isa(), NULL, empty_first, 2);
    float *after_empty = copy_of(f.y, count);
    run(&f, cpu_isa(), NULL, &turned[0], 1);
    assert_int_equal(bits_differ(f.y, after_empty, count), -1);
    free(after_empty);
    struct sora_lora_module modules[LAYER_COUNT * SORA_PROJ_COUNT] = {{.rank = 0}};
    modules[SORA_PROJ_COUNT + SORA_PROJ_UP] = (struct sora_lora_module){
        .rank = (int32_t)(first + second), .scale = 2.0f, .dtype = SORA_F32, .a = a, .bt = bt};
    const struct sora_lora lora = {LAYER_COUNT, modules};
    both[0].lora = &lora;
    run(&f, cpu_isa(), NULL, both, 1);
    assert_int_equal(bits_differ(f.y, composed, count), -1);
    free(a);
    free(bt);
    free(composed);
    fixture_close(&f);
}

static void a_wrong_scale_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    fixture_open(&f, 576, 192);
    f.groups[3].scale = 1.001f;
    run(&f, cpu_isa(), NULL, f.groups, GROUP_COUNT);
    assert_int_not_equal(values_differ(f.y, f.expected, ROW_COUNT * 192, 2e-4), -1);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(portable_equals_the_reference),
        cmocka_unit_test(avx2_equals_the_reference),
        cmocka_unit_test(avx2_gives_the_bits_of_portable),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(a_row_is_the_same_alone_and_in_the_batch),
        cmocka_unit_test(ranks_are_added_to_what_is_there),
        cmocka_unit_test(no_rank_means_no_work),
        cmocka_unit_test(modules_of_one_x_run_together),
        cmocka_unit_test(a_rank_limit_equals_an_adapter_cut_to_it),
        cmocka_unit_test(what_columns_read_is_named),
        cmocka_unit_test(groups_that_share_rows_add_up_in_their_order),
        cmocka_unit_test(a_wrong_scale_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

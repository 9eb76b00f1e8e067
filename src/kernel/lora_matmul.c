// SPDX-License-Identifier: Apache-2.0
// lora_matmul: the split of a mixed batch over threads, the portable body and the reference. One
// caller at a time per pool; the scratch is the caller's. Allocates nothing.
#include "kernel/lora_matmul.h"

#include <stdbool.h>

#include "base/assert.h"

#define LORA_SUFFIX portable
#include "kernel/lora_body.h"

// Outputs that are dealt out together in the expand phase.
#define COLUMN_VALUES 64
// Multiply-adds of a phase below which waking other threads costs more than it saves.
#define SHARED_WORK_MIN 32768

size_t lora_matmul_scratch_count(int32_t m, int32_t rank_max)
{
    ASSERT(m >= 0 && rank_max >= 0);
    return (size_t)m * (size_t)rank_max;
}

static const struct sora_lora_module *module_of(const struct lora_group *group, int32_t layer,
                                                enum sora_proj proj)
{
    ASSERT(layer >= 0 && layer < group->lora->layer_count);
    return &group->lora->modules[(size_t)layer * SORA_PROJ_COUNT + (size_t)proj];
}

static int32_t rank_of(const struct lora_group *group, const struct sora_lora_module *module)
{
    if (group->rank_max > 0 && group->rank_max < module->rank)
        return group->rank_max;
    return module->rank;
}

struct lora_split {
    const struct lora_group *groups;
    int32_t group_count, layer;
    enum sora_proj proj;
    const float *x;
    int32_t d_in;
    float *y;
    int32_t d_out;
    float *scratch;
    lora_shrink_fn *shrink;
    lora_expand_fn *expand;
    bool expanding; // which phase
    int64_t cost;   // of the phase, as unit_cost counts
    int32_t tasks;
};

// A phase is a row of units: a rank of a group when shrinking, COLUMN_VALUES outputs of a group
// when expanding. A unit costs what it reads of the adapter and once more for each row.
static int32_t unit_count(const struct lora_split *split, int32_t rank)
{
    if (rank == 0)
        return 0;
    return split->expanding ? (split->d_out + COLUMN_VALUES - 1) / COLUMN_VALUES : rank;
}

static int64_t unit_cost(const struct lora_split *split, int32_t rank, int32_t row_count)
{
    return (int64_t)(row_count + 1) * (split->expanding ? rank : 1);
}

static void run_units(const struct lora_split *split, const struct lora_group *group,
                      const struct sora_lora_module *module, int32_t rank, float *t, int32_t first,
                      int32_t end)
{
    if (split->expanding) {
        const struct lora_expand work = {module->dtype, module->bt,       t,        rank,
                                         group->rows,   group->row_count, split->y, split->d_out};
        int32_t column_end = end * COLUMN_VALUES;
        split->expand(&work, first * COLUMN_VALUES,
                      column_end < split->d_out ? column_end : split->d_out);
        return;
    }
    const struct lora_shrink work = {module->dtype,
                                     module->a,
                                     split->x,
                                     split->d_in,
                                     group->rows,
                                     group->row_count,
                                     group->scale * module->scale,
                                     t,
                                     rank};
    split->shrink(&work, first, end);
}

// Of `count` units that cost `each`, those that start before `offset`.
static int32_t units_before(int64_t offset, int64_t each, int32_t count)
{
    if (offset <= 0)
        return 0;
    int64_t units = (offset + each - 1) / each;
    return units < count ? (int32_t)units : count;
}

// The units whose cost, all before them added up, starts in this task's share.
static void run_share(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_split *split = context;
    const int64_t low = split->cost * index / split->tasks;
    const int64_t high = split->cost * (index + 1) / split->tasks;
    int64_t passed = 0;
    float *t = split->scratch;
    for (int32_t g = 0; g < split->group_count && passed < high; g++) {
        const struct lora_group *group = &split->groups[g];
        const struct sora_lora_module *module = module_of(group, split->layer, split->proj);
        const int32_t rank = rank_of(group, module), count = unit_count(split, rank);
        const int64_t each = unit_cost(split, rank, group->row_count);
        if (count == 0)
            continue;
        int32_t first = units_before(low - passed, each, count);
        int32_t end = units_before(high - passed, each, count);
        if (first < end)
            run_units(split, group, module, rank, t, first, end);
        passed += each * count;
        t += (size_t)rank * (size_t)group->row_count;
    }
}

static void run_phase(struct pool *pool, struct lora_split *split, bool expanding,
                      int64_t multiply_adds)
{
    split->expanding = expanding;
    split->cost = 0;
    for (int32_t g = 0; g < split->group_count; g++) {
        const struct lora_group *group = &split->groups[g];
        int32_t rank = rank_of(group, module_of(group, split->layer, split->proj));
        split->cost += unit_count(split, rank) * unit_cost(split, rank, group->row_count);
    }
    // Two shares for each thread even out threads of unequal speed.
    split->tasks = multiply_adds < SHARED_WORK_MIN ? 1 : 2 * pool_threads(pool);
    pool_run(split->tasks == 1 ? NULL : pool, split->tasks, run_share, split);
}

int64_t lora_matmul_on(enum cpu_isa isa, struct pool *pool, const struct lora_group *groups,
                       int32_t group_count, int32_t layer, enum sora_proj proj, const float *x,
                       int32_t d_in, float *y, int32_t d_out, float *scratch)
{
    int64_t rank_sum = 0;
    for (int32_t g = 0; g < group_count; g++)
        rank_sum +=
            (int64_t)rank_of(&groups[g], module_of(&groups[g], layer, proj)) * groups[g].row_count;
    if (rank_sum == 0)
        return 0;
    struct lora_split split = {
        .groups = groups,
        .group_count = group_count,
        .layer = layer,
        .proj = proj,
        .x = x,
        .d_in = d_in,
        .y = y,
        .d_out = d_out,
        .scratch = scratch,
        .shrink = isa == CPU_PORTABLE ? lora_shrink_portable : lora_shrink_avx2,
        .expand = isa == CPU_PORTABLE ? lora_expand_portable : lora_expand_avx2,
    };
    run_phase(pool, &split, false, rank_sum * d_in);
    run_phase(pool, &split, true, rank_sum * d_out);
    return rank_sum;
}

int64_t lora_matmul(struct pool *pool, const struct lora_group *groups, int32_t group_count,
                    int32_t layer, enum sora_proj proj, const float *x, int32_t d_in, float *y,
                    int32_t d_out, float *scratch)
{
    return lora_matmul_on(cpu_isa(), pool, groups, group_count, layer, proj, x, d_in, y, d_out,
                          scratch);
}

static double element_at(enum sora_dtype dtype, const void *array, size_t index)
{
    if (dtype == SORA_F32)
        return ((const float *)array)[index];
    uint16_t bits = ((const uint16_t *)array)[index];
    return dtype == SORA_F16 ? half_from_f16(bits) : half_from_bf16(bits);
}

static void row_ref(const struct sora_lora_module *module, int32_t rank, double scale,
                    const float *x, size_t d_in, float *y, size_t d_out, float *t)
{
    for (size_t r = 0; r < (size_t)rank; r++) {
        double sum = 0;
        for (size_t k = 0; k < d_in; k++)
            sum += element_at(module->dtype, module->a, r * d_in + k) * (double)x[k];
        t[r] = (float)(scale * sum);
    }
    for (size_t o = 0; o < d_out; o++) {
        double sum = y[o];
        for (size_t r = 0; r < (size_t)rank; r++)
            sum += (double)t[r] * element_at(module->dtype, module->bt, r * d_out + o);
        y[o] = (float)sum;
    }
}

int64_t lora_matmul_ref(const struct lora_group *groups, int32_t group_count, int32_t layer,
                        enum sora_proj proj, const float *x, int32_t d_in, float *y, int32_t d_out,
                        float *scratch)
{
    int64_t rank_sum = 0;
    for (int32_t g = 0; g < group_count; g++) {
        const struct lora_group *group = &groups[g];
        const struct sora_lora_module *module = module_of(group, layer, proj);
        int32_t rank = rank_of(group, module);
        rank_sum += (int64_t)rank * group->row_count;
        for (int32_t i = 0; i < group->row_count && rank > 0; i++) {
            size_t row = (size_t)group->rows[i];
            row_ref(module, rank, (double)group->scale * (double)module->scale,
                    x + row * (size_t)d_in, (size_t)d_in, y + row * (size_t)d_out, (size_t)d_out,
                    scratch);
        }
    }
    return rank_sum;
}

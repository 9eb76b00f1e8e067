// SPDX-License-Identifier: Apache-2.0
// lora_matmul: the split of a mixed batch over threads, the portable body and the reference. One
// caller at a time per work; the scratch is the caller's. Allocates nothing.
#include "kernel/lora_matmul.h"

#include <stdbool.h>
#include <string.h>

#include "base/assert.h"

#define LORA_SUFFIX portable
#include "kernel/lora_body.h"

// Multiply-adds below which sharing costs more than it saves.
#define SHARED_WORK_MIN 32768
// Groups ahead whose columns are asked for: what one reads is a few lines here and there, too short
// for the hardware to see.
#define EXPAND_AHEAD 2

size_t lora_scratch_count(int32_t m, int32_t rank_max)
{
    ASSERT(m >= 0 && rank_max >= 0);
    return (size_t)LORA_CALLS_MAX * LORA_PARTS_MAX * (size_t)m * (size_t)rank_max;
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

// A rank costs what it reads of the adapter and once more for each row.
static int64_t rank_cost(const struct lora_group *group)
{
    return group->row_count + 1;
}

int64_t lora_work_init_on(enum cpu_isa isa, struct lora_work *work)
{
    ASSERT(work->call_count > 0 && work->call_count <= LORA_CALLS_MAX);
    int64_t total = 0;
    work->isa = isa;
    work->shrink_cost = 0;
    float *t = work->scratch;
    for (int32_t c = 0; c < work->call_count; c++) {
        work->t[c] = t;
        work->rank_sums[c] = 0;
        for (int32_t g = 0; g < work->group_count; g++) {
            const struct lora_group *group = &work->groups[g];
            int32_t rank = rank_of(group, module_of(group, work->layer, work->projs[c]));
            work->rank_sums[c] += (int64_t)rank * group->row_count;
            work->shrink_cost += rank * rank_cost(group);
        }
        if (work->rank_sums[c] > 0)
            t += work->rank_sums[c];
        total += work->rank_sums[c];
    }
    return total;
}

int64_t lora_work_init(struct lora_work *work)
{
    return lora_work_init_on(cpu_isa(), work);
}

// --- shrink ---

// Of `count` ranks that cost `each`, those that start before `offset`.
static int32_t ranks_before(int64_t offset, int64_t each, int32_t count)
{
    if (offset <= 0)
        return 0;
    int64_t ranks = (offset + each - 1) / each;
    return ranks < count ? (int32_t)ranks : count;
}

static void shrink_ranks(const struct lora_work *work, const struct lora_group *group,
                         const struct sora_lora_module *module, int32_t rank, float *t,
                         int32_t first, int32_t end)
{
    const struct lora_shrink part = {module->dtype,
                                     module->a,
                                     work->x,
                                     work->d_in,
                                     group->rows,
                                     group->row_count,
                                     module->scales,
                                     group->scale * module->scale,
                                     t,
                                     rank};
    (work->isa == CPU_PORTABLE ? lora_shrink_portable : lora_shrink_avx2)(&part, first, end);
}

static void fetch(enum sora_dtype dtype, const void *array, size_t first, size_t end)
{
    const size_t width = dtype == SORA_F32 ? sizeof(float) : dtype == SORA_I8 ? 1 : 2;
    for (size_t at = first * width; at < end * width; at += 64)
        __builtin_prefetch((const uint8_t *)array + at, 0, 3);
}

// Asks for the ranks of a group whose cost starts in [low, high).
static void fetch_ranks(const struct lora_work *work, int32_t call, int32_t g, int64_t low,
                        int64_t high)
{
    const struct lora_group *group = &work->groups[g];
    const struct sora_lora_module *module = module_of(group, work->layer, work->projs[call]);
    const int32_t rank = rank_of(group, module);
    const size_t d_in = (size_t)work->d_in;
    const int32_t first = ranks_before(low, rank_cost(group), rank);
    const int32_t end = ranks_before(high, rank_cost(group), rank);
    fetch(module->dtype, module->a, (size_t)first * d_in, (size_t)end * d_in);
}

// The ranks whose cost, all before them added up, starts in this task's share: threads get equal
// work, however ranks are spread over the adapters.
void lora_shrink_task(const struct lora_work *work, int32_t index, int32_t task_count)
{
    ASSERT(index >= 0 && index < task_count);
    const int64_t low = work->shrink_cost * index / task_count;
    const int64_t high = work->shrink_cost * (index + 1) / task_count;
    int64_t passed = 0;
    for (int32_t c = 0; c < work->call_count; c++) {
        float *t = work->t[c];
        for (int32_t g = 0; g < work->group_count && passed < high; g++) {
            const struct lora_group *group = &work->groups[g];
            const struct sora_lora_module *module = module_of(group, work->layer, work->projs[c]);
            const int32_t rank = rank_of(group, module);
            const int64_t each = rank_cost(group);
            int32_t first = ranks_before(low - passed, each, rank);
            int32_t end = ranks_before(high - passed, each, rank);
            if (g + 1 < work->group_count)
                fetch_ranks(work, c, g + 1, low - passed - each * rank,
                            high - passed - each * rank);
            if (first < end)
                shrink_ranks(work, group, module, rank, t, first, end);
            passed += each * rank;
            t += (size_t)rank * (size_t)group->row_count;
        }
    }
}

int32_t lora_shrink_tasks(const struct lora_work *work, int32_t threads)
{
    int64_t rank_sum = 0;
    for (int32_t c = 0; c < work->call_count; c++)
        rank_sum += work->rank_sums[c];
    // Two shares for each thread even out threads of unequal speed.
    return rank_sum * work->d_in < SHARED_WORK_MIN ? 1 : 2 * threads;
}

// --- expand ---

// Asks for columns [first, end) of a group's module.
static void fetch_columns(const struct lora_work *work, int32_t call, int32_t g, int32_t d_out,
                          int32_t first, int32_t end)
{
    const struct lora_group *group = &work->groups[g];
    const struct sora_lora_module *module = module_of(group, work->layer, work->projs[call]);
    for (int32_t r = 0; r < rank_of(group, module); r++) {
        const size_t row = (size_t)r * (size_t)d_out;
        fetch(module->dtype, module->bt, row + (size_t)first, row + (size_t)end);
    }
}

void lora_expand_columns(const struct lora_work *work, int32_t call, float *y, int32_t d_out,
                         int32_t first, int32_t end)
{
    ASSERT(call >= 0 && call < work->call_count && first >= 0 && end <= d_out);
    const float *t = work->t[call];
    for (int32_t g = 0; g < work->group_count; g++) {
        const struct lora_group *group = &work->groups[g];
        const struct sora_lora_module *module = module_of(group, work->layer, work->projs[call]);
        const int32_t rank = rank_of(group, module);
        if (g + EXPAND_AHEAD < work->group_count)
            fetch_columns(work, call, g + EXPAND_AHEAD, d_out, first, end);
        if (rank == 0)
            continue;
        const struct lora_expand part = {module->dtype, module->bt,       t, rank,
                                         group->rows,   group->row_count, y, d_out};
        (work->isa == CPU_PORTABLE ? lora_expand_portable : lora_expand_avx2)(&part, first, end);
        t += (size_t)rank * (size_t)group->row_count;
    }
}

static double element_at(enum sora_dtype dtype, const void *array, size_t index)
{
    if (dtype == SORA_F32)
        return ((const float *)array)[index];
    if (dtype == SORA_I8)
        return ((const int8_t *)array)[index];
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
        t[r] = (float)(scale * sum * (module->scales != NULL ? (double)module->scales[r] : 1.0));
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

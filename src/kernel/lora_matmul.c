// SPDX-License-Identifier: Apache-2.0
// lora_matmul: the split of a mixed batch over threads, the portable body and the reference. One
// caller at a time per work; the scratch is the caller's. Allocates nothing.
#include "kernel/lora_matmul.h"

#include <stdbool.h>
#include <string.h>

#include "base/assert.h"
#include "kernel/dtype.h"

#define LORA_SUFFIX portable
#include "kernel/lora_body.h"

// Multiply-adds below which sharing costs more than it saves.
#define SHARED_WORK_MIN 32768

// Parts ahead whose columns are asked for: what one reads is a few lines here and there, too short
// for the hardware to see.
#define EXPAND_AHEAD 2

_Static_assert(sizeof(struct lora_part) == 64, "a part is a cache line");

size_t lora_scratch_count(int32_t m, int32_t rank_max)
{
    ASSERT(m >= 0 && rank_max >= 0);
    const size_t parts = (size_t)LORA_CALLS_MAX * LORA_PARTS_MAX * (size_t)m;
    // 16: to start at a cache line.
    return 16 + parts * (sizeof(struct lora_part) / sizeof(float) + (size_t)rank_max);
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
static int64_t rank_cost(const struct lora_part *part)
{
    return part->row_count + 1;
}

// The modules of a call that have ranks; t follows.
static void list_parts(struct lora_work *work, int32_t call)
{
    int32_t count = 0;
    for (int32_t g = 0; g < work->group_count; g++) {
        const struct lora_group *group = &work->groups[g];
        const struct sora_lora_module *module = module_of(group, work->layer, work->projs[call]);
        const int32_t rank = rank_of(group, module);
        if (rank == 0)
            continue;
        struct lora_part *part = &work->parts[call][count++];
        *part = (struct lora_part){.a = module->a,
                                   .bt = module->bt,
                                   .scales = module->scales,
                                   .rows = group->rows,
                                   .scale = group->scale * module->scale,
                                   .rank = rank,
                                   .row_count = group->row_count,
                                   .rank_stored = module->rank,
                                   .dtype = module->dtype};
        work->rank_sum += (int64_t)rank * part->row_count;
        work->shrink_cost += rank * rank_cost(part);
    }
    work->part_counts[call] = count;
}

int64_t lora_work_init_on(enum cpu_isa isa, struct lora_work *work)
{
    ASSERT(work->call_count > 0 && work->call_count <= LORA_CALLS_MAX);
    work->isa = isa;
    work->shrink_cost = work->rank_sum = 0;
    const uintptr_t line = ((uintptr_t)work->scratch + 63) & ~(uintptr_t)63;
    struct lora_part *parts = (struct lora_part *)line;
    for (int32_t c = 0; c < work->call_count; c++) {
        work->parts[c] = parts;
        list_parts(work, c);
        parts += work->part_counts[c];
    }
    float *t = (float *)(void *)parts;
    for (int32_t c = 0; c < work->call_count; c++)
        for (int32_t i = 0; i < work->part_counts[c]; i++) {
            struct lora_part *part = &work->parts[c][i];
            part->t = t;
            t += (size_t)part->rank * (size_t)part->row_count;
        }
    return work->rank_sum;
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

// Asks for the ranks of a part whose cost starts in [low, high).
static void fetch_ranks(const struct lora_work *work, const struct lora_part *part, int64_t low,
                        int64_t high)
{
    const size_t row = (size_t)work->d_in * dtype_bytes(part->dtype);
    const size_t first = (size_t)ranks_before(low, rank_cost(part), part->rank) * row;
    const size_t end = (size_t)ranks_before(high, rank_cost(part), part->rank) * row;
    for (size_t at = first; at < end; at += 64)
        __builtin_prefetch((const uint8_t *)part->a + at, 0, 3);
}

// The ranks whose cost, all before them added up, starts in this task's share: threads get equal
// work, however ranks are spread over the adapters.
void lora_shrink_task(const struct lora_work *work, int32_t index, int32_t task_count)
{
    ASSERT(index >= 0 && index < task_count);
    const int64_t low = work->shrink_cost * index / task_count;
    const int64_t high = work->shrink_cost * (index + 1) / task_count;
    int64_t passed = 0;
    for (int32_t c = 0; c < work->call_count; c++)
        for (int32_t i = 0; i < work->part_counts[c] && passed < high; i++) {
            const struct lora_part *part = &work->parts[c][i];
            const int64_t each = rank_cost(part), next = passed + each * part->rank;
            const int32_t first = ranks_before(low - passed, each, part->rank);
            const int32_t end = ranks_before(high - passed, each, part->rank);
            const struct lora_shrink shrink = {part, work->x, work->d_in};
            if (i + 1 < work->part_counts[c])
                fetch_ranks(work, part + 1, low - next, high - next);
            if (first < end)
                (work->isa == CPU_PORTABLE ? lora_shrink_portable : lora_shrink_avx2)(&shrink,
                                                                                      first, end);
            passed = next;
        }
}

int32_t lora_shrink_tasks(const struct lora_work *work, int32_t threads)
{
    // Two shares for each thread even out threads of unequal speed.
    return work->rank_sum * work->d_in < SHARED_WORK_MIN ? 1 : 2 * threads;
}

// --- expand ---

int32_t lora_expand_reads(const struct lora_work *work, int32_t call, int32_t first, int32_t end,
                          struct matmul_region *regions, int32_t max)
{
    int32_t count = 0;
    size_t before = 0;
    for (int32_t i = 0; i < work->part_counts[call]; i++) {
        const struct lora_part *part = &work->parts[call][i];
        if (part->dtype != SORA_I8)
            continue;
        // All ranks of some columns lie together; if only the first are used, tile by tile.
        const bool whole = part->rank == part->rank_stored;
        const int32_t tile = SORA_LORA_I8_COLUMNS, from = whole ? first : first / tile * tile;
        const int32_t each = whole ? end - first : tile;
        for (int32_t o = from; o < end && count < max; o += each) {
            const int32_t columns = end - o < each ? end - o : each;
            const size_t bytes = (size_t)columns * (size_t)part->rank;
            const uint8_t *at = (const uint8_t *)part->bt + (size_t)o * (size_t)part->rank_stored;
            regions[count++] = (struct matmul_region){at, bytes, before};
            before += bytes;
        }
    }
    return count;
}

// Asks for columns [first, end) of a part that has them as [rank, d_out].
static void fetch_columns(const struct lora_part *part, int32_t d_out, int32_t first, int32_t end)
{
    const size_t width = dtype_bytes(part->dtype), stride = (size_t)d_out * width;
    const uint8_t *row = (const uint8_t *)part->bt;
    for (int32_t r = 0; r < part->rank; r++, row += stride)
        for (size_t at = (size_t)first * width; at < (size_t)end * width; at += 64)
            __builtin_prefetch(row + at, 0, 3);
}

void lora_expand_columns(const struct lora_work *work, int32_t call, float *y, int32_t d_out,
                         int32_t first, int32_t end)
{
    ASSERT(call >= 0 && call < work->call_count && first >= 0 && end <= d_out);
    ASSERT(first % VEC_LANES == 0);
    for (int32_t i = 0; i < work->part_counts[call]; i++) {
        const struct lora_part *part = &work->parts[call][i];
        const struct lora_expand expand = {part, y, d_out};
        if (i + EXPAND_AHEAD < work->part_counts[call] && part[EXPAND_AHEAD].dtype != SORA_I8)
            fetch_columns(part + EXPAND_AHEAD, d_out, first, end);
        (work->isa == CPU_PORTABLE ? lora_expand_portable : lora_expand_avx2)(&expand, first, end);
    }
}

// Where a module has element o of row r of bt.
static size_t bt_index(const struct sora_lora_module *module, size_t d_out, size_t r, size_t o)
{
    if (module->dtype != SORA_I8)
        return r * d_out + o;
    const size_t tile = o / SORA_LORA_I8_COLUMNS * SORA_LORA_I8_COLUMNS, left = d_out - tile;
    const size_t width = left < SORA_LORA_I8_COLUMNS ? left : SORA_LORA_I8_COLUMNS;
    return tile * (size_t)module->rank + r * width + (o - tile);
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
            sum +=
                (double)t[r] * element_at(module->dtype, module->bt, bt_index(module, d_out, r, o));
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

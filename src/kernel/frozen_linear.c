// SPDX-License-Identifier: Apache-2.0
// Products with frozen base matrices, see frozen_linear.h.
#include "kernel/frozen_linear.h"

#include "base/assert.h"
#include "kernel/panel.h"
#include "kernel/tile_product.h"
#include "kernel/weight_tile.h"

// Rows of a task: enough to pay for unpacking its columns, few enough that their part of x stays in
// the second cache while one panel after another passes.
enum { ROW_BLOCK = 288 };
enum { TASK_PANELS = 4 }; // of the forward: a task writes whole cache lines, a few hundred kflop up

struct frozen_job {
    const struct frozen_part *parts;
    int32_t part_count;
    const float *x;
    float *dx;
    int32_t n, rows_each, row_blocks;
    float *scratch;
};

// The rows of one task and where it may unpack to.
struct frozen_task {
    int32_t row, rows;
    float *unpacked; // [2][TILE_DEPTH][16]
};

enum { SCRATCH_EACH = 2 * TILE_DEPTH * TILE_COLUMNS };

size_t frozen_linear_scratch_count(int32_t threads)
{
    return (size_t)threads * SCRATCH_EACH;
}

// Even blocks, so that the last one is no sliver.
static void split_rows(struct frozen_job *job)
{
    const int32_t blocks = tile_pieces(job->n, ROW_BLOCK);
    job->rows_each = tile_pieces(tile_pieces(job->n, blocks), 12) * 12;
    job->row_blocks = tile_pieces(job->n, job->rows_each);
}

static struct frozen_task task_at(const struct frozen_job *job, int32_t block, int32_t thread)
{
    struct frozen_task task = {.row = block * job->rows_each};
    task.rows = tile_smaller(job->rows_each, job->n - task.row);
    task.unpacked = job->scratch + (size_t)thread * SCRATCH_EACH;
    return task;
}

// k of one step: even parts of whole blocks of quants.
static int32_t depth_of(int32_t k_count)
{
    const int32_t each = tile_pieces(k_count, tile_pieces(k_count, TILE_DEPTH));
    return tile_pieces(each, PANEL_BLOCK_VALUES) * PANEL_BLOCK_VALUES;
}

static void add_bias(const struct frozen_part *part, const struct frozen_task *task, int32_t first,
                     int32_t columns)
{
    const size_t d_out = (size_t)part->weight->d_out;
    for (int32_t i = 0; part->bias != NULL && i < task->rows; i++) {
        float *y = part->y + (size_t)(task->row + i) * d_out;
        for (int32_t j = first; j < first + columns; j++)
            y[j] += part->bias[j];
    }
}

static void forward_panel(const struct frozen_job *job, const struct frozen_part *part,
                          const struct frozen_task *task, int32_t panel)
{
    const struct weight *weight = part->weight;
    const int32_t first = panel * WEIGHT_PANEL_ROWS, depth = depth_of(weight->d_in);
    const size_t d_in = (size_t)weight->d_in, d_out = (size_t)weight->d_out;
    struct tile_product tile = {.a_stride = d_in,
                                .b = task->unpacked,
                                .b_stride = TILE_COLUMNS,
                                .c = part->y + (size_t)task->row * d_out + first,
                                .c_stride = d_out,
                                .rows = task->rows,
                                .columns = tile_smaller(TILE_COLUMNS, weight->d_out - first)};
    for (int32_t k = 0; k < weight->d_in; k += depth) {
        tile.k_count = tile_smaller(depth, weight->d_in - k);
        panel_unpack(weight, panel, k, tile.k_count, task->unpacked);
        tile.a = job->x + (size_t)task->row * d_in + k;
        tile_product(&tile);
        tile.add = true;
    }
    if (part->lora.rank > 0)
        lora_train_expand(&part->lora, part->side, task->row, task->rows, first,
                          first + tile.columns, part->y);
    add_bias(part, task, first, tile.columns);
}

static int32_t forward_shares(const struct weight *weight)
{
    return tile_pieces(weight_panel_count(weight), TASK_PANELS);
}

static void forward_task(void *context, int32_t index, int32_t thread)
{
    const struct frozen_job *job = context;
    const struct frozen_task task = task_at(job, index % job->row_blocks, thread);
    const struct frozen_part *part = job->parts;
    int32_t share = index / job->row_blocks;
    for (; share >= forward_shares(part->weight); part++)
        share -= forward_shares(part->weight);
    const int32_t first = share * TASK_PANELS;
    const int32_t end = tile_smaller(first + TASK_PANELS, weight_panel_count(part->weight));
    for (int32_t panel = first; panel < end; panel++)
        forward_panel(job, part, &task, panel);
}

void frozen_linear(struct pool *pool, const struct frozen_part *parts, int32_t part_count,
                   const float *x, int32_t n, float *scratch)
{
    ASSERT(part_count <= FROZEN_PARTS_MAX);
    struct frozen_job job = {
        .parts = parts, .part_count = part_count, .x = x, .n = n, .scratch = scratch};
    if (n == 0)
        return;
    split_rows(&job);
    int32_t shares = 0;
    for (int32_t i = 0; i < part_count; i++)
        shares += forward_shares(parts[i].weight);
    pool_run(pool, shares * job.row_blocks, forward_task, &job);
}

// Two tiles of 16 columns of dx, from `first` on: (+)= dy W of one part.
static void backward_part(const struct frozen_job *job, const struct frozen_part *part,
                          const struct frozen_task *task, int32_t first, bool add)
{
    const struct weight *weight = part->weight;
    const int32_t depth = depth_of(weight->d_out);
    const size_t d_in = (size_t)weight->d_in, d_out = (size_t)weight->d_out;
    for (int32_t k = 0; k < weight->d_out; k += depth) {
        const int32_t k_count = tile_smaller(depth, weight->d_out - k);
        weight_tile_unpack(weight, first, k, k_count, task->unpacked);
        for (int32_t column = first;
             column < tile_smaller(first + WEIGHT_TILE_COLUMNS, weight->d_in);
             column += TILE_COLUMNS)
            tile_product(&(struct tile_product){
                .a = part->dy + (size_t)task->row * d_out + k,
                .a_stride = d_out,
                .b = task->unpacked + (size_t)(column - first) * (size_t)k_count,
                .b_stride = TILE_COLUMNS,
                .c = job->dx + (size_t)task->row * d_in + column,
                .c_stride = d_in,
                .rows = task->rows,
                .columns = tile_smaller(TILE_COLUMNS, weight->d_in - column),
                .k_count = k_count,
                .add = add || k > 0});
    }
}

// The same columns: += dt A of one part's module.
static void backward_side(const struct frozen_job *job, const struct frozen_part *part,
                          const struct frozen_task *task, int32_t first)
{
    const size_t d_in = (size_t)part->weight->d_in, r = (size_t)part->lora.rank;
    tile_multiply(&(struct tile_matrices){
        .a = part->side + (size_t)task->row * r,
        .a_stride = r,
        .b = part->lora.a + first,
        .b_stride = d_in,
        .c = job->dx + (size_t)task->row * d_in + first,
        .c_stride = d_in,
        .rows = task->rows,
        .columns = tile_smaller(WEIGHT_TILE_COLUMNS, part->weight->d_in - first),
        .k_count = part->lora.rank,
        .add = true});
}

static void backward_task(void *context, int32_t index, int32_t thread)
{
    const struct frozen_job *job = context;
    const struct frozen_task task = task_at(job, index % job->row_blocks, thread);
    const int32_t first = index / job->row_blocks * WEIGHT_TILE_COLUMNS;
    for (int32_t i = 0; i < job->part_count; i++) {
        backward_part(job, &job->parts[i], &task, first, i > 0);
        if (job->parts[i].lora.rank > 0 && job->parts[i].side != NULL)
            backward_side(job, &job->parts[i], &task, first);
    }
}

void frozen_linear_backward(struct pool *pool, const struct frozen_part *parts, int32_t part_count,
                            int32_t n, float *dx, float *scratch)
{
    ASSERT(part_count <= FROZEN_PARTS_MAX);
    struct frozen_job job = {
        .parts = parts, .part_count = part_count, .dx = dx, .n = n, .scratch = scratch};
    if (n == 0)
        return;
    split_rows(&job);
    pool_run(pool, tile_pieces(parts[0].weight->d_in, WEIGHT_TILE_COLUMNS) * job.row_blocks,
             backward_task, &job);
}

// SPDX-License-Identifier: Apache-2.0
// Attention in training, see attention_train.h.
#include "kernel/attention_train.h"

#include <string.h>

#include "kernel/kernel_dispatch.h"
#include "kernel/tile_product.h"

enum { QUERY_BLOCK = 64 }; // queries whose probabilities are in scratch at once

struct attention_job {
    const struct attention_train *of;
    const float *dout;
    float *out, *dq, *dk, *dv;
};

// Queries first .. first + rows - 1 of one sequence and the keys that any of them sees.
struct attention_block {
    int32_t first, rows, key_first, keys;
    const int32_t *positions; // [rows]
};

// One thread's: p and dp [QUERY_BLOCK, keys], and one of them with the keys as rows.
struct attention_scratch {
    float *p, *dp, *transposed;
};

size_t attention_train_scratch_count(int32_t length_max, int32_t threads)
{
    return 3 * (size_t)QUERY_BLOCK * (size_t)length_max * (size_t)threads;
}

static struct attention_scratch scratch_of(const struct attention_train *of, int32_t thread)
{
    const size_t count = (size_t)QUERY_BLOCK * (size_t)of->length_max;
    float *p = of->scratch + 3 * (size_t)thread * count;
    return (struct attention_scratch){p, p + count, p + 2 * count};
}

// Where the data of one sequence and head starts.
struct attention_views {
    const float *q, *k, *v;
    const int32_t *positions;
    size_t q_width, k_width, q_at, k_at;
    int32_t queries, keys;
};

static struct attention_views views_of(const struct attention_train *of, int32_t sequence,
                                       int32_t head)
{
    const struct attention_shape *shape = of->shape;
    const int32_t kv_head = head / (shape->head_count / shape->kv_head_count);
    const int32_t query_first = of->query_starts[sequence], key_first = of->starts[sequence];
    struct attention_views views = {.q_width = (size_t)(shape->head_count * shape->head_dim),
                                    .k_width = (size_t)(shape->kv_head_count * shape->head_dim)};
    views.queries = of->query_starts[sequence + 1] - query_first;
    views.keys = of->starts[sequence + 1] - key_first;
    views.positions = of->positions + query_first;
    views.q_at = (size_t)query_first * views.q_width + (size_t)(head * shape->head_dim);
    views.k_at = (size_t)key_first * views.k_width + (size_t)(kv_head * shape->head_dim);
    views.q = of->q + views.q_at;
    views.k = of->k + views.k_at;
    views.v = of->v + views.k_at;
    return views;
}

static int32_t first_seen(const struct attention_shape *shape, int32_t position)
{
    return shape->window > 0 && position >= shape->window ? position - shape->window + 1 : 0;
}

static struct attention_block block_at(const struct attention_shape *shape,
                                       const struct attention_views *views, int32_t first)
{
    struct attention_block block = {.first = first, .positions = views->positions + first};
    block.rows = tile_smaller(QUERY_BLOCK, views->queries - first);
    block.key_first = first_seen(shape, block.positions[0]);
    block.keys = block.positions[block.rows - 1] + 1 - block.key_first;
    return block;
}

// Row i of p [rows, keys], scores before their scale: softmax over what its query sees, zero
// elsewhere.
static void softmax_block(const struct attention_shape *shape, const struct attention_block *block,
                          float *p)
{
    exp_fn *const exp_values = exp_on(cpu_isa());
    for (int32_t i = 0; i < block->rows; i++) {
        float *row = p + (size_t)i * (size_t)block->keys;
        const int32_t end = block->positions[i] + 1 - block->key_first;
        const int32_t begin = first_seen(shape, block->positions[i]) - block->key_first;
        float max = row[begin];
        for (int32_t j = begin + 1; j < end; j++)
            max = row[j] > max ? row[j] : max;
        for (int32_t j = begin; j < end; j++)
            row[j] = shape->scale * (row[j] - max);
        exp_values(row + begin, (size_t)(end - begin), row + begin);
        double sum = 0.0;
        for (int32_t j = begin; j < end; j++)
            sum += (double)row[j];
        const float factor = (float)(1.0 / sum);
        memset(row, 0, (size_t)begin * sizeof(float));
        for (int32_t j = begin; j < end; j++)
            row[j] *= factor;
        memset(row + end, 0, (size_t)(block->keys - end) * sizeof(float));
    }
}

// scores [rows, keys] = a k^T with a [rows, D] and the block's rows of k or v.
static void times_keys(const struct attention_shape *shape, const struct attention_views *views,
                       const struct attention_block *block, const float *a, const float *keys,
                       float *scores)
{
    tile_multiply(&(struct tile_matrices){.a = a,
                                          .a_stride = views->q_width,
                                          .b = keys + (size_t)block->key_first * views->k_width,
                                          .b_stride = views->k_width,
                                          .b_transposed = true,
                                          .c = scores,
                                          .c_stride = (size_t)block->keys,
                                          .rows = block->rows,
                                          .columns = block->keys,
                                          .k_count = shape->head_dim});
}

// out [rows, D] = p values, with p [rows, keys] and the block's rows of k or v.
static void times_values(const struct attention_shape *shape, const struct attention_views *views,
                         const struct attention_block *block, const float *p, const float *values,
                         float *out)
{
    tile_multiply(&(struct tile_matrices){.a = p,
                                          .a_stride = (size_t)block->keys,
                                          .b = values + (size_t)block->key_first * views->k_width,
                                          .b_stride = views->k_width,
                                          .c = out + (size_t)block->first * views->q_width,
                                          .c_stride = views->q_width,
                                          .rows = block->rows,
                                          .columns = shape->head_dim,
                                          .k_count = block->keys});
}

// The block's rows of dk or dv += p^T rows, with p [rows, keys] and rows [rows, D].
static void gather_values(const struct attention_shape *shape, const struct attention_views *views,
                          const struct attention_block *block, const float *p, float *transposed,
                          const float *rows, float *gradient)
{
    tile_transpose(p, (size_t)block->keys, block->rows, block->keys, transposed,
                   (size_t)block->rows);
    tile_multiply(&(struct tile_matrices){.a = transposed,
                                          .a_stride = (size_t)block->rows,
                                          .b = rows,
                                          .b_stride = views->q_width,
                                          .c = gradient + (size_t)block->key_first * views->k_width,
                                          .c_stride = views->k_width,
                                          .rows = block->keys,
                                          .columns = shape->head_dim,
                                          .k_count = block->rows,
                                          .add = true});
}

static void forward_task(void *context, int32_t index, int32_t thread)
{
    const struct attention_job *job = context;
    const struct attention_shape *shape = job->of->shape;
    const struct attention_views views =
        views_of(job->of, index / shape->head_count, index % shape->head_count);
    float *p = scratch_of(job->of, thread).p;
    for (int32_t first = 0; first < views.queries; first += QUERY_BLOCK) {
        const struct attention_block block = block_at(shape, &views, first);
        times_keys(shape, &views, &block, views.q + (size_t)first * views.q_width, views.k, p);
        softmax_block(shape, &block, p);
        times_values(shape, &views, &block, p, views.v, job->out + views.q_at);
    }
}

void attention_train_forward(struct pool *pool, const struct attention_train *attention, float *out)
{
    struct attention_job job = {.of = attention, .out = out};
    pool_run(pool, attention->sequence_count * attention->shape->head_count, forward_task, &job);
}

// dp [rows, keys] becomes ds = scale p o (dp - sum_j p dp), the gradient of the unscaled scores.
static void softmax_block_backward(const struct attention_shape *shape,
                                   const struct attention_block *block, const float *p, float *dp)
{
    for (int32_t i = 0; i < block->rows; i++) {
        const float *p_row = p + (size_t)i * (size_t)block->keys;
        float *d_row = dp + (size_t)i * (size_t)block->keys;
        double sum = 0.0;
        for (int32_t j = 0; j < block->keys; j++)
            sum += (double)p_row[j] * (double)d_row[j];
        for (int32_t j = 0; j < block->keys; j++)
            d_row[j] = shape->scale * p_row[j] * (d_row[j] - (float)sum);
    }
}

static void backward_block(const struct attention_job *job, const struct attention_views *views,
                           const struct attention_block *block,
                           const struct attention_scratch *scratch)
{
    const struct attention_shape *shape = job->of->shape;
    const float *q = views->q + (size_t)block->first * views->q_width;
    const float *dout = job->dout + views->q_at + (size_t)block->first * views->q_width;
    times_keys(shape, views, block, q, views->k, scratch->p);
    softmax_block(shape, block, scratch->p);
    // out = p v:  dv += p^T dout,  dp = dout v^T
    gather_values(shape, views, block, scratch->p, scratch->transposed, dout,
                  job->dv + views->k_at);
    times_keys(shape, views, block, dout, views->v, scratch->dp);
    softmax_block_backward(shape, block, scratch->p, scratch->dp);
    // scores = q k^T:  dq = ds k,  dk += ds^T q
    times_values(shape, views, block, scratch->dp, views->k, job->dq + views->q_at);
    gather_values(shape, views, block, scratch->dp, scratch->transposed, q, job->dk + views->k_at);
}

// One sequence and one kv head: its dk and dv gather from the heads of the group in turn.
static void backward_task(void *context, int32_t index, int32_t thread)
{
    const struct attention_job *job = context;
    const struct attention_shape *shape = job->of->shape;
    const int32_t group = shape->head_count / shape->kv_head_count;
    const int32_t sequence = index / shape->kv_head_count;
    const int32_t head_first = index % shape->kv_head_count * group;
    const struct attention_scratch scratch = scratch_of(job->of, thread);
    struct attention_views views = views_of(job->of, sequence, head_first);
    for (int32_t i = 0; i < views.keys; i++) {
        const size_t at = views.k_at + (size_t)i * views.k_width;
        memset(job->dk + at, 0, (size_t)shape->head_dim * sizeof(float));
        memset(job->dv + at, 0, (size_t)shape->head_dim * sizeof(float));
    }
    for (int32_t head = head_first; head < head_first + group; head++) {
        views = views_of(job->of, sequence, head);
        for (int32_t first = 0; first < views.queries; first += QUERY_BLOCK) {
            const struct attention_block block = block_at(shape, &views, first);
            backward_block(job, &views, &block, &scratch);
        }
    }
}

void attention_train_backward(struct pool *pool, const struct attention_train *attention,
                              const float *dout, float *dq, float *dk, float *dv)
{
    struct attention_job job = {.of = attention, .dout = dout, .dq = dq, .dk = dk, .dv = dv};
    pool_run(pool, attention->sequence_count * attention->shape->kv_head_count, backward_task,
             &job);
}

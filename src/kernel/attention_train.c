// SPDX-License-Identifier: Apache-2.0
// Attention in training, see attention_train.h.
#include "kernel/attention_train.h"

#include <math.h>
#include <string.h>

#include "kernel/sgemm.h"

enum { QUERY_BLOCK = 64 }; // queries whose probabilities are in scratch at once

struct attention_job {
    const struct attention_shape *shape;
    const int32_t *starts;
    int32_t length_max;
    const float *q, *k, *v, *dout;
    float *out, *dq, *dk, *dv;
    float *scratch;
};

// Queries first .. first + rows - 1 of one sequence and the keys that any of them sees.
struct attention_block {
    int32_t first, rows, key_first, keys;
};

size_t attention_train_scratch_count(int32_t length_max, int32_t threads)
{
    return 2 * (size_t)QUERY_BLOCK * (size_t)length_max * (size_t)threads;
}

static struct attention_block block_at(const struct attention_shape *shape, int32_t first,
                                       int32_t length)
{
    struct attention_block block = {.first = first};
    block.rows = length - first < QUERY_BLOCK ? length - first : QUERY_BLOCK;
    if (shape->window > 0 && first >= shape->window)
        block.key_first = first - shape->window + 1;
    block.keys = first + block.rows - block.key_first;
    return block;
}

// Row i of p [rows, keys]: softmax over what query first + i sees, zero elsewhere.
static void softmax_block(const struct attention_shape *shape, const struct attention_block *block,
                          float *p)
{
    for (int32_t i = 0; i < block->rows; i++) {
        float *row = p + (size_t)i * (size_t)block->keys;
        const int32_t pos = block->first + i;
        const int32_t end = pos + 1 - block->key_first;
        int32_t begin = 0;
        if (shape->window > 0 && pos - shape->window + 1 > block->key_first)
            begin = pos - shape->window + 1 - block->key_first;
        float max = row[begin];
        for (int32_t j = begin + 1; j < end; j++)
            max = row[j] > max ? row[j] : max;
        double sum = 0.0;
        for (int32_t j = begin; j < end; j++) {
            row[j] = expf(row[j] - max);
            sum += (double)row[j];
        }
        const float factor = (float)(1.0 / sum);
        memset(row, 0, (size_t)begin * sizeof(float));
        for (int32_t j = begin; j < end; j++)
            row[j] *= factor;
        memset(row + end, 0, (size_t)(block->keys - end) * sizeof(float));
    }
}

// Where the data of one sequence and head starts.
struct attention_views {
    const float *q, *k, *v;
    int32_t q_width, k_width, length;
    size_t q_at, k_at;
};

static struct attention_views views_of(const struct attention_job *job, int32_t sequence,
                                       int32_t head)
{
    const struct attention_shape *shape = job->shape;
    const int32_t kv_head = head / (shape->head_count / shape->kv_head_count);
    struct attention_views views = {.q_width = shape->head_count * shape->head_dim,
                                    .k_width = shape->kv_head_count * shape->head_dim};
    const size_t start = (size_t)job->starts[sequence];
    views.length = job->starts[sequence + 1] - job->starts[sequence];
    views.q_at = start * (size_t)views.q_width + (size_t)(head * shape->head_dim);
    views.k_at = start * (size_t)views.k_width + (size_t)(kv_head * shape->head_dim);
    views.q = job->q + views.q_at;
    views.k = job->k + views.k_at;
    views.v = job->v + views.k_at;
    return views;
}

static void block_probabilities(const struct attention_shape *shape,
                                const struct attention_views *views,
                                const struct attention_block *block, float *p)
{
    sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, block->rows, block->keys, shape->head_dim, shape->scale,
          views->q + (size_t)block->first * (size_t)views->q_width, views->q_width,
          views->k + (size_t)block->key_first * (size_t)views->k_width, views->k_width, 0.0f, p,
          block->keys);
    softmax_block(shape, block, p);
}

static void forward_task(void *context, int32_t index, int32_t thread)
{
    const struct attention_job *job = context;
    const struct attention_shape *shape = job->shape;
    const struct attention_views views =
        views_of(job, index / shape->head_count, index % shape->head_count);
    float *p = job->scratch + 2 * (size_t)thread * QUERY_BLOCK * (size_t)job->length_max;
    for (int32_t first = 0; first < views.length; first += QUERY_BLOCK) {
        const struct attention_block block = block_at(shape, first, views.length);
        block_probabilities(shape, &views, &block, p);
        sgemm(SGEMM_PLAIN, SGEMM_PLAIN, block.rows, shape->head_dim, block.keys, 1.0f, p,
              block.keys, views.v + (size_t)block.key_first * (size_t)views.k_width, views.k_width,
              0.0f, job->out + views.q_at + (size_t)first * (size_t)views.q_width, views.q_width);
    }
}

void attention_train_forward(struct pool *pool, const struct attention_shape *shape,
                             const int32_t *starts, int32_t sequence_count, int32_t length_max,
                             const float *q, const float *k, const float *v, float *out,
                             float *scratch)
{
    struct attention_job job = {.shape = shape,
                                .starts = starts,
                                .length_max = length_max,
                                .q = q,
                                .k = k,
                                .v = v,
                                .out = out,
                                .scratch = scratch};
    pool_run(pool, sequence_count * shape->head_count, forward_task, &job);
}

// dp [rows, keys] becomes ds = p o (dp - sum_j p dp), the gradient of the scaled scores.
static void softmax_block_backward(const struct attention_block *block, const float *p, float *dp)
{
    for (int32_t i = 0; i < block->rows; i++) {
        const float *p_row = p + (size_t)i * (size_t)block->keys;
        float *d_row = dp + (size_t)i * (size_t)block->keys;
        double sum = 0.0;
        for (int32_t j = 0; j < block->keys; j++)
            sum += (double)p_row[j] * (double)d_row[j];
        for (int32_t j = 0; j < block->keys; j++)
            d_row[j] = p_row[j] * (d_row[j] - (float)sum);
    }
}

static void backward_block(const struct attention_job *job, const struct attention_views *views,
                           const struct attention_block *block, float *p, float *dp)
{
    const struct attention_shape *shape = job->shape;
    const int32_t d = shape->head_dim, rows = block->rows, keys = block->keys;
    const size_t q_row = (size_t)block->first * (size_t)views->q_width;
    const size_t k_row = (size_t)block->key_first * (size_t)views->k_width;
    const float *dout = job->dout + views->q_at + q_row;
    block_probabilities(shape, views, block, p);
    // out = p v:  dv += p^T dout,  dp = dout v^T
    sgemm(SGEMM_TRANSPOSED, SGEMM_PLAIN, keys, d, rows, 1.0f, p, keys, dout, views->q_width, 1.0f,
          job->dv + views->k_at + k_row, views->k_width);
    sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, rows, keys, d, 1.0f, dout, views->q_width,
          views->v + k_row, views->k_width, 0.0f, dp, keys);
    softmax_block_backward(block, p, dp);
    // scores = scale q k^T:  dq = scale ds k,  dk += scale ds^T q
    sgemm(SGEMM_PLAIN, SGEMM_PLAIN, rows, d, keys, shape->scale, dp, keys, views->k + k_row,
          views->k_width, 0.0f, job->dq + views->q_at + q_row, views->q_width);
    sgemm(SGEMM_TRANSPOSED, SGEMM_PLAIN, keys, d, rows, shape->scale, dp, keys, views->q + q_row,
          views->q_width, 1.0f, job->dk + views->k_at + k_row, views->k_width);
}

// One sequence and one kv head: its dk and dv gather from the heads of the group in turn.
static void backward_task(void *context, int32_t index, int32_t thread)
{
    const struct attention_job *job = context;
    const struct attention_shape *shape = job->shape;
    const int32_t group = shape->head_count / shape->kv_head_count;
    const int32_t sequence = index / shape->kv_head_count;
    const int32_t head_first = index % shape->kv_head_count * group;
    float *p = job->scratch + 2 * (size_t)thread * QUERY_BLOCK * (size_t)job->length_max;
    float *dp = p + (size_t)QUERY_BLOCK * (size_t)job->length_max;
    struct attention_views views = views_of(job, sequence, head_first);
    for (int32_t i = 0; i < views.length; i++) {
        const size_t at = views.k_at + (size_t)i * (size_t)views.k_width;
        memset(job->dk + at, 0, (size_t)shape->head_dim * sizeof(float));
        memset(job->dv + at, 0, (size_t)shape->head_dim * sizeof(float));
    }
    for (int32_t head = head_first; head < head_first + group; head++) {
        views = views_of(job, sequence, head);
        for (int32_t first = 0; first < views.length; first += QUERY_BLOCK) {
            const struct attention_block block = block_at(shape, first, views.length);
            backward_block(job, &views, &block, p, dp);
        }
    }
}

void attention_train_backward(struct pool *pool, const struct attention_shape *shape,
                              const int32_t *starts, int32_t sequence_count, int32_t length_max,
                              const float *q, const float *k, const float *v, const float *dout,
                              float *dq, float *dk, float *dv, float *scratch)
{
    struct attention_job job = {.shape = shape,
                                .starts = starts,
                                .length_max = length_max,
                                .q = q,
                                .k = k,
                                .v = v,
                                .dout = dout,
                                .dq = dq,
                                .dk = dk,
                                .dv = dv,
                                .scratch = scratch};
    pool_run(pool, sequence_count * shape->kv_head_count, backward_task, &job);
}

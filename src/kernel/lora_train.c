// SPDX-License-Identifier: Apache-2.0
// The gated low-rank module in training, see lora_train.h.
#include "kernel/lora_train.h"

#include <string.h>

#include "kernel/tile_product.h"

enum { ROW_BLOCK = 96 };        // tokens of one task
enum { COL_BLOCK = 64 };        // columns of dA, rows of dB in one task
enum { DROPOUT_BLOCK = 16384 }; // values of one task

struct lora_job {
    const struct lora_train *module;
    const float *x, *t_in, *dy, *dt_in;
    float *t, *u, *dx;
    float *w, *dt;                       // [n, r]
    float *u_transposed, *dt_transposed; // [r, n]
    int32_t n, a_tasks;
};

size_t lora_train_scratch_count(int32_t n, int32_t rank)
{
    return 4 * (size_t)n * (size_t)rank;
}

// out = scale * (g o in), rows x r.
static void gate_rows(const struct lora_train *module, const float *in, int32_t rows, float *out)
{
    for (int32_t i = 0; i < rows; i++) {
        const size_t row = (size_t)i * (size_t)module->rank;
        for (int32_t j = 0; j < module->rank; j++)
            out[row + (size_t)j] =
                module->scale * (module->g != NULL ? module->g[j] : 1.0f) * in[row + (size_t)j];
    }
}

static void shrink_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    const struct lora_train *module = job->module;
    const size_t r = (size_t)module->rank, d_in = (size_t)module->d_in;
    const int32_t first = index * ROW_BLOCK, rows = tile_smaller(ROW_BLOCK, job->n - first);
    float *t = job->t + (size_t)first * r;
    tile_multiply(&(struct tile_matrices){.a = job->x + (size_t)first * d_in,
                                          .a_stride = d_in,
                                          .b = module->a,
                                          .b_stride = d_in,
                                          .b_transposed = true,
                                          .c = t,
                                          .c_stride = r,
                                          .rows = rows,
                                          .columns = module->rank,
                                          .k_count = module->d_in});
    gate_rows(module, t, rows, job->u + (size_t)first * r);
}

void lora_train_shrink(struct pool *pool, const struct lora_train *module, const float *x,
                       int32_t n, float *t, float *u)
{
    struct lora_job job = {.module = module, .x = x, .t = t, .u = u, .n = n};
    pool_run(pool, tile_pieces(n, ROW_BLOCK), shrink_task, &job);
}

void lora_train_expand(const struct lora_train *module, const float *u, int32_t row, int32_t rows,
                       int32_t first, int32_t end, float *y)
{
    const size_t r = (size_t)module->rank, d_out = (size_t)module->d_out;
    tile_multiply(&(struct tile_matrices){.a = u + (size_t)row * r,
                                          .a_stride = r,
                                          .b = module->b + (size_t)first * r,
                                          .b_stride = r,
                                          .b_transposed = true,
                                          .c = y + (size_t)row * d_out + first,
                                          .c_stride = d_out,
                                          .rows = rows,
                                          .columns = end - first,
                                          .k_count = module->rank,
                                          .add = true});
}

// Per block of tokens: u = scale (g o t), w = dy B, dt = scale (g o w); u and dt also transposed.
static void backward_rows_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    const struct lora_train *module = job->module;
    const size_t r = (size_t)module->rank, d_out = (size_t)module->d_out, n = (size_t)job->n;
    const int32_t first = index * ROW_BLOCK, rows = tile_smaller(ROW_BLOCK, job->n - first);
    const size_t at = (size_t)first * r;
    tile_multiply(&(struct tile_matrices){.a = job->dy + (size_t)first * d_out,
                                          .a_stride = d_out,
                                          .b = module->b,
                                          .b_stride = r,
                                          .c = job->w + at,
                                          .c_stride = r,
                                          .rows = rows,
                                          .columns = module->rank,
                                          .k_count = module->d_out});
    gate_rows(module, job->t_in + at, rows, job->u + at);
    gate_rows(module, job->w + at, rows, job->dt + at);
    tile_transpose(job->u + at, r, rows, module->rank, job->u_transposed + first, n);
    tile_transpose(job->dt + at, r, rows, module->rank, job->dt_transposed + first, n);
}

// dg[j] += scale * sum_i w[i, j] t[i, j], in double.
static void gate_gradient(const struct lora_job *job)
{
    const struct lora_train *module = job->module;
    for (int32_t j = 0; j < module->rank; j++) {
        double sum = 0.0;
        for (size_t i = (size_t)j; i < (size_t)job->n * (size_t)module->rank;
             i += (size_t)module->rank)
            sum += (double)job->w[i] * (double)job->t_in[i];
        module->dg[j] += (float)((double)module->scale * sum);
    }
}

// Columns [col, col + COL_BLOCK) of dA += dt^T x.
static void a_gradient(const struct lora_job *job, int32_t col)
{
    const struct lora_train *module = job->module;
    const size_t d_in = (size_t)module->d_in;
    tile_multiply(&(struct tile_matrices){.a = job->dt_transposed,
                                          .a_stride = (size_t)job->n,
                                          .b = job->x + col,
                                          .b_stride = d_in,
                                          .c = module->da + col,
                                          .c_stride = d_in,
                                          .rows = module->rank,
                                          .columns = tile_smaller(COL_BLOCK, module->d_in - col),
                                          .k_count = job->n,
                                          .add = true});
}

// Rows [row, row + COL_BLOCK) of dB += dy^T u, computed as their transpose, 16 ranks at a time.
static void b_gradient(const struct lora_job *job, int32_t row)
{
    const struct lora_train *module = job->module;
    float part[TILE_COLUMNS * COL_BLOCK]; // [ranks, rows]
    const size_t r = (size_t)module->rank, n = (size_t)job->n;
    const int32_t rows = tile_smaller(COL_BLOCK, module->d_out - row);
    for (int32_t first = 0; first < module->rank; first += TILE_COLUMNS) {
        const int32_t ranks = tile_smaller(TILE_COLUMNS, module->rank - first);
        tile_multiply(&(struct tile_matrices){.a = job->u_transposed + (size_t)first * n,
                                              .a_stride = n,
                                              .b = job->dy + row,
                                              .b_stride = (size_t)module->d_out,
                                              .c = part,
                                              .c_stride = COL_BLOCK,
                                              .rows = ranks,
                                              .columns = rows,
                                              .k_count = job->n});
        for (int32_t i = 0; i < rows; i++)
            for (int32_t j = 0; j < ranks; j++)
                module->db[(size_t)(row + i) * r + (size_t)(first + j)] += part[j * COL_BLOCK + i];
    }
}

// Index 0: dg; then blocks of columns of dA; then blocks of rows of dB.
static void backward_weights_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    if (index > job->a_tasks)
        b_gradient(job, (index - 1 - job->a_tasks) * COL_BLOCK);
    else if (index > 0)
        a_gradient(job, (index - 1) * COL_BLOCK);
    else if (job->module->g != NULL)
        gate_gradient(job);
}

void lora_train_backward(struct pool *pool, const struct lora_train *module, const float *x,
                         const float *t, int32_t n, const float *dy, float *dt, float *scratch)
{
    const size_t count = (size_t)n * (size_t)module->rank;
    struct lora_job job = {.module = module,
                           .x = x,
                           .t_in = t,
                           .dy = dy,
                           .dt = dt,
                           .u = scratch,
                           .w = scratch + count,
                           .u_transposed = scratch + 2 * count,
                           .dt_transposed = scratch + 3 * count,
                           .n = n,
                           .a_tasks = tile_pieces(module->d_in, COL_BLOCK)};
    pool_run(pool, tile_pieces(n, ROW_BLOCK), backward_rows_task, &job);
    pool_run(pool, 1 + job.a_tasks + tile_pieces(module->d_out, COL_BLOCK), backward_weights_task,
             &job);
}

static void input_gradient_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    const struct lora_train *module = job->module;
    const size_t r = (size_t)module->rank, d_in = (size_t)module->d_in;
    const int32_t first = index * ROW_BLOCK;
    tile_multiply(&(struct tile_matrices){.a = job->dt_in + (size_t)first * r,
                                          .a_stride = r,
                                          .b = module->a,
                                          .b_stride = d_in,
                                          .c = job->dx + (size_t)first * d_in,
                                          .c_stride = d_in,
                                          .rows = tile_smaller(ROW_BLOCK, job->n - first),
                                          .columns = module->d_in,
                                          .k_count = module->rank});
}

void lora_train_input_gradient(struct pool *pool, const struct lora_train *module, const float *dt,
                               int32_t n, float *dx)
{
    struct lora_job job = {.module = module, .dt_in = dt, .dx = dx, .n = n};
    pool_run(pool, tile_pieces(n, ROW_BLOCK), input_gradient_task, &job);
}

struct dropout_job {
    const float *in;
    float *out;
    size_t count;
    float p;
    uint64_t seed;
    bool add;
};

// splitmix64 of the seed and the place.
static uint64_t dropout_bits(uint64_t seed, size_t place)
{
    uint64_t z = seed + ((uint64_t)place + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void dropout_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct dropout_job *job = context;
    const size_t first = (size_t)index * DROPOUT_BLOCK;
    const size_t end = first + DROPOUT_BLOCK < job->count ? first + DROPOUT_BLOCK : job->count;
    const float keep = 1.0f / (1.0f - job->p);
    for (size_t i = first; i < end; i++) {
        const float uniform = (float)(dropout_bits(job->seed, i) >> 40) / 16777216.0f;
        const float value = uniform < job->p ? 0.0f : job->in[i] * keep;
        job->out[i] = job->add ? job->out[i] + value : value;
    }
}

static void dropout_run(struct pool *pool, struct dropout_job *job)
{
    pool_run(pool, (int32_t)((job->count + DROPOUT_BLOCK - 1) / DROPOUT_BLOCK), dropout_task, job);
}

void dropout(struct pool *pool, const float *x, size_t count, float p, uint64_t seed, float *out)
{
    struct dropout_job job = {x, out, count, p, seed, false};
    dropout_run(pool, &job);
}

void dropout_backward(struct pool *pool, const float *dout, size_t count, float p, uint64_t seed,
                      float *dx)
{
    struct dropout_job job = {dout, dx, count, p, seed, true};
    dropout_run(pool, &job);
}

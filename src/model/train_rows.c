// SPDX-License-Identifier: Apache-2.0
// Row-wise kernels shared out over the pool in blocks of rows; see train_activations.h. A row's
// result does not depend on its block. Called by the thread that runs the pass.
#include <string.h>

#include "kernel/activation.h"
#include "kernel/norm.h"
#include "model/train_activations.h"

enum { ROW_BLOCK = 32 };

struct rows_job {
    const float *x, *y, *weight;
    const float *dout;
    const int32_t *positions; // or rows
    float eps;
    int32_t m, d, head_count;
    float *out, *out2;
};

struct rows_range {
    size_t at; // first value
    int32_t row, rows;
};

static struct rows_range range_of(const struct rows_job *job, int32_t first, int32_t end)
{
    return (struct rows_range){(size_t)first * (size_t)job->d, first, end - first};
}

static void run(struct pool *pool, struct rows_job *job,
                void (*task)(void *context, int32_t first, int32_t end, int32_t thread))
{
    pool_run_rows(pool, job->m, job->d, ROW_BLOCK, task, job);
}

static void norm_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    rmsnorm(job->x + range.at, job->weight, job->eps, range.rows, job->d, job->out + range.at);
}

void train_rows_norm(struct pool *pool, const float *x, const float *weight, float eps, int32_t m,
                     int32_t d, float *out)
{
    struct rows_job job = {.x = x, .weight = weight, .eps = eps, .m = m, .d = d, .out = out};
    run(pool, &job, norm_task);
}

static void norm_backward_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    rmsnorm_backward(job->x + range.at, job->weight, job->eps, job->dout + range.at, range.rows,
                     job->d, job->out + range.at);
}

void train_rows_norm_backward(struct pool *pool, const float *x, const float *weight, float eps,
                              const float *dout, int32_t m, int32_t d, float *dx)
{
    struct rows_job job = {
        .x = x, .weight = weight, .eps = eps, .dout = dout, .m = m, .d = d, .out = dx};
    run(pool, &job, norm_backward_task);
}

static void rope_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    rope_apply(job->out + range.at, range.rows, job->head_count, job->d / job->head_count,
               job->weight, job->positions + range.row);
}

static void rope_backward_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    rope_backward(job->out + range.at, range.rows, job->head_count, job->d / job->head_count,
                  job->weight, job->positions + range.row);
}

void train_rows_rope(struct pool *pool, float *x, int32_t m, int32_t head_count, int32_t head_dim,
                     const float *table, const int32_t *positions, bool backward)
{
    struct rows_job job = {.weight = table,
                           .positions = positions,
                           .m = m,
                           .d = head_count * head_dim,
                           .head_count = head_count,
                           .out = x};
    run(pool, &job, backward ? rope_backward_task : rope_task);
}

static void swiglu_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    swiglu(job->x + range.at, job->y + range.at, (size_t)range.rows * (size_t)job->d,
           job->out + range.at);
}

void train_rows_swiglu(struct pool *pool, const float *gate, const float *up, int32_t m, int32_t d,
                       float *out)
{
    struct rows_job job = {.x = gate, .y = up, .m = m, .d = d, .out = out};
    run(pool, &job, swiglu_task);
}

static void swiglu_backward_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    swiglu_backward(job->x + range.at, job->y + range.at, job->dout + range.at,
                    (size_t)range.rows * (size_t)job->d, job->out + range.at, job->out2 + range.at);
}

void train_rows_swiglu_backward(struct pool *pool, const float *gate, const float *up,
                                const float *dout, int32_t m, int32_t d, float *dgate, float *dup)
{
    struct rows_job job = {
        .x = gate, .y = up, .dout = dout, .m = m, .d = d, .out = dgate, .out2 = dup};
    run(pool, &job, swiglu_backward_task);
}

static void add_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    for (size_t i = range.at; i < range.at + (size_t)range.rows * (size_t)job->d; i++)
        job->out[i] = job->x[i] + job->y[i];
}

void train_rows_add(struct pool *pool, const float *a, const float *b, int32_t m, int32_t d,
                    float *out)
{
    struct rows_job job = {.x = a, .y = b, .m = m, .d = d, .out = out};
    run(pool, &job, add_task);
}

static void gather_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    const size_t d = (size_t)job->d;
    for (int32_t i = range.row; i < range.row + range.rows; i++)
        memcpy(job->out + (size_t)i * d, job->x + (size_t)job->positions[i] * d, d * sizeof(float));
}

void train_rows_gather(struct pool *pool, const float *from, const int32_t *rows, int32_t m,
                       int32_t d, float *out)
{
    struct rows_job job = {.x = from, .positions = rows, .m = m, .d = d, .out = out};
    run(pool, &job, gather_task);
}

static void scatter_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    const size_t d = (size_t)job->d;
    for (int32_t i = range.row; i < range.row + range.rows; i++)
        for (size_t j = 0; j < d; j++)
            job->out[(size_t)job->positions[i] * d + j] += job->x[(size_t)i * d + j];
}

void train_rows_scatter(struct pool *pool, const float *from, const int32_t *rows, int32_t m,
                        int32_t d, float *to)
{
    struct rows_job job = {.x = from, .positions = rows, .m = m, .d = d, .out = to};
    run(pool, &job, scatter_task);
}

static void bias_task(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct rows_job *job = context;
    const struct rows_range range = range_of(job, first, end);
    float *y = job->out + range.at;
    for (int32_t i = 0; i < range.rows; i++, y += job->d)
        for (int32_t j = 0; j < job->d; j++)
            y[j] += job->weight[j];
}

void train_rows_add_bias(struct pool *pool, const float *bias, int32_t m, int32_t d, float *y)
{
    struct rows_job job = {.weight = bias, .m = m, .d = d, .out = y};
    run(pool, &job, bias_task);
}

// SPDX-License-Identifier: Apache-2.0
// The gated low-rank module in training, see lora_train.h.
#include "kernel/lora_train.h"

#include <stdbool.h>

#include "kernel/sgemm.h"

enum { ROW_BLOCK = 128 };       // tokens of one task
enum { COL_BLOCK = 256 };       // columns of dA, rows of dB in one task
enum { DROPOUT_BLOCK = 16384 }; // values of one task

struct lora_job {
    const struct lora_train *module;
    const float *x, *t_in, *dy;
    float *t, *y, *dx;
    float *u, *w, *dt; // scratch, [n, r] each
    int32_t n, a_tasks;
};

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t divide_up(int32_t a, int32_t b)
{
    return (a + b - 1) / b;
}

size_t lora_train_scratch_count(int32_t n, int32_t rank)
{
    return 3 * (size_t)n * (size_t)rank;
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

static void forward_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    const struct lora_train *module = job->module;
    const int32_t r = module->rank, d_in = module->d_in, d_out = module->d_out;
    const int32_t first = index * ROW_BLOCK, rows = smaller(ROW_BLOCK, job->n - first);
    float *t = job->t + (size_t)first * (size_t)r, *u = job->u + (size_t)first * (size_t)r;
    sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, rows, r, d_in, 1.0f, job->x + (size_t)first * (size_t)d_in,
          d_in, module->a, d_in, 0.0f, t, r);
    gate_rows(module, t, rows, u);
    sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, rows, d_out, r, 1.0f, u, r, module->b, r, 1.0f,
          job->y + (size_t)first * (size_t)d_out, d_out);
}

void lora_train_forward(struct pool *pool, const struct lora_train *module, const float *x,
                        int32_t n, float *t, float *y, float *scratch)
{
    struct lora_job job = {.module = module, .x = x, .t = t, .y = y, .u = scratch, .n = n};
    pool_run(pool, divide_up(n, ROW_BLOCK), forward_task, &job);
}

// Per block of tokens: u = scale (g o t), w = dy B, dt = scale (g o w), dx += dt A.
static void backward_rows_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    const struct lora_train *module = job->module;
    const int32_t r = module->rank, d_in = module->d_in, d_out = module->d_out;
    const int32_t first = index * ROW_BLOCK, rows = smaller(ROW_BLOCK, job->n - first);
    const size_t at = (size_t)first * (size_t)r;
    gate_rows(module, job->t_in + at, rows, job->u + at);
    sgemm(SGEMM_PLAIN, SGEMM_PLAIN, rows, r, d_out, 1.0f, job->dy + (size_t)first * (size_t)d_out,
          d_out, module->b, r, 0.0f, job->w + at, r);
    gate_rows(module, job->w + at, rows, job->dt + at);
    if (job->dx != NULL)
        sgemm(SGEMM_PLAIN, SGEMM_PLAIN, rows, d_in, r, 1.0f, job->dt + at, r, module->a, d_in, 1.0f,
              job->dx + (size_t)first * (size_t)d_in, d_in);
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

// Index 0: dg; then blocks of columns of dA += dt^T x; then blocks of rows of dB += dy^T u.
static void backward_weights_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct lora_job *job = context;
    const struct lora_train *module = job->module;
    const int32_t r = module->rank, d_in = module->d_in, d_out = module->d_out;
    if (index == 0) {
        if (module->g != NULL)
            gate_gradient(job);
    } else if (index <= job->a_tasks) {
        const int32_t col = (index - 1) * COL_BLOCK;
        sgemm(SGEMM_TRANSPOSED, SGEMM_PLAIN, r, smaller(COL_BLOCK, d_in - col), job->n, 1.0f,
              job->dt, r, job->x + col, d_in, 1.0f, module->da + col, d_in);
    } else {
        const int32_t row = (index - 1 - job->a_tasks) * COL_BLOCK;
        sgemm(SGEMM_TRANSPOSED, SGEMM_PLAIN, smaller(COL_BLOCK, d_out - row), r, job->n, 1.0f,
              job->dy + row, d_out, job->u, r, 1.0f, module->db + (size_t)row * (size_t)r, r);
    }
}

void lora_train_backward(struct pool *pool, const struct lora_train *module, const float *x,
                         const float *t, int32_t n, const float *dy, float *dx, float *scratch)
{
    const size_t count = (size_t)n * (size_t)module->rank;
    struct lora_job job = {.module = module,
                           .x = x,
                           .t_in = t,
                           .dy = dy,
                           .dx = dx,
                           .u = scratch,
                           .w = scratch + count,
                           .dt = scratch + 2 * count,
                           .n = n,
                           .a_tasks = divide_up(module->d_in, COL_BLOCK)};
    pool_run(pool, divide_up(n, ROW_BLOCK), backward_rows_task, &job);
    pool_run(pool, 1 + job.a_tasks + divide_up(module->d_out, COL_BLOCK), backward_weights_task,
             &job);
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

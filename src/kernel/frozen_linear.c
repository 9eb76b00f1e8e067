// SPDX-License-Identifier: Apache-2.0
// Products with a frozen base matrix, see frozen_linear.h.
#include "kernel/frozen_linear.h"

#include "kernel/sgemm.h"

// Floats in one chunk of unpacked rows: 8 MB, so that the scratch stays small beside any model.
enum { CHUNK_FLOATS = 2 * 1024 * 1024 };
// Sides of an output tile: large enough that sgemm's packing is paid back, small enough that the
// matrices of a 135 M model still give every thread some tiles.
enum { TILE_ROWS = 256, TILE_COLS = 384 };
enum { UNPACK_ROWS = 64 };

struct frozen_job {
    const struct weight *weight;
    const float *bias;
    int32_t row_first, row_count; // rows of W in this chunk
    float *chunk;                 // [row_count, d_in]
    const float *in;
    float *out;
    int32_t n;
    float beta;
    int32_t tile_rows, tile_cols, col_tiles;
    int32_t cols; // width of the output in this chunk
};

static int32_t divide_up(int32_t a, int32_t b)
{
    return (a + b - 1) / b;
}

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t chunk_rows(int32_t d_out, int32_t d_in)
{
    int32_t rows = CHUNK_FLOATS / d_in / WEIGHT_PANEL_ROWS * WEIGHT_PANEL_ROWS;
    rows = rows < WEIGHT_PANEL_ROWS ? WEIGHT_PANEL_ROWS : rows;
    return smaller(rows, d_out);
}

size_t frozen_linear_scratch_count(int32_t d_out, int32_t d_in)
{
    return (size_t)chunk_rows(d_out, d_in) * (size_t)d_in;
}

static void unpack_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct frozen_job *job = context;
    const int32_t first = index * UNPACK_ROWS;
    weight_rows_to_f32(job->weight, job->row_first + first,
                       smaller(UNPACK_ROWS, job->row_count - first),
                       job->chunk + (size_t)first * (size_t)job->weight->d_in);
}

// Tiles of even sizes, so that the last one is no sliver.
static int32_t tile_side(int32_t total, int32_t side_max)
{
    const int32_t tiles = divide_up(total, side_max);
    return divide_up(divide_up(total, tiles), 16) * 16;
}

static int32_t plan_tiles(struct frozen_job *job, int32_t cols)
{
    job->cols = cols;
    job->tile_rows = tile_side(job->n, TILE_ROWS);
    job->tile_cols = tile_side(cols, TILE_COLS);
    job->col_tiles = divide_up(cols, job->tile_cols);
    return job->col_tiles * divide_up(job->n, job->tile_rows);
}

static void forward_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct frozen_job *job = context;
    const int32_t d_in = job->weight->d_in, d_out = job->weight->d_out;
    const int32_t row = index / job->col_tiles * job->tile_rows;
    const int32_t col = index % job->col_tiles * job->tile_cols;
    const int32_t rows = smaller(job->tile_rows, job->n - row);
    const int32_t cols = smaller(job->tile_cols, job->cols - col);
    float *out = job->out + (size_t)row * (size_t)d_out + (size_t)(job->row_first + col);
    sgemm(SGEMM_PLAIN, SGEMM_TRANSPOSED, rows, cols, d_in, 1.0f,
          job->in + (size_t)row * (size_t)d_in, d_in, job->chunk + (size_t)col * (size_t)d_in, d_in,
          0.0f, out, d_out);
    if (job->bias == NULL)
        return;
    const float *bias = job->bias + job->row_first + col;
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < cols; j++)
            out[(size_t)i * (size_t)d_out + (size_t)j] += bias[j];
}

static void backward_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    const struct frozen_job *job = context;
    const int32_t d_in = job->weight->d_in, d_out = job->weight->d_out;
    const int32_t row = index / job->col_tiles * job->tile_rows;
    const int32_t col = index % job->col_tiles * job->tile_cols;
    sgemm(SGEMM_PLAIN, SGEMM_PLAIN, smaller(job->tile_rows, job->n - row),
          smaller(job->tile_cols, job->cols - col), job->row_count, 1.0f,
          job->in + (size_t)row * (size_t)d_out + (size_t)job->row_first, d_out, job->chunk + col,
          d_in, job->beta, job->out + (size_t)row * (size_t)d_in + (size_t)col, d_in);
}

static void unpack_chunk(struct pool *pool, struct frozen_job *job, int32_t row_first)
{
    const struct weight *weight = job->weight;
    job->row_first = row_first;
    job->row_count = smaller(chunk_rows(weight->d_out, weight->d_in), weight->d_out - row_first);
    pool_run(pool, divide_up(job->row_count, UNPACK_ROWS), unpack_task, job);
}

void frozen_linear(struct pool *pool, const struct weight *weight, const float *bias,
                   const float *x, int32_t n, float *y, float *scratch)
{
    struct frozen_job job = {
        .weight = weight, .bias = bias, .chunk = scratch, .in = x, .out = y, .n = n};
    for (int32_t first = 0; n > 0 && first < weight->d_out; first += job.row_count) {
        unpack_chunk(pool, &job, first);
        pool_run(pool, plan_tiles(&job, job.row_count), forward_task, &job);
    }
}

void frozen_linear_backward(struct pool *pool, const struct weight *weight, const float *dy,
                            int32_t n, bool add, float *dx, float *scratch)
{
    struct frozen_job job = {
        .weight = weight, .chunk = scratch, .in = dy, .out = dx, .n = n, .beta = add ? 1.0f : 0.0f};
    for (int32_t first = 0; n > 0 && first < weight->d_out; first += job.row_count) {
        unpack_chunk(pool, &job, first);
        pool_run(pool, plan_tiles(&job, weight->d_in), backward_task, &job);
        job.beta = 1.0f;
    }
}

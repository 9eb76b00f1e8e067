// SPDX-License-Identifier: Apache-2.0
// matmul: the split over threads, the portable body and the reference. One caller at a time per
// pool; the scratch is the caller's.
#include "kernel/matmul.h"

#define MATMUL_SUFFIX portable
#include "kernel/matmul_body.h"

// A task's share of panels while each thread has at least this many: small enough to even out
// threads of unequal speed.
#define TASK_PANELS 16

static const size_t unpacked_count = (size_t)MATMUL_CHUNK_VALUES * WEIGHT_PANEL_ROWS;

size_t matmul_scratch_count(int32_t d_in, int32_t threads)
{
    ASSERT(d_in > 0 && threads > 0);
    return (size_t)threads * unpacked_count + 16; // 16: to start at a cache line
}

struct matmul_split {
    struct matmul_job job;
    matmul_panels_fn *run;
    int32_t panel_count, panels_each;
    float *scratch;
};

static void run_share(void *context, int32_t index, int32_t thread)
{
    const struct matmul_split *split = context;
    int32_t first = index * split->panels_each;
    int32_t left = split->panel_count - first;
    split->run(&split->job, first, left < split->panels_each ? left : split->panels_each,
               split->scratch + (size_t)thread * unpacked_count);
}

void matmul_on(enum cpu_isa isa, struct pool *pool, const struct weight *weight, const float *x,
               int32_t m, float *y, float *scratch)
{
    static matmul_panels_fn *const by_isa[] = {matmul_panels_portable, matmul_panels_avx2,
                                               matmul_panels_avx512};
    ASSERT(m >= 0);
    if (m == 0)
        return;
    const int32_t panels = weight_panel_count(weight), threads = pool_threads(pool);
    int32_t each = (panels + threads - 1) / threads;
    if (each > TASK_PANELS) // four shares for each thread, in whole groups of four panels
        each = ((each + 3) / 4 + 3) / 4 * 4;
    uintptr_t line = ((uintptr_t)scratch + 63) & ~(uintptr_t)63;
    struct matmul_split split = {
        .job = {weight, x, m, y},
        .run = by_isa[isa],
        .panel_count = panels,
        .panels_each = each,
        .scratch = (float *)line,
    };
    pool_run(pool, (panels + each - 1) / each, run_share, &split);
}

void matmul(struct pool *pool, const struct weight *weight, const float *x, int32_t m, float *y,
            float *scratch)
{
    matmul_on(cpu_isa(), pool, weight, x, m, y, scratch);
}

void matmul_ref(const struct weight *weight, const float *x, int32_t m, float *y, float *scratch)
{
    const size_t d_in = (size_t)weight->d_in, d_out = (size_t)weight->d_out;
    for (size_t o = 0; o < d_out; o++) {
        weight_row_to_f32(weight, (int32_t)o, scratch);
        for (size_t row = 0; row < (size_t)m; row++) {
            float sum = 0;
            for (size_t k = 0; k < d_in; k++)
                sum = fmaf(scratch[k], x[row * d_in + k], sum);
            y[row * d_out + o] = sum;
        }
    }
}

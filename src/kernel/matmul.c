// SPDX-License-Identifier: Apache-2.0
// matmul: the split over threads, the portable body and the reference. One caller at a time per
// pool; the scratch is the caller's.
#include "kernel/matmul.h"

#define MATMUL_SUFFIX portable
#include "kernel/matmul_body.h"

// Panels of the smallest task. In f32 few rows go by groups of four panels, and adapters like many
// columns at a time; with integers and no adapters a panel of some rows is work enough.
#define SMALLEST 4
#define SMALLEST_INT8 1
#define FEW_ROWS 8 // with fewer, as in f32
// Values of y after which `after` is called, while they are in the cache; and at least so many
// panels, as each call looks at every adapter.
#define AFTER_VALUES 4096
#define AFTER_PANELS_MIN 4
#define OWN_REGIONS_MAX 256 // that `after` reads of one range

// Floats of a thread's scratch, whole cache lines: a chunk of a panel in f32, or all of one spread.
// Grows with d_in, so that the widest weight's serves all.
static size_t thread_floats(int32_t d_in)
{
    const size_t unpacked = (size_t)MATMUL_CHUNK_VALUES * WEIGHT_PANEL_ROWS;
    const int32_t most = MATMUL_SPREAD_VALUES_MAX, values = d_in < most ? d_in : most;
    const size_t blocks = ((size_t)values + PANEL_BLOCK_VALUES - 1) / PANEL_BLOCK_VALUES;
    const size_t spread = blocks * MATMUL_SPREAD_BYTES / sizeof(float);
    return unpacked > spread ? unpacked : spread;
}

size_t matmul_scratch_count(int32_t d_in, int32_t threads)
{
    ASSERT(d_in > 0 && threads > 0);
    return (size_t)threads * thread_floats(d_in) + 16; // 16: to start at a cache line
}

struct matmul_split {
    const struct matmul_work *work;
    matmul_panels_fn *run;
    matmul_int8_panels_fn *run_int8;
    int32_t panels, smallest; // of all calls, one after another; of a task
    int32_t threads;
    float *scratch;
};

// Panels of the next task when `left` are left. Tasks become smaller, so that threads of unequal
// speed end together: each takes an equal part of half of what is left.
static int32_t task_panels(const struct matmul_split *split, int32_t left)
{
    if (split->threads == 1)
        return left;
    int32_t part = left / (2 * split->threads) / split->smallest * split->smallest;
    if (part < split->smallest)
        part = split->smallest;
    return part < left ? part : left;
}

static int32_t smallest_task(const struct matmul_work *work)
{
    return work->quant == NULL || work->m < FEW_ROWS || work->beside != NULL ? SMALLEST
                                                                             : SMALLEST_INT8;
}

static int32_t task_count(const struct matmul_split *split)
{
    int32_t count = 0;
    for (int32_t left = split->panels; left > 0; left -= task_panels(split, left))
        count++;
    return count;
}

// What will be read after these panels.
static struct matmul_ahead regions_of(const struct matmul_beside *beside, int32_t call,
                                      int32_t d_out, int32_t first, int32_t count,
                                      struct matmul_region *regions)
{
    struct matmul_ahead own = {.regions = regions};
    const int32_t low = first * WEIGHT_PANEL_ROWS, end = low + count * WEIGHT_PANEL_ROWS;
    if (beside->reads == NULL)
        return own;
    own.region_count = beside->reads(beside->context, call, low, end < d_out ? end : d_out, regions,
                                     OWN_REGIONS_MAX);
    if (own.region_count > 0)
        own.bytes = regions[own.region_count - 1].before + regions[own.region_count - 1].bytes;
    return own;
}

// passed: panels of the calls before.
static void multiply_panels(const struct matmul_split *split, int32_t call, int32_t passed,
                            int32_t first, int32_t count, int32_t thread)
{
    const struct matmul_work *work = split->work;
    const struct matmul_call *of = &work->calls[call];
    struct matmul_job job = {.weight = of->weight,
                             .x = work->x,
                             .m = work->m,
                             .y = of->y,
                             .quant = work->quant,
                             .ahead = work->ahead};
    if (work->ahead != NULL) {
        job.ahead_each = work->ahead->bytes / (size_t)split->panels + 1;
        job.ahead_from = (size_t)(passed + first) * job.ahead_each;
    }
    float *scratch = split->scratch + (size_t)thread * thread_floats(of->weight->d_in);
    if (work->quant == NULL || !matmul_int8_takes(of->weight)) {
        split->run(&job, first, count, scratch);
        return;
    }
    struct matmul_region regions[OWN_REGIONS_MAX];
    if (work->beside != NULL)
        job.own = regions_of(work->beside, call, of->weight->d_out, first, count, regions);
    split->run_int8(&job, first, count, (uint8_t *)scratch);
}

static void run_panels(const struct matmul_split *split, int32_t call, int32_t passed,
                       int32_t first, int32_t count, int32_t thread)
{
    const struct matmul_beside *beside = split->work->beside;
    const int32_t d_out = split->work->calls[call].weight->d_out;
    int32_t each = beside != NULL ? AFTER_VALUES / WEIGHT_PANEL_ROWS / split->work->m : count;
    each = each < AFTER_PANELS_MIN ? AFTER_PANELS_MIN : each;
    for (int32_t done = 0, part; done < count; done += part) {
        part = count - done < each ? count - done : each;
        multiply_panels(split, call, passed, first + done, part, thread);
        const int32_t end = (first + done + part) * WEIGHT_PANEL_ROWS;
        if (beside != NULL)
            beside->after(beside->context, call, (first + done) * WEIGHT_PANEL_ROWS,
                          end < d_out ? end : d_out, thread);
    }
}

static void run_share(void *context, int32_t index, int32_t thread)
{
    const struct matmul_split *split = context;
    const struct matmul_beside *beside = split->work->beside;
    int32_t first = 0, passed = 0;
    if (beside != NULL && index < beside->before_count) {
        beside->before(beside->context, index, thread);
        return;
    }
    index -= beside != NULL ? beside->before_count : 0;
    for (int32_t i = 0; i < index; i++)
        first += task_panels(split, split->panels - first);
    const int32_t end = first + task_panels(split, split->panels - first);
    for (int32_t call = 0; call < split->work->call_count; call++) {
        int32_t panels = weight_panel_count(split->work->calls[call].weight);
        int32_t low = first > passed ? first - passed : 0;
        int32_t high = end - passed < panels ? end - passed : panels;
        if (low < high)
            run_panels(split, call, passed, low, high - low, thread);
        passed += panels;
    }
}

void matmul_run_on(enum cpu_isa isa, struct pool *pool, const struct matmul_work *work,
                   float *scratch)
{
    static matmul_panels_fn *const by_isa[] = {matmul_panels_portable, matmul_panels_avx2,
                                               matmul_panels_avx512, matmul_panels_avx512};
    static matmul_int8_panels_fn *const int8_by_isa[] = {
        matmul_int8_panels_portable, matmul_int8_panels_avx2, matmul_int8_panels_avx512,
        matmul_int8_panels_vnni};
    ASSERT(work->m >= 0 && work->call_count > 0);
    if (work->m == 0)
        return;
    const int32_t threads = pool_threads(pool);
    int32_t panels = 0;
    for (int32_t call = 0; call < work->call_count; call++) {
        ASSERT(work->calls[call].weight->d_in == work->calls[0].weight->d_in);
        panels += weight_panel_count(work->calls[call].weight);
    }
    const int32_t smallest = smallest_task(work), each = (panels + threads - 1) / threads;
    uintptr_t line = ((uintptr_t)scratch + 63) & ~(uintptr_t)63;
    struct matmul_split split = {.work = work,
                                 .run = by_isa[isa],
                                 .run_int8 = int8_by_isa[isa],
                                 .panels = panels,
                                 .smallest = each < smallest ? each : smallest,
                                 .threads = threads,
                                 .scratch = (float *)line};
    const int32_t before = work->beside != NULL ? work->beside->before_count : 0;
    pool_run(pool, before + task_count(&split), run_share, &split);
}

void matmul_run(struct pool *pool, const struct matmul_work *work, float *scratch)
{
    matmul_run_on(cpu_isa(), pool, work, scratch);
}

void matmul(struct pool *pool, const struct weight *weight, const float *x, int32_t m, float *y,
            float *scratch)
{
    const struct matmul_call call = {.weight = weight, .y = y};
    matmul_run(pool, &(struct matmul_work){.calls = &call, .call_count = 1, .x = x, .m = m},
               scratch);
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

// SPDX-License-Identifier: Apache-2.0
// See project.h. An adapter's first half, t = A x, is the first tasks of the base's product; its
// second, B t, is added by the thread that has just set the same columns to W x.
#include "model/project.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/latch.h"
#include "kernel/matmul_int8.h"

// Before the products rows are made so many at a time, which stay in the first cache; a task takes
// several such groups where rows are many, as the hardware fetches what lies on.
#define ROWS_EACH 4
#define ROWS_OF_TASK_MAX 32
#define TASKS_OF_THREAD 4 // at least, if there are rows enough

static int32_t widest_input(const struct sora_base *base)
{
    int32_t widest = base->hidden;
    for (int proj = 0; proj < SORA_PROJ_COUNT; proj++)
        widest = base->d_in[proj] > widest ? base->d_in[proj] : widest;
    return widest;
}

static size_t lora_scratch_of(const struct sora_base *base, int32_t rows_max)
{
    int32_t rank_max = 0; // no valid module has more ranks than its narrower side
    for (int proj = 0; proj < SORA_PROJ_COUNT; proj++) {
        int32_t narrow =
            base->d_in[proj] < base->d_out[proj] ? base->d_in[proj] : base->d_out[proj];
        rank_max = narrow > rank_max ? narrow : rank_max;
    }
    return lora_scratch_count(rows_max, rank_max);
}

sora_status project_init(struct projector *projector, const struct sora_base *base,
                         struct pool *pool, int32_t rows_max, enum sora_compute compute,
                         struct sora_error *err)
{
    const size_t threads = (size_t)pool_threads(pool);
    memset(projector, 0, sizeof *projector);
    projector->pool = pool;
    projector->compute = compute;
    projector->matmul_scratch =
        aligned_calloc(matmul_scratch_count(widest_input(base), pool_threads(pool)), sizeof(float));
    if (compute == SORA_COMPUTE_INT8)
        projector->quant_memory = aligned_calloc(row_quant_bytes(rows_max, widest_input(base)), 1);
    // Not aligned_calloc, which touches what it gives: few steps use more than a fraction of it.
    projector->lora_scratch = calloc(lora_scratch_of(base, rows_max) + 1, sizeof(float));
    projector->threads = aligned_calloc(threads, sizeof *projector->threads);
    if (projector->matmul_scratch == NULL || projector->lora_scratch == NULL ||
        projector->threads == NULL ||
        (compute == SORA_COMPUTE_INT8 && projector->quant_memory == NULL)) {
        project_deinit(projector);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the projections of %d rows", rows_max);
    }
    return SORA_OK;
}

void project_deinit(struct projector *projector)
{
    free(projector->matmul_scratch);
    free(projector->lora_scratch);
    free(projector->quant_memory);
    free(projector->threads);
    memset(projector, 0, sizeof *projector);
}

void project_begin(struct projector *projector)
{
    projector->base_ns = projector->adapter_ns = projector->rank_sum = 0;
}

// Rows of x are made, then turned to integers.
struct rows_work {
    struct projector *projector;
    const struct project_in *in;
    const struct row_quant *quant; // NULL: x stays as it is
};

static void make_group(const struct rows_work *work, int32_t first, int32_t end, int32_t thread)
{
    struct project_thread *spent = &work->projector->threads[thread];
    const int64_t start = clock_ticks();
    if (work->in->fill != NULL)
        work->in->fill(work->in->context, first, end);
    const int64_t filled = clock_ticks();
    if (work->quant != NULL)
        row_quant_rows(work->quant, first, end);
    spent->fill_ticks += filled - start;
    spent->quant_ticks += clock_ticks() - filled;
}

static void make_rows(void *context, int32_t first, int32_t end, int32_t thread)
{
    for (; first < end; first += ROWS_EACH)
        make_group(context, first, end - first < ROWS_EACH ? end : first + ROWS_EACH, thread);
}

static int32_t rows_of_task(int32_t m, int32_t threads)
{
    const int32_t rows = m / (TASKS_OF_THREAD * threads) / ROWS_EACH * ROWS_EACH;
    return rows < ROWS_EACH ? ROWS_EACH : rows < ROWS_OF_TASK_MAX ? rows : ROWS_OF_TASK_MAX;
}

// Makes all of x. Returns the time of it that is no part of the products.
static int64_t make_x(struct projector *projector, const struct project_in *in, int32_t m,
                      int32_t d_in, const struct row_quant *quant)
{
    struct rows_work work = {projector, in, quant};
    int64_t fill = 0, quantize = 0;
    if (in->fill == NULL && quant == NULL)
        return 0;
    const int64_t start_ns = clock_now_ns();
    pool_run_rows(projector->pool, m, d_in, rows_of_task(m, pool_threads(projector->pool)),
                  make_rows, &work);
    for (int32_t i = 0; i < pool_threads(projector->pool); i++) {
        fill += projector->threads[i].fill_ticks;
        quantize += projector->threads[i].quant_ticks;
        projector->threads[i].fill_ticks = projector->threads[i].quant_ticks = 0;
    }
    // Of waiting for each other too, in the same proportion.
    const double share = (double)fill / (double)(fill + quantize + 1);
    return in->fill == NULL ? 0 : (int64_t)(share * (double)(clock_now_ns() - start_ns));
}

// The adapters' part of a product.
struct adapter_context {
    struct projector *projector;
    const struct lora_work *lora;
    const struct matmul_call *calls;
    int32_t task_count;
    struct latch shrinking; // tasks that are not done
};

static void shrink(void *context, int32_t index, int32_t thread)
{
    struct adapter_context *adapters = context;
    const int64_t start = clock_ticks();
    lora_shrink_task(adapters->lora, index, adapters->task_count);
    latch_count_down(&adapters->shrinking);
    adapters->projector->threads[thread].adapter_ticks += clock_ticks() - start;
}

static void expand(void *context, int32_t call, int32_t first, int32_t end, int32_t thread)
{
    struct adapter_context *adapters = context;
    const struct matmul_call *of = &adapters->calls[call];
    const int64_t start = clock_ticks();
    latch_wait(&adapters->shrinking);
    lora_expand_columns(adapters->lora, call, of->y, of->weight->d_out, first, end);
    adapters->projector->threads[thread].adapter_ticks += clock_ticks() - start;
}

static int32_t expand_reads(void *context, int32_t call, int32_t first, int32_t end,
                            struct matmul_region *regions, int32_t max)
{
    const struct adapter_context *adapters = context;
    return lora_expand_reads(adapters->lora, call, first, end, regions, max);
}

// What the threads spent on adapters within a product, as a share of its time.
static void count_time(struct projector *projector, int64_t ns, int64_t ticks)
{
    const int32_t threads = pool_threads(projector->pool);
    int64_t spent = 0;
    for (int32_t i = 0; i < threads; i++) {
        spent += projector->threads[i].adapter_ticks;
        projector->threads[i].adapter_ticks = 0;
    }
    const double share = (double)spent / ((double)threads * (double)(ticks + 1));
    const int64_t adapter_ns = (int64_t)(share * (double)ns);
    projector->adapter_ns += adapter_ns;
    projector->base_ns += ns - adapter_ns;
}

// x as the products read it: as integers where the mode and the weights allow, `coarse` ones where
// that is enough.
static void prepare(struct projector *projector, const struct project_in *in, bool coarse,
                    struct matmul_work *work, struct row_quant *quant)
{
    const int32_t d_in = work->calls[0].weight->d_in;
    unsigned forms = 0;
    int64_t start_ns = clock_now_ns();
    if (projector->compute == SORA_COMPUTE_INT8)
        for (int32_t i = 0; i < work->call_count; i++)
            forms |= matmul_int8_form(work->calls[i].weight, coarse);
    work->x = in->x;
    if (forms != 0 && work->m > 0) {
        row_quant_begin(in->x, work->m, d_in, forms, projector->quant_memory, quant);
        work->quant = quant;
    }
    const int64_t fill_ns = make_x(projector, in, work->m, d_in, work->quant);
    projector->base_ns += clock_now_ns() - start_ns - fill_ns;
}

static void multiply(struct projector *projector, const struct matmul_work *work)
{
    const int64_t start_ns = clock_now_ns(), start = clock_ticks();
    matmul_run(projector->pool, work, projector->matmul_scratch);
    count_time(projector, clock_now_ns() - start_ns, clock_ticks() - start);
}

// The products with their adapters: of lora's groups, if any has ranks here.
static void multiply_adapted(struct projector *projector, struct lora_work *lora,
                             struct matmul_work *work)
{
    int64_t start_ns = clock_now_ns();
    const int64_t rank_sum = lora->group_count > 0 ? lora_work_init(lora) : 0;
    projector->rank_sum += rank_sum;
    projector->adapter_ns += clock_now_ns() - start_ns;
    if (rank_sum == 0) {
        multiply(projector, work);
        return;
    }
    struct adapter_context context = {
        projector, lora, work->calls, lora_shrink_tasks(lora, pool_threads(projector->pool)), {0}};
    const struct matmul_beside beside = {shrink, context.task_count, expand, expand_reads,
                                         &context};
    latch_set(&context.shrinking, context.task_count);
    work->beside = &beside;
    multiply(projector, work);
}

void project_run(struct projector *projector, const struct weights *weights, int32_t layer,
                 const struct project_batch *batch, const struct project_out *outs, int32_t count,
                 const struct project_in *in)
{
    const struct weight *of_layer = weights->layers[layer].projections;
    struct lora_work lora = {.groups = batch->groups,
                             .group_count = batch->group_count,
                             .layer = layer,
                             .call_count = count,
                             .x = in->x,
                             .d_in = of_layer[outs[0].proj].d_in,
                             .scratch = projector->lora_scratch};
    struct matmul_call calls[LORA_CALLS_MAX];
    struct matmul_work work = {
        .calls = calls, .call_count = count, .m = batch->row_count, .ahead = batch->ahead};
    struct row_quant quant;
    for (int32_t i = 0; i < count; i++) {
        lora.projs[i] = outs[i].proj;
        calls[i] = (struct matmul_call){.weight = &of_layer[outs[i].proj], .y = outs[i].y};
    }
    prepare(projector, in, false, &work, &quant);
    multiply_adapted(projector, &lora, &work);
}

void project_logits(struct projector *projector, const struct weights *weights, const float *x,
                    int32_t m, float *logits)
{
    const struct matmul_call call = {.weight = &weights->output, .y = logits};
    struct matmul_work work = {.calls = &call, .call_count = 1, .m = m};
    struct row_quant quant;
    prepare(projector, &(struct project_in){.x = x}, true, &work, &quant);
    multiply(projector, &work);
}

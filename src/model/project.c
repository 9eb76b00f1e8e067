// SPDX-License-Identifier: Apache-2.0
// See project.h. An adapter's first half, t = A x, runs before the base's product; its second, B t,
// is set by the thread that then adds W x to the same columns.
#include "model/project.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "kernel/matmul_int8.h"

#define ROWS_EACH 4 // rows of a task before the products
// Fewer values are done before another thread has begun.
#define SHARED_VALUES_MIN 8192

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

// What comes before the products: x is made and turned to integers by rows, and t = A x by ranks.
struct prepare {
    struct projector *projector;
    const struct project_in *in;
    int32_t m, d_in, row_tasks;
    const struct row_quant *quant; // NULL: x stays as it is
    const struct lora_work *lora;  // NULL: no row has a rank here
    int32_t shrink_tasks;
};

static void row_task(void *context, int32_t index, int32_t thread)
{
    const struct prepare *prepare = context;
    const int32_t first = index * ROWS_EACH, left = prepare->m - first;
    const int32_t end = first + (left < ROWS_EACH ? left : ROWS_EACH);
    if (prepare->in->fill != NULL) {
        int64_t start_ns = clock_now_ns();
        prepare->in->fill(prepare->in->context, first, end);
        prepare->projector->threads[thread].fill_ns += clock_now_ns() - start_ns;
    }
    if (prepare->quant != NULL)
        row_quant_rows(prepare->quant, first, end);
}

static void shrink_task(void *context, int32_t index, int32_t thread)
{
    const struct prepare *prepare = context;
    int64_t start_ns = clock_now_ns();
    lora_shrink_task(prepare->lora, index);
    prepare->projector->threads[thread].adapter_ns += clock_now_ns() - start_ns;
}

static void shrink_or_row_task(void *context, int32_t index, int32_t thread)
{
    const struct prepare *prepare = context;
    if (index < prepare->shrink_tasks)
        shrink_task(context, index, thread);
    else
        row_task(context, index - prepare->shrink_tasks, thread);
}

static void prepare_run(struct prepare *prepare)
{
    const int64_t values = (int64_t)prepare->m * prepare->d_in;
    struct pool *pool = prepare->projector->pool;
    struct pool *rows = values < SHARED_VALUES_MIN ? NULL : pool;
    struct pool *ranks = prepare->shrink_tasks > 1 ? pool : NULL;
    if (prepare->in->fill == NULL) {
        pool_run(rows != NULL ? rows : ranks, prepare->shrink_tasks + prepare->row_tasks,
                 shrink_or_row_task, prepare);
        return;
    }
    pool_run(rows, prepare->row_tasks, row_task, prepare);
    pool_run(ranks, prepare->shrink_tasks, shrink_task, prepare);
}

struct expand_context {
    struct projector *projector;
    const struct lora_work *lora;
    const struct matmul_call *calls;
};

static void expand(void *context, int32_t call, int32_t first, int32_t end, int32_t thread)
{
    const struct expand_context *expand = context;
    const struct matmul_call *of = &expand->calls[call];
    int64_t start_ns = clock_now_ns();
    lora_expand_columns(expand->lora, call, of->y, of->weight->d_out, first, end);
    expand->projector->threads[thread].adapter_ns += clock_now_ns() - start_ns;
}

// Of the time since start_ns: what the threads spent on adapters, each a share, and on the base.
static void count_time(struct projector *projector, int64_t start_ns)
{
    const int32_t threads = pool_threads(projector->pool);
    int64_t adapter_ns = 0, fill_ns = 0;
    for (int32_t i = 0; i < threads; i++) {
        adapter_ns += projector->threads[i].adapter_ns;
        fill_ns += projector->threads[i].fill_ns;
        projector->threads[i].adapter_ns = projector->threads[i].fill_ns = 0;
    }
    projector->adapter_ns += adapter_ns / threads;
    projector->base_ns += clock_now_ns() - start_ns - (adapter_ns + fill_ns) / threads;
}

// Runs the products, with x as integers where the mode and the weights allow.
static void multiply(struct projector *projector, const struct project_in *in,
                     const struct lora_work *lora, struct matmul_work *work)
{
    struct row_quant quant;
    struct prepare prepare = {.projector = projector,
                              .in = in,
                              .m = work->m,
                              .d_in = work->calls[0].weight->d_in,
                              .lora = lora};
    unsigned forms = 0;
    if (projector->compute == SORA_COMPUTE_INT8)
        for (int32_t i = 0; i < work->call_count; i++)
            forms |= matmul_int8_form(work->calls[i].weight);
    if (forms != 0 && work->m > 0) {
        row_quant_begin(in->x, work->m, prepare.d_in, forms, projector->quant_memory, &quant);
        work->quant = prepare.quant = &quant;
    }
    if (in->fill != NULL || forms != 0)
        prepare.row_tasks = (work->m + ROWS_EACH - 1) / ROWS_EACH;
    if (lora != NULL)
        prepare.shrink_tasks = lora->shrink_tasks;
    prepare_run(&prepare);
    matmul_run(projector->pool, work, projector->matmul_scratch);
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
                             .m = batch->row_count,
                             .d_in = of_layer[outs[0].proj].d_in,
                             .scratch = projector->lora_scratch};
    struct matmul_call calls[LORA_CALLS_MAX];
    struct expand_context context = {projector, &lora, calls};
    struct matmul_work work = {.calls = calls,
                               .call_count = count,
                               .x = in->x,
                               .m = batch->row_count,
                               .start = expand,
                               .start_context = &context,
                               .ahead = batch->ahead};
    const int64_t start_ns = clock_now_ns();
    int64_t rank_sum = 0;
    for (int32_t i = 0; i < count; i++)
        lora.projs[i] = outs[i].proj;
    if (batch->group_count > 0)
        rank_sum = lora_work_init(&lora, pool_threads(projector->pool));
    for (int32_t i = 0; i < count; i++)
        calls[i] = (struct matmul_call){
            .weight = &of_layer[outs[i].proj], .y = outs[i].y, .adds = lora.rank_sums[i] > 0};
    multiply(projector, in, rank_sum > 0 ? &lora : NULL, &work);
    projector->rank_sum += rank_sum;
    count_time(projector, start_ns);
}

void project_logits(struct projector *projector, const struct weights *weights, const float *x,
                    int32_t m, float *logits)
{
    const struct project_in in = {.x = x};
    const struct matmul_call call = {.weight = &weights->output, .y = logits};
    const int64_t start_ns = clock_now_ns();
    multiply(projector, &in, NULL,
             &(struct matmul_work){.calls = &call, .call_count = 1, .x = x, .m = m});
    count_time(projector, start_ns);
}

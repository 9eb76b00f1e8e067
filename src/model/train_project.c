// SPDX-License-Identifier: Apache-2.0
// The projections of a training pass and their gradients, see train_activations.h: the base's
// products, with each module's part taken along. Called by the thread that runs the pass.
#include <string.h>

#include "kernel/matmul.h"
#include "kernel/matmul_int8.h"
#include "model/train_activations.h"

static const float *bias_of(const struct weights_layer *weights, enum sora_proj proj)
{
    switch (proj) {
    case SORA_PROJ_Q:
        return weights->q_bias;
    case SORA_PROJ_K:
        return weights->k_bias;
    case SORA_PROJ_V:
        return weights->v_bias;
    default:
        return NULL;
    }
}

static int32_t parts_of(const struct train_pass *pass, const struct train_projections *projections,
                        struct frozen_part *parts)
{
    const struct weights_layer *weights = &pass->model->weights.layers[projections->layer];
    for (int32_t i = 0; i < projections->count; i++) {
        const enum sora_proj proj = projections->projs[i];
        parts[i] = (struct frozen_part){.weight = &weights->projections[proj],
                                        .bias = bias_of(weights, proj),
                                        .lora = train_pass_lora(pass, projections->layer, proj),
                                        .side = pass->side[i],
                                        .y = projections->values[i],
                                        .dy = projections->values[i]};
    }
    return projections->count;
}

// What the module reads: x, or x after dropout.
static const float *module_input(struct train_pass *pass, int32_t layer, enum sora_proj proj,
                                 const float *x, int32_t n, int32_t d_in)
{
    if (pass->dropout == 0.0f)
        return x;
    dropout(pass->pool, x, (size_t)n * (size_t)d_in, pass->dropout,
            train_pass_dropout_seed(pass, layer, proj), pass->dropped);
    return pass->dropped;
}

struct expand_context {
    const struct frozen_part *parts;
    int32_t n;
};

// Adds the module's part of some columns to the base's product.
static void expand_columns(void *context, int32_t call, int32_t first, int32_t end, int32_t thread)
{
    (void)thread;
    const struct expand_context *expand = context;
    const struct frozen_part *part = &expand->parts[call];
    if (part->lora.rank > 0)
        lora_train_expand(&part->lora, part->side, 0, expand->n, first, end, part->y);
}

// The very products of serving in compute mode int8.
static void multiply_int8(struct train_pass *pass, const struct frozen_part *parts, int32_t count,
                          const float *x, int32_t n)
{
    struct matmul_call calls[FROZEN_PARTS_MAX];
    struct expand_context context = {parts, n};
    const struct matmul_beside beside = {.after = expand_columns, .context = &context};
    struct matmul_work work = {.calls = calls, .call_count = count, .x = x, .m = n};
    struct row_quant quant;
    unsigned forms = 0;
    for (int32_t i = 0; i < count; i++) {
        calls[i] = (struct matmul_call){.weight = parts[i].weight, .y = parts[i].y};
        forms |= matmul_int8_form(parts[i].weight, false);
        if (parts[i].lora.rank > 0)
            work.beside = &beside;
    }
    if (forms != 0 && n > 0) {
        row_quant_fill(pass->pool, x, n, parts[0].weight->d_in, forms, pass->quant_memory, &quant);
        work.quant = &quant;
    }
    matmul_run(pass->pool, &work, pass->matmul_scratch);
    for (int32_t i = 0; i < count; i++)
        if (parts[i].bias != NULL)
            train_rows_add_bias(pass->pool, parts[i].bias, n, parts[i].weight->d_out, parts[i].y);
}

static void multiply(struct train_pass *pass, const struct frozen_part *parts, int32_t count,
                     const float *x, int32_t n)
{
    if (pass->compute == SORA_COMPUTE_INT8)
        multiply_int8(pass, parts, count, x, n);
    else
        frozen_linear(pass->pool, parts, count, x, n, pass->frozen_scratch);
}

void train_project(struct train_pass *pass, const struct train_projections *projections,
                   const float *x, int32_t n)
{
    struct frozen_part parts[FROZEN_PARTS_MAX];
    const int32_t count = parts_of(pass, projections, parts);
    for (int32_t i = 0; i < count; i++) {
        const enum sora_proj proj = projections->projs[i];
        if (parts[i].lora.rank == 0)
            continue;
        const float *input =
            module_input(pass, projections->layer, proj, x, n, parts[i].weight->d_in);
        lora_train_shrink(pass->pool, &parts[i].lora, input, n,
                          pass->layers[projections->layer].t[proj], pass->side[i]);
    }
    multiply(pass, parts, count, x, n);
}

// dx += what comes through the modules' dropped inputs; pass->side holds their dt.
static void add_dropped(struct train_pass *pass, const struct train_projections *projections,
                        const struct frozen_part *parts, int32_t n, float *dx)
{
    for (int32_t i = 0; i < projections->count; i++) {
        if (parts[i].lora.rank == 0)
            continue;
        lora_train_input_gradient(pass->pool, &parts[i].lora, pass->side[i], n, pass->dropped);
        dropout_backward(
            pass->pool, pass->dropped, (size_t)n * (size_t)parts[i].weight->d_in, pass->dropout,
            train_pass_dropout_seed(pass, projections->layer, projections->projs[i]), dx);
    }
}

void train_project_backward(struct train_pass *pass, const struct train_projections *projections,
                            const float *x, int32_t n, float *dx)
{
    struct frozen_part parts[FROZEN_PARTS_MAX];
    const int32_t count = parts_of(pass, projections, parts);
    for (int32_t i = 0; i < count; i++) {
        const enum sora_proj proj = projections->projs[i];
        if (parts[i].lora.rank == 0)
            continue;
        const float *input =
            module_input(pass, projections->layer, proj, x, n, parts[i].weight->d_in);
        lora_train_backward(pass->pool, &parts[i].lora, input,
                            pass->layers[projections->layer].t[proj], n, parts[i].dy, pass->side[i],
                            pass->lora_scratch);
        if (pass->dropout > 0.0f)
            parts[i].side = NULL;
    }
    if (dx == NULL)
        return;
    frozen_linear_backward(pass->pool, parts, count, n, dx, pass->frozen_scratch);
    if (pass->dropout > 0.0f)
        add_dropped(pass, projections, parts, n, dx);
}

void train_project_logits(struct train_pass *pass, const float *x, int32_t n, float *logits)
{
    const struct frozen_part part = {.weight = &pass->model->weights.output, .y = logits};
    multiply(pass, &part, 1, x, n);
}

void train_project_logits_backward(struct train_pass *pass, const float *dlogits, int32_t n,
                                   float *dx)
{
    const struct frozen_part part = {.weight = &pass->model->weights.output, .dy = dlogits};
    frozen_linear_backward(pass->pool, &part, 1, n, dx, pass->frozen_scratch);
}

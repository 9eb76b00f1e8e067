// SPDX-License-Identifier: Apache-2.0
// The forward half of a training pass, see train_activations.h. Called by the thread that runs the
// pass.
#include <string.h>

#include "kernel/attention_train.h"
#include "kernel/frozen_linear.h"
#include "kernel/lora_train.h"
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

// y = W x + bias + scale * B (g o (A dropout(x))).
static void project(struct train_pass *pass, int32_t index, enum sora_proj proj, const float *x,
                    float *y)
{
    const int32_t n = pass->batch->token_count;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct weight *weight = &weights->projections[proj];
    frozen_linear(pass->pool, weight, bias_of(weights, proj), x, n, y, pass->frozen_scratch);
    const struct train_module *module = train_pass_module(pass, index, proj);
    if (module->rank == 0)
        return;
    const struct lora_train lora = {.rank = module->rank,
                                    .d_in = weight->d_in,
                                    .d_out = weight->d_out,
                                    .scale = module->scale,
                                    .a = module->a,
                                    .b = module->b,
                                    .g = module->g};
    if (pass->dropout > 0.0f) {
        dropout(pass->pool, x, (size_t)n * (size_t)weight->d_in, pass->dropout,
                train_pass_dropout_seed(pass, index, proj), pass->dropped);
        x = pass->dropped;
    }
    lora_train_forward(pass->pool, &lora, x, n, pass->layers[index].t[proj], y, pass->lora_scratch);
}

void train_forward_rotate(struct train_pass *pass, const struct train_layer *layer, int32_t index)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const int32_t n = pass->batch->token_count, d = base->head_dim;
    const float eps = pass->model->config.norm_eps;
    if (weights->q_norm != NULL)
        train_rows_norm(pass->pool, layer->q, weights->q_norm, eps, n * base->head_count, d,
                        pass->q_rot);
    else
        memcpy(pass->q_rot, layer->q, (size_t)n * (size_t)(base->head_count * d) * sizeof(float));
    if (weights->k_norm != NULL)
        train_rows_norm(pass->pool, layer->k, weights->k_norm, eps, n * base->kv_head_count, d,
                        pass->k_rot);
    else
        memcpy(pass->k_rot, layer->k,
               (size_t)n * (size_t)(base->kv_head_count * d) * sizeof(float));
    train_rows_rope(pass->pool, pass->q_rot, n, base->head_count, d, pass->rope, pass->positions,
                    false);
    train_rows_rope(pass->pool, pass->k_rot, n, base->kv_head_count, d, pass->rope, pass->positions,
                    false);
}

static void forward_attention(struct train_pass *pass, int32_t index)
{
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_batch *batch = pass->batch;
    struct train_layer *layer = &pass->layers[index];
    const int32_t n = batch->token_count, hidden = pass->model->info.base.hidden;
    train_rows_norm(pass->pool, layer->x_in, weights->attention_norm, pass->model->config.norm_eps,
                    n, hidden, pass->normed);
    project(pass, index, SORA_PROJ_Q, pass->normed, layer->q);
    project(pass, index, SORA_PROJ_K, pass->normed, layer->k);
    project(pass, index, SORA_PROJ_V, pass->normed, layer->v);
    train_forward_rotate(pass, layer, index);
    attention_train_forward(pass->pool, &pass->attention_shape, batch->starts,
                            batch->sequence_count, pass->length_max, pass->q_rot, pass->k_rot,
                            layer->v, layer->attention, pass->attention_scratch);
    project(pass, index, SORA_PROJ_O, layer->attention, pass->branch);
    train_rows_add(pass->pool, layer->x_in, pass->branch, n, hidden, layer->x_mid);
}

static void forward_mlp(struct train_pass *pass, int32_t index, float *x_out)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    struct train_layer *layer = &pass->layers[index];
    const int32_t n = pass->batch->token_count;
    train_rows_norm(pass->pool, layer->x_mid, weights->mlp_norm, pass->model->config.norm_eps, n,
                    base->hidden, pass->normed);
    project(pass, index, SORA_PROJ_GATE, pass->normed, layer->gate);
    project(pass, index, SORA_PROJ_UP, pass->normed, layer->up);
    train_rows_swiglu(pass->pool, layer->gate, layer->up, n, base->intermediate, pass->mlp);
    project(pass, index, SORA_PROJ_DOWN, pass->mlp, pass->branch);
    train_rows_add(pass->pool, layer->x_mid, pass->branch, n, base->hidden, x_out);
}

void train_forward(struct train_pass *pass)
{
    const struct weights *weights = &pass->model->weights;
    const int32_t layer_count = weights->layer_count;
    const size_t hidden = (size_t)pass->model->info.base.hidden;
    float *x = layer_count > 0 ? pass->layers[0].x_in : pass->x_out;
    for (int32_t i = 0; i < pass->batch->token_count; i++)
        weight_row_to_f32(&weights->embedding, pass->batch->tokens[i], x + (size_t)i * hidden);
    for (int32_t index = 0; index < layer_count; index++) {
        forward_attention(pass, index);
        forward_mlp(pass, index,
                    index + 1 < layer_count ? pass->layers[index + 1].x_in : pass->x_out);
    }
}

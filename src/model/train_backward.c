// SPDX-License-Identifier: Apache-2.0
// The backward half of a training pass, see train_activations.h: each function undoes the one of
// the same name in train_forward.c, in reverse. Called by the thread that runs the pass.
#include <string.h>

#include "kernel/attention_train.h"
#include "kernel/frozen_linear.h"
#include "kernel/lora_train.h"
#include "kernel/loss.h"
#include "model/train_activations.h"

// Backward of project(): gradients of the module, and dx (+)= that of the input; dx NULL: no more
// is wanted below. add: dx grows.
static void project_backward(struct train_pass *pass, int32_t index, enum sora_proj proj,
                             const float *x, const float *dy, bool add, float *dx)
{
    const int32_t n = pass->batch->token_count;
    const struct weight *weight = &pass->model->weights.layers[index].projections[proj];
    if (dx != NULL)
        frozen_linear_backward(pass->pool, weight, dy, n, add, dx, pass->frozen_scratch);
    const struct train_module *module = train_pass_module(pass, index, proj);
    if (module->rank == 0)
        return;
    const struct lora_train lora = {.rank = module->rank,
                                    .d_in = weight->d_in,
                                    .d_out = weight->d_out,
                                    .scale = module->scale,
                                    .a = module->a,
                                    .b = module->b,
                                    .g = module->g,
                                    .da = module->da,
                                    .db = module->db,
                                    .dg = module->dg};
    const float *t = pass->layers[index].t[proj];
    if (pass->dropout == 0.0f) {
        lora_train_backward(pass->pool, &lora, x, t, n, dy, dx, pass->lora_scratch);
        return;
    }
    const size_t count = (size_t)n * (size_t)weight->d_in;
    const uint64_t seed = train_pass_dropout_seed(pass, index, proj);
    dropout(pass->pool, x, count, pass->dropout, seed, pass->dropped);
    float *ddropped = dx != NULL ? pass->dropped + count : NULL;
    if (ddropped != NULL)
        memset(ddropped, 0, count * sizeof(float));
    lora_train_backward(pass->pool, &lora, pass->dropped, t, n, dy, ddropped, pass->lora_scratch);
    if (dx != NULL)
        dropout_backward(pass->pool, ddropped, count, pass->dropout, seed, dx);
}

static void backward_mlp(struct train_pass *pass, int32_t index)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_layer *layer = &pass->layers[index];
    const int32_t n = pass->batch->token_count;
    const float eps = pass->model->config.norm_eps;
    const bool below_mlp =
        index > pass->layer_lowest || train_pass_adapts(pass, index, SORA_PROJ_Q, SORA_PROJ_O);
    const bool below_down =
        below_mlp || train_pass_adapts(pass, index, SORA_PROJ_GATE, SORA_PROJ_UP);
    train_rows_swiglu(pass->pool, layer->gate, layer->up, n, base->intermediate, pass->mlp);
    project_backward(pass, index, SORA_PROJ_DOWN, pass->mlp, pass->dx, false,
                     below_down ? pass->dmlp : NULL);
    if (!below_down)
        return;
    train_rows_swiglu_backward(pass->pool, layer->gate, layer->up, pass->dmlp, n,
                               base->intermediate, pass->dgate, pass->dup);
    train_rows_norm(pass->pool, layer->x_mid, weights->mlp_norm, eps, n, base->hidden,
                    pass->normed);
    float *dnormed = below_mlp ? pass->dnormed : NULL;
    project_backward(pass, index, SORA_PROJ_GATE, pass->normed, pass->dgate, false, dnormed);
    project_backward(pass, index, SORA_PROJ_UP, pass->normed, pass->dup, true, dnormed);
    if (below_mlp)
        train_rows_norm_backward(pass->pool, layer->x_mid, weights->mlp_norm, eps, dnormed, n,
                                 base->hidden, pass->dx);
}

// Gradient of the rotated, normed heads -> of the projected ones, in place or into `scratch`;
// returns where it is. raw: q or k as projected.
static float *unrotate(struct train_pass *pass, const float *raw, const float *norm,
                       int32_t head_count, float *drot, float *scratch)
{
    const int32_t n = pass->batch->token_count, d = pass->model->info.base.head_dim;
    train_rows_rope(pass->pool, drot, n, head_count, d, pass->rope, pass->positions, true);
    if (norm == NULL)
        return drot;
    memset(scratch, 0, (size_t)n * (size_t)(head_count * d) * sizeof(float));
    train_rows_norm_backward(pass->pool, raw, norm, pass->model->config.norm_eps, drot,
                             n * head_count, d, scratch);
    return scratch;
}

// From dattention to dx and the q, k and v modules.
static void backward_heads(struct train_pass *pass, int32_t index)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_layer *layer = &pass->layers[index];
    const struct train_batch *batch = pass->batch;
    const int32_t n = batch->token_count;
    const float eps = pass->model->config.norm_eps;
    train_forward_rotate(pass, layer, index);
    attention_train_backward(pass->pool, &pass->attention_shape, batch->starts,
                             batch->sequence_count, pass->length_max, pass->q_rot, pass->k_rot,
                             layer->v, pass->dattention, pass->dq, pass->dk, pass->dv,
                             pass->attention_scratch);
    // q_rot and k_rot are not needed any more: they take the gradients of the head norms.
    const float *dq =
        unrotate(pass, layer->q, weights->q_norm, base->head_count, pass->dq, pass->q_rot);
    const float *dk =
        unrotate(pass, layer->k, weights->k_norm, base->kv_head_count, pass->dk, pass->k_rot);
    train_rows_norm(pass->pool, layer->x_in, weights->attention_norm, eps, n, base->hidden,
                    pass->normed);
    float *dnormed = index > pass->layer_lowest ? pass->dnormed : NULL;
    project_backward(pass, index, SORA_PROJ_Q, pass->normed, dq, false, dnormed);
    project_backward(pass, index, SORA_PROJ_K, pass->normed, dk, true, dnormed);
    project_backward(pass, index, SORA_PROJ_V, pass->normed, pass->dv, true, dnormed);
    if (dnormed != NULL)
        train_rows_norm_backward(pass->pool, layer->x_in, weights->attention_norm, eps, dnormed, n,
                                 base->hidden, pass->dx);
}

static void backward_attention(struct train_pass *pass, int32_t index)
{
    const bool below_o =
        index > pass->layer_lowest || train_pass_adapts(pass, index, SORA_PROJ_Q, SORA_PROJ_V);
    if (!below_o && !train_pass_adapts(pass, index, SORA_PROJ_O, SORA_PROJ_O))
        return;
    project_backward(pass, index, SORA_PROJ_O, pass->layers[index].attention, pass->dx, false,
                     below_o ? pass->dattention : NULL);
    if (below_o)
        backward_heads(pass, index);
}

void train_backward(struct train_pass *pass)
{
    for (int32_t index = pass->model->weights.layer_count - 1; index >= pass->layer_lowest;
         index--) {
        backward_mlp(pass, index);
        backward_attention(pass, index);
    }
}

// Scored tokens first .. first + rows - 1: their losses into head_losses, and the gradient of
// their predecessors' residual rows into dx.
static void head_rows(struct train_pass *pass, int32_t first, int32_t rows, float grad_scale)
{
    const struct weights *weights = &pass->model->weights;
    const struct train_batch *batch = pass->batch;
    const int32_t hidden = pass->model->info.base.hidden;
    const size_t row_bytes = (size_t)hidden * sizeof(float);
    const float eps = pass->model->config.norm_eps;
    for (int32_t i = 0; i < rows; i++) {
        const int32_t scored = batch->scored[first + i];
        pass->head_targets[i] = batch->tokens[scored];
        memcpy(pass->head_x + (size_t)i * (size_t)hidden,
               pass->x_out + (size_t)(scored - 1) * (size_t)hidden, row_bytes);
    }
    train_rows_norm(pass->pool, pass->head_x, weights->output_norm, eps, rows, hidden,
                    pass->head_normed);
    frozen_linear(pass->pool, &weights->output, NULL, pass->head_normed, rows, pass->logits,
                  pass->frozen_scratch);
    cross_entropy(pass->pool, pass->logits, pass->head_targets, rows, weights->output.d_out,
                  grad_scale, pass->head_losses);
    frozen_linear_backward(pass->pool, &weights->output, pass->logits, rows, false,
                           pass->head_normed, pass->frozen_scratch);
    memset(pass->head_dx, 0, (size_t)rows * row_bytes);
    train_rows_norm_backward(pass->pool, pass->head_x, weights->output_norm, eps, pass->head_normed,
                             rows, hidden, pass->head_dx);
    for (int32_t i = 0; i < rows; i++)
        memcpy(pass->dx + (size_t)(batch->scored[first + i] - 1) * (size_t)hidden,
               pass->head_dx + (size_t)i * (size_t)hidden, row_bytes);
}

double train_backward_head(struct train_pass *pass)
{
    const struct train_batch *batch = pass->batch;
    const size_t hidden = (size_t)pass->model->info.base.hidden;
    memset(pass->dx, 0, (size_t)batch->token_count * hidden * sizeof(float));
    double sum = 0.0;
    for (int32_t first = 0; first < batch->scored_count; first += pass->logit_rows_max) {
        const int32_t left = batch->scored_count - first;
        const int32_t rows = left < pass->logit_rows_max ? left : pass->logit_rows_max;
        head_rows(pass, first, rows, (float)(1.0 / batch->scored_count));
        for (int32_t i = 0; i < rows; i++)
            sum += pass->head_losses[i];
    }
    return sum / batch->scored_count;
}

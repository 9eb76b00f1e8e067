// SPDX-License-Identifier: Apache-2.0
// The backward half of a training pass, see train_activations.h: each function undoes the one of
// the same name in train_forward.c, in reverse. Called by the thread that runs the pass.
#include <string.h>

#include "kernel/loss.h"
#include "model/train_activations.h"

static void backward_mlp(struct train_pass *pass, int32_t index)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_layer *layer = &pass->layers[index];
    const int32_t m = train_pass_queries(pass, index).count;
    const float eps = pass->model->config.norm_eps;
    const bool below_mlp =
        index > pass->layer_lowest || train_pass_adapts(pass, index, SORA_PROJ_Q, SORA_PROJ_O);
    const bool below_down =
        below_mlp || train_pass_adapts(pass, index, SORA_PROJ_GATE, SORA_PROJ_UP);
    train_rows_swiglu(pass->pool, layer->gate, layer->up, m, base->intermediate, pass->mlp);
    train_project_backward(pass,
                           &(struct train_projections){index, 1, {SORA_PROJ_DOWN}, {pass->dx}},
                           pass->mlp, m, below_down ? pass->dmlp : NULL);
    if (!below_down)
        return;
    train_rows_swiglu_backward(pass->pool, layer->gate, layer->up, pass->dmlp, m,
                               base->intermediate, pass->dgate, pass->dup);
    train_rows_norm(pass->pool, layer->x_mid, weights->mlp_norm, eps, m, base->hidden,
                    pass->normed);
    train_project_backward(pass,
                           &(struct train_projections){
                               index, 2, {SORA_PROJ_GATE, SORA_PROJ_UP}, {pass->dgate, pass->dup}},
                           pass->normed, m, below_mlp ? pass->dnormed : NULL);
    if (below_mlp)
        train_rows_norm_backward(pass->pool, layer->x_mid, weights->mlp_norm, eps, pass->dnormed, m,
                                 base->hidden, pass->dx);
}

// Gradient of `rows` rotated, normed heads -> of the projected ones, in place or into `scratch`;
// returns where it is. raw: q or k as projected.
static float *unrotate(struct train_pass *pass, const float *raw, const float *norm, int32_t rows,
                       const int32_t *positions, int32_t head_count, float *drot, float *scratch)
{
    const int32_t d = pass->model->info.base.head_dim;
    train_rows_rope(pass->pool, drot, rows, head_count, d, pass->rope, positions, true);
    if (norm == NULL)
        return drot;
    memset(scratch, 0, (size_t)rows * (size_t)(head_count * d) * sizeof(float));
    train_rows_norm_backward(pass->pool, raw, norm, pass->model->config.norm_eps, drot,
                             rows * head_count, d, scratch);
    return scratch;
}

// Backward of q, k and v together; dnormed NULL: no more is wanted below.
static void project_heads_backward(struct train_pass *pass, int32_t index,
                                   const struct train_queries *queries, float *dq, float *dk,
                                   float *dnormed)
{
    const int32_t n = pass->batch->token_count, hidden = pass->model->info.base.hidden;
    if (queries->rows == NULL) {
        train_project_backward(
            pass,
            &(struct train_projections){
                index, 3, {SORA_PROJ_Q, SORA_PROJ_K, SORA_PROJ_V}, {dq, dk, pass->dv}},
            pass->normed, n, dnormed);
        return;
    }
    train_project_backward(
        pass, &(struct train_projections){index, 2, {SORA_PROJ_K, SORA_PROJ_V}, {dk, pass->dv}},
        pass->normed, n, dnormed);
    train_rows_gather(pass->pool, pass->normed, queries->rows, queries->count, hidden,
                      pass->gathered);
    train_project_backward(pass, &(struct train_projections){index, 1, {SORA_PROJ_Q}, {dq}},
                           pass->gathered, queries->count, dnormed != NULL ? pass->branch : NULL);
    if (dnormed != NULL)
        train_rows_scatter(pass->pool, pass->branch, queries->rows, queries->count, hidden,
                           dnormed);
}

// dx has a row for each query: gives the other tokens a row of zeros.
static void spread_queries(struct train_pass *pass, const struct train_queries *queries)
{
    const int32_t hidden = pass->model->info.base.hidden;
    float *spread = pass->branch;
    memset(spread, 0, (size_t)pass->batch->token_count * (size_t)hidden * sizeof(float));
    train_rows_scatter(pass->pool, pass->dx, queries->rows, queries->count, hidden, spread);
    pass->branch = pass->dx;
    pass->dx = spread;
}

// From dattention to dx and the q, k and v modules.
static void backward_heads(struct train_pass *pass, int32_t index)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_layer *layer = &pass->layers[index];
    const struct train_queries queries = train_pass_queries(pass, index);
    const int32_t n = pass->batch->token_count;
    const float eps = pass->model->config.norm_eps;
    train_forward_rotate(pass, layer, index);
    const struct attention_train attention = train_pass_attention(pass, index);
    attention_train_backward(pass->pool, &attention, pass->dattention, pass->dq, pass->dk,
                             pass->dv);
    // q_rot and k_rot are not needed any more: they take the gradients of the head norms.
    float *dq = unrotate(pass, layer->q, weights->q_norm, queries.count, queries.positions,
                         base->head_count, pass->dq, pass->q_rot);
    float *dk = unrotate(pass, layer->k, weights->k_norm, n, pass->positions, base->kv_head_count,
                         pass->dk, pass->k_rot);
    train_rows_norm(pass->pool, layer->x_in, weights->attention_norm, eps, n, base->hidden,
                    pass->normed);
    float *dnormed = index > pass->layer_lowest ? pass->dnormed : NULL;
    project_heads_backward(pass, index, &queries, dq, dk, dnormed);
    if (dnormed == NULL)
        return;
    if (queries.rows != NULL)
        spread_queries(pass, &queries);
    train_rows_norm_backward(pass->pool, layer->x_in, weights->attention_norm, eps, dnormed, n,
                             base->hidden, pass->dx);
}

static void backward_attention(struct train_pass *pass, int32_t index)
{
    const bool below_o =
        index > pass->layer_lowest || train_pass_adapts(pass, index, SORA_PROJ_Q, SORA_PROJ_V);
    if (!below_o && !train_pass_adapts(pass, index, SORA_PROJ_O, SORA_PROJ_O))
        return;
    train_project_backward(pass, &(struct train_projections){index, 1, {SORA_PROJ_O}, {pass->dx}},
                           pass->layers[index].attention, train_pass_queries(pass, index).count,
                           below_o ? pass->dattention : NULL);
    if (below_o)
        backward_heads(pass, index);
}

void train_backward(struct train_pass *pass)
{
    const int32_t last = pass->model->weights.layer_count - 1;
    for (int32_t index = last; index >= pass->layer_lowest; index--) {
        if (pass->recompute && index < last)
            train_forward_again(pass, index);
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
    const size_t at = (size_t)first * (size_t)hidden;
    const float eps = pass->model->config.norm_eps;
    for (int32_t i = 0; i < rows; i++)
        pass->head_targets[i] = batch->tokens[batch->scored[first + i]];
    train_rows_norm(pass->pool, pass->x_out + at, weights->output_norm, eps, rows, hidden,
                    pass->head_normed);
    train_project_logits(pass, pass->head_normed, rows, pass->logits);
    cross_entropy(pass->pool, pass->logits, pass->head_targets, rows, weights->output.d_out,
                  grad_scale, pass->head_losses);
    train_project_logits_backward(pass, pass->logits, rows, pass->head_normed);
    memset(pass->dx + at, 0, (size_t)rows * (size_t)hidden * sizeof(float));
    train_rows_norm_backward(pass->pool, pass->x_out + at, weights->output_norm, eps,
                             pass->head_normed, rows, hidden, pass->dx + at);
}

double train_backward_head(struct train_pass *pass)
{
    const struct train_batch *batch = pass->batch;
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

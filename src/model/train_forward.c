// SPDX-License-Identifier: Apache-2.0
// The forward half of a training pass, see train_activations.h. Called by the thread that runs the
// pass.
#include <string.h>

#include "model/train_activations.h"

void train_forward_rotate(struct train_pass *pass, const struct train_layer *layer, int32_t index)
{
    const struct sora_base *base = &pass->model->info.base;
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_queries queries = train_pass_queries(pass, index);
    const int32_t n = pass->batch->token_count, m = queries.count, d = base->head_dim;
    const float eps = pass->model->config.norm_eps;
    if (weights->q_norm != NULL)
        train_rows_norm(pass->pool, layer->q, weights->q_norm, eps, m * base->head_count, d,
                        pass->q_rot);
    else
        memcpy(pass->q_rot, layer->q, (size_t)m * (size_t)(base->head_count * d) * sizeof(float));
    if (weights->k_norm != NULL)
        train_rows_norm(pass->pool, layer->k, weights->k_norm, eps, n * base->kv_head_count, d,
                        pass->k_rot);
    else
        memcpy(pass->k_rot, layer->k,
               (size_t)n * (size_t)(base->kv_head_count * d) * sizeof(float));
    train_rows_rope(pass->pool, pass->q_rot, m, base->head_count, d, pass->rope, queries.positions,
                    false);
    train_rows_rope(pass->pool, pass->k_rot, n, base->kv_head_count, d, pass->rope, pass->positions,
                    false);
}

// q, k and v of a layer from its normed input.
static void project_heads(struct train_pass *pass, int32_t index,
                          const struct train_queries *queries)
{
    struct train_layer *layer = &pass->layers[index];
    const int32_t n = pass->batch->token_count;
    if (queries->rows == NULL) {
        train_project(
            pass,
            &(struct train_projections){
                index, 3, {SORA_PROJ_Q, SORA_PROJ_K, SORA_PROJ_V}, {layer->q, layer->k, layer->v}},
            pass->normed, n);
        return;
    }
    train_rows_gather(pass->pool, pass->normed, queries->rows, queries->count,
                      pass->model->info.base.hidden, pass->gathered);
    train_project(pass, &(struct train_projections){index, 1, {SORA_PROJ_Q}, {layer->q}},
                  pass->gathered, queries->count);
    train_project(
        pass,
        &(struct train_projections){index, 2, {SORA_PROJ_K, SORA_PROJ_V}, {layer->k, layer->v}},
        pass->normed, n);
}

static void forward_attention(struct train_pass *pass, int32_t index)
{
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    const struct train_queries queries = train_pass_queries(pass, index);
    struct train_layer *layer = &pass->layers[index];
    const int32_t n = pass->batch->token_count, hidden = pass->model->info.base.hidden;
    train_rows_norm(pass->pool, layer->x_in, weights->attention_norm, pass->model->config.norm_eps,
                    n, hidden, pass->normed);
    project_heads(pass, index, &queries);
    train_forward_rotate(pass, layer, index);
    const struct attention_train attention = train_pass_attention(pass, index);
    attention_train_forward(pass->pool, &attention, layer->attention);
    train_project(pass, &(struct train_projections){index, 1, {SORA_PROJ_O}, {pass->branch}},
                  layer->attention, queries.count);
    const float *x_in = layer->x_in;
    if (queries.rows != NULL) {
        train_rows_gather(pass->pool, x_in, queries.rows, queries.count, hidden, layer->x_mid);
        x_in = layer->x_mid;
    }
    train_rows_add(pass->pool, x_in, pass->branch, queries.count, hidden, layer->x_mid);
}

// gate and up.
static void forward_mlp_wide(struct train_pass *pass, int32_t index)
{
    const struct weights_layer *weights = &pass->model->weights.layers[index];
    struct train_layer *layer = &pass->layers[index];
    const int32_t m = train_pass_queries(pass, index).count;
    train_rows_norm(pass->pool, layer->x_mid, weights->mlp_norm, pass->model->config.norm_eps, m,
                    pass->model->info.base.hidden, pass->normed);
    train_project(pass,
                  &(struct train_projections){
                      index, 2, {SORA_PROJ_GATE, SORA_PROJ_UP}, {layer->gate, layer->up}},
                  pass->normed, m);
}

static void forward_mlp(struct train_pass *pass, int32_t index, float *x_out)
{
    const struct sora_base *base = &pass->model->info.base;
    struct train_layer *layer = &pass->layers[index];
    const int32_t m = train_pass_queries(pass, index).count;
    forward_mlp_wide(pass, index);
    train_rows_swiglu(pass->pool, layer->gate, layer->up, m, base->intermediate, pass->mlp);
    train_project(pass, &(struct train_projections){index, 1, {SORA_PROJ_DOWN}, {pass->branch}},
                  pass->mlp, m);
    train_rows_add(pass->pool, layer->x_mid, pass->branch, m, base->hidden, x_out);
}

void train_forward(struct train_pass *pass)
{
    const struct weights *weights = &pass->model->weights;
    const int32_t layer_count = weights->layer_count;
    const size_t hidden = (size_t)pass->model->info.base.hidden;
    float *x = pass->layers[0].x_in;
    for (int32_t i = 0; i < pass->batch->token_count; i++)
        weight_row_to_f32(&weights->embedding, pass->batch->tokens[i], x + (size_t)i * hidden);
    for (int32_t index = 0; index < layer_count; index++) {
        forward_attention(pass, index);
        forward_mlp(pass, index,
                    index + 1 < layer_count ? pass->layers[index + 1].x_in : pass->x_out);
    }
}

void train_forward_again(struct train_pass *pass, int32_t index)
{
    forward_attention(pass, index);
    forward_mlp_wide(pass, index);
}

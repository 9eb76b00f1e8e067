// SPDX-License-Identifier: Apache-2.0
// Binds the tensors of a checkpoint to their roles, checks their shapes and packs them.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/pages.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "model/checkpoint.h"
#include "model/weights.h"

struct loader {
    struct checkpoint *checkpoint;
    struct sora_model *model;
    struct pool *pool;
};

struct pack_task {
    struct weight *weight;
    const struct checkpoint_tensor *tensor;
    size_t row_bytes;
};

static void pack_one_panel(void *context, int32_t panel, int32_t thread)
{
    (void)thread;
    const struct pack_task *task = context;
    const void *rows[WEIGHT_PANEL_ROWS];
    for (int32_t i = 0; i < WEIGHT_PANEL_ROWS; i++) {
        int32_t row = panel * WEIGHT_PANEL_ROWS + i;
        rows[i] = row < task->tensor->rows
                      ? task->tensor->data +
                            (size_t)checkpoint_source_row(task->tensor, row) * task->row_bytes
                      : NULL;
    }
    weight_pack_panel(task->weight, panel, rows);
}

static sora_status find_required(struct loader *loader, int role, int32_t layer, int32_t rows,
                                 int32_t cols, struct checkpoint_tensor *tensor,
                                 struct sora_error *err)
{
    bool found = false;
    sora_status status = loader->checkpoint->find(loader->checkpoint, (enum checkpoint_role)role,
                                                  layer, tensor, &found, err);
    if (status != SORA_OK)
        return status;
    static const char *const names[CHECKPOINT_ROLE_COUNT] = {
        "embedding", "output", "output norm", "RoPE factors", "attention norm", "MLP norm",
        "q norm",    "k norm", "q bias",      "k bias",       "v bias",         "q_proj",
        "k_proj",    "v_proj", "o_proj",      "gate_proj",    "up_proj",        "down_proj"};
    if (!found)
        return sora_fail(err, SORA_MALFORMED, "layer %d: the %s tensor is missing", layer,
                         names[role]);
    return checkpoint_check_shape(tensor, rows, cols, err);
}

static sora_status load_matrix(struct loader *loader, int role, int32_t layer, int32_t d_out,
                               int32_t d_in, struct weight *weight, struct sora_error *err)
{
    struct checkpoint_tensor tensor;
    sora_status status = find_required(loader, role, layer, d_out, d_in, &tensor, err);
    if (status == SORA_OK)
        status = weight_shape(weight, tensor.type, d_out, d_in, err);
    if (status != SORA_OK)
        return status;
    weight->panels = pages_pool_take(&loader->model->weights.pages, weight->bytes);
    if (weight->panels == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a weight of %zu bytes", weight->bytes);
    struct pack_task task = {weight, &tensor, weight_type_row_bytes(tensor.type, d_in)};
    pool_run(loader->pool, weight_panel_count(weight), pack_one_panel, &task);
    loader->checkpoint->forget(loader->checkpoint, &tensor);
    loader->model->info.weight_bytes += weight->bytes;
    loader->model->info.parameters += (int64_t)d_out * d_in;
    return SORA_OK;
}

static bool role_exists(struct loader *loader, int role, int32_t layer)
{
    struct checkpoint_tensor tensor;
    bool found = false;
    sora_status status = loader->checkpoint->find(loader->checkpoint, (enum checkpoint_role)role,
                                                  layer, &tensor, &found, NULL);
    return found || status != SORA_OK; // a broken one is reported by load_vector
}

// A vector as f32, in HF's order.
static sora_status load_vector(struct loader *loader, int role, int32_t layer, int32_t count,
                               float **out, struct sora_error *err)
{
    struct checkpoint_tensor tensor;
    sora_status status = find_required(loader, role, layer, 1, count, &tensor, err);
    if (status != SORA_OK)
        return status;
    float *source = aligned_calloc((size_t)count, sizeof *source);
    *out = aligned_calloc((size_t)count, sizeof **out);
    if (source == NULL || *out == NULL) {
        free(source);
        return sora_fail(err, SORA_NO_MEMORY, "tensor %s: out of memory", tensor.name);
    }
    quant_row_to_f32(tensor.type, tensor.data, count, source);
    for (int32_t i = 0; i < count; i++)
        (*out)[i] = source[checkpoint_source_row(&tensor, i)];
    free(source);
    for (int32_t i = 0; i < count; i++) {
        if (!isfinite((*out)[i]))
            return sora_fail(err, SORA_MALFORMED, "tensor %s: value %d is not finite", tensor.name,
                             i);
    }
    loader->model->info.weight_bytes += (size_t)count * sizeof **out;
    loader->model->info.parameters += count;
    return SORA_OK;
}

static sora_status load_layer_vectors(struct loader *loader, int32_t index, struct sora_error *err)
{
    const struct sora_base *base = &loader->model->info.base;
    struct weights_layer *layer = &loader->model->weights.layers[index];
    bool norms = strcmp(base->architecture, "qwen3") == 0;
    bool biases = role_exists(loader, CHECKPOINT_Q_BIAS, index);
    const struct {
        int role;
        int32_t count;
        float **out;
        bool wanted;
    } vectors[] = {
        {CHECKPOINT_ATTENTION_NORM, base->hidden, &layer->attention_norm, true},
        {CHECKPOINT_MLP_NORM, base->hidden, &layer->mlp_norm, true},
        {CHECKPOINT_Q_NORM, base->head_dim, &layer->q_norm, norms},
        {CHECKPOINT_K_NORM, base->head_dim, &layer->k_norm, norms},
        {CHECKPOINT_Q_BIAS, base->d_out[SORA_PROJ_Q], &layer->q_bias, biases},
        {CHECKPOINT_K_BIAS, base->d_out[SORA_PROJ_K], &layer->k_bias, biases},
        {CHECKPOINT_V_BIAS, base->d_out[SORA_PROJ_V], &layer->v_bias, biases},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        if (!vectors[i].wanted)
            continue;
        sora_status status =
            load_vector(loader, vectors[i].role, index, vectors[i].count, vectors[i].out, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static sora_status load_layer(struct loader *loader, int32_t index, struct sora_error *err)
{
    const struct sora_base *base = &loader->model->info.base;
    struct weights_layer *layer = &loader->model->weights.layers[index];
    sora_status status = load_layer_vectors(loader, index, err);
    if (status != SORA_OK)
        return status;
    for (int proj = 0; proj < SORA_PROJ_COUNT; proj++) {
        status = load_matrix(loader, CHECKPOINT_PROJ + proj, index, base->d_out[proj],
                             base->d_in[proj], &layer->projections[proj], err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

// RoPE frequencies of the model; Llama 3's GGUF files bring divisors instead of the formula.
static sora_status load_frequencies(struct loader *loader, struct sora_error *err)
{
    struct sora_model *model = loader->model;
    int32_t half_dim = model->info.base.head_dim / 2;
    model->inv_freq = aligned_calloc((size_t)half_dim, sizeof *model->inv_freq);
    if (model->inv_freq == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    rope_frequencies(model->config.rope_theta, model->info.base.head_dim,
                     &model->config.rope_scaling, model->inv_freq);
    if (!role_exists(loader, CHECKPOINT_ROPE_FACTORS, 0))
        return SORA_OK;
    float *factors = NULL;
    sora_status status = load_vector(loader, CHECKPOINT_ROPE_FACTORS, 0, half_dim, &factors, err);
    for (int32_t i = 0; status == SORA_OK && i < half_dim; i++) {
        if (factors[i] > 0.0f)
            model->inv_freq[i] /= factors[i];
        else
            status = sora_fail(err, SORA_MALFORMED, "RoPE factor %d is %g, must be above 0", i,
                               (double)factors[i]);
    }
    free(factors);
    return status;
}

static void hash_vector(struct sha256 *sha, const float *vector, int32_t count)
{
    if (vector != NULL)
        sha256_update(sha, vector, (size_t)count * sizeof *vector); // little-endian f32
}

// SHA-256 over the dimensions as text, then every norm weight as f32 in the order of the layers:
// the same for every quantization of one model.
static sora_status fingerprint(struct sora_model *model, struct sora_error *err)
{
    struct sora_base *base = &model->info.base;
    struct sha256 *sha = NULL;
    sora_status status = sha256_create(&sha, err);
    if (status != SORA_OK)
        return status;
    char text[256];
    int bytes = snprintf(text, sizeof text, "%s %d %d %d %d %d %d %d\n", base->architecture,
                         base->layer_count, base->hidden, base->intermediate, base->head_count,
                         base->kv_head_count, base->head_dim, base->vocab_size);
    sha256_update(sha, text, (size_t)bytes);
    for (int32_t i = 0; i < base->layer_count; i++) {
        const struct weights_layer *layer = &model->weights.layers[i];
        hash_vector(sha, layer->attention_norm, base->hidden);
        hash_vector(sha, layer->q_norm, base->head_dim);
        hash_vector(sha, layer->k_norm, base->head_dim);
        hash_vector(sha, layer->mlp_norm, base->hidden);
    }
    hash_vector(sha, model->weights.output_norm, base->hidden);
    sha256_finish(sha, base->fingerprint);
    return SORA_OK;
}

// The type that most of the projections' parameters have.
static void name_weight_type(struct sora_model *model)
{
    int64_t counts[64] = {0};
    int32_t best = 0;
    for (int32_t i = 0; i < model->weights.layer_count; i++) {
        for (int proj = 0; proj < SORA_PROJ_COUNT; proj++) {
            const struct weight *weight = &model->weights.layers[i].projections[proj];
            counts[weight->type] += (int64_t)weight->d_out * weight->d_in;
            if (counts[weight->type] > counts[best])
                best = (int32_t)weight->type;
        }
    }
    snprintf(model->info.base.weight_type, sizeof model->info.base.weight_type, "%s",
             weight_type_name(best));
}

static sora_status load_all(struct loader *loader, struct sora_error *err)
{
    struct sora_model *model = loader->model;
    const struct sora_base *base = &model->info.base;
    struct weights *weights = &model->weights;
    weights->layers = calloc((size_t)base->layer_count, sizeof *weights->layers);
    if (weights->layers == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    weights->layer_count = base->layer_count;
    sora_status status = load_matrix(loader, CHECKPOINT_EMBEDDING, 0, base->vocab_size,
                                     base->hidden, &weights->embedding, err);
    for (int32_t i = 0; status == SORA_OK && i < base->layer_count; i++)
        status = load_layer(loader, i, err);
    if (status == SORA_OK)
        status = load_vector(loader, CHECKPOINT_OUTPUT_NORM, 0, base->hidden, &weights->output_norm,
                             err);
    if (status == SORA_OK && model->config.tied_output)
        weights->output = weights->embedding;
    else if (status == SORA_OK)
        status = load_matrix(loader, CHECKPOINT_OUTPUT, 0, base->vocab_size, base->hidden,
                             &weights->output, err);
    if (status == SORA_OK)
        status = load_frequencies(loader, err);
    if (status == SORA_OK)
        status = loader->checkpoint->check_all_used(loader->checkpoint, err);
    if (status == SORA_OK)
        status = fingerprint(model, err);
    return status;
}

sora_status weights_read_base(struct checkpoint *checkpoint, struct sora_base *base,
                              struct sora_error *err)
{
    struct sora_model model = {.info.base = checkpoint->base, .config = checkpoint->config};
    struct loader loader = {.checkpoint = checkpoint, .model = &model};
    int32_t layer_count = checkpoint->base.layer_count;
    model.weights.layers = calloc((size_t)layer_count, sizeof *model.weights.layers);
    if (model.weights.layers == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    model.weights.layer_count = layer_count;
    sora_status status = SORA_OK;
    for (int32_t i = 0; status == SORA_OK && i < layer_count; i++)
        status = load_layer_vectors(&loader, i, err);
    if (status == SORA_OK)
        status = load_vector(&loader, CHECKPOINT_OUTPUT_NORM, 0, checkpoint->base.hidden,
                             &model.weights.output_norm, err);
    if (status == SORA_OK)
        status = fingerprint(&model, err);
    if (status == SORA_OK)
        *base = model.info.base;
    weights_free(&model);
    return status;
}

// What a step reads and multiplies by.
static void count_step(struct sora_model *model)
{
    struct sora_model_info *info = &model->info;
    for (int32_t i = 0; i < model->weights.layer_count * SORA_PROJ_COUNT; i++) {
        const struct weight *weight =
            &model->weights.layers[i / SORA_PROJ_COUNT].projections[i % SORA_PROJ_COUNT];
        info->projection_parameters += (int64_t)weight->d_out * weight->d_in;
        info->step_bytes += weight->bytes;
    }
    const struct weight *output = &model->weights.output;
    info->step_parameters = info->projection_parameters + (int64_t)output->d_out * output->d_in;
    info->step_bytes += output->bytes;
}

sora_status weights_load(struct checkpoint *checkpoint, int32_t threads, struct sora_model *model,
                         struct sora_error *err)
{
    struct loader loader = {.checkpoint = checkpoint, .model = model};
    sora_status status = pool_create(threads, &loader.pool, err);
    if (status != SORA_OK)
        return status;
    model->info.base = checkpoint->base;
    model->config = checkpoint->config;
    model->info.context_length = checkpoint->config.context_length;
    model->info.tied_output = checkpoint->config.tied_output;
    status = load_all(&loader, err);
    if (status == SORA_OK) {
        name_weight_type(model);
        count_step(model);
    } else {
        weights_free(model);
    }
    pool_destroy(loader.pool);
    return status;
}

void weights_free(struct sora_model *model)
{
    struct weights *weights = &model->weights;
    for (int32_t i = 0; i < weights->layer_count; i++) {
        struct weights_layer *layer = &weights->layers[i];
        float *vectors[] = {layer->attention_norm, layer->mlp_norm, layer->q_norm, layer->k_norm,
                            layer->q_bias,         layer->k_bias,   layer->v_bias};
        for (size_t j = 0; j < sizeof vectors / sizeof vectors[0]; j++)
            free(vectors[j]);
    }
    free(weights->layers);
    free(weights->output_norm);
    pages_pool_deinit(&weights->pages);
    free(model->inv_freq);
    memset(weights, 0, sizeof *weights);
    model->inv_freq = NULL;
}

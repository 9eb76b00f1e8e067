// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder as a checkpoint: config.json and every *.safetensors beside it.
// model_type: llama, mistral (llama with a sliding window), qwen2, qwen3.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "model/checkpoint.h"

#define SHARD_COUNT_MAX 256 // a 70 B model comes in about 30

struct shard {
    struct file_map map;
    struct safetensors *file;
    bool *used; // [tensor count]
};

struct hf_state {
    struct shard shards[SHARD_COUNT_MAX];
    int32_t shard_count;
};

static const char *const role_names[CHECKPOINT_ROLE_COUNT] = {
    [CHECKPOINT_EMBEDDING] = "model.embed_tokens.weight",
    [CHECKPOINT_OUTPUT] = "lm_head.weight",
    [CHECKPOINT_OUTPUT_NORM] = "model.norm.weight",
    [CHECKPOINT_ATTENTION_NORM] = "model.layers.%d.input_layernorm.weight",
    [CHECKPOINT_MLP_NORM] = "model.layers.%d.post_attention_layernorm.weight",
    [CHECKPOINT_Q_NORM] = "model.layers.%d.self_attn.q_norm.weight",
    [CHECKPOINT_K_NORM] = "model.layers.%d.self_attn.k_norm.weight",
    [CHECKPOINT_Q_BIAS] = "model.layers.%d.self_attn.q_proj.bias",
    [CHECKPOINT_K_BIAS] = "model.layers.%d.self_attn.k_proj.bias",
    [CHECKPOINT_V_BIAS] = "model.layers.%d.self_attn.v_proj.bias",
    [CHECKPOINT_PROJ + SORA_PROJ_Q] = "model.layers.%d.self_attn.q_proj.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_K] = "model.layers.%d.self_attn.k_proj.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_V] = "model.layers.%d.self_attn.v_proj.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_O] = "model.layers.%d.self_attn.o_proj.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_GATE] = "model.layers.%d.mlp.gate_proj.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_UP] = "model.layers.%d.mlp.up_proj.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_DOWN] = "model.layers.%d.mlp.down_proj.weight",
};

bool hf_checkpoint_name(enum checkpoint_role role, int32_t layer,
                        char name[SORA_TENSOR_NAME_BYTES_MAX + 1])
{
    if (role_names[role] == NULL)
        return false;
    checkpoint_tensor_name(role_names[role], layer, name);
    return true;
}

// Parsed files hold their tensors in one array, so an index is a difference of pointers.
static const struct safetensors_tensor *find_in_shards(struct hf_state *state, const char *name)
{
    for (int32_t i = 0; i < state->shard_count; i++) {
        struct shard *shard = &state->shards[i];
        const struct safetensors_tensor *tensor = safetensors_find(shard->file, name);
        if (tensor != NULL) {
            shard->used[tensor - safetensors_at(shard->file, 0)] = true;
            return tensor;
        }
    }
    return NULL;
}

static sora_status type_of(const struct safetensors_tensor *tensor, enum weight_type *type,
                           struct sora_error *err)
{
    if (strcmp(tensor->dtype, "F32") == 0)
        *type = WEIGHT_F32;
    else if (strcmp(tensor->dtype, "F16") == 0)
        *type = WEIGHT_F16;
    else if (strcmp(tensor->dtype, "BF16") == 0)
        *type = WEIGHT_BF16;
    else
        return sora_fail(err, SORA_UNSUPPORTED, "tensor %s: type %s is not one of F32, F16, BF16",
                         tensor->name, tensor->dtype);
    return SORA_OK;
}

static sora_status find(struct checkpoint *checkpoint, enum checkpoint_role role, int32_t layer,
                        struct checkpoint_tensor *out, bool *found, struct sora_error *err)
{
    *found = false;
    if (role_names[role] == NULL)
        return SORA_OK;
    char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    checkpoint_tensor_name(role_names[role], layer, name);
    const struct safetensors_tensor *tensor = find_in_shards(checkpoint->state, name);
    if (tensor == NULL)
        return SORA_OK;
    if (tensor->rank < 1 || tensor->rank > 2)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: %d dimensions, expected 1 or 2", name,
                         tensor->rank);
    int64_t rows = tensor->rank == 2 ? tensor->shape[0] : 1;
    int64_t cols = tensor->shape[tensor->rank - 1];
    if (cols < 1 || cols > SORA_VOCAB_SIZE_MAX || rows < 1 || rows > SORA_VOCAB_SIZE_MAX)
        return sora_fail(err, SORA_LIMIT, "tensor %s: shape [%lld, %lld] is beyond 1 .. %d", name,
                         (long long)rows, (long long)cols, SORA_VOCAB_SIZE_MAX);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->rows = (int32_t)rows;
    out->cols = (int32_t)cols;
    out->data = tensor->data;
    out->bytes = tensor->bytes;
    *found = true;
    return type_of(tensor, &out->type, err);
}

static void forget(struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor)
{
    struct hf_state *state = checkpoint->state;
    for (int32_t i = 0; i < state->shard_count; i++) {
        const struct file_map *map = &state->shards[i].map;
        if (tensor->data >= map->data && tensor->data < map->data + map->bytes)
            file_map_forget(map, tensor->data, tensor->bytes);
    }
}

static sora_status check_all_used(struct checkpoint *checkpoint, struct sora_error *err)
{
    struct hf_state *state = checkpoint->state;
    for (int32_t i = 0; i < state->shard_count; i++) {
        const struct shard *shard = &state->shards[i];
        for (int32_t j = 0; j < safetensors_count(shard->file); j++) {
            const struct safetensors_tensor *tensor = safetensors_at(shard->file, j);
            bool ignorable = strstr(tensor->name, "rotary_emb.inv_freq") != NULL ||
                             (checkpoint->config.tied_output &&
                              strcmp(tensor->name, role_names[CHECKPOINT_OUTPUT]) == 0);
            if (!shard->used[j] && !ignorable)
                return sora_fail(err, SORA_UNSUPPORTED,
                                 "tensor %s is no part of the %s architecture as it is computed "
                                 "here",
                                 tensor->name, checkpoint->base.architecture);
        }
    }
    return SORA_OK;
}

static void close_state(struct checkpoint *checkpoint)
{
    struct hf_state *state = checkpoint->state;
    if (state == NULL)
        return;
    for (int32_t i = 0; i < state->shard_count; i++) {
        safetensors_destroy(state->shards[i].file);
        free(state->shards[i].used);
        file_map_close(&state->shards[i].map);
    }
    free(state);
    checkpoint->state = NULL;
}

static sora_status open_shard(struct hf_state *state, const char *path, struct sora_error *err)
{
    if (state->shard_count == SHARD_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "more than %d .safetensors files", SHARD_COUNT_MAX);
    struct shard *shard = &state->shards[state->shard_count];
    sora_status status = file_map_open(path, &shard->map, err);
    if (status != SORA_OK)
        return status;
    state->shard_count++; // close_state takes over from here
    status = safetensors_parse(shard->map.data, shard->map.bytes, &shard->file, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "%s", path);
    shard->used = calloc((size_t)safetensors_count(shard->file) + 1, sizeof *shard->used);
    if (shard->used == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "%s: out of memory", path);
    return SORA_OK;
}

static sora_status open_shards(struct hf_state *state, const char *folder, struct sora_error *err)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return sora_fail(err, SORA_IO, "%s: %s", folder, strerror(errno));
    sora_status status = SORA_OK;
    struct dirent *entry;
    while (status == SORA_OK && (entry = readdir(dir)) != NULL) {
        size_t length = strlen(entry->d_name), suffix = strlen(".safetensors");
        if (length <= suffix || strcmp(entry->d_name + length - suffix, ".safetensors") != 0)
            continue;
        char *path = file_join(folder, entry->d_name);
        status = path == NULL ? sora_fail(err, SORA_NO_MEMORY, "%s: out of memory", folder)
                              : open_shard(state, path, err);
        free(path);
    }
    closedir(dir);
    if (status == SORA_OK && state->shard_count == 0)
        return sora_fail(err, SORA_NOT_FOUND, "%s: no .safetensors file in it", folder);
    return status;
}

// A required integer of config.json, or `fallback` when that is not negative.
static sora_status read_dimension(const cJSON *config, const char *key, int64_t fallback,
                                  int32_t *out, struct sora_error *err)
{
    int64_t value = fallback;
    if (fallback < 0 && !json_has(config, key))
        return sora_fail(err, SORA_MALFORMED, "config.json: \"%s\" is missing", key);
    sora_status status = json_get_int(config, key, 0, INT32_MAX, &value, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    *out = (int32_t)value;
    return SORA_OK;
}

static sora_status read_architecture(const cJSON *config, struct sora_base *base,
                                     const char **model_type, struct sora_error *err)
{
    *model_type = "";
    sora_status status = json_get_string(config, "model_type", model_type, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    const char *name = strcmp(*model_type, "mistral") == 0 ? "llama" : *model_type;
    if (strcmp(name, "llama") != 0 && strcmp(name, "qwen2") != 0 && strcmp(name, "qwen3") != 0)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "config.json: model_type \"%s\" is not one of llama, mistral, qwen2, "
                         "qwen3",
                         *model_type);
    snprintf(base->architecture, sizeof base->architecture, "%s", name);
    const char *activation = "silu";
    status = json_get_string(config, "hidden_act", &activation, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    if (strcmp(activation, "silu") != 0)
        return sora_fail(err, SORA_UNSUPPORTED, "config.json: hidden_act \"%s\" is not silu",
                         activation);
    return SORA_OK;
}

static sora_status read_window(const cJSON *config, const char *model_type,
                               struct model_config *out, struct sora_error *err)
{
    bool use = strcmp(model_type, "mistral") == 0;
    sora_status status = json_get_bool(config, "use_sliding_window", &use, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    if (!use)
        return SORA_OK;
    if (strcmp(model_type, "mistral") != 0)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "config.json: use_sliding_window of %s, a window in some layers only, is "
                         "not supported",
                         model_type);
    return read_dimension(config, "sliding_window", 0, &out->sliding_window, err);
}

static sora_status read_llama3_scaling(const cJSON *rope, struct rope_scaling *scaling,
                                       struct sora_error *err)
{
    double factor = 0, low = 0, high = 0, context = 0;
    sora_status status = json_get_number(rope, "factor", 1e-3, 1e6, &factor, err);
    if (status == SORA_OK)
        status = json_get_number(rope, "low_freq_factor", 1e-3, 1e6, &low, err);
    if (status == SORA_OK)
        status = json_get_number(rope, "high_freq_factor", 1e-3, 1e6, &high, err);
    if (status == SORA_OK)
        status = json_get_number(rope, "original_max_position_embeddings", 1, 1e9, &context, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json: RoPE scaling");
    if (factor == 0 || low == 0 || context == 0 || high <= low)
        return sora_fail(err, SORA_MALFORMED,
                         "config.json: llama3 RoPE scaling needs factor, low_freq_factor < "
                         "high_freq_factor and original_max_position_embeddings");
    *scaling = (struct rope_scaling){.factor = (float)factor,
                                     .low_freq_factor = (float)low,
                                     .high_freq_factor = (float)high,
                                     .original_context = (float)context};
    return SORA_OK;
}

// Newer files have all of it in rope_parameters, older ones rope_theta and rope_scaling.
static sora_status read_rope(const cJSON *config, struct model_config *out, struct sora_error *err)
{
    const cJSON *rope = cJSON_GetObjectItemCaseSensitive(config, "rope_parameters");
    bool nested = cJSON_IsObject(rope);
    if (!nested)
        rope = cJSON_GetObjectItemCaseSensitive(config, "rope_scaling");
    out->rope_theta = 10000.0;
    sora_status status =
        json_get_number(nested ? rope : config, "rope_theta", 1.0, 1e12, &out->rope_theta, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    double partial = 1.0;
    status = json_get_number(nested ? rope : config, "partial_rotary_factor", 0, 1, &partial, err);
    if (status == SORA_OK && partial != 1.0)
        status = sora_fail(err, SORA_UNSUPPORTED, "partial_rotary_factor %g is not 1", partial);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    if (!cJSON_IsObject(rope))
        return SORA_OK;
    const char *type = "default";
    status = json_get_string(rope, "type", &type, err);
    if (status == SORA_OK)
        status = json_get_string(rope, "rope_type", &type, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    if (strcmp(type, "default") == 0)
        return SORA_OK;
    if (strcmp(type, "llama3") == 0)
        return read_llama3_scaling(rope, &out->rope_scaling, err);
    return sora_fail(err, SORA_UNSUPPORTED,
                     "config.json: RoPE scaling \"%s\" is not one of default, llama3", type);
}

static sora_status read_config(const cJSON *config, struct checkpoint *checkpoint,
                               struct sora_error *err)
{
    struct sora_base *base = &checkpoint->base;
    const char *model_type = NULL;
    sora_status status = read_architecture(config, base, &model_type, err);
    const struct {
        const char *key;
        int32_t *out;
    } fields[] = {
        {"num_hidden_layers", &base->layer_count},
        {"hidden_size", &base->hidden},
        {"intermediate_size", &base->intermediate},
        {"num_attention_heads", &base->head_count},
        {"vocab_size", &base->vocab_size},
        {"max_position_embeddings", &checkpoint->config.context_length},
    };
    for (size_t i = 0; status == SORA_OK && i < sizeof fields / sizeof fields[0]; i++)
        status = read_dimension(config, fields[i].key, -1, fields[i].out, err);
    if (status != SORA_OK)
        return status;
    status =
        read_dimension(config, "num_key_value_heads", base->head_count, &base->kv_head_count, err);
    if (status != SORA_OK)
        return status;
    status = read_dimension(config, "head_dim",
                            base->head_count > 0 ? base->hidden / base->head_count : 0,
                            &base->head_dim, err);
    if (status != SORA_OK)
        return status;
    double eps = 1e-6;
    status = json_get_number(config, "rms_norm_eps", 0, 1, &eps, err);
    if (status == SORA_OK)
        status = json_get_bool(config, "tie_word_embeddings", &checkpoint->config.tied_output, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "config.json");
    checkpoint->config.norm_eps = (float)eps;
    status = read_window(config, model_type, &checkpoint->config, err);
    if (status == SORA_OK)
        status = read_rope(config, &checkpoint->config, err);
    return status;
}

sora_status hf_checkpoint_open(const char *folder, struct checkpoint *checkpoint,
                               struct sora_error *err)
{
    memset(checkpoint, 0, sizeof *checkpoint);
    char *path = file_join(folder, "config.json"), *text = NULL;
    cJSON *config = NULL;
    struct hf_state *state = calloc(1, sizeof *state);
    checkpoint->state = state;
    checkpoint->find = find;
    checkpoint->forget = forget;
    checkpoint->check_all_used = check_all_used;
    checkpoint->close = close_state;

    size_t bytes = 0;
    sora_status status = path == NULL || state == NULL
                             ? sora_fail(err, SORA_NO_MEMORY, "%s: out of memory", folder)
                             : file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, err);
    if (status == SORA_OK && json_parse(text, bytes, &config, err) != SORA_OK)
        status = sora_fail_within(err, SORA_MALFORMED, "config.json");
    if (status == SORA_OK)
        status = read_config(config, checkpoint, err);
    if (status == SORA_OK)
        status = checkpoint_check_base(&checkpoint->base, err);
    if (status == SORA_OK)
        status = open_shards(state, folder, err);
    if (status != SORA_OK) {
        status = sora_fail_within(err, status, "%s", folder);
        close_state(checkpoint);
    }
    cJSON_Delete(config);
    free(text);
    free(path);
    return status;
}

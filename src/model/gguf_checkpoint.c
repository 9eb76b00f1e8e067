// SPDX-License-Identifier: Apache-2.0
// GGUF's names and metadata keys for the roles of a checkpoint. Architectures: llama (which also
// carries Mistral), qwen2, qwen3.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/gguf.h"
#include "model/checkpoint.h"

struct gguf_state {
    struct gguf *gguf;
    bool *used; // [tensor count]
};

// "%d" stands for the layer. ".weight" or ".bias" is part of the name.
static const char *const role_names[CHECKPOINT_ROLE_COUNT] = {
    [CHECKPOINT_EMBEDDING] = "token_embd.weight",
    [CHECKPOINT_OUTPUT] = "output.weight",
    [CHECKPOINT_OUTPUT_NORM] = "output_norm.weight",
    [CHECKPOINT_ROPE_FACTORS] = "rope_freqs.weight",
    [CHECKPOINT_ATTENTION_NORM] = "blk.%d.attn_norm.weight",
    [CHECKPOINT_MLP_NORM] = "blk.%d.ffn_norm.weight",
    [CHECKPOINT_Q_NORM] = "blk.%d.attn_q_norm.weight",
    [CHECKPOINT_K_NORM] = "blk.%d.attn_k_norm.weight",
    [CHECKPOINT_Q_BIAS] = "blk.%d.attn_q.bias",
    [CHECKPOINT_K_BIAS] = "blk.%d.attn_k.bias",
    [CHECKPOINT_V_BIAS] = "blk.%d.attn_v.bias",
    [CHECKPOINT_PROJ + SORA_PROJ_Q] = "blk.%d.attn_q.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_K] = "blk.%d.attn_k.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_V] = "blk.%d.attn_v.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_O] = "blk.%d.attn_output.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_GATE] = "blk.%d.ffn_gate.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_UP] = "blk.%d.ffn_up.weight",
    [CHECKPOINT_PROJ + SORA_PROJ_DOWN] = "blk.%d.ffn_down.weight",
};

static sora_status find(struct checkpoint *checkpoint, enum checkpoint_role role, int32_t layer,
                        struct checkpoint_tensor *out, bool *found, struct sora_error *err)
{
    struct gguf_state *state = checkpoint->state;
    char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    checkpoint_tensor_name(role_names[role], layer, name);
    const struct gguf_tensor *tensor = gguf_find_tensor(state->gguf, name);
    *found = tensor != NULL;
    if (tensor == NULL)
        return SORA_OK;
    if (!weight_type_known(tensor->type))
        return sora_fail(err, SORA_UNSUPPORTED,
                         "tensor %s: weight type %d is not one of F32, F16, BF16, Q8_0, Q4_0, Q4_1",
                         name, tensor->type);
    if (tensor->rank < 1 || tensor->rank > 2)
        return sora_fail(err, SORA_MALFORMED, "tensor %s: %d dimensions, expected 1 or 2", name,
                         tensor->rank);
    int64_t cols = tensor->shape[0], rows = tensor->rank == 2 ? tensor->shape[1] : 1;
    if (cols < 1 || cols > SORA_VOCAB_SIZE_MAX || rows < 1 || rows > SORA_VOCAB_SIZE_MAX)
        return sora_fail(err, SORA_LIMIT, "tensor %s: shape [%lld, %lld] is beyond %d", name,
                         (long long)rows, (long long)cols, SORA_VOCAB_SIZE_MAX);

    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->type = (enum weight_type)tensor->type;
    out->rows = (int32_t)rows;
    out->cols = (int32_t)cols;
    out->data = tensor->data;
    out->bytes = tensor->bytes;
    bool rotary = role == CHECKPOINT_PROJ + SORA_PROJ_Q || role == CHECKPOINT_PROJ + SORA_PROJ_K ||
                  role == CHECKPOINT_Q_BIAS || role == CHECKPOINT_K_BIAS;
    if (rotary && strcmp(checkpoint->base.architecture, "llama") == 0)
        out->permuted_head_dim = checkpoint->base.head_dim;
    state->used[tensor - gguf_tensor_at(state->gguf, 0)] = true;
    return SORA_OK;
}

static void forget(struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor)
{
    struct gguf_state *state = checkpoint->state;
    const struct gguf_tensor *source = gguf_find_tensor(state->gguf, tensor->name);
    if (source != NULL)
        gguf_forget_tensor(state->gguf, source);
}

static sora_status check_all_used(struct checkpoint *checkpoint, struct sora_error *err)
{
    struct gguf_state *state = checkpoint->state;
    for (int32_t i = 0; i < gguf_tensor_count(state->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(state->gguf, i);
        if (!state->used[i])
            return sora_fail(err, SORA_UNSUPPORTED,
                             "tensor %.*s is no part of the %s architecture as it is computed here",
                             (int)tensor->name.bytes, tensor->name.data,
                             checkpoint->base.architecture);
    }
    return SORA_OK;
}

static void close_state(struct checkpoint *checkpoint)
{
    struct gguf_state *state = checkpoint->state;
    if (state == NULL)
        return;
    gguf_close(state->gguf);
    free(state->used);
    free(state);
    checkpoint->state = NULL;
}

// The integer at "<architecture>.<key>"; fallback < 0 means that it must be there.
static sora_status read_dimension(const struct gguf *gguf, const char *architecture,
                                  const char *key, int64_t fallback, int32_t *out,
                                  struct sora_error *err)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", architecture, key);
    int64_t value = fallback;
    if (!gguf_get_int(gguf, name, &value) && fallback < 0)
        return sora_fail(err, SORA_MALFORMED, "metadata %s is missing or no integer", name);
    if (value < 0 || value > INT32_MAX)
        return sora_fail(err, SORA_LIMIT, "metadata %s is %lld, beyond 0 .. %d", name,
                         (long long)value, INT32_MAX);
    *out = (int32_t)value;
    return SORA_OK;
}

static double read_number(const struct gguf *gguf, const char *architecture, const char *key,
                          double fallback)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", architecture, key);
    double value = fallback;
    return gguf_get_number(gguf, name, &value) ? value : fallback;
}

static sora_status read_architecture(const struct gguf *gguf, struct sora_base *base,
                                     struct sora_error *err)
{
    struct gguf_string name;
    if (!gguf_get_string(gguf, "general.architecture", &name))
        return sora_fail(err, SORA_MALFORMED, "metadata general.architecture is missing");
    static const char *const known[] = {"llama", "qwen2", "qwen3"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (name.bytes == strlen(known[i]) && memcmp(name.data, known[i], name.bytes) == 0) {
            snprintf(base->architecture, sizeof base->architecture, "%s", known[i]);
            return SORA_OK;
        }
    }
    return sora_fail(err, SORA_UNSUPPORTED,
                     "architecture \"%.*s\" is not one of llama, qwen2, qwen3",
                     (int)(name.bytes < 64 ? name.bytes : 64), name.data);
}

static sora_status read_rope(const struct gguf *gguf, const struct sora_base *base,
                             struct model_config *config, struct sora_error *err)
{
    const char *architecture = base->architecture;
    config->rope_theta = read_number(gguf, architecture, "rope.freq_base", 10000.0);
    int32_t rotary = 0;
    sora_status status =
        read_dimension(gguf, architecture, "rope.dimension_count", base->head_dim, &rotary, err);
    if (status != SORA_OK)
        return status;
    if (rotary != base->head_dim)
        return sora_fail(err, SORA_UNSUPPORTED, "rope.dimension_count %d differs from head_dim %d",
                         rotary, base->head_dim);
    char key[128];
    struct gguf_string scaling;
    snprintf(key, sizeof key, "%s.rope.scaling.type", architecture);
    if (gguf_get_string(gguf, key, &scaling) &&
        !(scaling.bytes == 4 && memcmp(scaling.data, "none", 4) == 0))
        return sora_fail(err, SORA_UNSUPPORTED, "RoPE scaling \"%.*s\" is not supported",
                         (int)(scaling.bytes < 32 ? scaling.bytes : 32), scaling.data);
    return SORA_OK;
}

// Width of the vocabulary: the metadata may lack it, the embedding never does.
static sora_status read_vocab_size(const struct gguf *gguf, struct sora_base *base,
                                   struct sora_error *err)
{
    const struct gguf_tensor *embedding = gguf_find_tensor(gguf, "token_embd.weight");
    if (embedding == NULL || embedding->rank != 2)
        return sora_fail(err, SORA_MALFORMED, "tensor token_embd.weight is missing or no matrix");
    if (embedding->shape[1] < 1 || embedding->shape[1] > SORA_VOCAB_SIZE_MAX)
        return sora_fail(err, SORA_LIMIT, "token_embd.weight has %lld rows, beyond 1 .. %d",
                         (long long)embedding->shape[1], SORA_VOCAB_SIZE_MAX);
    base->vocab_size = (int32_t)embedding->shape[1];
    return SORA_OK;
}

static sora_status read_config(const struct gguf *gguf, struct checkpoint *checkpoint,
                               struct sora_error *err)
{
    struct sora_base *base = &checkpoint->base;
    struct model_config *config = &checkpoint->config;
    sora_status status = read_architecture(gguf, base, err);
    if (status != SORA_OK)
        return status;
    int32_t experts = 0;
    const struct {
        const char *key;
        int64_t fallback; // -1: must be there
        int32_t *out;
    } fields[] = {
        {"block_count", -1, &base->layer_count},
        {"embedding_length", -1, &base->hidden},
        {"feed_forward_length", -1, &base->intermediate},
        {"attention.head_count", -1, &base->head_count},
        {"context_length", -1, &config->context_length},
        {"attention.sliding_window", 0, &config->sliding_window},
        {"expert_count", 0, &experts},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        status = read_dimension(gguf, base->architecture, fields[i].key, fields[i].fallback,
                                fields[i].out, err);
        if (status != SORA_OK)
            return status;
    }
    if (experts > 0)
        return sora_fail(err, SORA_UNSUPPORTED, "mixture of %d experts is not supported", experts);
    status = read_dimension(gguf, base->architecture, "attention.head_count_kv", base->head_count,
                            &base->kv_head_count, err);
    if (status != SORA_OK)
        return status;
    int64_t head_dim = base->head_count > 0 ? base->hidden / base->head_count : 0;
    status = read_dimension(gguf, base->architecture, "attention.key_length", head_dim,
                            &base->head_dim, err);
    if (status != SORA_OK)
        return status;
    config->norm_eps =
        (float)read_number(gguf, base->architecture, "attention.layer_norm_rms_epsilon", 1e-5);
    status = read_rope(gguf, base, config, err);
    if (status != SORA_OK)
        return status;
    return read_vocab_size(gguf, base, err);
}

sora_status gguf_checkpoint_open(const char *path, struct checkpoint *checkpoint,
                                 struct sora_error *err)
{
    memset(checkpoint, 0, sizeof *checkpoint);
    struct gguf_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "%s: out of memory", path);
    checkpoint->state = state;
    checkpoint->find = find;
    checkpoint->forget = forget;
    checkpoint->check_all_used = check_all_used;
    checkpoint->close = close_state;

    sora_status status = gguf_open(path, &state->gguf, err);
    if (status != SORA_OK)
        goto done;
    state->used = calloc((size_t)gguf_tensor_count(state->gguf) + 1, sizeof *state->used);
    if (state->used == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
        goto done;
    }
    status = read_config(state->gguf, checkpoint, err);
    if (status == SORA_OK) {
        checkpoint->config.tied_output = gguf_find_tensor(state->gguf, "output.weight") == NULL;
        status = checkpoint_check_base(&checkpoint->base, err);
    }
    if (status != SORA_OK)
        status = sora_fail_within(err, status, "%s", path);
done:
    if (status != SORA_OK)
        close_state(checkpoint);
    return status;
}

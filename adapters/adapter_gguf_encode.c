// SPDX-License-Identifier: Apache-2.0
// Writes llama.cpp's LoRA adapters. llama.cpp has one alpha for the whole file and computes alpha /
// rank for each tensor, or 1 where alpha is 0. Where one alpha gives every module its scale, it is
// written and B stays as it is; otherwise alpha is 0 and the scales are multiplied into B, in f32
// and rounded once. Everything is written as F32: with halves llama.cpp would round the activations
// too. One call, one thread.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_plan.h"
#include "base/json.h"
#include "base/quant.h"
#include "sora/adapter.h"

struct target {
    char architecture[32];
    int32_t head_dim;
    float alpha;
};

// Of the base that is given, or of the record in the file.
static sora_status read_target(const struct adapter_plan *plan, const struct sora_base *base,
                               struct target *target, struct sora_error *err)
{
    cJSON *tree = NULL;
    const char *architecture = NULL;
    int64_t head_dim = 0;
    memset(target, 0, sizeof *target);
    if (base) {
        memcpy(target->architecture, base->architecture, sizeof target->architecture);
        target->head_dim = base->head_dim;
        return SORA_OK;
    }
    if (!plan->base_json)
        return sora_fail(err, SORA_MISMATCH,
                         "the file does not tell its base, and llama.cpp's format asks for its "
                         "architecture: name the base (--model)");
    sora_status status = json_parse(plan->base_json, strlen(plan->base_json), &tree, err);
    if (status == SORA_OK)
        status = json_get_string(tree, "architecture", &architecture, err);
    if (status == SORA_OK)
        status = json_get_int(tree, "head_dim", 2, SORA_HEAD_DIM_MAX, &head_dim, err);
    if (status == SORA_OK &&
        (!architecture || strlen(architecture) >= sizeof target->architecture || head_dim == 0))
        status = sora_fail(err, SORA_MALFORMED, "base record: no architecture or head_dim");
    if (status == SORA_OK) {
        memcpy(target->architecture, architecture, strlen(architecture) + 1);
        target->head_dim = (int32_t)head_dim;
    }
    cJSON_Delete(tree);
    return status;
}

// The one alpha that gives every module its scale, or 0.
static float common_alpha(const struct adapter_plan *plan)
{
    float alpha = 0;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        const struct adapter_pair *pair = &plan->pairs[i];
        if (!pair->a)
            continue;
        if (alpha == 0)
            alpha = (float)adapter_config_alpha_for((double)pair->scale, pair->rank);
        if (alpha == 0 || !isfinite(alpha) || alpha / (float)pair->rank != pair->scale)
            return 0;
    }
    return alpha;
}

static sora_status make_a(struct adapter_plan *plan, const struct adapter_pair *pair,
                          struct gguf_source *source, struct sora_error *err)
{
    void *data;
    if (!adapter_plan_make(plan, pair->a, SORA_F32, &data, err))
        return SORA_LIMIT;
    source->shape[0] = pair->d_in;
    source->shape[1] = pair->rank;
    source->data = data;
    return safetensors_to_f32(pair->a, data, err);
}

// B in GGML's order of rows, with its scale where the file has no alpha.
static sora_status make_b(struct adapter_plan *plan, const struct adapter_pair *pair, int32_t slot,
                          const struct target *target, struct gguf_source *source,
                          struct sora_error *err)
{
    void *plain_data, *data;
    int proj = slot % SORA_PROJ_COUNT;
    bool rotary =
        (proj == SORA_PROJ_Q || proj == SORA_PROJ_K) && strcmp(target->architecture, "llama") == 0;
    float scale = target->alpha != 0 ? 1.0f : pair->scale;
    if (rotary &&
        (target->head_dim < 2 || target->head_dim % 2 != 0 || pair->d_out % target->head_dim != 0))
        return sora_fail(err, SORA_MISMATCH, "tensor \"%s\": %d rows are no whole heads of %d",
                         pair->b->name, (int)pair->d_out, (int)target->head_dim);
    if (!adapter_plan_make(plan, pair->b, SORA_F32, &plain_data, err) ||
        !adapter_plan_make(plan, pair->b, SORA_F32, &data, err))
        return SORA_LIMIT;
    sora_status status = safetensors_to_f32(pair->b, plain_data, err);
    if (status != SORA_OK)
        return status;
    for (int32_t row = 0; row < pair->d_out; row++) {
        const float *from = (const float *)plain_data + (size_t)row * (size_t)pair->rank;
        int32_t to_row = rotary ? gguf_rotary_row(row, target->head_dim) : row;
        float *to = (float *)data + (size_t)to_row * (size_t)pair->rank;
        for (int32_t k = 0; k < pair->rank; k++) {
            to[k] = from[k] * scale;
            if (!isfinite(to[k]))
                return sora_fail(err, SORA_MISMATCH,
                                 "tensor \"%s\": value %g times the scale %g is not finite",
                                 pair->b->name, (double)from[k], (double)scale);
        }
    }
    source->shape[0] = pair->rank;
    source->shape[1] = pair->d_out;
    source->data = data;
    return SORA_OK;
}

static sora_status make_sources(struct adapter_plan *plan, const struct target *target,
                                struct gguf_source *sources, struct sora_error *err)
{
    typedef char tensor_name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    int32_t count = 0;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        const struct adapter_pair *pair = &plan->pairs[i];
        if (!pair->a)
            continue;
        tensor_name *names = arena_alloc(&plan->arena, 2, sizeof *names);
        if (!names)
            return sora_fail(err, SORA_NO_MEMORY, "no memory for the names of tensors");
        struct gguf_source *a = &sources[count++], *b = &sources[count++];
        sora_status status = make_a(plan, pair, a, err);
        if (status == SORA_OK)
            status = make_b(plan, pair, i, target, b, err);
        if (status != SORA_OK)
            return status;
        for (int is_b = 0; is_b < 2; is_b++) {
            struct gguf_source *source = is_b ? b : a;
            adapter_tensor_name_print_gguf(
                i / SORA_PROJ_COUNT, (enum sora_proj)(i % SORA_PROJ_COUNT), is_b, names[is_b]);
            source->name = names[is_b];
            source->type = WEIGHT_F32;
            source->rank = 2;
            source->bytes = (size_t)source->shape[0] * (size_t)source->shape[1] * sizeof(float);
        }
    }
    return SORA_OK;
}

static sora_status encode(struct adapter_plan *plan, const struct sora_base *base, uint8_t **out,
                          size_t *out_bytes, struct sora_error *err)
{
    struct target target;
    char head_key[64];
    sora_status status = read_target(plan, base, &target, err);
    if (status != SORA_OK)
        return status;
    target.alpha = common_alpha(plan);
    struct gguf_source *sources = calloc(2 * (size_t)plan->pair_count + 1, sizeof *sources);
    if (!sources)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to write an adapter");
    snprintf(head_key, sizeof head_key, "%s.attention.key_length", target.architecture);
    const struct gguf_entry entries[] = {
        {.key = "general.architecture", .text = target.architecture},
        {.key = "general.type", .text = "adapter"},
        {.key = "adapter.type", .text = "lora"},
        {.key = "adapter.lora.alpha", .is_float = true, .number = (double)target.alpha},
        {.key = head_key, .number = target.head_dim}, // so that our import needs no base
    };
    status = make_sources(plan, &target, sources, err);
    if (status == SORA_OK)
        status = gguf_encode(entries, sizeof entries / sizeof entries[0], sources,
                             2 * plan->pair_count, SORA_ADAPTER_BYTES_MAX, out, out_bytes, err);
    free(sources);
    return status;
}

sora_status sora_adapter_to_gguf(const void *bytes, size_t byte_count, const struct sora_base *base,
                                 uint8_t **out, size_t *out_bytes, struct sora_error *err)
{
    struct adapter_plan plan;
    *out = NULL;
    *out_bytes = 0;
    sora_status status = adapter_plan_read(bytes, byte_count, NULL, base, &plan, err);
    if (status != SORA_OK)
        return status;
    status = encode(&plan, base, out, out_bytes, err);
    adapter_plan_deinit(&plan);
    return status;
}

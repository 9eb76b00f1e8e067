// SPDX-License-Identifier: Apache-2.0
// See made_adapter.h.
#include "loadtest/made_adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/safetensors.h"
#include "sora/limits.h"

#define MODULE_COUNT 7
#define RECORD_BYTES_MAX (4u << 20) // 256 layers of 7 modules, three lists of names
#define ALPHA_OVER_RANK 2           // what --rank 16 --alpha 32 trains with
#define A_EXPONENT 121              // |a| in [2^-6, 2^-5): about what Kaiming's start gives
#define B_EXPONENT 119              // |b| in [2^-8, 2^-7): a delta of about a percent
#define VARIED_BYTES 16

static const struct {
    const char *block, *name;
} modules[MODULE_COUNT] = {
    {"self_attn", "q_proj"}, {"self_attn", "k_proj"}, {"self_attn", "v_proj"},
    {"self_attn", "o_proj"}, {"mlp", "gate_proj"},    {"mlp", "up_proj"},
    {"mlp", "down_proj"},
};

static void module_shape(const struct made_base *base, int32_t module, int32_t *d_in,
                         int32_t *d_out)
{
    int32_t q = base->heads * base->head_dim, kv = base->kv_heads * base->head_dim;
    const int32_t in[] = {base->hidden, base->hidden, base->hidden,      q,
                          base->hidden, base->hidden, base->intermediate};
    const int32_t out[] = {
        q, kv, kv, base->hidden, base->intermediate, base->intermediate, base->hidden};
    *d_in = in[module];
    *d_out = out[module];
}

static sora_status read_dims(const cJSON *tree, struct made_base *base, struct sora_error *err)
{
    const struct {
        const char *name;
        int32_t *out;
        int32_t max;
    } dims[] = {
        {"layers", &base->layers, SORA_LAYER_COUNT_MAX},
        {"hidden", &base->hidden, SORA_WIDTH_MAX},
        {"intermediate", &base->intermediate, SORA_WIDTH_MAX},
        {"heads", &base->heads, 4096},
        {"kv_heads", &base->kv_heads, 4096},
        {"head_dim", &base->head_dim, SORA_HEAD_DIM_MAX},
    };
    if (!cJSON_IsObject(tree))
        return sora_fail(err, SORA_MALFORMED, "no record of the base");
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        int64_t value = 0;
        sora_status status = json_get_int(tree, dims[i].name, 1, dims[i].max, &value, err);
        if (status == SORA_OK && value == 0)
            status =
                sora_fail(err, SORA_MALFORMED, "no \"%s\" in the record of the base", dims[i].name);
        if (status != SORA_OK)
            return status;
        *dims[i].out = (int32_t)value;
    }
    if (base->heads * base->head_dim > SORA_WIDTH_MAX ||
        base->kv_heads * base->head_dim > SORA_WIDTH_MAX)
        return sora_fail(err, SORA_LIMIT, "the heads of the base are wider than %d",
                         SORA_WIDTH_MAX);
    return SORA_OK;
}

static sora_status base_from_tree(const cJSON *tree, struct made_base *base, struct sora_error *err)
{
    *base = (struct made_base){.json = NULL};
    sora_status status = read_dims(tree, base, err);
    if (status == SORA_OK && (base->json = cJSON_PrintUnformatted(tree)) == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the record of a base");
    return status;
}

sora_status made_base_parse(const char *json, size_t bytes, struct made_base *base,
                            struct sora_error *err)
{
    cJSON *tree = NULL;
    *base = (struct made_base){.json = NULL};
    sora_status status = json_parse(json, bytes, &tree, err);
    if (status == SORA_OK)
        status = base_from_tree(tree, base, err);
    cJSON_Delete(tree);
    return status;
}

sora_status made_base_from_card(const char *json, size_t bytes, struct made_base *base,
                                struct sora_error *err)
{
    cJSON *tree = NULL;
    *base = (struct made_base){.json = NULL};
    sora_status status = json_parse(json, bytes, &tree, err);
    if (status == SORA_OK)
        status = base_from_tree(cJSON_GetObjectItemCaseSensitive(tree, "base"), base, err);
    cJSON_Delete(tree);
    return status;
}

sora_status made_base_from_file(const void *file, size_t bytes, struct made_base *base,
                                struct sora_error *err)
{
    struct safetensors *tensors = NULL;
    *base = (struct made_base){.json = NULL};
    sora_status status = safetensors_parse(file, bytes, &tensors, err);
    if (status != SORA_OK)
        return status;
    const char *record = safetensors_metadata(tensors, "base");
    status = record != NULL ? made_base_parse(record, strlen(record), base, err)
                            : sora_fail(err, SORA_MALFORMED, "the file has no record of its base");
    safetensors_destroy(tensors);
    return status;
}

void made_base_deinit(struct made_base *base)
{
    free(base->json);
    *base = (struct made_base){.json = NULL};
}

// bf16 of this exponent and random sign and mantissa, four from each number drawn.
static void fill_bf16(uint16_t *out, size_t count, int32_t exponent, struct rng *rng)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < count; i++) {
        bits = i % 4 == 0 ? rng_u64(rng) : bits >> 16;
        out[i] = (uint16_t)((bits & 0x807F) | (uint64_t)exponent << 7);
    }
}

// Importance falls with the rank, as in a trained file: each quarter of the columns has half the
// size of the one before.
static void fade_ranks(uint16_t *b, int32_t d_out, int32_t rank)
{
    for (int32_t row = 0; row < d_out; row++) {
        for (int32_t k = 0; k < rank; k++)
            b[(size_t)row * (size_t)rank + (size_t)k] -= (uint16_t)((k * 4 / rank) << 7);
    }
}

// A file under construction: everything in one arena.
struct draft {
    struct arena arena;
    struct safetensors_tensor *tensors;
    int32_t *ranks; // [layers][MODULE_COUNT]
    int32_t tensor_count;
    struct buf config;
};

static sora_status add_tensor(struct draft *draft, int32_t layer, int32_t module, bool is_b,
                              int32_t rows, int32_t columns, uint16_t **values,
                              struct sora_error *err)
{
    struct safetensors_tensor *tensor = &draft->tensors[draft->tensor_count++];
    size_t count = 0;
    char *name = arena_alloc(&draft->arena, SORA_TENSOR_NAME_BYTES_MAX, 1);
    if (name == NULL || !checked_mul((size_t)rows, (size_t)columns, &count) ||
        (*values = arena_alloc(&draft->arena, count, sizeof **values)) == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a made adapter, or over %u bytes",
                         SORA_ADAPTER_BYTES_MAX);
    snprintf(name, SORA_TENSOR_NAME_BYTES_MAX,
             "base_model.model.model.layers.%d.%s.%s.lora_%c.weight", (int)layer,
             modules[module].block, modules[module].name, is_b ? 'B' : 'A');
    *tensor = (struct safetensors_tensor){.name = name,
                                          .dtype = "BF16",
                                          .rank = 2,
                                          .shape = {rows, columns},
                                          .data = (const uint8_t *)*values,
                                          .bytes = count * sizeof **values};
    return SORA_OK;
}

static sora_status add_modules(struct draft *draft, const struct made_base *base, struct rng *rng,
                               struct sora_error *err)
{
    sora_status status = SORA_OK;
    for (int32_t i = 0; i < base->layers * MODULE_COUNT && status == SORA_OK; i++) {
        int32_t rank = draft->ranks[i], d_in = 0, d_out = 0;
        uint16_t *a = NULL, *b = NULL;
        if (rank == 0)
            continue;
        module_shape(base, i % MODULE_COUNT, &d_in, &d_out);
        status = add_tensor(draft, i / MODULE_COUNT, i % MODULE_COUNT, false, rank, d_in, &a, err);
        if (status == SORA_OK)
            status =
                add_tensor(draft, i / MODULE_COUNT, i % MODULE_COUNT, true, d_out, rank, &b, err);
        if (status != SORA_OK)
            break;
        fill_bf16(a, (size_t)rank * (size_t)d_in, A_EXPONENT, rng);
        fill_bf16(b, (size_t)rank * (size_t)d_out, B_EXPONENT, rng);
        fade_ranks(b, d_out, rank);
    }
    return status;
}

static void print_pattern(struct draft *draft, const struct made_base *base, int32_t factor)
{
    bool first = true;
    for (int32_t i = 0; i < base->layers * MODULE_COUNT; i++) {
        if (draft->ranks[i] == 0)
            continue;
        buf_printf(&draft->config, "%s\"model.layers.%d.%s.%s\":%d", first ? "" : ",",
                   (int)(i / MODULE_COUNT), modules[i % MODULE_COUNT].block,
                   modules[i % MODULE_COUNT].name, (int)(draft->ranks[i] * factor));
        first = false;
    }
}

static void print_config(struct draft *draft, const struct made_base *base, int32_t rank_max)
{
    struct buf *out = &draft->config;
    buf_printf(out,
               "{\"peft_type\":\"LORA\",\"task_type\":\"CAUSAL_LM\",\"base_model_name_or_path\":"
               "null,\"r\":%d,\"lora_alpha\":%d,\"lora_dropout\":0.0,\"bias\":\"none\","
               "\"target_modules\":[",
               (int)rank_max, (int)rank_max * ALPHA_OVER_RANK);
    for (int32_t i = 0; i < MODULE_COUNT; i++)
        buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", modules[i].name);
    buf_text(out, "],\"rank_pattern\":{");
    print_pattern(draft, base, 1);
    buf_text(out, "},\"alpha_pattern\":{");
    print_pattern(draft, base, ALPHA_OVER_RANK);
    buf_text(out, "},\"use_rslora\":false,\"use_dora\":false,\"fan_in_fan_out\":false,"
                  "\"inference_mode\":true,\"modules_to_save\":null,\"init_lora_weights\":true}");
}

// Draws the ranks; returns the largest.
static int32_t draw_ranks(struct draft *draft, const struct made_base *base,
                          const struct length *ranks, struct rng *rng)
{
    int32_t rank_max = 0;
    for (int32_t i = 0; i < base->layers * MODULE_COUNT; i++) {
        int32_t d_in = 0, d_out = 0;
        module_shape(base, i % MODULE_COUNT, &d_in, &d_out);
        int32_t bound = d_in < d_out ? d_in : d_out, rank = length_sample(ranks, rng);
        draft->ranks[i] = rank < bound ? rank : bound;
        if (draft->ranks[i] > rank_max)
            rank_max = draft->ranks[i];
    }
    if (rank_max == 0)
        rank_max = draft->ranks[0] = 1;
    return rank_max;
}

sora_status made_adapter_encode(const struct made_base *base, const struct length *ranks,
                                uint64_t seed, uint8_t **bytes, size_t *byte_count,
                                struct sora_error *err)
{
    struct draft draft = {.tensor_count = 0};
    struct rng rng;
    sora_status status;
    size_t count = (size_t)base->layers * MODULE_COUNT;
    rng_seed(&rng, seed);
    arena_init(&draft.arena, SORA_ADAPTER_BYTES_MAX);
    buf_init(&draft.config, RECORD_BYTES_MAX);
    draft.ranks = arena_alloc(&draft.arena, count, sizeof *draft.ranks);
    draft.tensors = arena_alloc(&draft.arena, 2 * count, sizeof *draft.tensors);
    if (draft.ranks == NULL || draft.tensors == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for a made adapter");
        goto done;
    }
    print_config(&draft, base, draw_ranks(&draft, base, ranks, &rng));
    status = buf_status(&draft.config, err);
    if (status == SORA_OK)
        status = add_modules(&draft, base, &rng, err);
    if (status != SORA_OK)
        goto done;
    const struct safetensors_meta meta[] = {{"format", "sora-adapter"},
                                            {"format_version", "1"},
                                            {"adapter_config", draft.config.data},
                                            {"base", base->json}};
    status = safetensors_encode(meta, 4, draft.tensors, draft.tensor_count, bytes, byte_count, err);
done:
    buf_deinit(&draft.config);
    arena_deinit(&draft.arena);
    return status;
}

void made_adapter_vary(uint8_t *bytes, size_t byte_count, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    // The low byte of a bf16 holds mantissa bits and the lowest bit of the exponent, which stays.
    for (size_t i = 2; i <= VARIED_BYTES && i <= byte_count; i += 2) {
        uint8_t *low = &bytes[byte_count - i];
        *low = (uint8_t)((*low & 0x80) | (rng_u64(&rng) & 0x7F));
    }
}

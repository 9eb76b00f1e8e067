// SPDX-License-Identifier: Apache-2.0
// Reads llama.cpp's LoRA adapters, which its convert_lora_to_gguf.py makes: one alpha for the file,
// a rank for each tensor, scale = alpha / rank (1 where alpha is 0), and, where the architecture is
// llama, the rows of lora_b of q and k in GGML's rotary order. What is read is sorted and checked
// as every other adapter is. One call, one thread.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_pattern.h"
#include "adapters/adapter_plan.h"
#include "base/quant.h"
#include "sora/adapter.h"

#define TEXT_SHOWN 64 // bytes of a foreign string in an error

static sora_status expect_text(const struct gguf *gguf, const char *key, const char *expected,
                               struct sora_error *err)
{
    struct gguf_string found;
    if (!gguf_get_string(gguf, key, &found))
        return sora_fail(err, SORA_MALFORMED, "metadata %s is missing: expected \"%s\"", key,
                         expected);
    if (found.bytes == strlen(expected) && memcmp(found.data, expected, found.bytes) == 0)
        return SORA_OK;
    return sora_fail(err, SORA_UNSUPPORTED, "metadata %s is \"%.*s\": expected \"%s\"", key,
                     (int)(found.bytes < TEXT_SHOWN ? found.bytes : TEXT_SHOWN), found.data,
                     expected);
}

static sora_status read_architecture(const struct gguf *gguf, const struct sora_base *base,
                                     char architecture[32], struct sora_error *err)
{
    static const char *const known[] = {"llama", "qwen2", "qwen3"};
    struct gguf_string name;
    if (!gguf_get_string(gguf, "general.architecture", &name))
        return sora_fail(err, SORA_MALFORMED, "metadata general.architecture is missing");
    int shown = (int)(name.bytes < TEXT_SHOWN ? name.bytes : TEXT_SHOWN);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (name.bytes == strlen(known[i]) && memcmp(name.data, known[i], name.bytes) == 0)
            memcpy(architecture, known[i], name.bytes + 1);
    }
    if (!architecture[0])
        return sora_fail(err, SORA_UNSUPPORTED,
                         "architecture \"%.*s\" is not one of llama, qwen2, qwen3", shown,
                         name.data);
    if (base && strcmp(base->architecture, architecture) != 0)
        return sora_fail(err, SORA_MISMATCH, "an adapter for architecture %s, but the base is %s",
                         architecture, base->architecture);
    return SORA_OK;
}

static sora_status read_metadata(struct adapter_plan *plan, const struct sora_base *base,
                                 char architecture[32], struct sora_error *err)
{
    double alpha = 0;
    sora_status status = expect_text(plan->gguf, "general.type", "adapter", err);
    if (status == SORA_OK)
        status = expect_text(plan->gguf, "adapter.type", "lora", err);
    if (status == SORA_OK && gguf_get_ints(plan->gguf, "adapter.alora.invocation_tokens") >= 0)
        status = sora_fail(err, SORA_UNSUPPORTED,
                           "metadata adapter.alora.invocation_tokens (activated LoRA) is not "
                           "supported");
    if (status == SORA_OK)
        status = read_architecture(plan->gguf, base, architecture, err);
    if (status != SORA_OK)
        return status;
    (void)gguf_get_number(plan->gguf, "adapter.lora.alpha", &alpha);
    if (!(fabs(alpha) <= ADAPTER_ALPHA_MAX))
        return sora_fail(err, SORA_MALFORMED, "metadata adapter.lora.alpha is %g", alpha);
    plan->config.lora_alpha = alpha;
    return SORA_OK;
}

// GGML's types that our files have too; false for the others.
static bool find_dtype(int32_t type, enum sora_dtype *dtype)
{
    *dtype = type == WEIGHT_F16 ? SORA_F16 : type == WEIGHT_BF16 ? SORA_BF16 : SORA_F32;
    return type == WEIGHT_F32 || type == WEIGHT_F16 || type == WEIGHT_BF16;
}

// The view of one tensor, in HF's order of dimensions and in its own type.
static sora_status read_tensor(struct adapter_plan *plan, const struct gguf_tensor *source,
                               struct safetensors_tensor *tensor, struct sora_error *err)
{
    char *name = arena_strdup(&plan->arena, source->name.data, source->name.bytes);
    if (!name)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the names of tensors");
    tensor->name = name;
    if (strlen(name) != source->name.bytes)
        return sora_fail(err, SORA_MALFORMED, "tensor \"%s\": a zero byte in its name", name);
    if (source->rank > 2)
        return sora_fail(err, SORA_MISMATCH, "tensor \"%s\": expected 2 dimensions, found %d", name,
                         (int)source->rank);
    if (!weight_type_known(source->type) || !source->data)
        return sora_fail(
            err, SORA_UNSUPPORTED,
            "tensor \"%s\": GGML type %d is not one of F32, F16, BF16, Q8_0, Q4_0, Q4_1", name,
            (int)source->type);
    tensor->rank = 2;
    tensor->shape[0] = source->rank == 2 ? source->shape[1] : 1; // a last 1 may have been dropped
    tensor->shape[1] = source->shape[0];
    tensor->data = source->data;
    tensor->bytes = source->bytes;
    if (tensor->shape[0] > SORA_WIDTH_MAX || tensor->shape[1] > SORA_WIDTH_MAX)
        return sora_fail(err, SORA_LIMIT,
                         "tensor \"%s\": shape [%" PRId64 ", %" PRId64 "] exceeds the limit of %d",
                         name, tensor->shape[0], tensor->shape[1], SORA_WIDTH_MAX);
    return SORA_OK;
}

// The values as f32, in memory of the plan.
static sora_status widen(struct adapter_plan *plan, int32_t type, struct safetensors_tensor *tensor,
                         struct sora_error *err)
{
    void *data;
    struct safetensors_tensor *made = adapter_plan_make(plan, tensor, SORA_F32, &data, err);
    if (!made)
        return SORA_LIMIT;
    int32_t cols = (int32_t)tensor->shape[1];
    size_t row_bytes = weight_type_row_bytes((enum weight_type)type, cols);
    for (int64_t row = 0; row < tensor->shape[0]; row++)
        quant_row_to_f32((enum weight_type)type, tensor->data + (size_t)row * row_bytes, cols,
                         (float *)data + (size_t)row * (size_t)cols);
    *tensor = *made;
    return SORA_OK;
}

// The type of the other tensor of a module, or this one's own where there is none.
static int32_t partner_type(const struct gguf *gguf, const struct safetensors_tensor *tensor,
                            int32_t own)
{
    char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    size_t bytes = strlen(tensor->name);
    memcpy(name, tensor->name, bytes + 1);
    if (bytes > 0 && (name[bytes - 1] == 'a' || name[bytes - 1] == 'b'))
        name[bytes - 1] = name[bytes - 1] == 'a' ? 'b' : 'a';
    const struct gguf_tensor *partner = gguf_find_tensor(gguf, name);
    return partner ? partner->type : own;
}

// Quantized tensors become f32, and so does a pair of two types; the others stay as they are.
static sora_status read_tensors(struct adapter_plan *plan, struct sora_error *err)
{
    int32_t count = gguf_tensor_count(plan->gguf);
    struct safetensors_tensor *tensors =
        arena_alloc(&plan->arena, (size_t)count + 1, sizeof *tensors);
    if (!tensors)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d tensors", (int)count);
    for (int32_t i = 0; i < count; i++) {
        const struct gguf_tensor *source = gguf_tensor_at(plan->gguf, i);
        enum sora_dtype dtype;
        sora_status status = read_tensor(plan, source, &tensors[i], err);
        if (status != SORA_OK)
            return status;
        bool known = find_dtype(source->type, &dtype);
        if (!known || partner_type(plan->gguf, &tensors[i], source->type) != source->type)
            status = widen(plan, source->type, &tensors[i], err);
        else
            snprintf(tensors[i].dtype, sizeof tensors[i].dtype, "%s", adapter_dtype_name(dtype));
        if (status != SORA_OK)
            return status;
    }
    plan->tensors = tensors;
    plan->tensor_count = count;
    return SORA_OK;
}

// lora_b of q or k with its rows in HF's order.
static sora_status reorder(struct adapter_plan *plan, struct adapter_pair *pair, int64_t head_dim,
                           struct sora_error *err)
{
    void *data;
    if (head_dim < 2 || head_dim % 2 != 0 || pair->d_out % head_dim != 0)
        return sora_fail(err, SORA_MISMATCH,
                         "tensor \"%s\": %d rows are no whole heads of %" PRId64, pair->b->name,
                         (int)pair->d_out, head_dim);
    struct safetensors_tensor *made = adapter_plan_make(plan, pair->b, pair->dtype, &data, err);
    if (!made)
        return SORA_LIMIT;
    size_t row_bytes = (size_t)pair->rank * adapter_dtype_bytes(pair->dtype);
    for (int32_t row = 0; row < pair->d_out; row++)
        memcpy((uint8_t *)data + (size_t)row * row_bytes,
               pair->b->data + (size_t)gguf_rotary_row(row, (int32_t)head_dim) * row_bytes,
               row_bytes);
    pair->b = made;
    return SORA_OK;
}

// The size of a head is the base's, or what a file of ours says; llama.cpp's own do not tell it.
static sora_status reorder_all(struct adapter_plan *plan, const struct sora_base *base,
                               struct sora_error *err)
{
    int64_t head_dim = 0;
    if (base)
        head_dim = base->head_dim;
    else
        (void)gguf_get_int(plan->gguf, "llama.attention.key_length", &head_dim);
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        struct adapter_pair *pair = &plan->pairs[i];
        int proj = i % SORA_PROJ_COUNT;
        if (!pair->a || (proj != SORA_PROJ_Q && proj != SORA_PROJ_K))
            continue;
        if (head_dim == 0)
            return sora_fail(err, SORA_MISMATCH,
                             "tensor \"%s\": its rows are in GGML's rotary order, which depends on "
                             "the size of the base's heads, and the file does not tell that: name "
                             "the base (--model)",
                             pair->b->name);
        sora_status status = reorder(plan, pair, head_dim, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

static void count_rank(struct adapter_plan *plan)
{
    plan->config.r = 1;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        if (plan->pairs[i].a && plan->pairs[i].rank > plan->config.r)
            plan->config.r = plan->pairs[i].rank;
    }
    if (plan->config.lora_alpha == 0)
        plan->config.lora_alpha = plan->config.r;
}

static sora_status read_all(const void *bytes, size_t byte_count, const struct sora_base *base,
                            enum adapter_rows rows, struct adapter_plan *plan,
                            struct sora_error *err)
{
    char architecture[32] = "";
    if (byte_count > SORA_ADAPTER_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "%zu bytes exceed the limit of %u for an adapter",
                         byte_count, SORA_ADAPTER_BYTES_MAX);
    sora_status status = gguf_parse(bytes, byte_count, &plan->gguf, err);
    if (status == SORA_OK)
        status = read_metadata(plan, base, architecture, err);
    if (status == SORA_OK)
        status = read_tensors(plan, err);
    plan->parse_name = adapter_tensor_name_parse_gguf;
    if (status == SORA_OK)
        status = adapter_plan_bind(plan, base, err);
    if (status == SORA_OK && rows == ADAPTER_ROWS_HF && strcmp(architecture, "llama") == 0)
        status = reorder_all(plan, base, err);
    if (status == SORA_OK)
        count_rank(plan);
    return status;
}

sora_status adapter_plan_read_gguf(const void *bytes, size_t byte_count,
                                   const struct sora_base *base, enum adapter_rows rows,
                                   struct adapter_plan *plan, struct sora_error *err)
{
    adapter_plan_init(plan);
    sora_status status = read_all(bytes, byte_count, base, rows, plan, err);
    if (status != SORA_OK)
        adapter_plan_deinit(plan);
    return status;
}

bool sora_adapter_is_gguf(const void *bytes, size_t byte_count)
{
    return byte_count >= 4 && memcmp(bytes, "GGUF", 4) == 0;
}

static sora_status from_gguf(const void *bytes, size_t byte_count, const struct sora_base *base,
                             enum adapter_rows rows, uint8_t **out, size_t *out_bytes,
                             struct sora_error *err)
{
    struct adapter_plan plan;
    *out = NULL;
    *out_bytes = 0;
    sora_status status = adapter_plan_read_gguf(bytes, byte_count, base, rows, &plan, err);
    if (status != SORA_OK)
        return status;
    status = adapter_encode_plan(&plan, base, false, out, out_bytes, err);
    adapter_plan_deinit(&plan);
    return status;
}

sora_status sora_adapter_from_gguf(const void *bytes, size_t byte_count,
                                   const struct sora_base *base, uint8_t **out, size_t *out_bytes,
                                   struct sora_error *err)
{
    return from_gguf(bytes, byte_count, base, ADAPTER_ROWS_HF, out, out_bytes, err);
}

sora_status sora_adapter_look_at_gguf(const void *bytes, size_t byte_count, sora_adapter **adapter,
                                      struct sora_error *err)
{
    uint8_t *ours;
    size_t our_bytes;
    *adapter = NULL;
    sora_status status =
        from_gguf(bytes, byte_count, NULL, ADAPTER_ROWS_KEPT, &ours, &our_bytes, err);
    if (status == SORA_OK)
        status = sora_adapter_parse(ours, our_bytes, NULL, adapter, err);
    free(ours);
    return status;
}

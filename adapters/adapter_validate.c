// SPDX-License-Identifier: Apache-2.0
// The checks that stand between a stranger's tensors and the kernels: each must belong to a module
// of the base, have its shape and hold finite numbers. The first fault refuses the file, naming
// the tensor, what was expected and what was found. Pure functions, any thread.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_names.h"
#include "adapters/adapter_plan.h"
#include "base/assert.h"

// The name must be of the config's kind: lora_E, and names without ".weight", are AdaLoRA's.
static sora_status check_kind(const struct adapter_plan *plan,
                              const struct safetensors_tensor *tensor,
                              const struct adapter_tensor_name *name, struct sora_error *err)
{
    if (name->is_bare == plan->config.is_adalora)
        return SORA_OK;
    return sora_fail(err, SORA_MISMATCH,
                     "tensor \"%s\" is named as %s does, but peft_type is \"%s\"", tensor->name,
                     name->is_bare ? "AdaLoRA" : "LoRA",
                     plan->config.is_adalora ? "ADALORA" : "LORA");
}

static sora_status place_tensor(struct adapter_plan *plan, const struct safetensors_tensor *tensor,
                                struct sora_error *err)
{
    struct adapter_tensor_name name;
    sora_status status = plan->parse_name(tensor->name, &name, err);
    if (status == SORA_OK)
        status = check_kind(plan, tensor, &name, err);
    if (status != SORA_OK)
        return status;
    int32_t layer_max = plan->layer_count ? plan->layer_count : SORA_LAYER_COUNT_MAX;
    if (name.layer >= layer_max)
        return sora_fail(err, SORA_MISMATCH, "tensor \"%s\": expected a layer below %d, found %d",
                         tensor->name, (int)layer_max, (int)name.layer);
    if (plan->config.layers && !plan->config.layers[name.layer])
        return sora_fail(err, SORA_MISMATCH,
                         "tensor \"%s\": layer %d is not in the config's layers_to_transform",
                         tensor->name, (int)name.layer);
    struct adapter_pair *pair = &plan->pairs[name.layer * SORA_PROJ_COUNT + (int)name.proj];
    const struct safetensors_tensor **slot = name.part == ADAPTER_PART_A   ? &pair->a
                                             : name.part == ADAPTER_PART_B ? &pair->b
                                                                           : &pair->e;
    if (*slot)
        return sora_fail(err, SORA_MISMATCH, "tensor \"%s\" and tensor \"%s\" are the same module",
                         (*slot)->name, tensor->name);
    *slot = tensor;
    return SORA_OK;
}

// llama.cpp's: the rank is the tensor's own; the file's alpha 0 is a scale of 1.
static sora_status read_own_rank(const struct adapter_plan *plan, struct adapter_pair *pair,
                                 struct sora_error *err)
{
    int64_t rank = pair->a->rank > 0 ? pair->a->shape[0] : 0;
    if (rank < 1 || rank > SORA_WIDTH_MAX)
        return sora_fail(err, SORA_LIMIT, "tensor \"%s\": rank %" PRId64 " is not in [1, %d]",
                         pair->a->name, rank, SORA_WIDTH_MAX);
    pair->rank = (int32_t)rank;
    pair->alpha = plan->config.lora_alpha != 0 ? plan->config.lora_alpha : (double)rank;
    pair->scale = (float)adapter_config_scale(false, pair->alpha, pair->rank);
    return SORA_OK;
}

// What the config says of the module, under the name that the file gives it.
static sora_status read_pattern(const struct adapter_plan *plan, struct adapter_pair *pair,
                                struct sora_error *err)
{
    struct adapter_tensor_name name;
    const struct adapter_config *config = &plan->config;
    if (plan->gguf)
        return read_own_rank(plan, pair, err);
    sora_status status = plan->parse_name(pair->a->name, &name, err);
    if (status == SORA_OK)
        status = adapter_config_rank(config, name.module, &pair->rank, err);
    if (status == SORA_OK && !config->is_adalora)
        status = adapter_config_alpha(config, name.module, &pair->alpha, err);
    if (status != SORA_OK)
        return status;
    if (config->is_adalora)
        pair->scale = (float)adapter_config_adalora_scale(config, pair->rank);
    else
        pair->scale = (float)adapter_config_scale(config->use_rslora, pair->alpha, pair->rank);
    return SORA_OK;
}

// Every tensor of a module has the others beside it.
static sora_status check_complete(const struct adapter_plan *plan, const struct adapter_pair *pair,
                                  struct sora_error *err)
{
    const struct safetensors_tensor *one = pair->a ? pair->a : pair->b ? pair->b : pair->e;
    const char *missing = !pair->a ? "lora_A" : !pair->b ? "lora_B" : "lora_E";
    if (pair->a && pair->b && (pair->e || !plan->config.is_adalora))
        return SORA_OK;
    return sora_fail(err, SORA_MISMATCH, "tensor \"%s\" has no %s beside it", one->name, missing);
}

sora_status adapter_validate_names(struct adapter_plan *plan, struct sora_error *err)
{
    for (int32_t i = 0; i < plan->tensor_count; i++) {
        sora_status status = place_tensor(plan, &plan->tensors[i], err);
        if (status != SORA_OK)
            return status;
    }
    int32_t layer_count = 0;
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        struct adapter_pair *pair = &plan->pairs[i];
        if (!pair->a && !pair->b && !pair->e)
            continue;
        sora_status status = check_complete(plan, pair, err);
        if (status == SORA_OK)
            status = read_pattern(plan, pair, err);
        if (status != SORA_OK)
            return status;
        layer_count = i / SORA_PROJ_COUNT + 1;
        plan->pair_count++;
    }
    if (!plan->layer_count)
        plan->layer_count = layer_count;
    return SORA_OK;
}

static sora_status read_dtype(const struct safetensors_tensor *tensor, enum sora_dtype *dtype,
                              struct sora_error *err)
{
    for (int d = SORA_F32; d <= SORA_BF16; d++) {
        if (strcmp(tensor->dtype, adapter_dtype_name((enum sora_dtype)d)) == 0) {
            *dtype = (enum sora_dtype)d;
            return SORA_OK;
        }
    }
    return sora_fail(err, SORA_MISMATCH, "tensor \"%s\": expected type F32, F16 or BF16, found %s",
                     tensor->name, tensor->dtype);
}

static const char *print_shape(const struct safetensors_tensor *tensor, char out[96])
{
    size_t used = 0;
    for (int32_t i = 0; i < tensor->rank; i++)
        used +=
            (size_t)snprintf(out + used, 96 - used, "%s%" PRId64, i ? ", " : "", tensor->shape[i]);
    out[used] = 0;
    return out;
}

// -1 stands for any size in an expected shape.
static sora_status check_shape(const struct safetensors_tensor *tensor, int64_t rows, int64_t cols,
                               struct sora_error *err)
{
    char found[96], row_text[24] = "d_out", col_text[24] = "d_in";
    if (tensor->rank == 2 && (rows < 0 || tensor->shape[0] == rows) &&
        (cols < 0 || tensor->shape[1] == cols))
        return SORA_OK;
    if (rows >= 0)
        snprintf(row_text, sizeof row_text, "%" PRId64, rows);
    if (cols >= 0)
        snprintf(col_text, sizeof col_text, "%" PRId64, cols);
    return sora_fail(err, SORA_MISMATCH, "tensor \"%s\": expected shape [%s, %s], found [%s]",
                     tensor->name, row_text, col_text, print_shape(tensor, found));
}

static sora_status check_pair_shapes(struct adapter_pair *pair, int64_t d_in, int64_t d_out,
                                     struct sora_error *err)
{
    sora_status status = check_shape(pair->a, pair->rank, d_in, err);
    if (status == SORA_OK)
        status = check_shape(pair->b, d_out, pair->rank, err);
    if (status != SORA_OK)
        return status;
    int64_t found_in = pair->a->shape[1], found_out = pair->b->shape[0];
    const struct safetensors_tensor *narrow = found_in < found_out ? pair->a : pair->b;
    int64_t width = found_in < found_out ? found_in : found_out;
    if (pair->rank > width)
        return sora_fail(err, SORA_MISMATCH, "tensor \"%s\": rank %d exceeds %s %" PRId64,
                         narrow->name, (int)pair->rank, narrow == pair->a ? "d_in" : "d_out",
                         width);
    if (found_in > SORA_WIDTH_MAX || found_out > SORA_WIDTH_MAX)
        return sora_fail(err, SORA_LIMIT,
                         "tensor \"%s\": widths %" PRId64 " and %" PRId64 " exceed the limit of %d",
                         pair->a->name, found_in, found_out, SORA_WIDTH_MAX);
    pair->d_in = (int32_t)found_in;
    pair->d_out = (int32_t)found_out;
    return SORA_OK;
}

#define FINITE_BLOCK 1024 // elements looked at together, without a branch

// Bit patterns whose exponent is all ones, 16 or 32 bits wide: NaN and infinity.
static bool any_bad_16(const uint8_t *data, size_t count, uint16_t exponent)
{
    uint16_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + 2 * i, sizeof bits);
        bad |= (uint16_t)((bits & exponent) == exponent);
    }
    return bad != 0;
}

static bool any_bad_32(const uint8_t *data, size_t count)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, data + 4 * i, sizeof bits);
        bad |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
    }
    return bad != 0;
}

// The index of the first one, or -1: by blocks, then within the block that has it.
static int64_t find_bad_16(const uint8_t *data, size_t count, uint16_t exponent)
{
    for (size_t at = 0, block; at < count; at += block) {
        block = count - at < FINITE_BLOCK ? count - at : FINITE_BLOCK;
        if (!any_bad_16(data + 2 * at, block, exponent))
            continue;
        while (!any_bad_16(data + 2 * at, 1, exponent))
            at++;
        return (int64_t)at;
    }
    return -1;
}

static int64_t find_bad_32(const uint8_t *data, size_t count)
{
    for (size_t at = 0, block; at < count; at += block) {
        block = count - at < FINITE_BLOCK ? count - at : FINITE_BLOCK;
        if (!any_bad_32(data + 4 * at, block))
            continue;
        while (!any_bad_32(data + 4 * at, 1))
            at++;
        return (int64_t)at;
    }
    return -1;
}

static sora_status check_finite(const struct safetensors_tensor *tensor, enum sora_dtype dtype,
                                struct sora_error *err)
{
    size_t count = tensor->bytes / adapter_dtype_bytes(dtype);
    int64_t bad = dtype == SORA_F32
                      ? find_bad_32(tensor->data, count)
                      : find_bad_16(tensor->data, count, dtype == SORA_F16 ? 0x7c00 : 0x7f80);
    if (bad < 0)
        return SORA_OK;
    return sora_fail(
        err, SORA_MISMATCH,
        "tensor \"%s\": expected finite values, found NaN or infinity at index %" PRId64
        " (row %" PRId64 ", column %" PRId64 ")",
        tensor->name, bad, bad / tensor->shape[1], bad % tensor->shape[1]);
}

static sora_status check_pair(struct adapter_pair *pair, int64_t d_in, int64_t d_out,
                              struct sora_error *err)
{
    enum sora_dtype b_dtype = SORA_F32;
    sora_status status = read_dtype(pair->a, &pair->dtype, err);
    if (status == SORA_OK)
        status = read_dtype(pair->b, &b_dtype, err);
    if (status != SORA_OK)
        return status;
    if (pair->dtype != b_dtype)
        return sora_fail(err, SORA_MISMATCH,
                         "tensor \"%s\": expected type %s as its lora_A, found %s", pair->b->name,
                         pair->a->dtype, pair->b->dtype);
    status = check_pair_shapes(pair, d_in, d_out, err);
    if (status == SORA_OK)
        status = check_finite(pair->a, pair->dtype, err);
    if (status == SORA_OK)
        status = check_finite(pair->b, pair->dtype, err);
    if (status == SORA_OK && pair->e)
        status = check_shape(pair->e, pair->rank, 1, err);
    enum sora_dtype e_dtype = SORA_F32;
    if (status == SORA_OK && pair->e)
        status = read_dtype(pair->e, &e_dtype, err);
    if (status == SORA_OK && pair->e)
        status = check_finite(pair->e, e_dtype, err);
    if (status == SORA_OK && !isfinite(pair->scale))
        status =
            sora_fail(err, SORA_MISMATCH, "tensor \"%s\": its scale %g/%d is not finite in f32",
                      pair->a->name, pair->alpha, (int)pair->rank);
    return status;
}

sora_status adapter_validate_tensors(struct adapter_plan *plan, const struct sora_base *base,
                                     struct sora_error *err)
{
    // Without a base, the first module of a projection sets the widths for the others.
    int64_t d_in[SORA_PROJ_COUNT], d_out[SORA_PROJ_COUNT];
    for (int p = 0; p < SORA_PROJ_COUNT; p++) {
        d_in[p] = base ? base->d_in[p] : -1;
        d_out[p] = base ? base->d_out[p] : -1;
    }
    for (int32_t i = 0; i < ADAPTER_MODULE_COUNT_MAX; i++) {
        struct adapter_pair *pair = &plan->pairs[i];
        int p = i % SORA_PROJ_COUNT;
        if (!pair->a)
            continue;
        sora_status status = check_pair(pair, d_in[p], d_out[p], err);
        if (status != SORA_OK)
            return status;
        d_in[p] = pair->d_in;
        d_out[p] = pair->d_out;
    }
    return SORA_OK;
}

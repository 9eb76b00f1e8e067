// SPDX-License-Identifier: Apache-2.0
// Streams a checkpoint with an adapter in it to a Hugging Face folder, row by row.
#include "sora/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/half.h"
#include "base/safetensors.h"
#include "model/merge_config.h"

#define WEIGHTS_FILE "model.safetensors"
#define CONFIG_FILE "config.json"
#define LAYER_ROLE_COUNT (CHECKPOINT_ROLE_COUNT - CHECKPOINT_ATTENTION_NORM)

// A tensor to be written.
struct part {
    struct checkpoint_tensor source;
    const struct sora_lora_module *module; // NULL: as it is
    int32_t rank;                          // dimensions in HF's file
};

struct merge {
    struct checkpoint *checkpoint;
    const struct sora_lora *lora;
    enum sora_dtype dtype;
    struct part *parts;
    int32_t part_count;
    struct file_stream *out;
    float *row, *delta; // [widest row]
    float *a;           // [rank, d_in] of the part that is being written
    uint8_t *bytes;     // the row in the file's type
};

static size_t dtype_bytes(enum sora_dtype dtype)
{
    return dtype == SORA_F32 ? 4 : 2;
}

static void expected_shape(const struct sora_base *base, int role, int32_t *rows, int32_t *cols)
{
    *rows = 1;
    *cols = base->hidden;
    if (role == CHECKPOINT_EMBEDDING || role == CHECKPOINT_OUTPUT)
        *rows = base->vocab_size;
    else if (role == CHECKPOINT_Q_NORM || role == CHECKPOINT_K_NORM)
        *cols = base->head_dim;
    else if (role >= CHECKPOINT_Q_BIAS && role <= CHECKPOINT_V_BIAS)
        *cols = base->d_out[SORA_PROJ_Q + role - CHECKPOINT_Q_BIAS];
    if (role < CHECKPOINT_PROJ)
        return;
    *rows = base->d_out[role - CHECKPOINT_PROJ];
    *cols = base->d_in[role - CHECKPOINT_PROJ];
}

static bool is_optional(const struct merge *merge, int role)
{
    return role == CHECKPOINT_Q_NORM || role == CHECKPOINT_K_NORM ||
           (role >= CHECKPOINT_Q_BIAS && role <= CHECKPOINT_V_BIAS) ||
           (role == CHECKPOINT_OUTPUT && merge->checkpoint->config.tied_output);
}

static sora_status add_part(struct merge *merge, int role, int32_t layer, struct sora_error *err)
{
    const struct sora_base *base = &merge->checkpoint->base;
    struct part *part = &merge->parts[merge->part_count];
    char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    bool found = false;
    int32_t rows, cols;
    if (role == CHECKPOINT_OUTPUT && merge->checkpoint->config.tied_output)
        return SORA_OK;
    sora_status status = merge->checkpoint->find(merge->checkpoint, (enum checkpoint_role)role,
                                                 layer, &part->source, &found, err);
    if (status != SORA_OK || (!found && is_optional(merge, role)))
        return status;
    if (!hf_checkpoint_name((enum checkpoint_role)role, layer, name))
        return sora_fail(err, SORA_INTERNAL, "no name for role %d", role);
    if (!found)
        return sora_fail(err, SORA_MALFORMED, "the base has no %s", name);
    expected_shape(base, role, &rows, &cols);
    status = checkpoint_check_shape(&part->source, rows, cols, err);
    if (status != SORA_OK)
        return status;
    if (role >= CHECKPOINT_Q_BIAS && role <= CHECKPOINT_V_BIAS &&
        strcmp(base->architecture, "qwen2") != 0)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "tensor %s: biases of q, k and v alone are qwen2's; Hugging Face's %s has "
                         "no place for them",
                         part->source.name, base->architecture);
    memcpy(part->source.name, name, sizeof name);
    part->rank = rows > 1 || role >= CHECKPOINT_PROJ ? 2 : 1;
    part->module = NULL;
    if (role >= CHECKPOINT_PROJ && layer < merge->lora->layer_count) {
        const struct sora_lora_module *module =
            &merge->lora->modules[layer * SORA_PROJ_COUNT + role - CHECKPOINT_PROJ];
        part->module = module->rank > 0 ? module : NULL;
    }
    merge->part_count++;
    return SORA_OK;
}

static sora_status add_parts(struct merge *merge, struct sora_error *err)
{
    int32_t layer_count = merge->checkpoint->base.layer_count;
    // A row of them more than the layers have, for the embedding and the output.
    merge->parts = calloc((size_t)layer_count + 1, sizeof(struct part[LAYER_ROLE_COUNT]));
    if (merge->parts == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    sora_status status = add_part(merge, CHECKPOINT_EMBEDDING, 0, err);
    for (int32_t layer = 0; layer < layer_count; layer++) {
        for (int role = CHECKPOINT_ATTENTION_NORM; role < CHECKPOINT_ROLE_COUNT; role++) {
            if (status == SORA_OK)
                status = add_part(merge, role, layer, err);
        }
    }
    if (status == SORA_OK)
        status = add_part(merge, CHECKPOINT_OUTPUT_NORM, 0, err);
    if (status == SORA_OK)
        status = add_part(merge, CHECKPOINT_OUTPUT, 0, err);
    return status;
}

static float element(const void *values, enum sora_dtype dtype, size_t index)
{
    uint16_t half;
    if (dtype == SORA_F32)
        return ((const float *)values)[index];
    memcpy(&half, (const uint8_t *)values + 2 * index, sizeof half);
    return dtype == SORA_F16 ? half_from_f16(half) : half_from_bf16(half);
}

// merge->row += scale B[out] A
static void add_module(struct merge *merge, const struct part *part, int32_t out)
{
    const struct sora_lora_module *module = part->module;
    int32_t d_in = part->source.cols, d_out = part->source.rows;
    memset(merge->delta, 0, (size_t)d_in * sizeof *merge->delta);
    for (int32_t k = 0; k < module->rank; k++) {
        float b = element(module->bt, module->dtype, (size_t)k * (size_t)d_out + (size_t)out);
        const float *a = merge->a + (size_t)k * (size_t)d_in;
        for (int32_t i = 0; i < d_in; i++)
            merge->delta[i] += b * a[i];
    }
    for (int32_t i = 0; i < d_in; i++)
        merge->row[i] += module->scale * merge->delta[i];
}

static sora_status write_row(struct merge *merge, const struct part *part, int32_t row,
                             struct sora_error *err)
{
    int32_t count = part->source.cols;
    for (int32_t i = 0; i < count; i++) {
        float value = merge->row[i];
        uint16_t half = merge->dtype == SORA_F16 ? half_to_f16(value) : half_to_bf16(value);
        float back = merge->dtype == SORA_F32   ? value
                     : merge->dtype == SORA_F16 ? half_from_f16(half)
                                                : half_from_bf16(half);
        if (!isfinite(back))
            return sora_fail(err, SORA_MISMATCH,
                             "tensor %s: value %g at row %d, column %d is not finite in the type "
                             "that is written (--dtype f32 holds more)",
                             part->source.name, (double)value, row, i);
        if (merge->dtype == SORA_F32)
            memcpy(merge->bytes + 4 * (size_t)i, &value, 4);
        else
            memcpy(merge->bytes + 2 * (size_t)i, &half, 2);
    }
    return file_stream_write(merge->out, merge->bytes, (size_t)count * dtype_bytes(merge->dtype),
                             err);
}

// A vector may be permuted within itself: the biases of q and k.
static void read_vector(struct merge *merge, const struct checkpoint_tensor *source)
{
    quant_row_to_f32(source->type, source->data, source->cols, merge->delta);
    for (int32_t i = 0; i < source->cols; i++)
        merge->row[i] = merge->delta[checkpoint_source_row(source, i)];
}

static sora_status read_a(struct merge *merge, const struct part *part, struct sora_error *err)
{
    size_t count = (size_t)part->module->rank * (size_t)part->source.cols;
    merge->a = aligned_calloc(count, sizeof *merge->a);
    if (merge->a == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tensor %s: out of memory", part->source.name);
    for (size_t i = 0; i < count; i++)
        merge->a[i] = element(part->module->a, part->module->dtype, i);
    return SORA_OK;
}

static sora_status write_part(struct merge *merge, const struct part *part, struct sora_error *err)
{
    sora_status status = SORA_OK;
    const struct checkpoint_tensor *source = &part->source;
    size_t row_bytes = weight_type_row_bytes(source->type, source->cols);
    if (part->rank == 1) {
        read_vector(merge, source);
        return write_row(merge, part, 0, err);
    }
    if (part->module != NULL)
        status = read_a(merge, part, err);
    for (int32_t row = 0; status == SORA_OK && row < source->rows; row++) {
        size_t at = (size_t)checkpoint_source_row(source, row) * row_bytes;
        quant_row_to_f32(source->type, source->data + at, source->cols, merge->row);
        if (part->module != NULL)
            add_module(merge, part, row);
        status = write_row(merge, part, row, err);
    }
    free(merge->a);
    merge->a = NULL;
    merge->checkpoint->forget(merge->checkpoint, source);
    return status;
}

static sora_status write_header(struct merge *merge, struct sora_error *err)
{
    static const struct safetensors_meta meta = {"format", "pt"};
    static const char *const names[] = {"F32", "F16", "BF16"};
    struct safetensors_tensor *tensors = calloc((size_t)merge->part_count, sizeof *tensors);
    struct buf header;
    buf_init(&header, SORA_SAFETENSORS_HEADER_BYTES_MAX + 8);
    sora_status status = SORA_OK;
    if (tensors == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    for (int32_t i = 0; status == SORA_OK && i < merge->part_count; i++) {
        const struct part *part = &merge->parts[i];
        tensors[i].name = part->source.name;
        snprintf(tensors[i].dtype, sizeof tensors[i].dtype, "%s", names[merge->dtype]);
        tensors[i].rank = part->rank;
        tensors[i].shape[0] = part->rank == 2 ? part->source.rows : part->source.cols;
        tensors[i].shape[1] = part->source.cols;
        tensors[i].bytes =
            (size_t)part->source.rows * (size_t)part->source.cols * dtype_bytes(merge->dtype);
    }
    if (status == SORA_OK)
        status = safetensors_encode_header(&meta, 1, tensors, merge->part_count, &header, err);
    if (status == SORA_OK)
        status = file_stream_write(merge->out, header.data, header.bytes, err);
    buf_deinit(&header);
    free(tensors);
    return status;
}

static sora_status write_weights(struct merge *merge, const char *folder, struct sora_error *err)
{
    size_t widest = 1;
    for (int32_t i = 0; i < merge->part_count; i++) {
        if ((size_t)merge->parts[i].source.cols > widest)
            widest = (size_t)merge->parts[i].source.cols;
    }
    merge->row = aligned_calloc(widest, sizeof *merge->row);
    merge->delta = aligned_calloc(widest, sizeof *merge->delta);
    merge->bytes = aligned_calloc(widest, sizeof(float));
    char *path = file_join(folder, WEIGHTS_FILE);
    sora_status status = SORA_OK;
    if (merge->row == NULL || merge->delta == NULL || merge->bytes == NULL || path == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    if (status == SORA_OK)
        status = file_stream_open(path, &merge->out, err);
    if (status == SORA_OK)
        status = write_header(merge, err);
    for (int32_t i = 0; status == SORA_OK && i < merge->part_count; i++)
        status = write_part(merge, &merge->parts[i], err);
    if (status == SORA_OK)
        status = file_stream_commit(merge->out, err);
    file_stream_close(merge->out);
    free(path);
    free(merge->row);
    free(merge->delta);
    free(merge->bytes);
    return status;
}

// What the base's projections are stored in, or f16, which is what GGML's scales are.
static enum sora_dtype choose_dtype(const struct merge *merge, enum sora_merge_dtype wanted)
{
    if (wanted != SORA_MERGE_AUTO)
        return wanted == SORA_MERGE_F32   ? SORA_F32
               : wanted == SORA_MERGE_F16 ? SORA_F16
                                          : SORA_BF16;
    for (int32_t i = 0; i < merge->part_count; i++) {
        if (strstr(merge->parts[i].source.name, ".q_proj.weight") == NULL)
            continue;
        enum weight_type type = merge->parts[i].source.type;
        return type == WEIGHT_F32 ? SORA_F32 : type == WEIGHT_BF16 ? SORA_BF16 : SORA_F16;
    }
    return SORA_F16;
}

// A model that lies there already stays as it is.
static sora_status check_free(const char *folder, struct sora_error *err)
{
    static const char *const names[] = {CONFIG_FILE, WEIGHTS_FILE};
    for (int i = 0; i < 2; i++) {
        char *path = file_join(folder, names[i]);
        bool taken = path != NULL && file_exists(path);
        free(path);
        if (taken)
            return sora_fail(err, SORA_IO, "%s holds a %s already: name another folder", folder,
                             names[i]);
    }
    return SORA_OK;
}

// All that goes into the folder. What config.json cannot express is refused before anything is
// written, and it is written last: a folder without it is no model.
static sora_status write_folder(const char *model_path, struct merge *merge, const char *folder,
                                struct sora_error *err)
{
    struct buf config;
    buf_init(&config, SORA_JSON_BYTES_MAX);
    char *path = file_join(folder, CONFIG_FILE);
    sora_status status = path == NULL ? sora_fail(err, SORA_NO_MEMORY, "out of memory")
                                      : merge_config_print(model_path, merge->checkpoint,
                                                           merge->dtype, &config, err);
    if (status == SORA_OK)
        status = merge->checkpoint->check_all_used(merge->checkpoint, err);
    if (status == SORA_OK)
        status = file_make_folder(folder, err);
    if (status == SORA_OK)
        status = write_weights(merge, folder, err);
    if (status == SORA_OK)
        status = merge_config_copy_tokenizer(model_path, folder, err);
    if (status == SORA_OK)
        status = file_write_atomic(path, config.data, config.bytes, err);
    buf_deinit(&config);
    free(path);
    return status;
}

sora_status sora_model_merge(const char *model_path, const struct sora_lora *lora,
                             enum sora_merge_dtype dtype, const char *folder,
                             struct sora_error *err)
{
    struct checkpoint checkpoint;
    struct merge merge = {.checkpoint = &checkpoint, .lora = lora};
    sora_status status = check_free(folder, err);
    if (status != SORA_OK)
        return status;
    status = file_is_folder(model_path) ? hf_checkpoint_open(model_path, &checkpoint, err)
                                        : gguf_checkpoint_open(model_path, &checkpoint, err);
    if (status != SORA_OK)
        return status;
    status = add_parts(&merge, err);
    merge.dtype = choose_dtype(&merge, dtype);
    if (status == SORA_OK)
        status = write_folder(model_path, &merge, folder, err);
    free(merge.parts);
    checkpoint.close(&checkpoint);
    return status;
}

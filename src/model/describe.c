// SPDX-License-Identifier: Apache-2.0
// What is in a model file, told as JSON without loading its weights: sora_model_describe of
// sora/engine.h. Unlike the loader it also tells about models that this program cannot run, so a
// missing field is left out, never an error. Any thread may call; nothing is kept.
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "sora/engine.h"

// Rows of the tensor table while it is built beside the totals that come before it.
struct describe_tensors {
    struct buf rows;
    int64_t parameters;
    size_t bytes;
    bool has_output;
};

// Names of GGML's types by id, as llama.cpp prints them, also of those not computed here.
static const char *const ggml_type_names[] = {
    [0] = "F32",     [1] = "F16",      [2] = "Q4_0",   [3] = "Q4_1",    [6] = "Q5_0",
    [7] = "Q5_1",    [8] = "Q8_0",     [9] = "Q8_1",   [10] = "Q2_K",   [11] = "Q3_K",
    [12] = "Q4_K",   [13] = "Q5_K",    [14] = "Q6_K",  [15] = "Q8_K",   [16] = "IQ2_XXS",
    [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
    [22] = "IQ2_S",  [23] = "IQ4_XS",  [24] = "I8",    [25] = "I16",    [26] = "I32",
    [27] = "I64",    [28] = "F64",     [29] = "IQ1_M", [30] = "BF16",   [34] = "TQ1_0",
    [35] = "TQ2_0",  [39] = "MXFP4",
};

static void ggml_type_name(int32_t type, char out[24])
{
    size_t count = sizeof ggml_type_names / sizeof ggml_type_names[0];
    if (type >= 0 && (size_t)type < count && ggml_type_names[type] != NULL)
        snprintf(out, 24, "%s", ggml_type_names[type]);
    else
        snprintf(out, 24, "type %d", type);
}

// shape: outermost dimension first, whatever the container does. The product is for display; a
// foreign shape that overflows it only stops the count.
static void add_tensor(struct describe_tensors *tensors, const char *name, size_t name_bytes,
                       const char *type, const int64_t *shape, int32_t rank, size_t bytes)
{
    struct buf *out = &tensors->rows;
    int64_t values = 1;
    buf_text(out, out->bytes == 0 ? "{\"name\":" : ",{\"name\":");
    buf_json_string(out, name, name_bytes);
    buf_text(out, ",\"type\":");
    buf_json_string(out, type, strlen(type));
    buf_text(out, ",\"shape\":[");
    for (int32_t i = 0; i < rank; i++) {
        buf_printf(out, i == 0 ? "%lld" : ",%lld", (long long)shape[i]);
        if (__builtin_mul_overflow(values, shape[i], &values))
            values = 0;
    }
    buf_text(out, "]}");
    if (__builtin_add_overflow(tensors->parameters, values, &tensors->parameters))
        tensors->parameters = INT64_MAX;
    tensors->bytes += bytes;
}

static void put_text(struct buf *out, const char *key, const char *text, size_t bytes)
{
    buf_printf(out, ",\"%s\":", key);
    buf_json_string(out, text, bytes);
}

static void put_number(struct buf *out, const char *key, double value)
{
    if (isfinite(value))
        buf_printf(out, ",\"%s\":%.9g", key, value);
}

// The end that both containers share; consumes nothing.
static void put_tensors(struct buf *out, const struct describe_tensors *tensors, bool tied)
{
    buf_printf(out, ",\"tied_output\":%s,\"parameters\":%lld,\"bytes\":%zu,\"tensors\":[",
               tied ? "true" : "false", (long long)tensors->parameters, tensors->bytes);
    buf_append(out, tensors->rows.data, tensors->rows.bytes);
    buf_text(out, "]}");
}

// One field of the description: our key, GGUF's key behind the architecture, HF's key.
struct describe_field {
    const char *key, *gguf_key, *hf_key;
    bool fraction;
};

static const struct describe_field fields[] = {
    {"layers", "block_count", "num_hidden_layers", false},
    {"hidden", "embedding_length", "hidden_size", false},
    {"intermediate", "feed_forward_length", "intermediate_size", false},
    {"heads", "attention.head_count", "num_attention_heads", false},
    {"kv_heads", "attention.head_count_kv", "num_key_value_heads", false},
    {"head_dim", "attention.key_length", "head_dim", false},
    {"vocab_size", "vocab_size", "vocab_size", false},
    {"context_length", "context_length", "max_position_embeddings", false},
    {"sliding_window", "attention.sliding_window", "sliding_window", false},
    {"rope_theta", "rope.freq_base", "rope_theta", true},
    {"norm_eps", "attention.layer_norm_rms_epsilon", "rms_norm_eps", true},
};

#define FIELD_COUNT (sizeof fields / sizeof fields[0])

static void put_gguf_fields(struct buf *out, const struct gguf *gguf)
{
    struct gguf_string architecture = {"", 0}, text;
    if (gguf_get_string(gguf, "general.architecture", &architecture))
        put_text(out, "architecture", architecture.data, architecture.bytes);
    if (gguf_get_string(gguf, "general.name", &text))
        put_text(out, "title", text.data, text.bytes);
    for (size_t i = 0; i < FIELD_COUNT && architecture.bytes < 64; i++) {
        char key[160];
        int64_t integer = 0;
        double number = 0;
        snprintf(key, sizeof key, "%.*s.%s", (int)architecture.bytes, architecture.data,
                 fields[i].gguf_key);
        if (fields[i].fraction && gguf_get_number(gguf, key, &number))
            put_number(out, fields[i].key, number);
        else if (!fields[i].fraction && gguf_get_int(gguf, key, &integer))
            buf_printf(out, ",\"%s\":%lld", fields[i].key, (long long)integer);
    }
    if (gguf_get_string(gguf, "tokenizer.ggml.model", &text))
        put_text(out, "tokenizer", text.data, text.bytes);
}

static void add_gguf_tensors(struct describe_tensors *tensors, const struct gguf *gguf)
{
    for (int32_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        int64_t shape[SORA_TENSOR_RANK_MAX];
        char type[24];
        for (int32_t j = 0; j < tensor->rank; j++)
            shape[j] = tensor->shape[tensor->rank - 1 - j];
        ggml_type_name(tensor->type, type);
        add_tensor(tensors, tensor->name.data, tensor->name.bytes, type, shape, tensor->rank,
                   tensor->bytes);
    }
    tensors->has_output = gguf_find_tensor(gguf, "output.weight") != NULL;
}

static sora_status describe_gguf(const char *path, struct buf *out,
                                 struct describe_tensors *tensors, struct sora_error *err)
{
    struct gguf *gguf = NULL;
    sora_status status = gguf_open(path, &gguf, err);
    if (status != SORA_OK)
        return status;
    buf_text(out, "{\"format\":\"gguf\"");
    put_gguf_fields(out, gguf);
    add_gguf_tensors(tensors, gguf);
    put_tensors(out, tensors, !tensors->has_output);
    gguf_close(gguf);
    return SORA_OK;
}

// Values of fields that a config does not spell out but everybody computes the same way, and the
// places where they may sit: the top, text_config (multi-modal), rope_parameters.
static const cJSON *find_hf_field(const cJSON *config, const char *key)
{
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(config, "text_config");
    const cJSON *const places[] = {
        config,
        text,
        cJSON_GetObjectItemCaseSensitive(config, "rope_parameters"),
        cJSON_GetObjectItemCaseSensitive(text, "rope_parameters"),
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(places[i], key);
        if (cJSON_IsNumber(item))
            return item;
    }
    return NULL;
}

static void put_hf_fields(struct buf *out, const cJSON *config)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(config, "model_type");
    if (cJSON_IsString(type))
        put_text(out, "architecture", type->valuestring, strlen(type->valuestring));
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        const cJSON *item = find_hf_field(config, fields[i].hf_key);
        if (item != NULL)
            put_number(out, fields[i].key, item->valuedouble);
    }
}

static sora_status add_hf_file(struct describe_tensors *tensors, const char *path,
                               struct sora_error *err)
{
    struct file_map map = {0};
    struct safetensors *file = NULL;
    sora_status status = file_map_open(path, &map, err);
    if (status != SORA_OK)
        return status;
    status = safetensors_parse(map.data, map.bytes, &file, err);
    if (status != SORA_OK)
        status = sora_fail_within(err, status, "%s", path);
    for (int32_t i = 0; status == SORA_OK && i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        add_tensor(tensors, tensor->name, strlen(tensor->name), tensor->dtype, tensor->shape,
                   tensor->rank, tensor->bytes);
        if (strcmp(tensor->name, "lm_head.weight") == 0)
            tensors->has_output = true;
    }
    safetensors_destroy(file);
    file_map_close(&map);
    return status;
}

static int is_safetensors(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot != NULL && strcmp(dot, ".safetensors") == 0;
}

// Every *.safetensors of the folder, by name, so that the order is the same everywhere.
static sora_status add_hf_files(struct describe_tensors *tensors, const char *folder,
                                struct sora_error *err)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_safetensors, alphasort);
    if (count < 0)
        return sora_fail(err, SORA_IO, "%s: %s", folder, strerror(errno));
    sora_status status = SORA_OK;
    if (count == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "%s: no *.safetensors beside config.json", folder);
    for (int i = 0; i < count; i++) {
        char *path = status == SORA_OK ? file_join(folder, entries[i]->d_name) : NULL;
        if (status == SORA_OK)
            status = path != NULL ? add_hf_file(tensors, path, err)
                                  : sora_fail(err, SORA_NO_MEMORY, "%s: out of memory", folder);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static sora_status describe_hf(const char *folder, struct buf *out,
                               struct describe_tensors *tensors, struct sora_error *err)
{
    char *path = file_join(folder, "config.json"), *text = NULL;
    size_t bytes = 0;
    cJSON *config = NULL;
    sora_status status = path == NULL ? sora_fail(err, SORA_NO_MEMORY, "%s: out of memory", folder)
                                      : file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, err);
    if (status != SORA_OK)
        goto done;
    status = json_parse(text, bytes, &config, err);
    if (status == SORA_OK && !cJSON_IsObject(config))
        status = sora_fail(err, SORA_MALFORMED, "not a JSON object");
    if (status != SORA_OK) {
        status = sora_fail_within(err, status, "%s", path);
        goto done;
    }
    status = add_hf_files(tensors, folder, err);
    if (status != SORA_OK)
        goto done;
    buf_text(out, "{\"format\":\"huggingface\"");
    put_hf_fields(out, config);
    char *tokenizer = file_join(folder, "tokenizer.json");
    if (tokenizer != NULL && file_exists(tokenizer))
        put_text(out, "tokenizer", "tokenizer.json", strlen("tokenizer.json"));
    free(tokenizer);
    put_tensors(out, tensors, !tensors->has_output);
done:
    cJSON_Delete(config);
    free(text);
    free(path);
    return status;
}

sora_status sora_model_describe(const char *path, char **json, struct sora_error *err)
{
    struct buf out;
    struct describe_tensors tensors = {0};
    buf_init(&out, SORA_JSON_BYTES_MAX);
    buf_init(&tensors.rows, SORA_JSON_BYTES_MAX / 2);
    sora_status status = file_is_folder(path) ? describe_hf(path, &out, &tensors, err)
                                              : describe_gguf(path, &out, &tensors, err);
    if (status == SORA_OK)
        status = buf_status(&tensors.rows, err);
    if (status == SORA_OK)
        status = buf_status(&out, err);
    if (status == SORA_OK)
        *json = buf_take(&out, NULL);
    buf_deinit(&tensors.rows);
    buf_deinit(&out);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// To and from PEFT: a pair (config, weights), a folder, or a lone file (PEFT's or llama.cpp's)
// becomes bytes of our format, and back. LoRA's alphas, ranks and use_rslora are carried over as
// they are, so PEFT computes the same scale from either. One call, one thread.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_plan.h"
#include "base/file.h"
#include "sora/adapter.h"

#define CONFIG_FILE "adapter_config.json"
#define WEIGHTS_FILE "adapter_model.safetensors"
#define PICKLE_FILE "adapter_model.bin"

sora_status sora_adapter_from_peft(const char *config_json, const void *weights,
                                   size_t weights_bytes, const struct sora_base *base,
                                   uint8_t **bytes, size_t *byte_count, struct sora_error *err)
{
    struct adapter_plan plan;
    *bytes = NULL;
    *byte_count = 0;
    sora_status status = adapter_plan_read(weights, weights_bytes, config_json, base, &plan, err);
    if (status != SORA_OK)
        return status;
    status = adapter_encode_plan(&plan, base, false, bytes, byte_count, err);
    adapter_plan_deinit(&plan);
    return status;
}

// A folder that PEFT's save_pretrained wrote.
static sora_status import_folder(const char *path, const struct sora_base *base, uint8_t **bytes,
                                 size_t *byte_count, struct sora_error *err)
{
    char *config_path = file_join(path, CONFIG_FILE), *config = NULL;
    char *weights_path = file_join(path, WEIGHTS_FILE);
    char *pickle_path = file_join(path, PICKLE_FILE);
    struct file_map weights = {NULL, 0};
    size_t config_bytes = 0;
    sora_status status;
    if (!config_path || !weights_path || !pickle_path) {
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the path of %s", path);
        goto done;
    }
    if (!file_exists(weights_path) && file_exists(pickle_path)) {
        status = sora_fail(err, SORA_UNSUPPORTED,
                           "%s is a Python pickle, which may run code: save it again with "
                           "safe_serialization=True",
                           pickle_path);
        goto done;
    }
    status = file_read(config_path, SORA_JSON_BYTES_MAX, &config, &config_bytes, err);
    if (status == SORA_OK)
        status = file_map_open(weights_path, &weights, err);
    if (status == SORA_OK && strlen(config) != config_bytes)
        status = sora_fail(err, SORA_MALFORMED, "%s: a zero byte", config_path);
    if (status == SORA_OK)
        status = sora_adapter_from_peft(config, weights.data, weights.bytes, base, bytes,
                                        byte_count, err);
    file_map_close(&weights);
done:
    free(config);
    free(config_path);
    free(weights_path);
    free(pickle_path);
    return status;
}

static sora_status import_bytes(const void *data, size_t data_bytes, const struct sora_base *base,
                                uint8_t **bytes, size_t *byte_count, struct sora_error *err)
{
    struct adapter_plan plan;
    if (sora_adapter_is_gguf(data, data_bytes))
        return sora_adapter_from_gguf(data, data_bytes, base, bytes, byte_count, err);
    sora_status status = adapter_plan_read(data, data_bytes, NULL, base, &plan, err);
    if (status != SORA_OK)
        return status;
    if (plan.is_ours) {
        *bytes = malloc(data_bytes);
        if (*bytes) {
            memcpy(*bytes, data, data_bytes);
            *byte_count = data_bytes;
        } else {
            status = sora_fail(err, SORA_NO_MEMORY, "no memory for %zu bytes", data_bytes);
        }
    } else {
        status = adapter_encode_plan(&plan, base, false, bytes, byte_count, err);
    }
    adapter_plan_deinit(&plan);
    return status;
}

sora_status sora_adapter_import(const char *path, const struct sora_base *base, uint8_t **bytes,
                                size_t *byte_count, struct sora_error *err)
{
    struct file_map map;
    *bytes = NULL;
    *byte_count = 0;
    sora_status status;
    if (file_is_folder(path)) {
        status = import_folder(path, base, bytes, byte_count, err);
    } else {
        status = file_map_open(path, &map, err);
        if (status != SORA_OK)
            return status;
        status = import_bytes(map.data, map.bytes, base, bytes, byte_count, err);
        file_map_close(&map);
    }
    return status == SORA_OK ? status : sora_fail_within(err, status, "%s", path);
}

static sora_status write_file(const char *folder, const char *name, const void *data, size_t bytes,
                              struct sora_error *err)
{
    char *path = file_join(folder, name);
    if (!path)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of %s", name);
    sora_status status = file_write_atomic(path, data, bytes, err);
    free(path);
    return status;
}

sora_status sora_adapter_export_peft(const void *bytes, size_t byte_count, const char *folder,
                                     struct sora_error *err)
{
    struct adapter_plan plan;
    uint8_t *weights = NULL;
    size_t weights_bytes = 0;
    sora_status status = adapter_plan_read(bytes, byte_count, NULL, NULL, &plan, err);
    if (status != SORA_OK)
        return status;
    if (plan.config.is_adalora)
        status = sora_fail(err, SORA_UNSUPPORTED, "AdaLoRA's file: import it first");
    if (status == SORA_OK)
        status = adapter_encode_plan(&plan, NULL, true, &weights, &weights_bytes, err);
    if (status == SORA_OK)
        status = file_make_folder(folder, err);
    if (status == SORA_OK)
        status = write_file(folder, WEIGHTS_FILE, weights, weights_bytes, err);
    if (status == SORA_OK)
        status = write_file(folder, CONFIG_FILE, plan.config_json, strlen(plan.config_json), err);
    free(weights);
    adapter_plan_deinit(&plan);
    return status;
}

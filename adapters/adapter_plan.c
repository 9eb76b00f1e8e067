// SPDX-License-Identifier: Apache-2.0
// Reads an adapter file's container and records, then has its tensors checked. One call, one
// thread.
#include "adapters/adapter_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_names.h"
#include "base/json.h"

const char *adapter_dtype_name(enum sora_dtype dtype)
{
    return dtype == SORA_F32 ? "F32" : dtype == SORA_F16 ? "F16" : "BF16";
}

size_t adapter_dtype_bytes(enum sora_dtype dtype)
{
    return dtype == SORA_F32 ? 4 : 2;
}

static sora_status check_format(struct adapter_plan *plan, struct sora_error *err)
{
    const char *format = safetensors_metadata(plan->file, "format");
    const char *version = safetensors_metadata(plan->file, "format_version");
    plan->is_ours = format && strcmp(format, ADAPTER_FORMAT_NAME) == 0;
    if (!plan->is_ours)
        return SORA_OK;
    if (!version)
        return sora_fail(err, SORA_MALFORMED, "metadata has no \"format_version\"");
    if (strcmp(version, ADAPTER_FORMAT_VERSION) != 0)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "format_version \"%.40s\" is of a newer version of this program; this one "
                         "reads \"%s\"",
                         version, ADAPTER_FORMAT_VERSION);
    return SORA_OK;
}

static sora_status read_config(struct adapter_plan *plan, const char *config_json,
                               struct sora_error *err)
{
    plan->config_json =
        config_json ? config_json : safetensors_metadata(plan->file, "adapter_config");
    if (!plan->config_json)
        return sora_fail(
            err, SORA_MALFORMED,
            "the file has no \"adapter_config\" in its metadata, so the scale of the "
            "adapter is unknown: send adapter_config.json and the weights together "
            "(config + weights), or convert the PEFT folder with `sora-server import`");
    sora_status status =
        adapter_config_parse(plan->config_json, strlen(plan->config_json), &plan->config, err);
    if (status == SORA_OK && plan->is_ours && plan->config.is_adalora)
        status = sora_fail(err, SORA_MALFORMED,
                           "adapter_config: peft_type \"ADALORA\" in a %s file: expected \"LORA\"",
                           ADAPTER_FORMAT_NAME);
    return status;
}

sora_status adapter_training_record_check(const char *json, struct sora_error *err)
{
    cJSON *tree = NULL;
    if (strlen(json) > ADAPTER_RECORD_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "training record: %zu bytes exceed the limit of %u",
                         strlen(json), (unsigned)ADAPTER_RECORD_BYTES_MAX);
    sora_status status = json_parse(json, strlen(json), &tree, err);
    if (status == SORA_OK && !cJSON_IsObject(tree))
        status = sora_fail(err, SORA_MALFORMED, "not a JSON object");
    cJSON_Delete(tree);
    return status == SORA_OK ? status : sora_fail_within(err, status, "training record");
}

// The records count only in files of ours; another program's "base" means something else.
static sora_status read_records(struct adapter_plan *plan, const struct sora_base *base,
                                struct sora_error *err)
{
    sora_status status = SORA_OK;
    if (!plan->is_ours)
        return SORA_OK;
    plan->base_json = safetensors_metadata(plan->file, "base");
    plan->training_json = safetensors_metadata(plan->file, "training");
    if (plan->base_json)
        status = adapter_base_record_check(plan->base_json, base, &plan->layer_count, err);
    if (status == SORA_OK && plan->training_json)
        status = adapter_training_record_check(plan->training_json, err);
    return status;
}

static sora_status read_all(const void *bytes, size_t byte_count, const char *config_json,
                            const struct sora_base *base, struct adapter_plan *plan,
                            struct sora_error *err)
{
    if (byte_count > SORA_ADAPTER_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "%zu bytes exceed the limit of %u for an adapter",
                         byte_count, SORA_ADAPTER_BYTES_MAX);
    sora_status status = safetensors_parse(bytes, byte_count, &plan->file, err);
    if (status == SORA_OK)
        status = check_format(plan, err);
    if (status == SORA_OK)
        status = read_config(plan, config_json, err);
    if (status == SORA_OK)
        status = read_records(plan, base, err);
    if (status != SORA_OK)
        return status;
    plan->tensor_count = safetensors_count(plan->file);
    plan->tensors = plan->tensor_count ? safetensors_at(plan->file, 0) : NULL;
    plan->parse_name = adapter_tensor_name_parse;
    status = adapter_plan_bind(plan, base, err);
    if (status == SORA_OK && plan->config.is_adalora)
        status = adapter_adalora_fold(plan, err);
    return status;
}

void adapter_plan_init(struct adapter_plan *plan)
{
    memset(plan, 0, sizeof *plan);
    // In f32 an adapter of halves is twice as large; the writer checks the size of the result.
    arena_init(&plan->arena, 2 * (size_t)SORA_ADAPTER_BYTES_MAX);
}

sora_status adapter_plan_bind(struct adapter_plan *plan, const struct sora_base *base,
                              struct sora_error *err)
{
    plan->pairs = calloc(ADAPTER_MODULE_COUNT_MAX, sizeof *plan->pairs);
    if (!plan->pairs)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the table of modules");
    if (base)
        plan->layer_count = base->layer_count;
    sora_status status = adapter_validate_names(plan, err);
    if (status == SORA_OK)
        status = adapter_validate_tensors(plan, base, err);
    return status;
}

struct safetensors_tensor *adapter_plan_make(struct adapter_plan *plan,
                                             const struct safetensors_tensor *like,
                                             enum sora_dtype dtype, void **data,
                                             struct sora_error *err)
{
    size_t count = (size_t)like->shape[0] * (size_t)like->shape[1];
    struct safetensors_tensor *made = arena_alloc(&plan->arena, 1, sizeof *made);
    *data = arena_alloc(&plan->arena, count, adapter_dtype_bytes(dtype));
    if (!made || !*data) {
        (void)sora_fail(err, SORA_LIMIT, "tensor \"%s\": an adapter over %u bytes, or no memory",
                        like->name, SORA_ADAPTER_BYTES_MAX);
        return NULL;
    }
    *made = *like;
    snprintf(made->dtype, sizeof made->dtype, "%s", adapter_dtype_name(dtype));
    made->data = *data;
    made->bytes = count * adapter_dtype_bytes(dtype);
    return made;
}

sora_status adapter_plan_read(const void *bytes, size_t byte_count, const char *config_json,
                              const struct sora_base *base, struct adapter_plan *plan,
                              struct sora_error *err)
{
    adapter_plan_init(plan);
    sora_status status = read_all(bytes, byte_count, config_json, base, plan, err);
    if (status != SORA_OK)
        adapter_plan_deinit(plan);
    return status;
}

void adapter_plan_deinit(struct adapter_plan *plan)
{
    adapter_config_deinit(&plan->config);
    safetensors_destroy(plan->file);
    gguf_close(plan->gguf);
    arena_deinit(&plan->arena);
    free(plan->pairs);
    memset(plan, 0, sizeof *plan);
}

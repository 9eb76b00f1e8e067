// SPDX-License-Identifier: Apache-2.0
// Which adapters a request names beside `model`: our "adapters", llama.cpp's "lora" and LoRAX's
// "parameters.adapter_id"; and how many of their ranks it wants. Pure; any thread.
#include <string.h>

#include "server/api_field.h"

#define SCALE_MAX 100 // as a factor of what the adapter was trained with

static sora_status wrong_item(struct api_error *error, const char *field, int32_t index,
                              const char *what)
{
    return api_error_set(error, API_BAD_REQUEST, "invalid_value", field, "%s[%d]%s", field, index,
                         what);
}

static sora_status too_many(struct api_error *error, const char *field)
{
    return api_error_set(error, API_BAD_REQUEST, "over_limit", field,
                         "%s: more than the %d adapters that one request may compose", field,
                         SORA_REQUEST_ADAPTERS_MAX);
}

static sora_status decode_named(const cJSON *item, int32_t index, struct api_adapter *adapter,
                                struct api_error *error)
{
    *adapter = (struct api_adapter){.id = -1, .scale = 1};
    if (!cJSON_IsObject(item))
        return wrong_item(error, "adapters", index, ": must be {\"name\",\"scale\"}");
    sora_status status = api_field_string(item, "name", &adapter->name, error);
    if (status == SORA_OK && adapter->name == NULL)
        status = wrong_item(error, "adapters", index, ".name: is required");
    if (status == SORA_OK)
        status = api_field_float(item, "scale", -SCALE_MAX, SCALE_MAX, &adapter->scale, error);
    if (status == SORA_OK)
        status = api_field_int(item, "max_rank", 1, SORA_TRAIN_RANK_MAX, &adapter->max_rank, error);
    return status;
}

// "adapters":[{"name","scale","max_rank"}]
static sora_status decode_adapters(struct api_request *request, const cJSON *list,
                                   struct api_error *error)
{
    const cJSON *item;
    if (!cJSON_IsArray(list))
        return api_error_set(error, API_BAD_REQUEST, "invalid_type", "adapters",
                             "adapters: must be a list of {\"name\",\"scale\"}");
    cJSON_ArrayForEach(item, list)
    {
        if (request->adapter_count == SORA_REQUEST_ADAPTERS_MAX)
            return too_many(error, "adapters");
        sora_status status = decode_named(item, request->adapter_count,
                                          &request->adapters[request->adapter_count], error);
        if (status != SORA_OK)
            return status;
        request->adapter_count++;
    }
    return SORA_OK;
}

static sora_status decode_scale(const cJSON *item, int32_t index, struct api_adapter *adapter,
                                struct api_error *error)
{
    *adapter = (struct api_adapter){.id = -1};
    if (!cJSON_IsObject(item))
        return wrong_item(error, "lora", index, ": must be {\"id\",\"scale\"}");
    if (!json_has(item, "id") || !json_has(item, "scale"))
        return wrong_item(error, "lora", index, ": id and scale are required");
    sora_status status = api_field_int(item, "id", 0, INT32_MAX, &adapter->id, error);
    if (status == SORA_OK)
        status = api_field_float(item, "scale", -SCALE_MAX, SCALE_MAX, &adapter->scale, error);
    return status;
}

sora_status api_decode_scales(const cJSON *list, struct api_adapter *adapters, int32_t *count,
                              struct api_error *error)
{
    int32_t index = 0;
    const cJSON *item;
    *count = 0;
    cJSON_ArrayForEach(item, list)
    {
        struct api_adapter adapter;
        sora_status status = decode_scale(item, index++, &adapter, error);
        if (status != SORA_OK)
            return status;
        int32_t at = 0;
        while (at < *count && adapters[at].id != adapter.id)
            at++;
        bool known = at < *count, used = adapter.scale != 0;
        if (known) { // the last one of an id counts, as in llama.cpp
            (*count)--;
            memmove(&adapters[at], &adapters[at + 1], (size_t)(*count - at) * sizeof *adapters);
        }
        if (used && *count == SORA_REQUEST_ADAPTERS_MAX)
            return too_many(error, "lora");
        if (used)
            adapters[(*count)++] = adapter;
    }
    return SORA_OK;
}

// LoRAX's and TGI's way to name one; an empty name is the base there.
static sora_status decode_parameters(struct api_request *request, const cJSON *parameters,
                                     struct api_error *error)
{
    const char *name = NULL;
    if (json_has(parameters, "merged_adapters"))
        return api_error_set(error, API_BAD_REQUEST, "unsupported", "parameters",
                             "parameters.merged_adapters: not supported; compose adapters with "
                             "\"adapters\":[{\"name\",\"scale\"}]");
    sora_status status = api_field_string(parameters, "adapter_id", &name, error);
    if (status != SORA_OK || name == NULL)
        return status;
    request->has_adapters = true;
    if (name[0] != '\0')
        request->adapters[request->adapter_count++] =
            (struct api_adapter){.name = name, .id = -1, .scale = 1};
    return SORA_OK;
}

sora_status api_decode_adapters(struct api_request *request, struct api_error *error)
{
    const cJSON *named = cJSON_GetObjectItemCaseSensitive(request->tree, "adapters");
    const cJSON *scaled = cJSON_GetObjectItemCaseSensitive(request->tree, "lora");
    const cJSON *parameters = cJSON_GetObjectItemCaseSensitive(request->tree, "parameters");
    bool has_named = named != NULL && !cJSON_IsNull(named);
    bool has_scaled = scaled != NULL && !cJSON_IsNull(scaled);
    request->has_adapters = has_named || has_scaled;
    sora_status status =
        api_field_int(request->tree, "max_rank", 1, SORA_TRAIN_RANK_MAX, &request->max_rank, error);
    if (status == SORA_OK)
        status = api_field_bool(request->tree, "elastic", &request->elastic, error);
    if (status == SORA_OK && has_named && has_scaled)
        status =
            api_error_set(error, API_BAD_REQUEST, "invalid_value", "lora",
                          "lora: goes without \"adapters\": they are two ways to say the same");
    if (status == SORA_OK && has_scaled && !cJSON_IsArray(scaled))
        status = api_error_set(error, API_BAD_REQUEST, "invalid_type", "lora",
                               "'lora' must be an array of objects with 'id' and 'scale' fields");
    if (status == SORA_OK && has_named)
        status = decode_adapters(request, named, error);
    if (status == SORA_OK && has_scaled)
        status = api_decode_scales(scaled, request->adapters, &request->adapter_count, error);
    if (status == SORA_OK && !request->has_adapters && cJSON_IsObject(parameters))
        status = decode_parameters(request, parameters, error);
    return status;
}

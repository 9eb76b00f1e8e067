// SPDX-License-Identifier: Apache-2.0
// See api_field.h. Pure; any thread.
#include "server/api_field.h"

#include <math.h>

#include "base/rng.h"

// Token lists, and contents that come in parts, of a body of SORA_BODY_BYTES_MAX.
#define ARENA_BYTES_MAX (64u << 20)

static sora_status wrong_field(struct api_error *error, const char *name,
                               const struct sora_error *cause)
{
    return api_error_set(error, API_BAD_REQUEST, "invalid_value", name, "%s", cause->text);
}

sora_status api_field_int(const cJSON *object, const char *name, int64_t min, int64_t max,
                          int32_t *out, struct api_error *error)
{
    struct sora_error cause;
    int64_t value = *out;
    if (json_get_int(object, name, min, max, &value, &cause) != SORA_OK)
        return wrong_field(error, name, &cause);
    *out = (int32_t)value;
    return SORA_OK;
}

sora_status api_field_float(const cJSON *object, const char *name, double min, double max,
                            float *out, struct api_error *error)
{
    struct sora_error cause;
    double value = (double)*out;
    if (json_get_number(object, name, min, max, &value, &cause) != SORA_OK)
        return wrong_field(error, name, &cause);
    *out = (float)value;
    return SORA_OK;
}

sora_status api_field_bool(const cJSON *object, const char *name, bool *out,
                           struct api_error *error)
{
    struct sora_error cause;
    if (json_get_bool(object, name, out, &cause) != SORA_OK)
        return wrong_field(error, name, &cause);
    return SORA_OK;
}

sora_status api_field_string(const cJSON *object, const char *name, const char **out,
                             struct api_error *error)
{
    struct sora_error cause;
    if (json_get_string(object, name, out, &cause) != SORA_OK)
        return wrong_field(error, name, &cause);
    return SORA_OK;
}

sora_status api_field_seed(const cJSON *object, struct api_request *request,
                           struct api_error *error)
{
    int64_t seed = 0;
    struct sora_error cause;
    request->has_seed = json_has(object, "seed");
    // Numbers of JSON are doubles: integers are exact up to 2^53.
    if (json_get_int(object, "seed", -(1LL << 53), 1LL << 53, &seed, &cause) != SORA_OK)
        return wrong_field(error, "seed", &cause);
    request->sampling.seed = (uint64_t)seed;
    if (!request->has_seed)
        rng_system(&request->sampling.seed, sizeof request->sampling.seed);
    return SORA_OK;
}

sora_status api_field_parse(const char *body, size_t bytes, struct api_request *request,
                            struct api_error *error)
{
    struct sora_error cause;
    *request = (struct api_request){.tree = NULL};
    arena_init(&request->arena, ARENA_BYTES_MAX);
    sora_status status =
        json_parse_within(body, bytes, SORA_BODY_VALUES_MAX, &request->tree, &cause);
    if (status == SORA_LIMIT)
        return api_error_set(error, API_TOO_LARGE, NULL, NULL, "the body: %s", cause.text);
    if (status == SORA_NO_MEMORY)
        return api_error_from(error, API_FROM_BODY, &cause);
    if (status != SORA_OK)
        return api_error_set(error, API_BAD_REQUEST, "invalid_json", NULL,
                             "the body is not valid JSON: %s", cause.text);
    if (!cJSON_IsObject(request->tree))
        return api_error_set(error, API_BAD_REQUEST, "invalid_json", NULL,
                             "the body must be a JSON object: {\"field\": value, ...}");
    return SORA_OK;
}

sora_status api_field_tokens(struct api_request *request, const cJSON *array, const char *name,
                             int32_t vocab_size, const int32_t **tokens, int32_t *token_count,
                             struct api_error *error)
{
    int32_t count = 0;
    const cJSON *item;
    if (!cJSON_IsArray(array))
        return api_error_set(error, API_BAD_REQUEST, "invalid_type", name,
                             "%s: must be a list of token ids", name);
    cJSON_ArrayForEach(item, array) count++;
    int32_t *list = arena_alloc(&request->arena, (size_t)count + 1, sizeof *list);
    if (list == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", name,
                             "%s: no memory for %d token ids", name, count);
    int32_t at = 0;
    cJSON_ArrayForEach(item, array)
    {
        double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(value >= 0 && value < vocab_size) || value != floor(value))
            return api_error_set(error, API_BAD_REQUEST, "invalid_token", name,
                                 "%s: item %d must be a token id in [0, %d)", name, at, vocab_size);
        list[at++] = (int32_t)value;
    }
    *tokens = list;
    *token_count = count;
    return SORA_OK;
}

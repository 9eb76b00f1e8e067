// SPDX-License-Identifier: Apache-2.0
// JSON by cJSON, behind a strict scan before and a check for duplicate keys after. Any thread; a
// tree has one owner.
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_scan.h"
#include "sora/limits.h"

#define SAFE_INTEGER_MAX 9007199254740991.0 // 2^53 - 1: beyond it a double skips integers
#define FEW_KEYS 8                          // up to here comparing all pairs beats sorting

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The first key that occurs twice among `count` keys, or NULL. Sorts the keys.
static const char *twice(const char **keys, size_t count)
{
    if (count <= FEW_KEYS) {
        for (size_t i = 1; i < count; ++i)
            for (size_t j = 0; j < i; ++j)
                if (strcmp(keys[i], keys[j]) == 0)
                    return keys[i];
        return NULL;
    }
    qsort(keys, count, sizeof *keys, compare_keys);
    for (size_t i = 1; i < count; ++i)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            return keys[i];
    return NULL;
}

static sora_status check_keys(const cJSON *object, struct sora_error *err)
{
    const char *few[FEW_KEYS], **keys = few;
    size_t count = 0, filled = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, object)++ count;
    if (count > FEW_KEYS)
        keys = calloc(count, sizeof *keys);
    if (keys == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to check %zu JSON keys", count);
    cJSON_ArrayForEach(item, object) keys[filled++] = item->string;
    const char *double_key = twice(keys, count);
    if (keys != few)
        free((void *)keys);
    if (double_key == NULL)
        return SORA_OK;
    return sora_fail(err, SORA_MALFORMED, "JSON: duplicate key \"%.128s\"", double_key);
}

// Depth is bounded by the scan.
static sora_status check_tree(const cJSON *tree, struct sora_error *err)
{
    if (cJSON_IsNumber(tree) && !isfinite(tree->valuedouble))
        return sora_fail(err, SORA_MALFORMED, "JSON: a number is beyond the range of a double");
    if (cJSON_IsObject(tree)) {
        sora_status status = check_keys(tree, err);
        if (status != SORA_OK)
            return status;
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, tree)
    {
        sora_status status = check_tree(item, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

sora_status json_parse_within(const char *text, size_t bytes, size_t values_max, cJSON **tree,
                              struct sora_error *err)
{
    sora_status status = json_scan(text, bytes, values_max, err);
    if (status != SORA_OK)
        return status;
    const char *end = NULL;
    cJSON *parsed = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
    if (parsed == NULL) // the scan accepted it, so it is memory
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu bytes of JSON", bytes);
    status = check_tree(parsed, err);
    if (status != SORA_OK) {
        cJSON_Delete(parsed);
        return status;
    }
    *tree = parsed;
    return SORA_OK;
}

sora_status json_parse(const char *text, size_t bytes, cJSON **tree, struct sora_error *err)
{
    if (bytes > SORA_JSON_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "JSON of %zu bytes exceeds %u", bytes,
                         SORA_JSON_BYTES_MAX);
    return json_parse_within(text, bytes, SORA_JSON_VALUES_MAX, tree, err);
}

static const cJSON *member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return item == NULL || cJSON_IsNull(item) ? NULL : item;
}

bool json_has(const cJSON *object, const char *name)
{
    return member(object, name) != NULL;
}

// What was found, for an error text.
static const char *describe(char out[96], const cJSON *item)
{
    if (cJSON_IsString(item))
        snprintf(out, 96, "\"%.64s\"", item->valuestring);
    else if (cJSON_IsNumber(item))
        snprintf(out, 96, "%.17g", item->valuedouble);
    else if (cJSON_IsBool(item))
        snprintf(out, 96, "%s", cJSON_IsTrue(item) ? "true" : "false");
    else
        snprintf(out, 96, "%s", cJSON_IsArray(item) ? "an array" : "an object");
    return out;
}

sora_status json_get_int(const cJSON *object, const char *name, int64_t min, int64_t max,
                         int64_t *out, struct sora_error *err)
{
    const cJSON *item = member(object, name);
    char found[96];
    if (item == NULL)
        return SORA_OK;
    double value = item->valuedouble;
    bool whole = cJSON_IsNumber(item) && value == floor(value) && fabs(value) <= SAFE_INTEGER_MAX;
    if (!whole || (int64_t)value < min || (int64_t)value > max)
        return sora_fail(err, SORA_MALFORMED, "%s: must be an integer in [%lld, %lld], found %s",
                         name, (long long)min, (long long)max, describe(found, item));
    *out = (int64_t)value;
    return SORA_OK;
}

sora_status json_get_number(const cJSON *object, const char *name, double min, double max,
                            double *out, struct sora_error *err)
{
    const cJSON *item = member(object, name);
    char found[96];
    if (item == NULL)
        return SORA_OK;
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble) ||
        !(item->valuedouble >= min && item->valuedouble <= max))
        return sora_fail(err, SORA_MALFORMED, "%s: must be a number in [%g, %g], found %s", name,
                         min, max, describe(found, item));
    *out = item->valuedouble;
    return SORA_OK;
}

sora_status json_get_bool(const cJSON *object, const char *name, bool *out, struct sora_error *err)
{
    const cJSON *item = member(object, name);
    char found[96];
    if (item == NULL)
        return SORA_OK;
    if (!cJSON_IsBool(item))
        return sora_fail(err, SORA_MALFORMED, "%s: must be true or false, found %s", name,
                         describe(found, item));
    *out = cJSON_IsTrue(item);
    return SORA_OK;
}

sora_status json_get_string(const cJSON *object, const char *name, const char **out,
                            struct sora_error *err)
{
    const cJSON *item = member(object, name);
    char found[96];
    if (item == NULL)
        return SORA_OK;
    if (!cJSON_IsString(item))
        return sora_fail(err, SORA_MALFORMED, "%s: must be a string, found %s", name,
                         describe(found, item));
    *out = item->valuestring;
    return SORA_OK;
}

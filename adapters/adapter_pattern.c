// SPDX-License-Identifier: Apache-2.0
// PEFT matches a key as re.match("(.*\.)?(KEY)$", module). Nearly every key is a plain name: those
// are compared directly; the rest goes through PCRE2 with a bound on its steps. One thread at a
// time.
#define PCRE2_CODE_UNIT_WIDTH 8
#include "adapters/adapter_pattern.h"

#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sora/limits.h"

struct adapter_pattern {
    char *key;
    size_t key_bytes;
    bool whole_name;   // the key began with ^: it is the whole module name
    pcre2_code *regex; // NULL: a plain name, whose dots stand for any character
    double value;
};

// Letters, digits, '_', '-' and '.', which a regular expression reads as any character.
static bool is_plain(const char *key)
{
    for (; *key; key++) {
        bool word = (*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') ||
                    (*key >= '0' && *key <= '9') || *key == '_' || *key == '-' || *key == '.';
        if (!word)
            return false;
    }
    return true;
}

static sora_status compile(struct adapter_pattern *pattern, struct sora_error *err)
{
    char text[SORA_TENSOR_NAME_BYTES_MAX + 16];
    int code = 0;
    PCRE2_SIZE offset = 0;
    snprintf(text, sizeof text, "(.*\\.)?(%s)$", pattern->key);
    pattern->regex = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                                   PCRE2_ANCHORED | PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C,
                                   &code, &offset, NULL);
    if (pattern->regex)
        return SORA_OK;
    PCRE2_UCHAR reason[128] = "";
    pcre2_get_error_message(code, reason, sizeof reason);
    return sora_fail(err, SORA_MALFORMED, "key \"%s\" is not a regular expression: %s",
                     pattern->key, (const char *)reason);
}

static sora_status read_value(const cJSON *item, double min, double max, bool whole, double *value,
                              struct sora_error *err)
{
    if (!cJSON_IsNumber(item))
        return sora_fail(err, SORA_MALFORMED, "key \"%s\": its value is not a number",
                         item->string);
    double v = item->valuedouble;
    if (!(v >= min && v <= max) || (whole && v != floor(v)))
        return sora_fail(err, SORA_MALFORMED, "key \"%s\": %g is not %s in [%g, %g]", item->string,
                         v, whole ? "a whole number" : "a number", min, max);
    *value = v;
    return SORA_OK;
}

static sora_status read_key(const cJSON *item, struct adapter_pattern *pattern, int *regex_count,
                            struct sora_error *err)
{
    const char *key = item->string;
    if (strlen(key) > SORA_TENSOR_NAME_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "key \"%.40s...\" is longer than %d bytes", key,
                         SORA_TENSOR_NAME_BYTES_MAX);
    bool plain = is_plain(key[0] == '^' ? key + 1 : key);
    pattern->whole_name = plain && key[0] == '^';
    pattern->key = strdup(pattern->whole_name ? key + 1 : key);
    if (!pattern->key)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a pattern");
    pattern->key_bytes = strlen(pattern->key);
    if (plain)
        return SORA_OK;
    if (++*regex_count > ADAPTER_REGEX_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "more than %d keys are regular expressions",
                         ADAPTER_REGEX_COUNT_MAX);
    return compile(pattern, err);
}

// The member as an object, NULL when it is absent or null; room for its keys in *patterns.
static sora_status open_object(const cJSON *tree, const char *field,
                               struct adapter_patterns *patterns, const cJSON **object,
                               struct sora_error *err)
{
    *object = NULL;
    if (!json_has(tree, field))
        return SORA_OK;
    *object = cJSON_GetObjectItemCaseSensitive(tree, field);
    if (!cJSON_IsObject(*object))
        return sora_fail(err, SORA_MALFORMED, "%s is not an object", field);
    int count = cJSON_GetArraySize(*object);
    if (count > ADAPTER_PATTERN_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "%s has %d keys, the limit is %d", field, count,
                         ADAPTER_PATTERN_COUNT_MAX);
    patterns->items = calloc((size_t)count + 1, sizeof *patterns->items);
    return patterns->items ? SORA_OK : sora_fail(err, SORA_NO_MEMORY, "no memory for %s", field);
}

sora_status adapter_patterns_read(const cJSON *tree, const char *field, double min, double max,
                                  bool whole, struct adapter_patterns *patterns,
                                  struct sora_error *err)
{
    const cJSON *object, *item;
    int regex_count = 0;
    sora_status status = open_object(tree, field, patterns, &object, err);
    if (status != SORA_OK)
        return status;
    cJSON_ArrayForEach(item, object)
    {
        struct adapter_pattern *pattern = &patterns->items[patterns->count++];
        status = read_key(item, pattern, &regex_count, err);
        if (status == SORA_OK)
            status = read_value(item, min, max, whole, &pattern->value, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "%s", field);
    }
    return SORA_OK;
}

// The trues of a list of init_r booleans.
static sora_status read_mask(const cJSON *item, int32_t init_r, double *value,
                             struct sora_error *err)
{
    const cJSON *kept;
    int32_t count = 0;
    *value = 0;
    cJSON_ArrayForEach(kept, item)
    {
        if (!cJSON_IsBool(kept))
            return sora_fail(err, SORA_MALFORMED, "key \"%.256s\": not a list of true and false",
                             item->string);
        *value += cJSON_IsTrue(kept) ? 1 : 0;
        count++;
    }
    if (!cJSON_IsArray(item) || count != init_r)
        return sora_fail(err, SORA_MALFORMED,
                         "key \"%.256s\": expected a list of init_r = %d booleans, found %d",
                         item->string, (int)init_r, (int)count);
    return SORA_OK;
}

static sora_status read_masked_module(const cJSON *item, struct adapter_pattern *pattern,
                                      struct sora_error *err)
{
    static const char *const tails[] = {".lora_E.default", ".lora_E"};
    size_t bytes = strlen(item->string);
    for (int i = 0; i < 2; i++) {
        size_t tail = strlen(tails[i]);
        if (bytes <= tail || strcmp(item->string + bytes - tail, tails[i]) != 0)
            continue;
        pattern->key = strndup(item->string, bytes - tail);
        pattern->key_bytes = bytes - tail;
        pattern->whole_name = true;
        return pattern->key ? SORA_OK : sora_fail(err, SORA_NO_MEMORY, "no memory for a pattern");
    }
    return sora_fail(err, SORA_MALFORMED, "key \"%.256s\" does not end with .lora_E", item->string);
}

sora_status adapter_masks_read(const cJSON *tree, const char *field, int32_t init_r,
                               struct adapter_patterns *patterns, struct sora_error *err)
{
    const cJSON *object, *item;
    sora_status status = open_object(tree, field, patterns, &object, err);
    if (status != SORA_OK)
        return status;
    cJSON_ArrayForEach(item, object)
    {
        struct adapter_pattern *pattern = &patterns->items[patterns->count++];
        status = read_masked_module(item, pattern, err);
        if (status == SORA_OK)
            status = read_mask(item, init_r, &pattern->value, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "%s", field);
    }
    return SORA_OK;
}

void adapter_patterns_deinit(struct adapter_patterns *patterns)
{
    for (int32_t i = 0; i < patterns->count; i++) {
        free(patterns->items[i].key);
        pcre2_code_free(patterns->items[i].regex);
    }
    free(patterns->items);
    patterns->items = NULL;
    patterns->count = 0;
}

static bool match_plain(const struct adapter_pattern *pattern, const char *module,
                        size_t module_bytes)
{
    if (pattern->key_bytes > module_bytes)
        return false;
    size_t start = module_bytes - pattern->key_bytes;
    if (start > 0 && (pattern->whole_name || module[start - 1] != '.'))
        return false;
    // From the end, where names of one model differ.
    for (size_t i = pattern->key_bytes; i-- > 0;) {
        if (pattern->key[i] != module[start + i] && pattern->key[i] != '.')
            return false;
    }
    return true;
}

static sora_status match_regex(const struct adapter_pattern *pattern, const char *module,
                               size_t module_bytes, bool *matches, struct sora_error *err)
{
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    int found = PCRE2_ERROR_NOMEMORY;
    if (context && data) {
        pcre2_set_match_limit(context, ADAPTER_REGEX_STEPS_MAX);
        pcre2_set_depth_limit(context, ADAPTER_REGEX_STEPS_MAX);
        found = pcre2_match(pattern->regex, (PCRE2_SPTR)module, module_bytes, 0, 0, data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    *matches = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH)
        return SORA_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to match key \"%s\"", pattern->key);
    return sora_fail(err, SORA_LIMIT, "key \"%s\" takes more than %d steps to match \"%s\"",
                     pattern->key, ADAPTER_REGEX_STEPS_MAX, module);
}

sora_status adapter_patterns_find(const struct adapter_patterns *patterns, const char *module,
                                  double *value, struct sora_error *err)
{
    size_t module_bytes = strlen(module);
    for (int32_t i = 0; i < patterns->count; i++) {
        const struct adapter_pattern *pattern = &patterns->items[i];
        bool matches = false;
        if (!pattern->regex) {
            matches = match_plain(pattern, module, module_bytes);
        } else {
            sora_status status = match_regex(pattern, module, module_bytes, &matches, err);
            if (status != SORA_OK)
                return status;
        }
        if (matches) {
            *value = pattern->value;
            return SORA_OK;
        }
    }
    return SORA_OK;
}

// SPDX-License-Identifier: Apache-2.0
// The "base" record of an adapter file: which model it was trained on. Pure functions, any thread.
#include <stddef.h>
#include <string.h>

#include "adapters/adapter_plan.h"
#include "base/json.h"

static const struct {
    const char *name;
    size_t offset; // in struct sora_base
    int32_t max;
} dims[] = {
    {"layers", offsetof(struct sora_base, layer_count), SORA_LAYER_COUNT_MAX},
    {"hidden", offsetof(struct sora_base, hidden), SORA_WIDTH_MAX},
    {"intermediate", offsetof(struct sora_base, intermediate), SORA_WIDTH_MAX},
    {"heads", offsetof(struct sora_base, head_count), SORA_WIDTH_MAX},
    {"kv_heads", offsetof(struct sora_base, kv_head_count), SORA_WIDTH_MAX},
    {"head_dim", offsetof(struct sora_base, head_dim), SORA_HEAD_DIM_MAX},
    {"vocab_size", offsetof(struct sora_base, vocab_size), SORA_VOCAB_SIZE_MAX},
};
#define DIM_COUNT (sizeof dims / sizeof dims[0])

static int32_t dim_of(const struct sora_base *base, size_t i)
{
    return *(const int32_t *)((const char *)base + dims[i].offset);
}

static sora_status need_string(const cJSON *tree, const char *name, const char **out,
                               struct sora_error *err)
{
    sora_status status = json_get_string(tree, name, out, err);
    if (status == SORA_OK && !*out)
        return sora_fail(err, SORA_MALFORMED, "no \"%s\"", name);
    return status;
}

static bool is_digest(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static sora_status check_dims(const cJSON *tree, const struct sora_base *base, int32_t *layer_count,
                              struct sora_error *err)
{
    for (size_t i = 0; i < DIM_COUNT; i++) {
        int64_t value = 0;
        sora_status status = json_get_int(tree, dims[i].name, 1, dims[i].max, &value, err);
        if (status != SORA_OK)
            return status;
        if (value == 0)
            return sora_fail(err, SORA_MALFORMED, "no \"%s\"", dims[i].name);
        if (base && value != dim_of(base, i))
            return sora_fail(err, SORA_MISMATCH,
                             "the adapter is for a base with %s %d, this base has %d", dims[i].name,
                             (int)value, (int)dim_of(base, i));
        if (i == 0)
            *layer_count = (int32_t)value;
    }
    return SORA_OK;
}

static sora_status check_tree(const cJSON *tree, const struct sora_base *base, int32_t *layer_count,
                              struct sora_error *err)
{
    const char *architecture = NULL, *fingerprint = NULL, *weight_type = NULL;
    if (!cJSON_IsObject(tree))
        return sora_fail(err, SORA_MALFORMED, "not a JSON object");
    sora_status status = need_string(tree, "architecture", &architecture, err);
    if (status == SORA_OK)
        status = need_string(tree, "fingerprint", &fingerprint, err);
    if (status == SORA_OK)
        status = json_get_string(tree, "weight_type", &weight_type, err);
    if (status != SORA_OK)
        return status;
    if (!is_digest(fingerprint))
        return sora_fail(err, SORA_MALFORMED, "fingerprint \"%.80s\" is not a SHA-256",
                         fingerprint);
    if (base && strcmp(architecture, base->architecture) != 0)
        return sora_fail(err, SORA_MISMATCH,
                         "the adapter is for a base of architecture \"%.40s\", this base is \"%s\"",
                         architecture, base->architecture);
    status = check_dims(tree, base, layer_count, err);
    if (status != SORA_OK)
        return status;
    if (base && strcmp(fingerprint, base->fingerprint) != 0)
        return sora_fail(err, SORA_MISMATCH,
                         "the adapter is for a base with fingerprint %s, this base has %s: same "
                         "widths, other weights",
                         fingerprint, base->fingerprint);
    return SORA_OK;
}

sora_status adapter_base_record_check(const char *json, const struct sora_base *base,
                                      int32_t *layer_count, struct sora_error *err)
{
    cJSON *tree = NULL;
    sora_status status = json_parse(json, strlen(json), &tree, err);
    if (status == SORA_OK)
        status = check_tree(tree, base, layer_count, err);
    cJSON_Delete(tree);
    return status == SORA_OK ? status : sora_fail_within(err, status, "base record");
}

void adapter_base_record_print(struct buf *buf, const struct sora_base *base, bool with_weight_type)
{
    buf_text(buf, "{\"architecture\":");
    buf_json_string(buf, base->architecture, strlen(base->architecture));
    for (size_t i = 0; i < DIM_COUNT; i++)
        buf_printf(buf, ",\"%s\":%d", dims[i].name, (int)dim_of(base, i));
    buf_printf(buf, ",\"fingerprint\":\"%s\"", base->fingerprint);
    if (with_weight_type) {
        buf_text(buf, ",\"weight_type\":");
        buf_json_string(buf, base->weight_type, strlen(base->weight_type));
    }
    buf_text(buf, "}");
}

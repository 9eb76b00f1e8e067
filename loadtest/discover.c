// SPDX-License-Identifier: Apache-2.0
// See discover.h.
#include "loadtest/discover.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "loadtest/client_reply.h"
#include "sora/limits.h"

#define NAMES_BYTES_MAX ((SORA_ADAPTER_NAME_BYTES_MAX + 1u) * SORA_LOADTEST_MODELS_MAX)

void discovered_deinit(struct discovered *found)
{
    free(found->base);
    free(found->adapters);
    *found = (struct discovered){NULL, NULL};
}

static sora_status read_model(const cJSON *item, struct discovered *found, struct buf *names,
                              struct sora_error *err)
{
    const char *id = NULL, *parent = NULL;
    sora_status status = json_get_string(item, "id", &id, err);
    if (status == SORA_OK)
        status = json_get_string(item, "parent", &parent, err);
    if (status != SORA_OK || id == NULL || *id == '\0')
        return sora_fail(err, SORA_MALFORMED, "a model has no id");
    if (parent != NULL) {
        // A name with a comma could not be told apart in a list; such an adapter is left out.
        if (strchr(id, ',') == NULL)
            buf_printf(names, "%s%s", names->bytes > 0 ? "," : "", id);
        return buf_status(names, err);
    }
    if (found->base == NULL && (found->base = strdup(id)) == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a name");
    return SORA_OK;
}

static sora_status take_names(struct buf *names, struct discovered *found, struct sora_error *err)
{
    if (names->bytes == 0)
        return SORA_OK;
    found->adapters = buf_take(names, NULL);
    return found->adapters != NULL ? SORA_OK
                                   : sora_fail(err, SORA_NO_MEMORY, "no memory for names");
}

sora_status discover_parse(const char *json, size_t bytes, struct discovered *found,
                           struct sora_error *err)
{
    cJSON *tree = NULL;
    const cJSON *item = NULL;
    struct buf names;
    buf_init(&names, NAMES_BYTES_MAX);
    *found = (struct discovered){NULL, NULL};
    sora_status status = json_parse(json, bytes, &tree, err);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(tree, "data");
    if (status == SORA_OK && !cJSON_IsArray(list))
        status = sora_fail(err, SORA_MALFORMED, "no list \"data\"");
    cJSON_ArrayForEach(item, list)
    {
        if (status == SORA_OK)
            status = read_model(item, found, &names, err);
    }
    if (status == SORA_OK)
        status = take_names(&names, found, err);
    if (status != SORA_OK)
        discovered_deinit(found);
    buf_deinit(&names);
    cJSON_Delete(tree);
    return status;
}

sora_status discover_parse_lora(const char *json, size_t bytes, struct discovered *found,
                                struct sora_error *err)
{
    cJSON *tree = NULL;
    struct buf names;
    buf_init(&names, NAMES_BYTES_MAX);
    *found = (struct discovered){NULL, NULL};
    sora_status status = json_parse(json, bytes, &tree, err);
    if (status == SORA_OK && !cJSON_IsArray(tree))
        status = sora_fail(err, SORA_MALFORMED, "not a list of adapters");
    int count = status == SORA_OK ? cJSON_GetArraySize(tree) : 0;
    for (int i = 0; i < count; i++)
        buf_printf(&names, "%slora-%d", i > 0 ? "," : "", i);
    if (status == SORA_OK)
        status = buf_status(&names, err);
    if (status == SORA_OK)
        status = take_names(&names, found, err);
    buf_deinit(&names);
    cJSON_Delete(tree);
    return status;
}

static sora_status get_json(struct client_http *http, const char *path, struct buf *body,
                            struct sora_error *err)
{
    long http_status = 0;
    char text[200];
    struct client_call call = {.method = "GET", .path = path};
    sora_status status = client_http_call(http, &call, &http_status, body, err);
    if (status != SORA_OK || (http_status >= 200 && http_status < 300))
        return status;
    reply_error_text(body->data != NULL ? body->data : "", body->bytes, text, sizeof text);
    return sora_fail(err, SORA_IO, "GET %s: HTTP %ld: %s", path, http_status, text);
}

sora_status discover_models(struct client_http *http, enum client_selector selector,
                            struct discovered *found, struct sora_error *err)
{
    struct buf body;
    struct discovered lora = {NULL, NULL};
    buf_init(&body, SORA_JSON_BYTES_MAX);
    *found = (struct discovered){NULL, NULL};
    sora_status status = get_json(http, "/v1/models", &body, err);
    if (status == SORA_OK) {
        status = discover_parse(body.data != NULL ? body.data : "", body.bytes, found, err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "GET /v1/models");
    }
    if (status == SORA_OK && selector == CLIENT_BY_LORA) {
        status = get_json(http, "/lora-adapters", &body, err);
        if (status == SORA_OK)
            status =
                discover_parse_lora(body.data != NULL ? body.data : "", body.bytes, &lora, err);
        free(found->adapters);
        found->adapters = lora.adapters;
    }
    if (status != SORA_OK)
        discovered_deinit(found);
    buf_deinit(&body);
    return status;
}

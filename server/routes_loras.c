// SPDX-License-Identifier: Apache-2.0
// llama.cpp's GET and POST /lora-adapters (lora_ids.h), with its shapes and its error object. HTTP
// workers only.
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "server/api_decode.h"
#include "server/audit.h"
#include "server/routes.h"

#define BODY_BYTES_MAX (4u << 20) // every adapter there can be, listed with its scale

static void reply_refusal(struct http_call *call, enum api_code code, const char *message)
{
    struct buf out;
    buf_init(&out, 8192);
    buf_printf(&out, "{\"error\":{\"code\":%d,\"message\":", api_code_http(code));
    buf_json_string(&out, message, strlen(message));
    buf_printf(&out, ",\"type\":\"%s\"}}",
               code == API_NOT_FOUND ? "not_found_error" : "invalid_request_error");
    http_reply_json(call, code, &out);
    buf_deinit(&out);
}

static float scale_of(const struct lora_scales *scales, int32_t id)
{
    for (int32_t i = 0; i < scales->count; i++)
        if (scales->items[i].id == id)
            return scales->items[i].scale;
    return 0;
}

// `path` is the name: where the file lies is nobody's business.
static void encode_item(const struct http_call *call, const char *stored, int32_t id, float scale,
                        struct buf *out)
{
    const char *shown = names_shown(&call->caller, stored);
    buf_printf(out, "{\"id\":%d,\"path\":", (int)id);
    buf_json_string(out, shown, strlen(shown));
    buf_printf(out, ",\"scale\":%.9g,\"task_name\":\"\",\"prompt_prefix\":\"\"}", (double)scale);
}

void routes_loras_list(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct sora_registry_card *cards = NULL;
    struct lora_scales scales;
    struct sora_error cause;
    struct buf out;
    int32_t count = 0;
    if (sora_registry_list(server->registry, &cards, &count, &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
        return;
    }
    lora_ids_scales(&server->lora_ids, call->caller.tenant, &scales);
    count = routes_keep_visible(server, call, cards, count);
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    buf_text(&out, "[");
    for (int32_t i = 0; i < count; i++) {
        int32_t id = lora_ids_of(&server->lora_ids, cards[i].entry.name);
        if (id < 0)
            continue;
        buf_text(&out, out.bytes > 1 ? "," : "");
        encode_item(call, cards[i].entry.name, id, scale_of(&scales, id), &out);
    }
    buf_text(&out, "]");
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
    free(cards);
}

// Who changes what every request of the tenant gets is on record, once for each adapter.
static sora_status record(struct server *server, struct http_call *call,
                          const struct lora_scales *before, const struct lora_scales *after,
                          struct sora_error *cause)
{
    char stored[SORA_STORED_NAME_BYTES_MAX + 1];
    struct sora_audit entry;
    for (int32_t i = 0; i < before->count + after->count; i++) {
        bool old = i < before->count;
        int32_t id = old ? before->items[i].id : after->items[i - before->count].id;
        if (scale_of(before, id) == scale_of(after, id) || (!old && scale_of(before, id) != 0) ||
            !lora_ids_name(&server->lora_ids, id, stored))
            continue;
        const struct audit_change change = {"adapter.scale", stored, 0, NULL};
        sora_status status = audit_begin(server, call, &change, &entry, cause);
        if (status != SORA_OK)
            return status;
        audit_end(server, &entry, SORA_OK, NULL, cause);
    }
    return SORA_OK;
}

static bool may_scale(struct server *server, const struct http_call *call, int32_t id)
{
    char stored[SORA_STORED_NAME_BYTES_MAX + 1];
    return lora_ids_name(&server->lora_ids, id, stored) &&
           sora_registry_has(server->registry, stored) &&
           names_visible(server->registry, &call->caller, stored);
}

static void set_scales(struct server *server, struct http_call *call, const cJSON *list)
{
    static const char done[] = "{\"success\":true}";
    struct api_adapter adapters[SORA_REQUEST_ADAPTERS_MAX];
    struct lora_scales before, after = {.count = 0};
    struct api_error error;
    struct sora_error cause;
    int32_t count = 0;
    if (api_decode_scales(list, adapters, &count, &error) != SORA_OK) {
        reply_refusal(call, error.http, error.message);
        return;
    }
    for (int32_t i = 0; i < count; i++) {
        if (!may_scale(server, call, adapters[i].id)) {
            reply_refusal(call, API_BAD_REQUEST, "invalid adapter id");
            return;
        }
        after.items[after.count++] = (struct lora_scale){adapters[i].id, adapters[i].scale};
    }
    const char *tenant = call->caller.tenant;
    lora_ids_scales(&server->lora_ids, tenant, &before);
    sora_status status = record(server, call, &before, &after, &cause);
    if (status == SORA_OK)
        status = lora_ids_set_scales(&server->lora_ids, tenant, &after, &cause);
    if (status == SORA_OK)
        http_reply(call, API_OK, "application/json", done, sizeof done - 1);
    else
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
}

void routes_loras_set(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct http_body body;
    struct sora_error cause;
    struct api_error error;
    cJSON *tree = NULL;
    if (http_read_body(call, BODY_BYTES_MAX, NULL, &body, &error) != SORA_OK) {
        http_reply_error(call, &error);
        return;
    }
    sora_status status =
        json_parse_within(body.data, body.bytes, SORA_BODY_VALUES_MAX, &tree, &cause);
    http_body_free(&body);
    if (status != SORA_OK)
        reply_refusal(call, API_BAD_REQUEST, cause.text);
    else if (!cJSON_IsArray(tree))
        reply_refusal(call, API_BAD_REQUEST, "Request body must be an array");
    else
        set_scales(server, call, tree);
    cJSON_Delete(tree);
}

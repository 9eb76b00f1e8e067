// SPDX-License-Identifier: Apache-2.0
// What is in memory by order: pin and unload under /v1/adapters. HTTP workers only.
#include <string.h>

#include "base/json.h"
#include "server/routes.h"

#define PIN_BYTES_MAX 4096

static sora_status read_pinned(struct http_call *call, bool *pinned, struct api_error *error)
{
    struct http_body body;
    struct sora_error cause;
    cJSON *tree = NULL;
    sora_status status = http_read_body(call, PIN_BYTES_MAX, NULL, &body, error);
    if (status != SORA_OK)
        return status;
    status = json_parse(body.data, body.bytes, &tree, &cause);
    if (status == SORA_OK && !json_has(tree, "pinned"))
        status = sora_fail(&cause, SORA_MALFORMED, "pinned: is required, as in {\"pinned\": true}");
    if (status == SORA_OK)
        status = json_get_bool(tree, "pinned", pinned, &cause);
    cJSON_Delete(tree);
    http_body_free(&body);
    if (status != SORA_OK)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "pinned", "%s", cause.text);
    return SORA_OK;
}

// A pin is the name's, whichever version is active.
static bool refuse_version(struct http_call *call, const char *name)
{
    struct api_error error;
    const char *at = strchr(name, '@');
    if (at == NULL)
        return false;
    (void)api_error_set(&error, API_BAD_REQUEST, "invalid_name", "name",
                        "\"%.200s\" names a version: this goes with the adapter's name alone",
                        names_shown(&call->caller, name));
    http_reply_error(call, &error);
    return true;
}

void routes_adapters_pin(struct server *server, struct http_call *call, const char *name)
{
    struct sora_registry_card card;
    struct sora_error cause;
    struct api_error error;
    bool pinned = false;
    if (refuse_version(call, name))
        return;
    if (read_pinned(call, &pinned, &error) != SORA_OK)
        http_reply_error(call, &error);
    else if (routes_set_pinned(server, call, name, pinned, &card, &cause) != SORA_OK)
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    else
        routes_reply_card(server, call, API_OK, &card);
}

void routes_adapters_unload(struct server *server, struct http_call *call, const char *name)
{
    struct sora_error cause;
    struct buf out;
    size_t freed_bytes = 0;
    if (refuse_version(call, name))
        return;
    if (sora_registry_unload(server->registry, name, &freed_bytes, &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
        return;
    }
    const char *shown = names_shown(&call->caller, name);
    buf_init(&out, 4096);
    buf_text(&out, "{\"object\":\"adapter.unloaded\",\"name\":");
    buf_json_string(&out, shown, strlen(shown));
    buf_printf(&out, ",\"freed_bytes\":%zu}", freed_bytes);
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
}

// SPDX-License-Identifier: Apache-2.0
// OpenAI's model list: the base and every adapter. HTTP workers only.
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "server/routes.h"

// vLLM's card has it, and some clients look for it.
static void encode_permission(int64_t created_s, struct buf *out)
{
    uint64_t random[2];
    rng_system(random, sizeof random);
    buf_printf(out,
               ",\"permission\":[{\"id\":\"modelperm-%016llx%016llx\","
               "\"object\":\"model_permission\",\"created\":%lld,\"allow_create_engine\":false,"
               "\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false,"
               "\"allow_view\":true,\"allow_fine_tuning\":false,\"organization\":\"*\","
               "\"group\":null,\"is_blocking\":false}]",
               (unsigned long long)random[0], (unsigned long long)random[1], (long long)created_s);
}

// card NULL: the base. name: as it was asked for ("name@version" stays so).
static void encode_model(const struct server *server, const char *name,
                         const struct sora_registry_card *card, struct buf *out)
{
    int64_t created_s = card != NULL ? card->entry.created_s : server->started_s;
    buf_text(out, "{\"id\":");
    buf_json_string(out, name, strlen(name));
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"sora-server\",\"root\":",
               (long long)created_s);
    const char *root = card != NULL ? card->entry.digest : server->base_name;
    buf_json_string(out, root, strlen(root));
    buf_text(out, ",\"parent\":");
    if (card != NULL)
        buf_json_string(out, server->base_name, strlen(server->base_name));
    else
        buf_text(out, "null");
    buf_printf(out, ",\"max_model_len\":%d", (int)server->context_max);
    encode_permission(created_s, out);
    buf_text(out, "}");
}

void routes_models_list(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct sora_registry_card *cards = NULL;
    int32_t count = 0;
    struct sora_error cause;
    struct buf out;
    if (sora_registry_list(server->registry, &cards, &count, &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_MODEL, &cause);
        return;
    }
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    buf_text(&out, "{\"object\":\"list\",\"data\":[");
    encode_model(server, server->base_name, NULL, &out);
    count = routes_keep_visible(server, call, cards, count);
    for (int32_t i = 0; i < count; i++) {
        buf_text(&out, ",");
        encode_model(server, names_shown(&call->caller, cards[i].entry.name), &cards[i], &out);
    }
    buf_text(&out, "]}");
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
    free(cards);
}

void routes_models_get(struct server *server, struct http_call *call, const char *name)
{
    struct sora_registry_card card;
    struct buf out;
    bool is_base = strcmp(name, server->base_name) == 0;
    if (!is_base && !routes_find_card(server, call, name, &card))
        return;
    buf_init(&out, 1u << 16);
    encode_model(server, names_shown(&call->caller, name), is_base ? NULL : &card, &out);
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
}

void routes_models_delete(struct server *server, struct http_call *call, const char *name)
{
    struct api_error error;
    struct sora_error cause;
    size_t freed_bytes = 0;
    if (strcmp(name, server->base_name) == 0) {
        (void)api_error_set(&error, API_BAD_REQUEST, "invalid_value", "model",
                            "%s is the base model: only adapters can be deleted", name);
        http_reply_error(call, &error);
        return;
    }
    if (routes_remove(server, call, name, &freed_bytes, &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_MODEL, &cause);
        return;
    }
    struct buf out;
    const char *shown = names_shown(&call->caller, name);
    buf_init(&out, 4096);
    buf_text(&out, "{\"id\":");
    buf_json_string(&out, shown, strlen(shown));
    buf_printf(&out, ",\"object\":\"model\",\"deleted\":true,\"freed_bytes\":%zu}", freed_bytes);
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
}

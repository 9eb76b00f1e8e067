// SPDX-License-Identifier: Apache-2.0
// Reading and deleting adapters under /v1/adapters. HTTP workers only.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/routes.h"

// Splits "name@version"; version 0: the active one. False when the version is no number.
static bool split_name(const char *text, char *name, size_t name_bytes, int32_t *version)
{
    const char *at = strrchr(text, '@');
    size_t bytes = at != NULL ? (size_t)(at - text) : strlen(text);
    *version = 0;
    if (bytes >= name_bytes)
        return false;
    memcpy(name, text, bytes);
    name[bytes] = '\0';
    if (at == NULL)
        return true;
    char *end;
    long number = strtol(at + 1, &end, 10);
    if (end == at + 1 || *end != '\0' || number < 1 || number > SORA_ADAPTER_VERSION_MAX)
        return false;
    *version = (int32_t)number;
    return true;
}

bool routes_find_card(struct server *server, struct http_call *call, const char *name,
                      struct sora_registry_card *card)
{
    char bare[SORA_STORED_NAME_BYTES_MAX + 1];
    int32_t version = 0, count = 0;
    struct sora_registry_card *cards = NULL;
    struct sora_error cause;
    sora_status status = SORA_NOT_FOUND;
    if (split_name(name, bare, sizeof bare, &version))
        status = sora_registry_versions(server->registry, bare, &cards, &count, &cause);
    if (status != SORA_OK && status != SORA_NOT_FOUND && status != SORA_MALFORMED) {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
        return false;
    }
    bool found = false;
    for (int32_t i = 0; status == SORA_OK && i < count && !found; i++) {
        const struct sora_store_entry *entry = &cards[i].entry;
        found = version == 0 ? entry->active : entry->version == version;
        if (found)
            *card = cards[i];
    }
    free(cards);
    if (!found)
        routes_reply_unknown(call, name);
    return found;
}

// A card as this caller may see it.
static sora_status encode_card(struct server *server, const struct http_call *call,
                               const struct sora_registry_card *card, struct buf *out,
                               struct sora_error *cause)
{
    struct sora_registry_card seen = *card;
    names_mask(&call->caller, server->started_s, &seen);
    const char *shown = names_shown(&call->caller, seen.entry.name);
    return card_encode(&server->cards, server->store, &seen, shown, out, cause);
}

void routes_reply_card(struct server *server, struct http_call *call, enum api_code code,
                       const struct sora_registry_card *card)
{
    struct sora_error cause;
    struct buf out;
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    if (encode_card(server, call, card, &out, &cause) == SORA_OK) {
        http_add_header(call, "ETag", "\"%s\"", card->entry.digest);
        http_reply_json(call, code, &out);
    } else {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    }
    buf_deinit(&out);
}

void routes_reply_cards(struct server *server, struct http_call *call,
                        const struct sora_registry_card *cards, int32_t card_count)
{
    struct sora_error cause;
    struct buf out;
    sora_status status = SORA_OK;
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    buf_text(&out, "{\"object\":\"list\",\"data\":[");
    size_t kept = out.bytes;
    for (int32_t i = 0; i < card_count && status == SORA_OK; i++) {
        size_t before = out.bytes;
        buf_text(&out, out.bytes > kept ? "," : "");
        status = encode_card(server, call, &cards[i], &out, &cause);
        if (status == SORA_NOT_FOUND) { // deleted since the list was made
            out.bytes = before;
            status = SORA_OK;
        }
    }
    buf_text(&out, "]}");
    if (status == SORA_OK)
        http_reply_json(call, API_OK, &out);
    else
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    buf_deinit(&out);
}

void routes_adapters_list(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct sora_registry_card *cards = NULL;
    int32_t count = 0;
    struct sora_error cause;
    if (sora_registry_list(server->registry, &cards, &count, &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
        return;
    }
    routes_reply_cards(server, call, cards, routes_keep_visible(server, call, cards, count));
    free(cards);
}

void routes_adapters_get(struct server *server, struct http_call *call, const char *name)
{
    struct sora_registry_card card;
    if (routes_find_card(server, call, name, &card))
        routes_reply_card(server, call, API_OK, &card);
}

void routes_adapters_versions(struct server *server, struct http_call *call, const char *name)
{
    struct sora_registry_card *cards = NULL;
    int32_t count = 0;
    struct sora_error cause;
    sora_status status = sora_registry_versions(server->registry, name, &cards, &count, &cause);
    if (status == SORA_NOT_FOUND || status == SORA_MALFORMED || (status == SORA_OK && count == 0))
        routes_reply_unknown(call, name);
    else if (status != SORA_OK)
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    else
        routes_reply_cards(server, call, cards, count);
    free(cards);
}

void routes_adapters_delete(struct server *server, struct http_call *call, const char *name)
{
    struct sora_error cause;
    size_t freed_bytes = 0;
    sora_status status = routes_remove(server, call, name, &freed_bytes, &cause);
    if (status == SORA_NOT_FOUND || status == SORA_MALFORMED) {
        routes_reply_unknown(call, name);
        return;
    }
    if (status != SORA_OK) {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
        return;
    }
    struct buf out;
    const char *shown = names_shown(&call->caller, name);
    buf_init(&out, 4096);
    buf_text(&out, "{\"object\":\"adapter.deleted\",\"name\":");
    buf_json_string(&out, shown, strlen(shown));
    buf_printf(&out, ",\"deleted\":true,\"freed_bytes\":%zu}", freed_bytes);
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
}

// "bytes=a-b", "bytes=a-", "bytes=-n" of a file of `size` bytes. False: not of this form (the whole
// file is sent then); *good tells whether the range has a byte.
static bool parse_range(const char *text, size_t size, size_t *from, size_t *to, bool *good)
{
    unsigned long long a = 0, b = 0;
    int used = 0;
    if (text == NULL || strncmp(text, "bytes=", 6) != 0)
        return false;
    text += 6;
    if (sscanf(text, "-%llu%n", &b, &used) == 1 && text[used] == '\0') {
        *good = b > 0 && size > 0;
        *from = b < size ? size - (size_t)b : 0;
        *to = size;
        return true;
    }
    if (sscanf(text, "%llu-%n", &a, &used) != 1 || used == 0 || text[0] < '0' || text[0] > '9')
        return false;
    const char *rest = text + used;
    *to = size;
    if (*rest != '\0') {
        if (sscanf(rest, "%llu%n", &b, &used) != 1 || rest[used] != '\0' || rest[0] < '0' ||
            rest[0] > '9' || b < a)
            return false;
        if (b < size)
            *to = (size_t)b + 1;
    }
    *good = a < size;
    *from = (size_t)a;
    return true;
}

static void reply_content(struct http_call *call, const uint8_t *bytes, size_t size)
{
    static const char type[] = "application/octet-stream";
    size_t from = 0, to = size;
    bool good = true;
    http_add_header(call, "Accept-Ranges", "bytes");
    if (!parse_range(http_header(call, "Range"), size, &from, &to, &good)) {
        http_reply(call, API_OK, type, bytes, size);
    } else if (good) {
        http_add_header(call, "Content-Range", "bytes %zu-%zu/%zu", from, to - 1, size);
        http_reply(call, API_PARTIAL, type, bytes + from, to - from);
    } else {
        struct api_error error;
        http_add_header(call, "Content-Range", "bytes */%zu", size);
        (void)api_error_set(&error, API_BAD_RANGE, NULL, NULL,
                            "the Range lies outside the %zu bytes of the file", size);
        http_reply_error(call, &error);
    }
}

void routes_adapters_content(struct server *server, struct http_call *call, const char *name)
{
    struct sora_registry_card card;
    struct sora_error cause;
    const uint8_t *bytes = NULL;
    size_t size = 0;
    if (!routes_find_card(server, call, name, &card))
        return;
    const char *known = http_header(call, "If-None-Match");
    http_add_header(call, "ETag", "\"%s\"", card.entry.digest);
    if (known != NULL && strstr(known, card.entry.digest) != NULL) {
        http_reply(call, API_NOT_MODIFIED, NULL, "", 0);
        return;
    }
    if (sora_store_map(server->store, card.entry.digest, &bytes, &size, &cause) == SORA_OK)
        reply_content(call, bytes, size);
    else
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    sora_store_unmap(bytes, size);
}

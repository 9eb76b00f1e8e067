// SPDX-License-Identifier: Apache-2.0
// See card.h.
#include "server/card.h"

#include <stdlib.h>
#include <string.h>

#include "sora/adapter.h"
#include "sora/limits.h"
#include "sora/tenant.h"

#define FACTS_BYTES_MAX (16u << 20) // 256 layers of 7 modules, and the records of the file

sora_status card_cache_init(struct card_cache *cache, struct sora_error *err)
{
    *cache = (struct card_cache){.next = 0};
    pthread_mutex_init(&cache->mutex, NULL);
    cache->facts = calloc(SORA_CARD_CACHE_COUNT, sizeof *cache->facts);
    return cache->facts != NULL ? SORA_OK : sora_fail(err, SORA_NO_MEMORY, "no memory for cards");
}

void card_cache_deinit(struct card_cache *cache)
{
    for (int32_t i = 0; cache->facts != NULL && i < SORA_CARD_CACHE_COUNT; i++)
        free(cache->facts[i].json);
    free(cache->facts);
    pthread_mutex_destroy(&cache->mutex);
}

static void encode_modules(const struct sora_adapter_info *info, struct buf *out)
{
    buf_text(out, ",\"modules\":[");
    for (int32_t i = 0; i < info->module_count; i++) {
        const struct sora_adapter_module *module = &info->modules[i];
        buf_printf(out,
                   "%s{\"layer\":%d,\"module\":\"%s\",\"rank\":%d,\"alpha\":%.9g,\"scale\":%.9g}",
                   i > 0 ? "," : "", (int)module->layer, sora_proj_name(module->proj),
                   (int)module->rank, module->alpha, (double)module->scale);
    }
    // [module][layer], for a picture: zero where there is nothing.
    buf_text(out, "],\"ranks\":{");
    for (int proj = 0; proj < SORA_PROJ_COUNT; proj++) {
        buf_printf(out, "%s\"%s\":[", proj > 0 ? "," : "", sora_proj_name((enum sora_proj)proj));
        for (int32_t layer = 0; layer < info->layer_count; layer++) {
            int32_t rank = 0;
            for (int32_t i = 0; i < info->module_count; i++)
                if (info->modules[i].layer == layer && (int)info->modules[i].proj == proj)
                    rank = info->modules[i].rank;
            buf_printf(out, "%s%d", layer > 0 ? "," : "", (int)rank);
        }
        buf_text(out, "]");
    }
    buf_text(out, "}");
}

static void encode_facts(const struct sora_adapter_info *info, bool int8, struct buf *out)
{
    buf_printf(out,
               ",\"parameters\":%lld,\"rank_mean\":%.6g,\"rank_max\":%d,\"r_max\":%d,"
               "\"packed_bytes\":%zu",
               (long long)info->parameters, info->rank_mean, (int)info->rank_max, (int)info->r_max,
               int8 ? info->int8_bytes : info->packed_bytes);
    encode_modules(info, out);
    buf_printf(out, ",\"base\":%s", info->base_json != NULL ? info->base_json : "null");
    buf_printf(out, ",\"training\":%s", info->training_json != NULL ? info->training_json : "null");
}

// Reads and parses the file, and renders what it says.
static sora_status render_facts(sora_store *store, const char *digest, bool int8, char **json,
                                struct sora_error *err)
{
    const uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_adapter *adapter = NULL;
    struct buf out;
    buf_init(&out, FACTS_BYTES_MAX);
    sora_status status = sora_store_map(store, digest, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = sora_adapter_parse(bytes, byte_count, NULL, &adapter, err);
    if (status == SORA_OK) {
        encode_facts(sora_adapter_get_info(adapter), int8, &out);
        status = buf_status(&out, err);
    }
    if (status == SORA_OK)
        *json = buf_take(&out, NULL);
    buf_deinit(&out);
    if (adapter != NULL)
        sora_adapter_destroy(adapter);
    sora_store_unmap(bytes, byte_count);
    return status;
}

static bool append_known(struct card_cache *cache, const char *digest, struct buf *out)
{
    bool found = false;
    pthread_mutex_lock(&cache->mutex);
    for (int32_t i = 0; i < SORA_CARD_CACHE_COUNT && !found; i++) {
        const struct card_facts *facts = &cache->facts[i];
        found = facts->json != NULL && strcmp(facts->digest, digest) == 0;
        if (found)
            buf_text(out, facts->json);
    }
    pthread_mutex_unlock(&cache->mutex);
    return found;
}

static sora_status append_facts(struct card_cache *cache, sora_store *store, const char *digest,
                                struct buf *out, struct sora_error *err)
{
    char *json = NULL;
    if (append_known(cache, digest, out))
        return SORA_OK;
    sora_status status = render_facts(store, digest, cache->int8, &json, err);
    if (status != SORA_OK)
        return status;
    buf_text(out, json);
    pthread_mutex_lock(&cache->mutex);
    struct card_facts *facts = &cache->facts[cache->next];
    cache->next = (cache->next + 1) % SORA_CARD_CACHE_COUNT;
    free(facts->json);
    facts->json = json;
    memcpy(facts->digest, digest, sizeof facts->digest);
    pthread_mutex_unlock(&cache->mutex);
    return SORA_OK;
}

sora_status card_encode(struct card_cache *cache, sora_store *store,
                        const struct sora_registry_card *card, const char *shown, struct buf *out,
                        struct sora_error *err)
{
    const struct sora_store_entry *entry = &card->entry;
    buf_text(out, "{\"object\":\"adapter\",\"name\":");
    buf_json_string(out, shown, strlen(shown));
    char tenant[SORA_TENANT_BYTES_MAX + 1];
    sora_tenant_of(entry->name, tenant);
    buf_text(out, ",\"tenant\":");
    if (tenant[0] != '\0')
        buf_json_string(out, tenant, strlen(tenant));
    else
        buf_text(out, "null"); // shared by everyone
    buf_printf(out,
               ",\"version\":%d,\"versions\":%d,\"active\":%s,\"digest\":\"%s\",\"bytes\":%zu,"
               "\"created\":%lld",
               (int)entry->version, (int)card->version_count, entry->active ? "true" : "false",
               entry->digest, entry->bytes, (long long)entry->created_s);
    buf_printf(out,
               ",\"state\":\"%s\",\"pinned\":%s,\"in_flight\":%lld,\"requests\":%lld,"
               "\"tokens\":%lld,\"load_ms\":%.3f",
               card->resident ? "resident" : "on_disk", entry->pinned ? "true" : "false",
               (long long)card->in_flight, (long long)card->requests, (long long)card->tokens,
               card->load_ms);
    if (card->last_used_s > 0)
        buf_printf(out, ",\"last_used\":%lld", (long long)card->last_used_s);
    else
        buf_text(out, ",\"last_used\":null");
    sora_status status = append_facts(cache, store, entry->digest, out, err);
    if (status == SORA_UNAVAILABLE) // the file is not here yet, and the shared catalog is away
        status = SORA_OK;
    buf_text(out, "}");
    return status != SORA_OK ? status : buf_status(out, err);
}

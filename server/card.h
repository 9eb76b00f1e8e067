// SPDX-License-Identifier: Apache-2.0
// The card of an adapter as JSON: what the registry knows of a version, and what its file says
// (parameters, ranks, training record). The latter never changes for a digest, so it is kept
// rendered, for the SORA_CARD_CACHE_COUNT most recent digests. Any thread.
#ifndef SERVER_CARD_H
#define SERVER_CARD_H

#include <pthread.h>

#include "base/buf.h"
#include "sora/registry.h"

struct card_facts {
    char digest[65];
    char *json; // ,"parameters":...: members without braces
};

struct card_cache {
    pthread_mutex_t mutex;
    struct card_facts *facts; // [SORA_CARD_CACHE_COUNT], a ring
    int32_t next;
    bool int8; // how the registry packs; set before the first card
};

SORA_CHECKED sora_status card_cache_init(struct card_cache *cache, struct sora_error *err);
void card_cache_deinit(struct card_cache *cache);

// Appends the card as one object. Reads the file from the store when its facts are not known.
SORA_CHECKED sora_status card_encode(struct card_cache *cache, sora_store *store,
                                     const struct sora_registry_card *card, const char *shown,
                                     struct buf *out, struct sora_error *err);

#endif

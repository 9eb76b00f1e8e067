// SPDX-License-Identifier: Apache-2.0
// See replica.h.
#include "server/replica.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "sora/limits.h"

#define WAIT_MS 200 // a sleep; the end of the server waits for it
#define PAUSE_US 50000

struct replica {
    sora_store *store;
    sora_registry *registry;
    pthread_t follower, fetcher;
    bool following, fetching; // the threads are there
    atomic_bool stopping, connected;
    _Atomic int64_t away_since_us, disconnects;
    pthread_mutex_t mutex;
    pthread_cond_t wake; // of the fetcher: `wanted` or `stopping`
    bool wanted;         // names have changed since it last looked
};

static void wake_fetcher(struct replica *replica)
{
    pthread_mutex_lock(&replica->mutex);
    replica->wanted = true;
    pthread_cond_signal(&replica->wake);
    pthread_mutex_unlock(&replica->mutex);
}

// Says once that the database is away, and that it is back.
static void note(struct replica *replica, sora_status status, const struct sora_error *err)
{
    char quoted[LOG_QUOTE_BYTES];
    bool connected = status == SORA_OK;
    if (connected == atomic_load(&replica->connected))
        return;
    if (connected) {
        int64_t away_us = clock_now_us() - atomic_load(&replica->away_since_us);
        log_info("catalog", "connected", "away_s=%.1f", (double)away_us * 1e-6);
    } else {
        log_warn("catalog", "away", "status=%s error=%s", sora_status_name(status),
                 log_quote(quoted, err->text));
        atomic_store(&replica->away_since_us, clock_now_us());
        atomic_fetch_add(&replica->disconnects, 1);
    }
    atomic_store(&replica->connected, connected);
}

static void *follow(void *context)
{
    struct replica *replica = context;
    int64_t looked_us = clock_now_us();
    pthread_setname_np(pthread_self(), "sora-follow");
    while (!atomic_load(&replica->stopping)) {
        struct sora_error err;
        bool changed = false;
        sora_status status = sora_store_wait(replica->store, WAIT_MS, &changed, &err);
        int64_t now_us = clock_now_us();
        // Looks now and then without being told, too: the news may pass through something that
        // drops it.
        if (status == SORA_OK && (changed || now_us - looked_us >= SORA_CATALOG_LOOK_US)) {
            looked_us = now_us;
            status = sora_registry_follow(replica->registry, &err);
            if (status == SORA_OK)
                wake_fetcher(replica);
        }
        note(replica, status, &err);
        if (status != SORA_OK)
            clock_sleep_us(PAUSE_US);
    }
    return NULL;
}

// Brings what is active and not here. What fails is tried again when names have changed or the
// database is back, or when a request wants it.
static void fetch_all(struct replica *replica)
{
    struct sora_registry_card *cards = NULL;
    struct sora_error err;
    int32_t count = 0;
    char quoted[LOG_QUOTE_BYTES];
    if (sora_registry_list(replica->registry, &cards, &count, NULL) != SORA_OK)
        return;
    for (int32_t i = 0; i < count && !atomic_load(&replica->stopping); i++) {
        sora_status status = sora_store_fetch(replica->store, cards[i].entry.digest, &err);
        if (status == SORA_UNAVAILABLE)
            break;
        if (status != SORA_OK && status != SORA_NOT_FOUND) // not found: removed in the meantime
            log_warn("catalog", "fetch_failed", "digest=%s error=%s", cards[i].entry.digest,
                     log_quote(quoted, err.text));
    }
    free(cards);
}

static void *fetch(void *context)
{
    struct replica *replica = context;
    pthread_setname_np(pthread_self(), "sora-fetch");
    pthread_mutex_lock(&replica->mutex);
    while (!atomic_load(&replica->stopping)) {
        if (!replica->wanted) {
            pthread_cond_wait(&replica->wake, &replica->mutex);
            continue;
        }
        replica->wanted = false;
        pthread_mutex_unlock(&replica->mutex);
        fetch_all(replica);
        pthread_mutex_lock(&replica->mutex);
    }
    pthread_mutex_unlock(&replica->mutex);
    return NULL;
}

sora_status replica_start(sora_store *store, sora_registry *registry, struct replica **replica,
                          struct sora_error *err)
{
    struct replica *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to follow the catalog");
    made->store = store;
    made->registry = registry;
    made->wanted = true;
    atomic_store(&made->connected, true);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->wake, NULL);
    made->following = pthread_create(&made->follower, NULL, follow, made) == 0;
    made->fetching = made->following && pthread_create(&made->fetcher, NULL, fetch, made) == 0;
    if (!made->fetching) {
        replica_stop(made);
        return sora_fail(err, SORA_IO, "cannot start the threads that follow the catalog");
    }
    *replica = made;
    return SORA_OK;
}

void replica_stop(struct replica *replica)
{
    if (replica == NULL)
        return;
    pthread_mutex_lock(&replica->mutex);
    atomic_store(&replica->stopping, true);
    pthread_cond_signal(&replica->wake);
    pthread_mutex_unlock(&replica->mutex);
    if (replica->following)
        pthread_join(replica->follower, NULL);
    if (replica->fetching)
        pthread_join(replica->fetcher, NULL);
    pthread_cond_destroy(&replica->wake);
    pthread_mutex_destroy(&replica->mutex);
    free(replica);
}

struct replica_state replica_get_state(struct replica *replica)
{
    struct replica_state state = {.connected = atomic_load(&replica->connected),
                                  .disconnects = atomic_load(&replica->disconnects)};
    if (!state.connected)
        state.away_s = (clock_now_us() - atomic_load(&replica->away_since_us)) / 1000000;
    return state;
}

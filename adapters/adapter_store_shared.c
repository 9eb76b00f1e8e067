// SPDX-License-Identifier: Apache-2.0
// Stores with a shared catalog: connecting, bringing files, following other servers. Any thread may
// call, but for sora_store_wait and sora_store_read_changes: one at a time.
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_store.h"
#include "base/assert.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"

// Its files would be swept: the shared catalog does not know them.
static sora_status refuse_own_catalog(const sora_store *store, struct sora_error *err)
{
    char *path = file_join(store->folder, "catalog.sqlite");
    sora_status status = SORA_OK;
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of the catalog");
    if (file_exists(path))
        status = sora_fail(err, SORA_UNSUPPORTED,
                           "it has adapters of its own (%s); with a shared catalog it takes "
                           "another folder",
                           path);
    free(path);
    return status;
}

sora_status store_connect(sora_store *store, const char *url, struct sora_error *err)
{
    sora_status status = refuse_own_catalog(store, err);
    if (status == SORA_OK)
        status = catalog_postgres_open(url, true, &store->catalog, err);
    if (status == SORA_OK)
        status = catalog_postgres_open(url, true, &store->files, err);
    if (status == SORA_OK)
        status = catalog_postgres_open(url, true, &store->feed, err);
    return status;
}

bool sora_store_is_shared(const sora_store *store)
{
    return store->feed != NULL;
}

// Locked by `fetching`.
static sora_status bring(sora_store *store, const char *digest, uint8_t **bytes, size_t *byte_count,
                         struct sora_error *err)
{
    char found[65], quoted[LOG_QUOTE_BYTES];
    struct sora_error copy_err;
    // Another thread may have brought it while this one waited.
    if (store_read_copy(store, digest, bytes, byte_count, NULL) == SORA_OK)
        return SORA_OK;
    sora_status status = store->files->ops->fetch(store->files, digest, bytes, byte_count, err);
    if (status == SORA_OK)
        status = sha256_of(*bytes, *byte_count, found, err);
    if (status == SORA_OK && strcmp(found, digest) != 0)
        status = sora_fail(err, SORA_IO, "file %s is damaged in the catalog: its digest is %s",
                           digest, found);
    if (status != SORA_OK) {
        free(*bytes);
        *bytes = NULL;
        *byte_count = 0;
        return status;
    }
    // Without room for a copy it is served from memory, and brought again when it has left that.
    char *path = store_blob_path(store, digest);
    if (path != NULL &&
        store_write_blob(store, path, digest, *bytes, *byte_count, &copy_err) != SORA_OK)
        log_warn("store", "copy_failed", "error=%s", log_quote(quoted, copy_err.text));
    free(path);
    return SORA_OK;
}

sora_status store_bring(sora_store *store, const char *digest, uint8_t **bytes, size_t *byte_count,
                        struct sora_error *err)
{
    pthread_mutex_lock(&store->fetching);
    sora_status status = bring(store, digest, bytes, byte_count, err);
    pthread_mutex_unlock(&store->fetching);
    return status;
}

sora_status sora_store_fetch(sora_store *store, const char *digest, struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    char *path = store_blob_path(store, digest);
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of a blob");
    bool there = file_exists(path);
    free(path);
    if (there)
        return SORA_OK;
    sora_status status = sora_store_read(store, digest, &bytes, &byte_count, err);
    free(bytes);
    return status;
}

void sora_store_drop_copy(sora_store *store, const char *digest)
{
    (void)store_delete_blob(store, digest);
}

sora_status sora_store_read_changes(sora_store *store, int64_t since,
                                    struct sora_store_changes *changes, struct sora_error *err)
{
    ASSERT(store->feed != NULL);
    return store->feed->ops->changes(store->feed, since, changes, err);
}

void sora_store_changes_free(struct sora_store_changes *changes)
{
    free(changes->names);
    free(changes->entries);
    memset(changes, 0, sizeof *changes);
}

sora_status sora_store_wait(sora_store *store, int32_t timeout_ms, bool *changed,
                            struct sora_error *err)
{
    ASSERT(store->feed != NULL);
    return store->feed->ops->wait(store->feed, timeout_ms, changed, err);
}

// SPDX-License-Identifier: Apache-2.0
// Adapters on disk: blobs/<first two of the digest>/<digest>.safetensors and catalog.sqlite, under
// a lock file that one process holds; incoming/ has uploads on their way. A blob is on disk before
// the catalog names it, and goes after the catalog has forgotten it; what a crash leaves in between
// is swept at the next open. With a shared catalog the blobs are copies. Any thread may call; one
// mutex serialises changes and the catalog.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "adapters/adapter_store.h"
#include "adapters/store_upload.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"
#include "sora/tenant.h"

#define BLOB_SUFFIX ".safetensors"
#define DIGEST_BYTES 64

// A blob to be: bytes in memory, or a file that holds them.
struct blob_source {
    const void *bytes;
    size_t byte_count;
    sora_upload *upload; // NULL: none
};

sora_status sora_store_check_name(const char *name, struct sora_error *err)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-";
    size_t bytes = strlen(name);
    if (bytes < 1 || bytes > SORA_ADAPTER_NAME_BYTES_MAX)
        return sora_fail(err, SORA_MALFORMED, "adapter name of %zu bytes: expected 1 to %d", bytes,
                         SORA_ADAPTER_NAME_BYTES_MAX);
    size_t good = strspn(name, allowed);
    if (good < bytes)
        return sora_fail(err, SORA_MALFORMED,
                         "adapter name \"%s\": byte %zu is not one of A-Z a-z 0-9 . _ : / -", name,
                         good + 1);
    if (name[0] == '.' || name[0] == '/')
        return sora_fail(err, SORA_MALFORMED, "adapter name \"%s\" begins with '%c'", name,
                         name[0]);
    if (strstr(name, ".."))
        return sora_fail(err, SORA_MALFORMED, "adapter name \"%s\" contains \"..\"", name);
    return SORA_OK;
}

static bool is_digest(const char *text)
{
    return strspn(text, "0123456789abcdef") == DIGEST_BYTES && text[DIGEST_BYTES] == 0;
}

// ".../blobs/ab", malloc'ed.
static char *blob_folder(const sora_store *store, const char *digest)
{
    char name[3] = {digest[0], digest[1], 0};
    return file_join(store->blobs, name);
}

char *store_blob_path(const sora_store *store, const char *digest)
{
    char name[DIGEST_BYTES + 32];
    snprintf(name, sizeof name, "%.2s/%.64s" BLOB_SUFFIX, digest, digest);
    return file_join(store->blobs, name);
}

static sora_status take_lock(sora_store *store, struct sora_error *err)
{
    char *path = file_join(store->folder, "lock");
    sora_status status = SORA_OK;
    if (!path)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of the lock");
    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (store->lock_fd < 0)
        status = sora_fail(err, errno == ENOSPC ? SORA_FULL : SORA_IO, "cannot open %s: %s", path,
                           strerror(errno));
    else if (flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0)
        status = sora_fail(err, errno == EWOULDBLOCK ? SORA_BUSY : SORA_IO,
                           "another process has the adapter store open (lock %s): %s", path,
                           strerror(errno));
    free(path);
    return status;
}

// --- sweeping what a crash left ---

static bool is_live(const struct sora_store_entry *entries, int32_t entry_count, const char *file)
{
    const char *suffix = file + DIGEST_BYTES;
    if (strlen(file) != DIGEST_BYTES + strlen(BLOB_SUFFIX) || strcmp(suffix, BLOB_SUFFIX) != 0)
        return false;
    // Entries were sorted by digest.
    int32_t low = 0, high = entry_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int order = strncmp(entries[middle].digest, file, DIGEST_BYTES);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static int compare_digests(const void *a, const void *b)
{
    const struct sora_store_entry *left = a, *right = b;
    return strcmp(left->digest, right->digest);
}

static size_t file_bytes(int folder_fd, const char *name)
{
    struct stat info;
    return fstatat(folder_fd, name, &info, 0) == 0 ? (size_t)info.st_size : 0;
}

// Removes blobs without a name and half-written ones; leaves alone what is not the store's. Returns
// the bytes of the blobs that stay.
static size_t sweep_folder(const char *path, const struct sora_store_entry *entries,
                           int32_t entry_count)
{
    size_t bytes = 0;
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    for (struct dirent *item; (item = readdir(dir));) {
        bool ours = strspn(item->d_name, "0123456789abcdef") == DIGEST_BYTES &&
                    strncmp(item->d_name + DIGEST_BYTES, BLOB_SUFFIX, strlen(BLOB_SUFFIX)) == 0;
        bool live = ours && is_live(entries, entry_count, item->d_name);
        if (live)
            bytes += file_bytes(dirfd(dir), item->d_name);
        if (!ours || live)
            continue;
        if (unlinkat(dirfd(dir), item->d_name, 0) == 0)
            log_info("store", "swept", "file=%s/%s", path, item->d_name);
        else
            log_warn("store", "sweep_failed", "file=%s/%s errno=%d", path, item->d_name, errno);
    }
    closedir(dir);
    return bytes;
}

static sora_status sweep(sora_store *store, struct sora_error *err)
{
    struct sora_store_entry *entries = NULL;
    int32_t entry_count = 0;
    sora_status status =
        store->catalog->ops->list(store->catalog, NULL, &entries, &entry_count, err);
    if (status != SORA_OK)
        return status;
    if (entry_count > 1)
        qsort(entries, (size_t)entry_count, sizeof *entries, compare_digests);
    for (int i = 0; i < 256; i++) {
        char digest[3];
        snprintf(digest, sizeof digest, "%02x", (unsigned)i);
        char *folder = blob_folder(store, digest);
        if (folder)
            store->blob_bytes += sweep_folder(folder, entries, entry_count);
        free(folder);
    }
    free(entries);
    store_upload_sweep(store->folder);
    return SORA_OK;
}

// --- open and close ---

static sora_status open_catalog(sora_store *store, struct sora_error *err)
{
    char *path = file_join(store->folder, "catalog.sqlite");
    if (!path)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of the catalog");
    sora_status status = catalog_sqlite_open(path, &store->catalog, err);
    free(path);
    return status;
}

// url NULL: a catalog of its own.
static sora_status open_all(sora_store *store, const char *url, struct sora_error *err)
{
    sora_status status = file_make_folder(store->blobs, err);
    if (status == SORA_OK)
        status = take_lock(store, err);
    // A parent that is missing or no folder: nobody asked for something that could be "not found".
    if (status == SORA_NOT_FOUND)
        status = sora_fail_within(err, SORA_IO, "not usable");
    if (status != SORA_OK)
        return status;
    status = url ? store_connect(store, url, err) : open_catalog(store, err);
    if (status == SORA_OK)
        status = file_sync_folder(store->folder, err);
    if (status == SORA_OK)
        status = sweep(store, err);
    return status;
}

static sora_status open_store(const char *folder, const char *url, sora_store **store,
                              struct sora_error *err)
{
    *store = NULL;
    sora_store *opened = calloc(1, sizeof *opened);
    if (!opened)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a store");
    opened->lock_fd = -1;
    pthread_mutex_init(&opened->mutex, NULL);
    pthread_mutex_init(&opened->fetching, NULL);
    opened->folder = strdup(folder);
    opened->blobs = file_join(folder, "blobs");
    sora_status status;
    if (!opened->folder || !opened->blobs)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the paths of a store");
    else
        status = open_all(opened, url, err);
    if (status != SORA_OK) {
        sora_store_close(opened);
        return sora_fail_within(err, status, "adapter store %s", folder);
    }
    *store = opened;
    return SORA_OK;
}

sora_status sora_store_open(const char *folder, sora_store **store, struct sora_error *err)
{
    return open_store(folder, NULL, store, err);
}

sora_status sora_store_open_shared(const char *folder, const char *url, sora_store **store,
                                   struct sora_error *err)
{
    return open_store(folder, url, store, err);
}

void sora_store_close(sora_store *store)
{
    if (!store)
        return;
    struct catalog *const catalogs[] = {store->catalog, store->feed, store->files};
    for (size_t i = 0; i < sizeof catalogs / sizeof catalogs[0]; i++)
        if (catalogs[i])
            catalogs[i]->ops->close(catalogs[i]);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    pthread_mutex_destroy(&store->fetching);
    pthread_mutex_destroy(&store->mutex);
    free(store->folder);
    free(store->blobs);
    free(store);
}

// --- blobs ---

static bool blob_is(const char *path, const void *bytes, size_t byte_count)
{
    struct file_map map;
    if (!file_exists(path) || file_map_open(path, &map, NULL) != SORA_OK)
        return false;
    bool same = map.bytes == byte_count && memcmp(map.data, bytes, byte_count) == 0;
    file_map_close(&map);
    return same;
}

// Makes the folder if it must, and the file, from the bytes or of the file that has them.
static sora_status write_blob(const sora_store *store, const char *path, const char *digest,
                              const struct blob_source *from, struct sora_error *err)
{
    sora_status status = SORA_OK;
    char *folder = blob_folder(store, digest);
    if (!folder)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of a blob");
    if (!file_is_folder(folder)) {
        status = file_make_folder(folder, err);
        if (status == SORA_OK)
            status = file_sync_folder(store->blobs, err);
    }
    if (status == SORA_OK && from->upload)
        status = store_upload_move(from->upload, path, err);
    else if (status == SORA_OK)
        status = file_write_atomic(path, from->bytes, from->byte_count, err);
    if (status == SORA_NOT_FOUND)
        status = sora_fail_within(err, SORA_IO, "the store's folder is gone");
    free(folder);
    return status;
}

size_t store_delete_blob(sora_store *store, const char *digest)
{
    char *path = store_blob_path(store, digest);
    size_t bytes = path ? file_bytes(AT_FDCWD, path) : 0;
    if (!path || unlink(path) != 0)
        bytes = 0;
    size_t before = store->blob_bytes;
    store->blob_bytes -= bytes < before ? bytes : before;
    free(path);
    return bytes;
}

// Room for a file in the place of one of old_bytes.
static sora_status check_limit(const sora_store *store, size_t old_bytes, size_t byte_count,
                               struct sora_error *err)
{
    size_t used = store->blob_bytes - old_bytes, most = store->blob_bytes_max;
    if (most == 0 || (byte_count <= most && used <= most - byte_count))
        return SORA_OK;
    return sora_fail(
        err, SORA_FULL,
        "the store holds %zu bytes of the %zu it may hold (--store-limit): %zu more do "
        "not fit",
        used, most, byte_count);
}

static sora_status add_blob(sora_store *store, const char *path, const char *digest,
                            const struct blob_source *from, struct sora_error *err)
{
    if (blob_is(path, from->bytes, from->byte_count))
        return SORA_OK;
    size_t old_bytes = file_bytes(AT_FDCWD, path); // of a damaged one
    sora_status status = check_limit(store, old_bytes, from->byte_count, err);
    if (status == SORA_OK)
        status = write_blob(store, path, digest, from, err);
    store->blob_bytes += file_bytes(AT_FDCWD, path) - old_bytes; // also of a failure half-way
    return status;
}

sora_status store_write_blob(sora_store *store, const char *path, const char *digest,
                             const void *bytes, size_t byte_count, struct sora_error *err)
{
    struct blob_source from = {bytes, byte_count, NULL};
    return add_blob(store, path, digest, &from, err);
}

static void delete_if_unused(sora_store *store, const char *digest)
{
    bool used = true;
    sora_status status = store->catalog->ops->uses(store->catalog, digest, &used, NULL);
    if (status == SORA_OK && !used)
        store_delete_blob(store, digest);
}

static sora_status put_blob(sora_store *store, const struct catalog_put *put,
                            const struct blob_source *from, struct sora_store_entry *entry,
                            bool *created, struct sora_error *err)
{
    *created = false;
    sora_status status = sora_tenant_check_stored(put->name, err);
    if (status != SORA_OK)
        return status;
    if (!is_digest(put->digest))
        return sora_fail(err, SORA_MALFORMED, "digest \"%.80s\" is not a SHA-256", put->digest);
    if (put->bytes > SORA_ADAPTER_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "%zu bytes exceed the limit of %u for an adapter",
                         put->bytes, SORA_ADAPTER_BYTES_MAX);
    char *path = store_blob_path(store, put->digest);
    if (!path)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the path of a blob");
    pthread_mutex_lock(&store->mutex);
    status = add_blob(store, path, put->digest, from, err);
    if (status == SORA_OK)
        status = store->catalog->ops->put(store->catalog, put, entry, created, err);
    if (status != SORA_OK)
        delete_if_unused(store, put->digest);
    pthread_mutex_unlock(&store->mutex);
    free(path);
    return status;
}

sora_status sora_store_put(sora_store *store, const char *name, const void *bytes,
                           size_t byte_count, const char *digest, const char *if_match,
                           bool activate, struct sora_store_entry *entry, bool *created,
                           struct sora_error *err)
{
    struct catalog_put put = {name, digest, if_match, bytes, byte_count, clock_unix_s(), activate};
    struct blob_source from = {bytes, byte_count, NULL};
    return put_blob(store, &put, &from, entry, created, err);
}

sora_status sora_store_put_upload(sora_store *store, const char *name, sora_upload *upload,
                                  const char *if_match, bool activate,
                                  struct sora_store_entry *entry, bool *created,
                                  struct sora_error *err)
{
    struct blob_source from = {.upload = upload};
    from.bytes = sora_upload_bytes(upload, &from.byte_count);
    struct catalog_put put = {
        name,    sora_upload_digest(upload), if_match, from.bytes, from.byte_count, clock_unix_s(),
        activate};
    return put_blob(store, &put, &from, entry, created, err);
}

void sora_store_set_limit(sora_store *store, size_t bytes_max)
{
    pthread_mutex_lock(&store->mutex);
    store->blob_bytes_max = bytes_max;
    pthread_mutex_unlock(&store->mutex);
}

void sora_store_usage(sora_store *store, size_t *bytes, size_t *bytes_max)
{
    pthread_mutex_lock(&store->mutex);
    *bytes = store->blob_bytes;
    *bytes_max = store->blob_bytes_max;
    pthread_mutex_unlock(&store->mutex);
}

const char *store_folder(const sora_store *store)
{
    return store->folder;
}

sora_status store_check_size(sora_store *store, size_t byte_count, struct sora_error *err)
{
    size_t used, most;
    sora_store_usage(store, &used, &most);
    if (most == 0 || byte_count <= most)
        return SORA_OK;
    return sora_fail(err, SORA_FULL,
                     "%zu bytes are more than the %zu that the store may hold in all "
                     "(--store-limit)",
                     byte_count, most);
}

sora_status sora_store_activate(sora_store *store, const char *name, int32_t version,
                                struct sora_store_entry *entry, struct sora_error *err)
{
    memset(entry, 0, sizeof *entry);
    pthread_mutex_lock(&store->mutex);
    sora_status status = store->catalog->ops->activate(store->catalog, name, version, entry, err);
    pthread_mutex_unlock(&store->mutex);
    return status;
}

sora_status sora_store_pin(sora_store *store, const char *name, bool pinned, struct sora_error *err)
{
    pthread_mutex_lock(&store->mutex);
    sora_status status = store->catalog->ops->pin(store->catalog, name, pinned, err);
    pthread_mutex_unlock(&store->mutex);
    return status;
}

sora_status sora_store_remove(sora_store *store, const char *name, size_t *freed_bytes,
                              struct sora_error *err)
{
    struct catalog_digest *orphans = NULL;
    int32_t orphan_count = 0;
    *freed_bytes = 0;
    pthread_mutex_lock(&store->mutex);
    sora_status status =
        store->catalog->ops->remove(store->catalog, name, &orphans, &orphan_count, err);
    for (int32_t i = 0; status == SORA_OK && i < orphan_count; i++)
        *freed_bytes += store_delete_blob(store, orphans[i].text);
    pthread_mutex_unlock(&store->mutex);
    free(orphans);
    return status;
}

sora_status sora_store_list(sora_store *store, const char *name, struct sora_store_entry **entries,
                            int32_t *entry_count, struct sora_error *err)
{
    *entries = NULL;
    *entry_count = 0;
    pthread_mutex_lock(&store->mutex);
    sora_status status = store->catalog->ops->list(store->catalog, name, entries, entry_count, err);
    pthread_mutex_unlock(&store->mutex);
    return status;
}

// The path of a digest's file, malloc'ed; NULL, with the failure, when it is no digest.
static char *known_path(const sora_store *store, const char *digest, struct sora_error *err)
{
    if (!is_digest(digest)) {
        (void)sora_fail(err, SORA_MALFORMED, "digest \"%.80s\" is not a SHA-256", digest);
        return NULL;
    }
    char *path = store_blob_path(store, digest);
    if (!path)
        (void)sora_fail(err, SORA_NO_MEMORY, "no memory for the path of a blob");
    return path;
}

static sora_status check_digest(const char *path, const char *digest, const void *bytes,
                                size_t byte_count, struct sora_error *err)
{
    char found[DIGEST_BYTES + 1];
    sora_status status = sha256_of(bytes, byte_count, found, err);
    if (status == SORA_OK && strcmp(found, digest) != 0)
        status = sora_fail(err, SORA_IO, "%s is damaged: its digest is %s", path, found);
    return status;
}

sora_status store_read_copy(const sora_store *store, const char *digest, uint8_t **bytes,
                            size_t *byte_count, struct sora_error *err)
{
    char *data = NULL;
    *bytes = NULL;
    *byte_count = 0;
    char *path = known_path(store, digest, err);
    if (!path)
        return is_digest(digest) ? SORA_NO_MEMORY : SORA_MALFORMED;
    sora_status status = file_read(path, SORA_ADAPTER_BYTES_MAX, &data, byte_count, err);
    if (status == SORA_OK)
        status = check_digest(path, digest, data, *byte_count, err);
    free(path);
    if (status != SORA_OK) {
        free(data);
        *byte_count = 0;
        return status;
    }
    *bytes = (uint8_t *)data;
    return SORA_OK;
}

sora_status sora_store_read(sora_store *store, const char *digest, uint8_t **bytes,
                            size_t *byte_count, struct sora_error *err)
{
    sora_status status = store_read_copy(store, digest, bytes, byte_count, err);
    if ((status == SORA_NOT_FOUND || status == SORA_IO) && sora_store_is_shared(store))
        status = store_bring(store, digest, bytes, byte_count, err);
    return status;
}

static sora_status map_copy(const sora_store *store, const char *digest, struct file_map *map,
                            struct sora_error *err)
{
    *map = (struct file_map){NULL, 0};
    char *path = known_path(store, digest, err);
    if (!path)
        return is_digest(digest) ? SORA_NO_MEMORY : SORA_MALFORMED;
    sora_status status = file_map_open(path, map, err);
    if (status == SORA_OK)
        status = check_digest(path, digest, map->data, map->bytes, err);
    if (status != SORA_OK)
        file_map_close(map);
    free(path);
    return status;
}

// A file that was brought, but for whose copy there may be no room: in memory that unmaps alike.
static sora_status map_brought(sora_store *store, const char *digest, struct file_map *map,
                               struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_status status = store_bring(store, digest, &bytes, &byte_count, err);
    if (status != SORA_OK)
        return status;
    if (map_copy(store, digest, map, NULL) != SORA_OK) {
        void *memory =
            mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            status = sora_fail(err, SORA_NO_MEMORY, "no memory for %zu bytes", byte_count);
        else
            *map = (struct file_map){memcpy(memory, bytes, byte_count), byte_count};
    }
    free(bytes);
    return status;
}

sora_status sora_store_map(sora_store *store, const char *digest, const uint8_t **bytes,
                           size_t *byte_count, struct sora_error *err)
{
    struct file_map map;
    sora_status status = map_copy(store, digest, &map, err);
    if ((status == SORA_NOT_FOUND || status == SORA_IO) && sora_store_is_shared(store))
        status = map_brought(store, digest, &map, err);
    *bytes = map.data;
    *byte_count = map.bytes;
    return status;
}

void sora_store_unmap(const uint8_t *bytes, size_t byte_count)
{
    struct file_map map = {bytes, byte_count};
    file_map_close(&map);
}

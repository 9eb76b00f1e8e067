// SPDX-License-Identifier: Apache-2.0
// Uploads: incoming/<random>.part in the store's folder, so that the finished file is moved and
// never copied. One thread at a time for each upload.
#include "adapters/store_upload.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/sha256.h"

#define INCOMING "incoming"
#define PART_SUFFIX ".part"

struct sora_upload {
    char *path; // NULL: moved
    int fd;     // -1: finished
    struct sha256 *sha;
    char digest[65];
    struct file_map map;
    size_t byte_count;
};

static sora_status create_part(const char *folder, sora_upload *upload, struct sora_error *err)
{
    uint64_t id;
    rng_system(&id, sizeof id);
    if (asprintf(&upload->path, "%s/%016llx" PART_SUFFIX, folder, (unsigned long long)id) < 0) {
        upload->path = NULL;
        return sora_fail(err, SORA_NO_MEMORY, "no memory for an upload");
    }
    return file_create(upload->path, &upload->fd, err);
}

static sora_status open_part(const sora_store *store, sora_upload *upload, struct sora_error *err)
{
    char *folder = file_join(store_folder(store), INCOMING);
    if (!folder)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for an upload");
    sora_status status = file_make_folder(folder, err);
    if (status == SORA_OK)
        status = create_part(folder, upload, err);
    if (status == SORA_NOT_FOUND) // nobody asked for something that could be
        status = sora_fail_within(err, SORA_IO, "the store's folder is gone");
    free(folder);
    return status;
}

sora_status sora_upload_open(sora_store *store, size_t expected_bytes, sora_upload **upload,
                             struct sora_error *err)
{
    *upload = NULL;
    sora_status status = store_check_size(store, expected_bytes, err);
    if (status != SORA_OK)
        return status;
    sora_upload *made = calloc(1, sizeof *made);
    if (!made)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for an upload");
    made->fd = -1;
    status = sha256_create(&made->sha, err);
    if (status == SORA_OK)
        status = open_part(store, made, err);
    if (status != SORA_OK) {
        sora_upload_close(made);
        return status;
    }
    *upload = made;
    return SORA_OK;
}

sora_status sora_upload_write(sora_upload *upload, const void *bytes, size_t byte_count,
                              struct sora_error *err)
{
    ASSERT(upload->fd >= 0);
    sora_status status = file_append(upload->fd, upload->path, bytes, byte_count, err);
    if (status != SORA_OK)
        return status;
    sha256_update(upload->sha, bytes, byte_count);
    upload->byte_count += byte_count;
    return SORA_OK;
}

sora_status sora_upload_finish(sora_upload *upload, struct sora_error *err)
{
    ASSERT(upload->fd >= 0);
    sora_status status = file_sync(upload->fd, upload->path, err);
    close(upload->fd);
    upload->fd = -1;
    if (status == SORA_OK)
        status = file_map_open(upload->path, &upload->map, err);
    if (status == SORA_OK && upload->map.bytes != upload->byte_count)
        status = sora_fail(err, SORA_IO, "%s: %zu bytes were written, %zu are there", upload->path,
                           upload->byte_count, upload->map.bytes);
    sha256_finish(upload->sha, upload->digest);
    upload->sha = NULL;
    return status;
}

const uint8_t *sora_upload_bytes(const sora_upload *upload, size_t *byte_count)
{
    ASSERT(upload->fd < 0);
    *byte_count = upload->map.bytes;
    return upload->map.data ? upload->map.data : (const uint8_t *)"";
}

const char *sora_upload_digest(const sora_upload *upload)
{
    ASSERT(upload->fd < 0);
    return upload->digest;
}

sora_status store_upload_move(sora_upload *upload, const char *path, struct sora_error *err)
{
    ASSERT(upload->fd < 0 && upload->path);
    sora_status status = file_rename(upload->path, path, err);
    if (status == SORA_OK) {
        free(upload->path);
        upload->path = NULL;
    }
    return status;
}

void sora_upload_close(sora_upload *upload)
{
    if (!upload)
        return;
    if (upload->fd >= 0)
        close(upload->fd);
    if (upload->path)
        unlink(upload->path);
    file_map_close(&upload->map);
    sha256_destroy(upload->sha);
    free(upload->path);
    free(upload);
}

void store_upload_sweep(const char *folder)
{
    char *path = file_join(folder, INCOMING);
    DIR *dir = path ? opendir(path) : NULL;
    for (struct dirent *item; dir && (item = readdir(dir));) {
        size_t bytes = strlen(item->d_name), suffix = strlen(PART_SUFFIX);
        if (bytes <= suffix || strcmp(item->d_name + bytes - suffix, PART_SUFFIX) != 0)
            continue;
        if (unlinkat(dirfd(dir), item->d_name, 0) == 0)
            log_info("store", "swept", "file=%s/%s", path, item->d_name);
        else
            log_warn("store", "sweep_failed", "file=%s/%s errno=%d", path, item->d_name, errno);
    }
    if (dir)
        closedir(dir);
    free(path);
}

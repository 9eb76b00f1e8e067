// SPDX-License-Identifier: Apache-2.0
// What the files of the store share. Any thread may call what takes no lock of the store's; see
// each.
#ifndef ADAPTERS_ADAPTER_STORE_H
#define ADAPTERS_ADAPTER_STORE_H

#include <pthread.h>

#include "adapters/catalog.h"
#include "sora/store.h"

struct sora_store {
    char *folder, *blobs;
    int lock_fd;
    struct catalog *catalog;
    pthread_mutex_t mutex;     // changes and `catalog`
    _Atomic size_t blob_bytes; // of the files here
    size_t blob_bytes_max;     // the limit, 0: none
    // Of a shared store; NULL otherwise. Connections of their own, so that a large upload keeps
    // neither news nor the loading of an adapter waiting.
    struct catalog *feed;     // the thread that follows other servers
    struct catalog *files;    // `fetching`
    pthread_mutex_t fetching; // one file is brought at a time
};

// ".../blobs/ab/abcd....safetensors", malloc'ed.
char *store_blob_path(const sora_store *store, const char *digest);
// Makes the folder if it must, and the file as a whole, if the limit has room for it.
SORA_CHECKED sora_status store_write_blob(sora_store *store, const char *path, const char *digest,
                                          const void *bytes, size_t byte_count,
                                          struct sora_error *err);
// Deletes the file of a digest; its size, or 0 when it was not there. Failing is harmless: the
// next open sweeps it.
size_t store_delete_blob(sora_store *store, const char *digest);
// The file here, checked against its digest.
SORA_CHECKED sora_status store_read_copy(const sora_store *store, const char *digest,
                                         uint8_t **bytes, size_t *byte_count,
                                         struct sora_error *err);

// --- adapter_store_shared.c ---

// Connects to the catalog; the folder must have none of its own.
SORA_CHECKED sora_status store_connect(sora_store *store, const char *url, struct sora_error *err);
// Brings a file from the shared catalog, checks it, and keeps a copy if there is room.
SORA_CHECKED sora_status store_bring(sora_store *store, const char *digest, uint8_t **bytes,
                                     size_t *byte_count, struct sora_error *err);

#endif

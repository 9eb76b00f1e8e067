// SPDX-License-Identifier: Apache-2.0
// What the store and its uploads need of each other.
#ifndef ADAPTERS_STORE_UPLOAD_H
#define ADAPTERS_STORE_UPLOAD_H

#include "sora/store.h"

// --- adapter_store.c ---

const char *store_folder(const sora_store *store);
// SORA_FULL when a file of this size alone would exceed the store's limit. (What may fit is told by
// putting it: the same bytes again need no room.)
SORA_CHECKED sora_status store_check_size(sora_store *store, size_t byte_count,
                                          struct sora_error *err);

// --- store_upload.c ---

// Gives the finished upload's file its final name. It can still be read afterwards.
SORA_CHECKED sora_status store_upload_move(sora_upload *upload, const char *path,
                                           struct sora_error *err);
// Removes what uploads left behind when the process ended. Nobody else has the store open.
void store_upload_sweep(const char *folder);

#endif

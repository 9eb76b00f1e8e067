// SPDX-License-Identifier: Apache-2.0
// Files: mapping, reading whole, and writing so that a crash leaves the old or the new file.
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct file_map {
    const uint8_t *data;
    size_t bytes;
};

// Read-only mapping. An empty file gives data NULL, bytes 0. A folder, a missing or unreadable
// file is SORA_NOT_FOUND or SORA_IO with the path and the system's reason.
SORA_CHECKED sora_status file_map_open(const char *path, struct file_map *map,
                                       struct sora_error *err);
void file_map_close(struct file_map *map);
// Tells the system that this part of the mapping is not needed any more.
void file_map_forget(const struct file_map *map, const void *start, size_t bytes);

// Whole file, malloc'ed and zero-terminated; SORA_LIMIT beyond bytes_max.
SORA_CHECKED sora_status file_read(const char *path, size_t bytes_max, char **data, size_t *bytes,
                                   struct sora_error *err);

// Temporary file beside it, fsync, rename, fsync of the folder. SORA_FULL on a full disk; nothing
// is left behind on failure.
SORA_CHECKED sora_status file_write_atomic(const char *path, const void *data, size_t bytes,
                                           struct sora_error *err);

// The same piece by piece, for what does not fit in memory. commit brings it to disk and into
// place; close frees the stream, and without a commit before, nothing is left. NULL is fine.
struct file_stream;
SORA_CHECKED sora_status file_stream_open(const char *path, struct file_stream **stream,
                                          struct sora_error *err);
SORA_CHECKED sora_status file_stream_write(struct file_stream *stream, const void *data,
                                           size_t bytes, struct sora_error *err);
SORA_CHECKED sora_status file_stream_commit(struct file_stream *stream, struct sora_error *err);
void file_stream_close(struct file_stream *stream);

// A new file, written piece by piece; the caller closes fd. file_sync: what was written is on disk.
SORA_CHECKED sora_status file_create(const char *path, int *fd, struct sora_error *err);
SORA_CHECKED sora_status file_append(int fd, const char *path, const void *data, size_t bytes,
                                     struct sora_error *err);
SORA_CHECKED sora_status file_sync(int fd, const char *path, struct sora_error *err);
// Renames, also over a file that is there, and syncs the folder.
SORA_CHECKED sora_status file_rename(const char *from, const char *to, struct sora_error *err);
SORA_CHECKED sora_status file_make_folder(const char *path, struct sora_error *err); // and parents
SORA_CHECKED sora_status file_sync_folder(const char *path, struct sora_error *err);
bool file_is_folder(const char *path);
bool file_exists(const char *path);
// "a/b", malloc'ed; NULL when out of memory.
char *file_join(const char *folder, const char *name);
// "x" from "/a/x.gguf" or "/a/x/" into out, always terminated.
void file_stem(const char *path, char *out, size_t out_bytes);

#endif

// SPDX-License-Identifier: Apache-2.0
// Files under one folder, by paths that somebody else has chosen: what lies outside is never
// opened, whichever links lead there and however they change meanwhile, and nothing but files and
// folders is. Any thread.
#ifndef BASE_FILE_ROOT_H
#define BASE_FILE_ROOT_H

#include <stdbool.h>
#include <stddef.h>

#include "sora/status.h"

// The folder's own path, without links; malloc'ed. SORA_NOT_FOUND: there is none.
SORA_CHECKED sora_status file_root_resolve(const char *folder, char **root, struct sora_error *err);

struct file_under {
    int fd; // open for reading; -1: closed
    bool is_folder;
    size_t bytes; // of a file
};

// Opens a path relative to the root (of file_root_resolve), or an absolute one inside it. Links are
// followed as long as they stay inside. SORA_NOT_FOUND: nothing is there; SORA_MALFORMED: outside,
// with "..", or neither a file nor a folder.
SORA_CHECKED sora_status file_root_open(const char *root, const char *path, struct file_under *file,
                                        struct sora_error *err);
// The bytes that an open file has, malloc'ed and zero-terminated; SORA_LIMIT beyond bytes_max.
// `path` is for the text of an error.
SORA_CHECKED sora_status file_root_read(const struct file_under *file, const char *path,
                                        size_t bytes_max, char **data, size_t *bytes,
                                        struct sora_error *err);
void file_root_close(struct file_under *file);

#endif

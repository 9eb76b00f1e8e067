// SPDX-License-Identifier: Apache-2.0
// The lines of a text file that may be larger than memory: once through in order, and any of them
// again by its place. Plain reads, so that a file that is cut short meanwhile is an error and not
// a fault. One owner at a time.
#ifndef BASE_LINE_FILE_H
#define BASE_LINE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct sha256;

struct line_file {
    int fd; // -1: not open
    char *path;
    size_t line_bytes_max;
    char *buffer; // window of the file, and the line that was read last
    size_t capacity, start, end;
    int64_t offset;     // in the file, of buffer[start]
    int64_t line;       // number of the line that was read last, from 1
    struct sha256 *sha; // over what was read in order; NULL afterwards
};

// A line's place.
struct line_place {
    int64_t offset;
    size_t bytes; // without the newline
};

// A folder, a pipe, a missing file: SORA_IO or SORA_NOT_FOUND with the path.
SORA_CHECKED sora_status line_file_open(const char *path, size_t line_bytes_max,
                                        struct line_file *file, struct sora_error *err);
void line_file_close(struct line_file *file); // accepts what a failed open left
// The next line, valid until the next call; *more false at the end of the file. A line over the
// bound is SORA_LIMIT.
SORA_CHECKED sora_status line_file_next(struct line_file *file, const char **text,
                                        struct line_place *place, bool *more,
                                        struct sora_error *err);
// After the last line: SHA-256 of the whole file.
void line_file_digest(struct line_file *file, char hex[65]);
// A line again; valid until the next call. A file that is now shorter is SORA_IO. Not to be mixed
// with line_file_next.
SORA_CHECKED sora_status line_file_read(struct line_file *file, struct line_place place,
                                        const char **text, struct sora_error *err);

#endif

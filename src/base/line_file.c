// SPDX-License-Identifier: Apache-2.0
// Lines of a file, see line_file.h. One owner at a time.
#include "base/line_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/sha256.h"

enum { READ_BYTES = 256 << 10 };

static sora_status fail_errno(const struct line_file *file, struct sora_error *err)
{
    char reason[128];
    return sora_fail(err, errno == ENOENT || errno == ENOTDIR ? SORA_NOT_FOUND : SORA_IO,
                     "cannot read %s: %s", file->path, strerror_r(errno, reason, sizeof reason));
}

static sora_status check_plain(const struct line_file *file, struct sora_error *err)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return fail_errno(file, err);
    if (S_ISDIR(info.st_mode))
        return sora_fail(err, SORA_IO, "cannot read %s: it is a folder", file->path);
    if (!S_ISREG(info.st_mode))
        return sora_fail(err, SORA_IO,
                         "cannot read %s: it is not a plain file, and is read more "
                         "than once",
                         file->path);
    return SORA_OK;
}

sora_status line_file_open(const char *path, size_t line_bytes_max, struct line_file *file,
                           struct sora_error *err)
{
    *file = (struct line_file){.fd = -1, .line_bytes_max = line_bytes_max};
    file->path = strdup(path);
    file->buffer = malloc(READ_BYTES);
    file->capacity = READ_BYTES;
    if (file->path == NULL || file->buffer == NULL) {
        line_file_close(file);
        return sora_fail(err, SORA_NO_MEMORY, "no memory to read %s", path);
    }
    // O_NONBLOCK keeps a pipe from blocking the open.
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    sora_status status = file->fd >= 0 ? check_plain(file, err) : fail_errno(file, err);
    if (status == SORA_OK)
        status = sha256_create(&file->sha, err);
    if (status != SORA_OK)
        line_file_close(file);
    return status;
}

void line_file_close(struct line_file *file)
{
    if (file->path == NULL) // never opened
        return;
    if (file->fd >= 0)
        close(file->fd);
    sha256_destroy(file->sha);
    free(file->path);
    free(file->buffer);
    *file = (struct line_file){.fd = -1};
}

static sora_status reserve(struct line_file *file, size_t bytes, struct sora_error *err)
{
    if (bytes <= file->capacity)
        return SORA_OK;
    char *memory = realloc(file->buffer, bytes);
    if (memory == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "%s: no memory for a line of %zu bytes", file->path,
                         bytes);
    file->buffer = memory;
    file->capacity = bytes;
    return SORA_OK;
}

// More bytes behind what is there; *got 0 at the end of the file.
static sora_status fill(struct line_file *file, size_t *got, struct sora_error *err)
{
    if (file->start > 0) {
        memmove(file->buffer, file->buffer + file->start, file->end - file->start);
        file->end -= file->start;
        file->start = 0;
    }
    sora_status status = SORA_OK;
    if (file->end == file->capacity)
        status = reserve(file, 2 * file->capacity, err);
    if (status != SORA_OK)
        return status;
    ssize_t bytes;
    do {
        bytes = read(file->fd, file->buffer + file->end, file->capacity - file->end);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0)
        return fail_errno(file, err);
    sha256_update(file->sha, file->buffer + file->end, (size_t)bytes);
    file->end += (size_t)bytes;
    *got = (size_t)bytes;
    return SORA_OK;
}

sora_status line_file_next(struct line_file *file, const char **text, struct line_place *place,
                           bool *more, struct sora_error *err)
{
    ASSERT(file->sha != NULL);
    size_t looked = 0, got = 1;
    char *newline = NULL;
    while (got > 0) {
        const size_t there = file->end - file->start;
        if (there > looked)
            newline = memchr(file->buffer + file->start + looked, '\n', there - looked);
        looked = there;
        if (newline != NULL || there > file->line_bytes_max)
            break;
        const sora_status status = fill(file, &got, err);
        if (status != SORA_OK)
            return status;
    }
    const char *start = file->buffer + file->start;
    const size_t bytes = newline != NULL ? (size_t)(newline - start) : file->end - file->start;
    *more = newline != NULL || bytes > 0;
    if (!*more)
        return SORA_OK;
    file->line++;
    if (bytes > file->line_bytes_max)
        return sora_fail(err, SORA_LIMIT, "the line is longer than %zu bytes",
                         file->line_bytes_max);
    *text = start;
    *place = (struct line_place){file->offset, bytes};
    file->start += bytes + (newline != NULL);
    file->offset += (int64_t)bytes + (newline != NULL);
    return SORA_OK;
}

void line_file_digest(struct line_file *file, char hex[65])
{
    ASSERT(file->sha != NULL);
    sha256_finish(file->sha, hex);
    file->sha = NULL;
    file->start = file->end = 0;
}

sora_status line_file_read(struct line_file *file, struct line_place place, const char **text,
                           struct sora_error *err)
{
    ASSERT(file->sha == NULL && place.bytes <= file->line_bytes_max);
    const sora_status status = reserve(file, place.bytes, err);
    if (status != SORA_OK)
        return status;
    for (size_t done = 0; done < place.bytes;) {
        const ssize_t bytes = pread(file->fd, file->buffer + done, place.bytes - done,
                                    (off_t)(place.offset + (int64_t)done));
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes < 0)
            return fail_errno(file, err);
        if (bytes == 0)
            return sora_fail(err, SORA_IO, "%s became shorter while it was in use", file->path);
        done += (size_t)bytes;
    }
    *text = file->buffer;
    return SORA_OK;
}

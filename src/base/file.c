// SPDX-License-Identifier: Apache-2.0
// Files. Any thread; a mapping has one owner.
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/rng.h"

#define READ_STEP_BYTES ((size_t)64 << 10)
#define TEMPORARY_TRIES 16

// The failure that errno describes.
static sora_status fail_errno(struct sora_error *err, const char *verb, const char *path,
                              int error_number)
{
    sora_status code = SORA_IO;
    if (error_number == ENOENT || error_number == ENOTDIR)
        code = SORA_NOT_FOUND;
    else if (error_number == ENOSPC || error_number == EDQUOT)
        code = SORA_FULL;
    else if (error_number == ENOMEM)
        code = SORA_NO_MEMORY;
    char reason[128];
    return sora_fail(err, code, "cannot %s %s: %s", verb, path,
                     strerror_r(error_number, reason, sizeof reason));
}

// Opens a plain file for reading. O_NONBLOCK keeps a pipe from blocking the open.
static sora_status open_plain(const char *path, int *descriptor, size_t *bytes,
                              struct sora_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return fail_errno(err, "open", path, errno);
    struct stat info;
    sora_status status = SORA_OK;
    if (fstat(fd, &info) != 0)
        status = fail_errno(err, "read", path, errno);
    else if (S_ISDIR(info.st_mode))
        status = sora_fail(err, SORA_IO, "cannot read %s: it is a folder", path);
    else if (!S_ISREG(info.st_mode))
        status = sora_fail(err, SORA_IO, "cannot read %s: it is not a plain file", path);
    if (status != SORA_OK) {
        close(fd);
        return status;
    }
    *descriptor = fd;
    *bytes = (size_t)info.st_size;
    return SORA_OK;
}

sora_status file_map_open(const char *path, struct file_map *map, struct sora_error *err)
{
    int fd = -1;
    size_t bytes = 0;
    *map = (struct file_map){0};
    sora_status status = open_plain(path, &fd, &bytes, err);
    if (status != SORA_OK)
        return status;
    if (bytes > 0) {
        void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            status = fail_errno(err, "map", path, errno);
        else
            *map = (struct file_map){.data = data, .bytes = bytes};
    }
    close(fd);
    return status;
}

void file_map_close(struct file_map *map)
{
    if (map->data != NULL)
        munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (struct file_map){0};
}

void file_map_forget(const struct file_map *map, const void *start, size_t bytes)
{
    // Only whole pages: what shares a page with the part may still be in use.
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)start, last = first + bytes;
    uintptr_t map_first = (uintptr_t)map->data, map_last = map_first + map->bytes;
    if (map->data == NULL || first < map_first || last > map_last || last < first)
        return;
    first = (first + page - 1) & ~(page - 1);
    if (last < map_last)
        last &= ~(page - 1);
    if (first < last)
        (void)madvise((void *)first, last - first, MADV_DONTNEED);
}

// Reads to the end or to bytes_max + 1, whichever comes first; size_hint may be wrong.
static sora_status read_all(int fd, const char *path, size_t size_hint, size_t bytes_max,
                            char **data, size_t *bytes, struct sora_error *err)
{
    size_t used = 0, capacity = size_hint < bytes_max ? size_hint : bytes_max;
    if (!checked_add(capacity, 2, &capacity)) // the byte over the bound, and the zero
        return sora_fail(err, SORA_LIMIT, "%s: %zu bytes is no size to read", path, size_hint);
    char *text = malloc(capacity);
    while (text != NULL) {
        ssize_t got = read(fd, text + used, capacity - used - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int error_number = errno;
            free(text);
            return fail_errno(err, "read", path, error_number);
        }
        used += (size_t)got;
        if (used > bytes_max) {
            free(text);
            return sora_fail(err, SORA_LIMIT, "%s: longer than %zu bytes", path, bytes_max);
        }
        if (got == 0) {
            text[used] = 0;
            *data = text;
            *bytes = used;
            return SORA_OK;
        }
        if (capacity - used > 1)
            continue;
        capacity += READ_STEP_BYTES + capacity / 2;
        char *more = realloc(text, capacity);
        if (more == NULL)
            free(text);
        text = more;
    }
    return sora_fail(err, SORA_NO_MEMORY, "%s: no memory for %zu bytes", path, capacity);
}

sora_status file_read(const char *path, size_t bytes_max, char **data, size_t *bytes,
                      struct sora_error *err)
{
    int fd = -1;
    size_t size_hint = 0;
    sora_status status = open_plain(path, &fd, &size_hint, err);
    if (status != SORA_OK)
        return status;
    if (size_hint > bytes_max)
        status = sora_fail(err, SORA_LIMIT, "%s: %zu bytes exceed the bound of %zu", path,
                           size_hint, bytes_max);
    else
        status = read_all(fd, path, size_hint, bytes_max, data, bytes, err);
    close(fd);
    return status;
}

// The folder a path lies in, malloc'ed: "." for a bare name.
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

// Creates "<path>.<random>.tmp" beside path; the name is malloc'ed.
static sora_status open_temporary(const char *path, char **name, int *fd, struct sora_error *err)
{
    for (int i = 0; i < TEMPORARY_TRIES; ++i) {
        uint64_t id;
        rng_system(&id, sizeof id);
        if (asprintf(name, "%s.%016llx.tmp", path, (unsigned long long)id) < 0) {
            *name = NULL;
            return sora_fail(err, SORA_NO_MEMORY, "no memory to write %s", path);
        }
        *fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (*fd >= 0)
            return SORA_OK;
        int error_number = errno;
        free(*name);
        *name = NULL;
        if (error_number != EEXIST)
            return fail_errno(err, "create a file beside", path, error_number);
    }
    return sora_fail(err, SORA_IO, "cannot find a free name beside %s", path);
}

// All bytes; 0 or the errno.
static int write_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t put = write(fd, at, bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        at += put;
        bytes -= (size_t)put;
    }
    return 0;
}

struct file_stream {
    char *path, *temporary; // temporary: NULL once it is in place
    int fd;
    size_t used;
    char buffer[READ_STEP_BYTES];
};

sora_status file_stream_open(const char *path, struct file_stream **stream, struct sora_error *err)
{
    struct file_stream *opened = calloc(1, sizeof *opened);
    *stream = NULL;
    if (opened == NULL || (opened->path = strdup(path)) == NULL) {
        free(opened);
        return sora_fail(err, SORA_NO_MEMORY, "no memory to write %s", path);
    }
    opened->fd = -1;
    sora_status status = open_temporary(path, &opened->temporary, &opened->fd, err);
    if (status != SORA_OK) {
        file_stream_close(opened);
        return status;
    }
    *stream = opened;
    return SORA_OK;
}

static sora_status flush(struct file_stream *stream, struct sora_error *err)
{
    int error_number = write_all(stream->fd, stream->buffer, stream->used);
    stream->used = 0;
    return error_number == 0 ? SORA_OK : fail_errno(err, "write", stream->path, error_number);
}

sora_status file_stream_write(struct file_stream *stream, const void *data, size_t bytes,
                              struct sora_error *err)
{
    if (bytes > sizeof stream->buffer - stream->used) {
        sora_status status = flush(stream, err);
        if (status != SORA_OK)
            return status;
    }
    if (bytes > sizeof stream->buffer) {
        int error_number = write_all(stream->fd, data, bytes);
        return error_number == 0 ? SORA_OK : fail_errno(err, "write", stream->path, error_number);
    }
    if (bytes > 0)
        memcpy(stream->buffer + stream->used, data, bytes);
    stream->used += bytes;
    return SORA_OK;
}

sora_status file_stream_commit(struct file_stream *stream, struct sora_error *err)
{
    sora_status status = flush(stream, err);
    if (status != SORA_OK)
        return status;
    int error_number = fsync(stream->fd) == 0 ? 0 : errno;
    if (close(stream->fd) != 0 && error_number == 0)
        error_number = errno;
    stream->fd = -1;
    if (error_number == 0 && rename(stream->temporary, stream->path) != 0)
        error_number = errno;
    if (error_number != 0)
        return fail_errno(err, "write", stream->path, error_number);
    free(stream->temporary);
    stream->temporary = NULL;
    char *folder = folder_of(stream->path);
    if (folder == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to write %s", stream->path);
    status = file_sync_folder(folder, err);
    free(folder);
    return status;
}

void file_stream_close(struct file_stream *stream)
{
    if (stream == NULL)
        return;
    if (stream->fd >= 0)
        close(stream->fd);
    if (stream->temporary != NULL)
        unlink(stream->temporary);
    free(stream->temporary);
    free(stream->path);
    free(stream);
}

sora_status file_create(const char *path, int *fd, struct sora_error *err)
{
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return *fd >= 0 ? SORA_OK : fail_errno(err, "create", path, errno);
}

sora_status file_append(int fd, const char *path, const void *data, size_t bytes,
                        struct sora_error *err)
{
    int error_number = write_all(fd, data, bytes);
    return error_number == 0 ? SORA_OK : fail_errno(err, "write", path, error_number);
}

sora_status file_sync(int fd, const char *path, struct sora_error *err)
{
    return fsync(fd) == 0 ? SORA_OK : fail_errno(err, "write", path, errno);
}

sora_status file_rename(const char *from, const char *to, struct sora_error *err)
{
    char *folder = folder_of(to);
    if (folder == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to rename %s", from);
    sora_status status = SORA_OK;
    if (rename(from, to) != 0)
        status = fail_errno(err, "rename a file to", to, errno);
    if (status == SORA_OK)
        status = file_sync_folder(folder, err);
    free(folder);
    return status;
}

sora_status file_write_atomic(const char *path, const void *data, size_t bytes,
                              struct sora_error *err)
{
    struct file_stream *stream = NULL;
    sora_status status = file_stream_open(path, &stream, err);
    if (status == SORA_OK)
        status = file_stream_write(stream, data, bytes, err);
    if (status == SORA_OK)
        status = file_stream_commit(stream, err);
    file_stream_close(stream);
    return status;
}

sora_status file_make_folder(const char *path, struct sora_error *err)
{
    char *part = strdup(path);
    if (part == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to make folder %s", path);
    sora_status status = SORA_OK;
    for (char *at = part; status == SORA_OK && *at != 0;) {
        at += strspn(at, "/");
        at += strcspn(at, "/");
        char kept = *at;
        *at = 0;
        if (part[0] != 0 && mkdir(part, 0755) != 0 && errno != EEXIST)
            status = fail_errno(err, "make folder", path, errno);
        *at = kept;
    }
    if (status == SORA_OK && !file_is_folder(path))
        status = sora_fail(err, SORA_IO, "cannot make folder %s: the name is taken", path);
    free(part);
    return status;
}

sora_status file_sync_folder(const char *path, struct sora_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(err, "open folder", path, errno);
    // Some file systems have no fsync of a folder; they say EINVAL.
    int error_number = fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
    close(fd);
    return error_number == 0 ? SORA_OK : fail_errno(err, "sync folder", path, error_number);
}

bool file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool file_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

char *file_join(const char *folder, const char *name)
{
    size_t length = strlen(folder);
    const char *between = length > 0 && folder[length - 1] == '/' ? "" : "/";
    char *path = NULL;
    return asprintf(&path, "%s%s%s", folder, between, name) >= 0 ? path : NULL;
}

void file_stem(const char *path, char *out, size_t out_bytes)
{
    size_t end = strlen(path);
    while (end > 0 && path[end - 1] == '/')
        --end;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        --start;
    size_t dot = end;
    while (dot > start && path[dot - 1] != '.')
        --dot;
    // ".hidden" keeps its name.
    if (dot > start + 1)
        end = dot - 1;
    snprintf(out, out_bytes, "%.*s", (int)(end - start), path + start);
}

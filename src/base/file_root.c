// SPDX-License-Identifier: Apache-2.0
// See file_root.h. A path is first resolved, then opened again link by link from the root, this
// time following none: a link that is put there in between makes that fail.
#include "base/file_root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sora_status fail_open(struct sora_error *err, const char *path, int number)
{
    bool missing = number == ENOENT || number == ENOTDIR;
    return sora_fail(err, missing ? SORA_NOT_FOUND : SORA_IO, "cannot open %.300s: %s", path,
                     strerror(number));
}

static sora_status outside(struct sora_error *err, const char *path)
{
    return sora_fail(err, SORA_MALFORMED, "%.300s: is not inside the root folder", path);
}

sora_status file_root_resolve(const char *folder, char **root, struct sora_error *err)
{
    struct stat info;
    *root = realpath(folder, NULL);
    if (*root == NULL)
        return fail_open(err, folder, errno);
    if (stat(*root, &info) == 0 && S_ISDIR(info.st_mode))
        return SORA_OK;
    free(*root);
    *root = NULL;
    return sora_fail(err, SORA_NOT_FOUND, "%.300s: is not a folder", folder);
}

static bool has_parent_step(const char *path)
{
    while (*path != '\0') {
        size_t bytes = strcspn(path, "/");
        if (bytes == 2 && path[0] == '.' && path[1] == '.')
            return true;
        path += bytes;
        path += strspn(path, "/");
    }
    return false;
}

// What follows the root and its slash; "" for the root itself, NULL when the path is elsewhere.
static const char *below(const char *root, const char *path)
{
    size_t bytes = strlen(root);
    if (strcmp(root, "/") == 0)
        return path[0] == '/' ? path + 1 : NULL;
    if (strncmp(path, root, bytes) != 0 || (path[bytes] != '/' && path[bytes] != '\0'))
        return NULL;
    return path[bytes] == '/' ? path + bytes + 1 : path + bytes;
}

// Opens one step, following no link and waiting for nobody. Devices and pipes are not even opened.
static int open_step(int parent, const char *name, int flags)
{
    struct stat info;
    if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return -1;
    if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode)) {
        errno = S_ISLNK(info.st_mode) ? ELOOP : EINVAL;
        return -1;
    }
    return openat(parent, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

// Walks the steps of `rest`, which has no links, down from the root.
static int open_below(const char *root, char *rest)
{
    char *place = NULL;
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (char *step = strtok_r(rest, "/", &place); fd >= 0 && step != NULL;) {
        char *next = strtok_r(NULL, "/", &place);
        int inner = open_step(fd, step, O_RDONLY | (next != NULL ? O_DIRECTORY : 0));
        int number = errno;
        close(fd);
        errno = number;
        fd = inner;
        step = next;
    }
    return fd;
}

static sora_status describe(struct file_under *file, const char *path, struct sora_error *err)
{
    struct stat info;
    if (fstat(file->fd, &info) == 0 && (S_ISDIR(info.st_mode) || S_ISREG(info.st_mode))) {
        file->is_folder = S_ISDIR(info.st_mode);
        file->bytes = file->is_folder ? 0 : (size_t)info.st_size;
        return SORA_OK;
    }
    file_root_close(file);
    return sora_fail(err, SORA_MALFORMED, "%.300s: is neither a file nor a folder", path);
}

static sora_status open_resolved(const char *root, const char *path, char *resolved,
                                 struct file_under *file, struct sora_error *err)
{
    const char *rest = below(root, resolved);
    if (rest == NULL)
        return outside(err, path);
    file->fd = open_below(root, resolved + (rest - resolved));
    if (file->fd < 0 && errno == EINVAL)
        return sora_fail(err, SORA_MALFORMED, "%.300s: is neither a file nor a folder", path);
    if (file->fd < 0)
        return fail_open(err, path, errno);
    return describe(file, path, err);
}

sora_status file_root_open(const char *root, const char *path, struct file_under *file,
                           struct sora_error *err)
{
    char whole[PATH_MAX];
    size_t root_bytes = strlen(root), bytes = strlen(path);
    *file = (struct file_under){.fd = -1};
    if (bytes == 0 || root_bytes + 1 + bytes >= sizeof whole)
        return sora_fail(err, SORA_MALFORMED, "a path must have 1 to %zu bytes, found %zu",
                         sizeof whole - root_bytes - 2, bytes);
    if (has_parent_step(path))
        return sora_fail(err, SORA_MALFORMED, "%.300s: \"..\" is not allowed in a path", path);
    if (path[0] == '/' && below(root, path) == NULL)
        return outside(err, path); // without a look whether it is there
    if (path[0] != '/') {
        memcpy(whole, root, root_bytes);
        whole[root_bytes] = '/';
        memcpy(whole + root_bytes + 1, path, bytes + 1);
        path = whole;
    }
    char *resolved = realpath(path, NULL);
    if (resolved == NULL)
        return fail_open(err, path, errno);
    sora_status status = open_resolved(root, path, resolved, file, err);
    free(resolved);
    return status;
}

sora_status file_root_read(const struct file_under *file, const char *path, size_t bytes_max,
                           char **data, size_t *bytes, struct sora_error *err)
{
    *data = NULL;
    *bytes = 0;
    if (file->bytes > bytes_max)
        return sora_fail(err, SORA_LIMIT, "%.300s: %zu bytes are more than the %zu allowed", path,
                         file->bytes, bytes_max);
    char *read_bytes = malloc(file->bytes + 1);
    if (read_bytes == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the %zu bytes of %.300s", file->bytes,
                         path);
    while (*bytes < file->bytes) {
        ssize_t got = read(file->fd, read_bytes + *bytes, file->bytes - *bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int number = errno;
            free(read_bytes);
            *bytes = 0;
            return sora_fail(err, SORA_IO, "cannot read %.300s: %s", path, strerror(number));
        }
        if (got == 0)
            break; // it has become shorter: whoever reads the format will say so
        *bytes += (size_t)got;
    }
    read_bytes[*bytes] = '\0';
    *data = read_bytes;
    return SORA_OK;
}

void file_root_close(struct file_under *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

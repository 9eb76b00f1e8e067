// SPDX-License-Identifier: Apache-2.0
// Temporary folders for tests.
#include "temp_folder.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka.h needs the ones above.
#include <cmocka.h>

#define OPEN_FOLDERS_MAX 16

char *temp_folder_create(void)
{
    const char *parent = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/sora-test-XXXXXX", parent != NULL ? parent : "/tmp") < 0)
        fail_msg("no memory for a path");
    if (mkdtemp(path) == NULL)
        fail_msg("cannot make %s", path);
    return path;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

void temp_folder_remove(char *path)
{
    if (path == NULL)
        return;
    if (nftw(path, remove_one, OPEN_FOLDERS_MAX, FTW_DEPTH | FTW_PHYS) != 0)
        print_error("cannot remove %s\n", path);
    free(path);
}

size_t temp_folder_entries(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL)
        fail_msg("cannot list %s", path);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return count;
}

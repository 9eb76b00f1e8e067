// SPDX-License-Identifier: Apache-2.0
// Plain driver of a fuzz target: feeds it every file of the folders and files on the command line,
// each from a block of exactly its size, so that a sanitizer sees a read behind the end. Fails when
// there is nothing to replay.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    uint8_t *data = malloc(FILE_BYTES_MAX);
    size_t size = data != NULL ? fread(data, 1, FILE_BYTES_MAX, file) : 0;
    int failed = data == NULL || ferror(file);
    fclose(file);
    uint8_t *exact = failed ? NULL : malloc(size > 0 ? size : 1);
    if (exact == NULL) {
        fprintf(stderr, "%s: cannot be read\n", path);
        free(data);
        return 1;
    }
    memcpy(exact, data, size);
    free(data);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

// Files of one folder, not of those below it; adds to *count.
static int replay_folder(const char *path, int *count)
{
    DIR *folder = opendir(path);
    int failures = 0;
    if (folder == NULL) {
        perror(path);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[4096];
        struct stat info;
        int length = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (length >= (int)sizeof name || stat(name, &info) != 0 || !S_ISREG(info.st_mode))
            continue;
        failures += replay_file(name);
        ++*count;
    }
    closedir(folder);
    return failures;
}

int main(int argc, char **argv)
{
    int failures = 0, count = 0;
    for (int i = 1; i < argc; ++i) {
        struct stat info;
        if (stat(argv[i], &info) == 0 && S_ISDIR(info.st_mode)) {
            failures += replay_folder(argv[i], &count);
        } else {
            failures += replay_file(argv[i]);
            ++count;
        }
    }
    printf("%d inputs replayed, %d unreadable\n", count, failures);
    return failures > 0 || count == 0;
}

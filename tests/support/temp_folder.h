// SPDX-License-Identifier: Apache-2.0
// A temporary folder for one test.
#ifndef SUPPORT_TEMP_FOLDER_H
#define SUPPORT_TEMP_FOLDER_H

#include <stddef.h>

// An empty folder of its own (under TMPDIR or /tmp), malloc'ed path. Fails the test when it cannot
// be made.
char *temp_folder_create(void);
// Deletes it with all that is in it and frees the path. Accepts NULL.
void temp_folder_remove(char *path);
// How many entries a folder has.
size_t temp_folder_entries(const char *path);

#endif

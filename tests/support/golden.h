// SPDX-License-Identifier: Apache-2.0
// Reading the golden files of tests/golden. Each call fails the running cmocka test when the file
// is not as it should be.
#ifndef SUPPORT_GOLDEN_H
#define SUPPORT_GOLDEN_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

// path: GOLDEN_DIR "/name.json". Freed with cJSON_Delete.
cJSON *golden_json(const char *path);
// A member that must be there.
const cJSON *golden_member(const cJSON *object, const char *name);
// The numbers of an array, nested arrays flattened in order. *count may be NULL. Freed with free.
float *golden_floats(const cJSON *array, size_t *count);
int32_t *golden_ints(const cJSON *array, size_t *count);

#endif

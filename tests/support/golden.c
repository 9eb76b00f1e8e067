// SPDX-License-Identifier: Apache-2.0
// Golden files for tests.
#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
// cmocka.h needs the ones above.
#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "sora/limits.h"

cJSON *golden_json(const char *path)
{
    struct sora_error err = {0};
    char *text = NULL;
    size_t bytes = 0;
    cJSON *tree = NULL;
    if (file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, &err) != SORA_OK ||
        json_parse(text, bytes, &tree, &err) != SORA_OK)
        fail_msg("%s: %s", path, err.text);
    free(text);
    return tree;
}

const cJSON *golden_member(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (item == NULL)
        fail_msg("golden file: no member %s", name);
    return item;
}

static size_t count_numbers(const cJSON *item)
{
    if (cJSON_IsNumber(item))
        return 1;
    if (!cJSON_IsArray(item))
        fail_msg("golden file: not a number or an array");
    size_t count = 0;
    const cJSON *child;
    cJSON_ArrayForEach(child, item) count += count_numbers(child);
    return count;
}

static double *copy_numbers(const cJSON *item, double *out)
{
    if (cJSON_IsNumber(item)) {
        *out = item->valuedouble;
        return out + 1;
    }
    const cJSON *child;
    cJSON_ArrayForEach(child, item) out = copy_numbers(child, out);
    return out;
}

// The numbers as doubles, at least one item of memory.
static double *numbers_of(const cJSON *array, size_t *count)
{
    *count = count_numbers(array);
    double *numbers = calloc(*count + 1, sizeof *numbers);
    assert_non_null(numbers);
    copy_numbers(array, numbers);
    return numbers;
}

float *golden_floats(const cJSON *array, size_t *count)
{
    size_t items;
    double *numbers = numbers_of(array, &items);
    float *floats = calloc(items + 1, sizeof *floats);
    assert_non_null(floats);
    for (size_t i = 0; i < items; ++i)
        floats[i] = (float)numbers[i];
    free(numbers);
    if (count != NULL)
        *count = items;
    return floats;
}

int32_t *golden_ints(const cJSON *array, size_t *count)
{
    size_t items;
    double *numbers = numbers_of(array, &items);
    int32_t *ints = calloc(items + 1, sizeof *ints);
    assert_non_null(ints);
    for (size_t i = 0; i < items; ++i) {
        ints[i] = (int32_t)numbers[i];
        if (ints[i] != numbers[i])
            fail_msg("golden file: %g is not an int32", numbers[i]);
    }
    free(numbers);
    if (count != NULL)
        *count = items;
    return ints;
}

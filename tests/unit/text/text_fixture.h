// SPDX-License-Identifier: Apache-2.0
// What the tests of src/text share: golden files, the default model, a small vocabulary.
#ifndef TEXT_FIXTURE_H
#define TEXT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "sora/limits.h"
#include "sora/text.h"

#define assert_ok(call)               \
    do {                              \
        if ((call) != SORA_OK)        \
            fail_msg("%s", err.text); \
    } while (0)

// A golden file holds zero bytes, which base/json refuses: they are read as U+E000 and put back by
// fixture_text.
static inline void hide_zeros(char *json)
{
    for (char *at = json; (at = strstr(at, "\\u0000")) != NULL;)
        memcpy(at, "\\ue000", 6);
}

static inline cJSON *fixture_golden(const char *name)
{
    char path[512];
    struct sora_error err = {0};
    char *text;
    size_t bytes;
    cJSON *tree;
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    assert_ok(file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, &err));
    hide_zeros(text);
    assert_ok(json_parse(text, bytes, &tree, &err));
    free(text);
    return tree;
}

// The bytes of a golden string, malloc'ed.
static inline char *fixture_text(const cJSON *item, const char *name, size_t *bytes)
{
    const char *from = cJSON_GetObjectItem(item, name)->valuestring;
    char *text = malloc(strlen(from) + 1);
    *bytes = 0;
    while (*from != 0) {
        bool zero = strncmp(from, "\xee\x80\x80", 3) == 0;
        text[(*bytes)++] = zero ? 0 : *from;
        from += zero ? 3 : 1;
    }
    text[*bytes] = 0;
    return text;
}

// The model of SORA_TEST_MODEL, or NULL after saying that the test is skipped.
static inline const char *fixture_model_path(const char *test)
{
    const char *path = getenv("SORA_TEST_MODEL");
    if (path == NULL)
        print_message("SKIPPED %s: SORA_TEST_MODEL is not set\n", test);
    return path;
}

// Whether tokens are the ids of a JSON array.
static inline bool fixture_same_ids(const cJSON *ids, const int32_t *tokens, int32_t count)
{
    if (cJSON_GetArraySize(ids) != count)
        return false;
    const cJSON *id;
    int32_t i = 0;
    cJSON_ArrayForEach(id, ids)
    {
        if (id->valueint != tokens[i++])
            return false;
    }
    return true;
}

// Whether a text encodes to golden ids.
static inline bool fixture_encodes_to(const sora_tokenizer *tokenizer, const char *text,
                                      size_t bytes, const cJSON *ids)
{
    struct sora_error err = {0};
    int32_t *tokens, count;
    assert_ok(sora_tokenizer_encode(tokenizer, text, bytes, true, false, &tokens, &count, &err));
    bool same = fixture_same_ids(ids, tokens, count);
    free(tokens);
    return same;
}

// Number of the 400 golden texts that a tokenizer does not encode as the reference does.
static inline int fixture_golden_differences(const sora_tokenizer *tokenizer)
{
    cJSON *golden = fixture_golden("tokenizer.json");
    assert_int_equal(cJSON_GetArraySize(golden), 400);
    int differences = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, golden)
    {
        size_t bytes;
        char *text = fixture_text(item, "text", &bytes);
        if (!fixture_encodes_to(tokenizer, text, bytes, cJSON_GetObjectItem(item, "ids"))) {
            if (differences++ < 3)
                print_message("differs: %s\n", text);
        }
        free(text);
    }
    cJSON_Delete(golden);
    return differences;
}

#endif

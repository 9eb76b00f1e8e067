// SPDX-License-Identifier: Apache-2.0
// Fuzz target of json_parse: accepted text must survive printing and parsing again, and the
// accessors must take whatever it holds.
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_members(const cJSON *tree)
{
    static const char *const names[] = {"model", "n", "stream", "temperature", "a"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        struct sora_error err;
        int64_t whole = 1;
        double number = 1;
        bool truth = false;
        const char *text = "";
        if (json_get_int(tree, names[i], -8, 8, &whole, &err) == SORA_OK)
            ASSERT(whole >= -8 && whole <= 8);
        if (json_get_number(tree, names[i], 0, 2, &number, &err) == SORA_OK)
            ASSERT(number >= 0 && number <= 2);
        if (json_get_bool(tree, names[i], &truth, &err) != SORA_OK)
            ASSERT(err.code == SORA_MALFORMED);
        if (json_get_string(tree, names[i], &text, &err) == SORA_OK)
            ASSERT(text != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_error err;
    cJSON *tree = NULL, *again = NULL;
    if (json_parse((const char *)data, size, &tree, &err) != SORA_OK) {
        ASSERT(err.text[0] != 0);
        return 0;
    }
    read_members(tree);
    char *text = cJSON_PrintUnformatted(tree);
    ASSERT(text != NULL);
    sora_status status = json_parse(text, strlen(text), &again, &err);
    ASSERT(status == SORA_OK);
    ASSERT(cJSON_Compare(tree, again, true));
    cJSON_Delete(again);
    cJSON_free(text);
    cJSON_Delete(tree);
    return 0;
}

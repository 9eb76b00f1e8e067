// SPDX-License-Identifier: Apache-2.0
// Arbitrary bytes as the state of a checkpoint. What is accepted must survive being written.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "train/run_state.h"
#include "train/train_identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run_state state, again;
    struct sora_error err;
    char *json;
    char *text = malloc(size + 1);
    ASSERT(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (train_identity_compare(text, "{\"model\":\"a\",\"seed\":\"1\"}", &err) == SORA_OK)
        ASSERT(strstr(text, "seed") != NULL || strchr(text, '\\') != NULL);
    free(text);
    if (run_state_decode((const char *)data, size, &state, &err) != SORA_OK)
        return 0;
    ASSERT(state.step >= 0 && state.steps_done >= 0);
    ASSERT(state.rung_count >= 0 && state.rung_count <= SORA_XI_COUNT_MAX);
    ASSERT(run_state_encode(&state, &json, &err) == SORA_OK);
    ASSERT(run_state_decode(json, strlen(json), &again, &err) == SORA_OK);
    ASSERT(again.step == state.step && again.rung_count == state.rung_count);
    free(json);
    return 0;
}

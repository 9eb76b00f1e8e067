// SPDX-License-Identifier: Apache-2.0
// Fuzz target of safetensors_parse: every view of an accepted file must be readable, and encoding
// it again must give a file with the same tensors.
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Touches every byte and converts what converts.
static void read_tensor(const struct safetensors_tensor *tensor)
{
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < tensor->bytes; ++i)
        sum = (uint8_t)(sum + tensor->data[i]);
    float *values = malloc(tensor->bytes * 2 + 4); // an f16 item becomes four bytes
    ASSERT(values != NULL);
    struct sora_error err;
    if (safetensors_to_f32(tensor, values, &err) != SORA_OK)
        ASSERT(err.code == SORA_UNSUPPORTED);
    free(values);
}

static void encode_again(const struct safetensors *file, const struct safetensors_tensor *tensors)
{
    struct sora_error err;
    struct safetensors *again = NULL;
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    int32_t count = safetensors_count(file);
    sora_status status = safetensors_encode(NULL, 0, tensors, count, &bytes, &byte_count, &err);
    ASSERT(status == SORA_OK);
    status = safetensors_parse(bytes, byte_count, &again, &err);
    ASSERT(status == SORA_OK && safetensors_count(again) == count);
    for (int32_t i = 0; i < count; ++i) {
        const struct safetensors_tensor *copy = safetensors_find(again, tensors[i].name);
        ASSERT(copy != NULL && copy->bytes == tensors[i].bytes);
        ASSERT(copy->bytes == 0 || memcmp(copy->data, tensors[i].data, copy->bytes) == 0);
    }
    safetensors_destroy(again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_error err;
    struct safetensors *file = NULL;
    if (safetensors_parse(data, size, &file, &err) != SORA_OK) {
        ASSERT(err.text[0] != 0);
        return 0;
    }
    int32_t count = safetensors_count(file);
    struct safetensors_tensor *tensors = calloc((size_t)count + 1, sizeof *tensors);
    ASSERT(tensors != NULL);
    for (int32_t i = 0; i < count; ++i) {
        tensors[i] = *safetensors_at(file, i);
        ASSERT(safetensors_find(file, tensors[i].name) == safetensors_at(file, i));
        read_tensor(&tensors[i]);
    }
    (void)safetensors_metadata(file, "format");
    encode_again(file, tensors);
    free(tensors);
    safetensors_destroy(file);
    return 0;
}

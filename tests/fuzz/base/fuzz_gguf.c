// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file: parse, then touch everything that the parser gives out.
#include <stdio.h>
#include <stdlib.h>

#include "base/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(const void *bytes, size_t count)
{
    if (count > 0)
        sink = (uint8_t)(((const uint8_t *)bytes)[0] ^ ((const uint8_t *)bytes)[count - 1]);
}

static void touch_key(const struct gguf *gguf, const char *key)
{
    int64_t whole;
    double number;
    bool flag;
    struct gguf_string text;
    (void)gguf_get_int(gguf, key, &whole);
    (void)gguf_get_number(gguf, key, &number);
    (void)gguf_get_bool(gguf, key, &flag);
    if (gguf_get_string(gguf, key, &text))
        touch(text.data, text.bytes);
    int64_t count = gguf_get_strings(gguf, key);
    if (count > 0) {
        struct gguf_string *texts = malloc((size_t)count * sizeof *texts);
        gguf_copy_strings(gguf, key, texts);
        for (int64_t i = 0; i < count; i++)
            touch(texts[i].data, texts[i].bytes);
        free(texts);
    }
    count = gguf_get_ints(gguf, key);
    if (count > 0) {
        int32_t *values = malloc((size_t)count * sizeof *values);
        gguf_copy_ints(gguf, key, values);
        touch(values, (size_t)count * sizeof *values);
        free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"general.alignment", "a", "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.token_type", "llama.block_count"};
    struct sora_error err;
    struct gguf *gguf;
    if (gguf_parse(data, size, &gguf, &err) != SORA_OK)
        return 0;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        touch_key(gguf, keys[i]);
    for (int32_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)tensor->name.bytes, tensor->name.data);
        (void)gguf_find_tensor(gguf, name);
        if (tensor->data != NULL)
            touch(tensor->data, tensor->bytes);
    }
    gguf_close(gguf);
    return 0;
}

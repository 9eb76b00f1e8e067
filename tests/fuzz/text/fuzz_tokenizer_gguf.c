// SPDX-License-Identifier: Apache-2.0
// Any bytes as the vocabulary of a GGUF file; one that loads must encode and decode.
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct sora_tokenizer *tokenizer)
{
    static const char sample[] = "ab <s>c 12  \n\xc3\xa9\xff it's";
    struct sora_error err;
    int32_t *tokens, count;
    char *text;
    size_t bytes;
    for (int special = 0; special < 2; special++) {
        if (sora_tokenizer_encode(tokenizer, sample, sizeof sample - 1, special, true, &tokens,
                                  &count, &err) != SORA_OK)
            continue;
        if (sora_tokenizer_decode(tokenizer, tokens, count, !special, &text, &bytes, &err) ==
            SORA_OK)
            free(text);
        free(tokens);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_error err;
    struct gguf *gguf;
    if (gguf_parse(data, size, &gguf, &err) != SORA_OK)
        return 0;
    struct sora_tokenizer tokenizer = {0};
    sora_status status = vocab_gguf_load(gguf, &tokenizer, &err);
    gguf_close(gguf);
    if (status == SORA_OK)
        use(&tokenizer);
    vocab_destroy(tokenizer.vocab);
    pretokenizer_destroy(tokenizer.pretokenizer);
    return 0;
}

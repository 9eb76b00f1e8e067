// SPDX-License-Identifier: Apache-2.0
// Any bytes as a Hugging Face vocabulary. Zero bytes separate tokenizer.json,
// tokenizer_config.json, generation_config.json and a text; what loads must encode the text, or its
// own JSON without one.
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// The part before the next zero byte; moves *at behind it.
static const char *next_part(const char **at, const char *end, size_t *bytes)
{
    const char *start = *at;
    if (start == end)
        return NULL;
    const char *zero = memchr(start, 0, (size_t)(end - start));
    *bytes = (size_t)((zero != NULL ? zero : end) - start);
    *at = zero != NULL ? zero + 1 : end;
    return start;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_error err;
    struct vocab_hf_files files = {0};
    const char *at = (const char *)data, *end = at + size;
    files.tokenizer = next_part(&at, end, &files.tokenizer_bytes);
    files.tokenizer_config = next_part(&at, end, &files.tokenizer_config_bytes);
    files.generation_config = next_part(&at, end, &files.generation_config_bytes);
    const char *text = at < end ? at : files.tokenizer;
    size_t text_bytes = at < end ? (size_t)(end - at) : files.tokenizer_bytes;
    struct sora_tokenizer tokenizer = {0};
    int32_t *tokens, count;
    if (vocab_hf_parse(&files, &tokenizer, &err) == SORA_OK &&
        sora_tokenizer_encode(&tokenizer, text, text_bytes, true, true, &tokens, &count, &err) ==
            SORA_OK) {
        char *decoded;
        size_t bytes;
        if (sora_tokenizer_decode(&tokenizer, tokens, count, false, &decoded, &bytes, &err) ==
            SORA_OK)
            free(decoded);
        free(tokens);
    }
    vocab_destroy(tokenizer.vocab);
    pretokenizer_destroy(tokenizer.pretokenizer);
    return 0;
}

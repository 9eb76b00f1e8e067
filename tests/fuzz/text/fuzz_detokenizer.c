// SPDX-License-Identifier: Apache-2.0
// Any bytes through encode and back. The vocabulary has every byte, so the pieces of the tokens
// must join to the input; what the detokenizer gives out must be valid UTF-8, token by token, and
// join to what decode gives. The same bytes are then tried as token ids.
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TOKENS 262

// GPT-2's code point of a byte, as UTF-8.
static size_t put_code_point(int byte, char out[4])
{
    uint32_t code = (uint32_t)byte;
    if (byte < 33)
        code = 256 + (uint32_t)byte;
    else if (byte >= 127 && byte < 161)
        code = 256 + 33 + (uint32_t)byte - 127;
    else if (byte == 173)
        code = 256 + 67;
    return utf8_encode(code, out);
}

static const struct sora_tokenizer *tokenizer_of_bytes(void)
{
    static struct sora_tokenizer tokenizer;
    static const char *const more[] = {"ab", "abc", "\xc4\xa0\xc4\xa0", "\xc3\xa3\xc4\x83"};
    if (tokenizer.vocab != NULL)
        return &tokenizer;
    struct sora_error err;
    ASSERT(vocab_create(TOKENS, &tokenizer.vocab, &err) == SORA_OK);
    struct vocab *vocab = tokenizer.vocab;
    for (int byte = 0; byte < 256; byte++) {
        char text[4];
        size_t bytes = put_code_point(byte, text);
        ASSERT(vocab_set_token(vocab, byte, text, bytes, VOCAB_NORMAL, &err) == SORA_OK);
    }
    for (int i = 0; i < 4; i++)
        ASSERT(vocab_set_token(vocab, 256 + i, more[i], strlen(more[i]), VOCAB_NORMAL, &err) ==
               SORA_OK);
    ASSERT(vocab_set_token(vocab, 260, "<s>", 3, VOCAB_CONTROL, &err) == SORA_OK);
    ASSERT(vocab_set_token(vocab, 261, "<user>", 6, VOCAB_USER, &err) == SORA_OK);
    ASSERT(vocab_index(vocab, 4, &err) == SORA_OK);
    static const char *const merges[] = {"a b", "ab c", "\xc4\xa0 \xc4\xa0", "\xc3\xa3 \xc4\x83"};
    for (int i = 0; i < 4; i++)
        ASSERT(vocab_add_merge_line(vocab, merges[i], strlen(merges[i]), i));
    const struct pretokenize_preset *preset = pretokenize_find_preset("llama-bpe", 9);
    ASSERT(pretokenizer_create(preset->patterns, 1, &tokenizer.pretokenizer, &err) == SORA_OK);
    return &tokenizer;
}

static void check_pieces(const struct sora_tokenizer *tokenizer, const int32_t *tokens,
                         int32_t count, const uint8_t *data, size_t size)
{
    size_t pos = 0;
    for (int32_t i = 0; i < count; i++) {
        size_t bytes;
        const char *piece = sora_tokenizer_piece(tokenizer, tokens[i], &bytes);
        ASSERT(bytes <= size - pos && memcmp(piece, data + pos, bytes) == 0);
        pos += bytes;
    }
    ASSERT(pos == size);
}

static void check_stream(const struct sora_tokenizer *tokenizer, const int32_t *tokens,
                         int32_t count, bool skip_special)
{
    struct sora_error err;
    char *text;
    size_t text_bytes, pos = 0;
    sora_detokenizer *detokenizer;
    ASSERT(sora_tokenizer_decode(tokenizer, tokens, count, skip_special, &text, &text_bytes,
                                 &err) == SORA_OK);
    ASSERT(utf8_valid(text, text_bytes));
    ASSERT(sora_detokenizer_create(tokenizer, skip_special, &detokenizer, &err) == SORA_OK);
    for (int32_t i = 0; i <= count; i++) {
        size_t bytes;
        const char *piece = i < count ? sora_detokenizer_push(detokenizer, tokens[i], &bytes)
                                      : sora_detokenizer_flush(detokenizer, &bytes);
        ASSERT(utf8_valid(piece, bytes));
        ASSERT(bytes <= text_bytes - pos && memcmp(piece, text + pos, bytes) == 0);
        pos += bytes;
    }
    ASSERT(pos == text_bytes);
    sora_detokenizer_destroy(detokenizer);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct sora_tokenizer *tokenizer = tokenizer_of_bytes();
    struct sora_error err;
    int32_t *tokens, count;
    for (int special = 0; special < 2; special++) {
        if (sora_tokenizer_encode(tokenizer, (const char *)data, size, special, false, &tokens,
                                  &count, &err) != SORA_OK)
            return 0;
        check_pieces(tokenizer, tokens, count, data, size);
        check_stream(tokenizer, tokens, count, false);
        free(tokens);
    }
    count = (int32_t)(size / 2);
    tokens = malloc(((size_t)count + 1) * sizeof *tokens);
    for (int32_t i = 0; i < count; i++)
        tokens[i] = data[2 * i] | (data[2 * i + 1] % 2) << 8; // some are beyond the vocabulary
    check_stream(tokenizer, tokens, count, size % 4 < 2);
    free(tokens);
    return 0;
}

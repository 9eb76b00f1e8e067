// SPDX-License-Identifier: Apache-2.0
// The public tokenizer: opens a vocabulary, encodes (added tokens, then words, then BPE), decodes.
// A tokenizer is read-only and shared by threads; all state of a call is its own.
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/file.h"
#include "base/utf8.h"
#include "sora/limits.h"
#include "text/bpe.h"
#include "text/utf8_stream.h"

// Loads from a folder or a GGUF file. *found is false, with SORA_OK, when there is no vocabulary.
static sora_status load(const char *path, struct sora_tokenizer *tokenizer, bool *found,
                        struct sora_error *err)
{
    *found = true;
    struct gguf *gguf = NULL;
    sora_status status = SORA_OK;
    if (file_is_folder(path)) {
        status = vocab_hf_load(path, tokenizer, err);
    } else {
        status = gguf_open(path, &gguf, err);
        if (status != SORA_OK)
            return status;
        status = vocab_gguf_load(gguf, tokenizer, err);
        gguf_close(gguf);
    }
    if (status != SORA_NOT_FOUND)
        return status;
    *found = false;
    return SORA_OK;
}

sora_status sora_tokenizer_open(const char *model_path, sora_tokenizer **tokenizer,
                                struct sora_error *err)
{
    *tokenizer = NULL;
    struct sora_tokenizer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tokenizer");
    bool found;
    sora_status status = load(model_path, made, &found, err);
    if (status != SORA_OK || !found) {
        sora_tokenizer_close(made);
        return status;
    }
    *tokenizer = made;
    return SORA_OK;
}

void sora_tokenizer_close(sora_tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    vocab_destroy(tokenizer->vocab);
    pretokenizer_destroy(tokenizer->pretokenizer);
    free(tokenizer);
}

int32_t sora_tokenizer_vocab_size(const sora_tokenizer *tokenizer)
{
    return tokenizer->vocab->token_count;
}

int32_t sora_tokenizer_bos(const sora_tokenizer *tokenizer)
{
    return tokenizer->vocab->bos;
}

int32_t sora_tokenizer_eos(const sora_tokenizer *tokenizer)
{
    return tokenizer->vocab->eos;
}

bool sora_tokenizer_adds_bos(const sora_tokenizer *tokenizer)
{
    return tokenizer->vocab->adds_bos;
}

bool sora_tokenizer_is_end(const sora_tokenizer *tokenizer, int32_t token)
{
    const struct vocab *vocab = tokenizer->vocab;
    return token >= 0 && token < vocab->token_count && vocab->tokens[token].ends;
}

bool sora_tokenizer_is_special(const sora_tokenizer *tokenizer, int32_t token)
{
    const struct vocab *vocab = tokenizer->vocab;
    if (token < 0 || token >= vocab->token_count)
        return false;
    return vocab->tokens[token].kind == VOCAB_CONTROL || vocab->tokens[token].kind == VOCAB_UNKNOWN;
}

const char *sora_tokenizer_piece(const sora_tokenizer *tokenizer, int32_t token, size_t *bytes)
{
    return vocab_bytes(tokenizer->vocab, token, bytes);
}

struct encode_call {
    const struct sora_tokenizer *tokenizer;
    struct bpe_scratch scratch;
    struct token_list tokens;
};

static sora_status encode_word(void *context, const char *word, size_t bytes,
                               struct sora_error *err)
{
    struct encode_call *call = context;
    return bpe_encode_word(call->tokenizer->vocab, &call->scratch, word, bytes, &call->tokens, err);
}

static bool is_ascii(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)text[i] >= 0x80)
            return false;
    }
    return true;
}

// A stretch of text without added tokens. What is not UTF-8 is not normalized.
static sora_status encode_plain(struct encode_call *call, const char *text, size_t bytes,
                                struct sora_error *err)
{
    const struct sora_tokenizer *tokenizer = call->tokenizer;
    if (bytes == 0)
        return SORA_OK;
    utf8proc_uint8_t *normal = NULL;
    if (tokenizer->vocab->normalizes_nfc && !is_ascii(text, bytes) && utf8_valid(text, bytes)) {
        utf8proc_ssize_t count =
            utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &normal,
                         UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (count < 0)
            return sora_fail(err, count == UTF8PROC_ERROR_NOMEM ? SORA_NO_MEMORY : SORA_MALFORMED,
                             "normalization: %s", utf8proc_errmsg(count));
        text = (const char *)normal;
        bytes = (size_t)count;
    }
    sora_status status =
        pretokenizer_split(tokenizer->pretokenizer, text, bytes, encode_word, call, err);
    free(normal);
    return status;
}

// Cuts the text at the added tokens that it contains, leftmost first and then longest.
static sora_status encode_text(struct encode_call *call, const char *text, size_t bytes,
                               bool parse_special, struct sora_error *err)
{
    const struct vocab *vocab = call->tokenizer->vocab;
    const struct vocab_added *added = parse_special ? &vocab->added : &vocab->user_added;
    size_t plain_start = 0, pos = 0;
    while (added->count > 0 && pos < bytes) {
        int32_t id = vocab_match_added(vocab, added, text + pos, bytes - pos);
        if (id < 0) {
            pos++;
            continue;
        }
        sora_status status = encode_plain(call, text + plain_start, pos - plain_start, err);
        if (status == SORA_OK)
            status = token_list_push(&call->tokens, id, err);
        if (status != SORA_OK)
            return status;
        pos += vocab->tokens[id].byte_count;
        plain_start = pos;
    }
    return encode_plain(call, text + plain_start, bytes - plain_start, err);
}

sora_status sora_tokenizer_encode(const sora_tokenizer *tokenizer, const char *text,
                                  size_t text_bytes, bool parse_special, bool add_bos,
                                  int32_t **tokens, int32_t *token_count, struct sora_error *err)
{
    *tokens = NULL;
    *token_count = 0;
    if (text_bytes > SORA_TEXT_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "text of %zu bytes exceeds %u", text_bytes,
                         SORA_TEXT_BYTES_MAX);
    struct encode_call call = {.tokenizer = tokenizer};
    // An empty text gives memory too, so that NULL always means failure.
    call.tokens.capacity = 16;
    call.tokens.ids = calloc((size_t)call.tokens.capacity, sizeof *call.tokens.ids);
    if (call.tokens.ids == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tokens of a text");
    sora_status status = SORA_OK;
    if (add_bos && tokenizer->vocab->bos >= 0)
        status = token_list_push(&call.tokens, tokenizer->vocab->bos, err);
    if (status == SORA_OK)
        status = encode_text(&call, text, text_bytes, parse_special, err);
    bpe_scratch_deinit(&call.scratch);
    if (status != SORA_OK) {
        free(call.tokens.ids);
        return status;
    }
    *tokens = call.tokens.ids;
    *token_count = call.tokens.count;
    return SORA_OK;
}

struct sora_detokenizer {
    const struct sora_tokenizer *tokenizer;
    bool skip_special;
    struct utf8_stream stream;
    char *out; // [UTF8_STREAM_ROOM(longest token)]
};

sora_status sora_detokenizer_create(const sora_tokenizer *tokenizer, bool skip_special,
                                    sora_detokenizer **detokenizer, struct sora_error *err)
{
    *detokenizer = NULL;
    struct sora_detokenizer *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->out = malloc(UTF8_STREAM_ROOM(tokenizer->vocab->longest_bytes));
    if (made == NULL || made->out == NULL) {
        free(made);
        return sora_fail(err, SORA_NO_MEMORY, "detokenizer");
    }
    made->tokenizer = tokenizer;
    made->skip_special = skip_special;
    *detokenizer = made;
    return SORA_OK;
}

void sora_detokenizer_destroy(sora_detokenizer *detokenizer)
{
    if (detokenizer == NULL)
        return;
    free(detokenizer->out);
    free(detokenizer);
}

const char *sora_detokenizer_push(sora_detokenizer *detokenizer, int32_t token, size_t *bytes)
{
    const struct sora_tokenizer *tokenizer = detokenizer->tokenizer;
    size_t piece_bytes = 0;
    const char *piece = "";
    if (!detokenizer->skip_special || !sora_tokenizer_is_special(tokenizer, token))
        piece = sora_tokenizer_piece(tokenizer, token, &piece_bytes);
    *bytes = utf8_stream_push(&detokenizer->stream, piece, piece_bytes, detokenizer->out);
    return detokenizer->out;
}

const char *sora_detokenizer_flush(sora_detokenizer *detokenizer, size_t *bytes)
{
    *bytes = utf8_stream_finish(&detokenizer->stream, detokenizer->out);
    return detokenizer->out;
}

sora_status sora_tokenizer_decode(const sora_tokenizer *tokenizer, const int32_t *tokens,
                                  int32_t token_count, bool skip_special, char **text,
                                  size_t *text_bytes, struct sora_error *err)
{
    *text = NULL;
    *text_bytes = 0;
    sora_detokenizer *detokenizer;
    sora_status status = sora_detokenizer_create(tokenizer, skip_special, &detokenizer, err);
    if (status != SORA_OK)
        return status;
    struct buf out;
    buf_init(&out, SORA_TEXT_BYTES_MAX);
    size_t bytes;
    for (int32_t i = 0; i < token_count; i++) {
        const char *piece = sora_detokenizer_push(detokenizer, tokens[i], &bytes);
        buf_append(&out, piece, bytes);
    }
    const char *rest = sora_detokenizer_flush(detokenizer, &bytes);
    buf_append(&out, rest, bytes);
    status = buf_status(&out, err);
    if (status == SORA_OK) {
        *text = buf_take(&out, text_bytes);
        if (*text == NULL)
            status = sora_fail(err, SORA_NO_MEMORY, "text of %d tokens", token_count);
    }
    buf_deinit(&out);
    sora_detokenizer_destroy(detokenizer);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// The vocabulary in a GGUF file's metadata (tokenizer.ggml.*). Called once per model by the thread
// that opens the tokenizer.
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

#define GGUF_TOKENS "tokenizer.ggml.tokens"
#define GGUF_TYPES "tokenizer.ggml.token_type"
#define GGUF_MERGES "tokenizer.ggml.merges"

static int shown_bytes(struct gguf_string text)
{
    return text.bytes < 80 ? (int)text.bytes : 80;
}

static bool string_is(struct gguf_string string, const char *text)
{
    return string.bytes == strlen(text) && memcmp(string.data, text, string.bytes) == 0;
}

static sora_status load_tokens(const struct gguf *gguf, struct vocab *vocab, struct sora_error *err)
{
    sora_status status = SORA_OK;
    size_t count = (size_t)vocab->token_count;
    struct gguf_string *texts = calloc(count, sizeof *texts);
    int32_t *kinds = calloc(count, sizeof *kinds);
    if (texts == NULL || kinds == NULL) {
        status = sora_fail(err, SORA_NO_MEMORY, "tokenizer: tokens");
        goto done;
    }
    gguf_copy_strings(gguf, GGUF_TOKENS, texts);
    int64_t kind_count = gguf_get_ints(gguf, GGUF_TYPES);
    if (kind_count >= 0 && kind_count != vocab->token_count) {
        status = sora_fail(err, SORA_MALFORMED, "tokenizer: %lld token types for %d tokens",
                           (long long)kind_count, vocab->token_count);
        goto done;
    }
    if (kind_count >= 0)
        gguf_copy_ints(gguf, GGUF_TYPES, kinds);
    for (int32_t i = 0; status == SORA_OK && i < vocab->token_count; i++) {
        int32_t kind = kind_count >= 0 ? kinds[i] : VOCAB_NORMAL;
        if (kind < VOCAB_NORMAL || kind > VOCAB_BYTE)
            status =
                sora_fail(err, SORA_MALFORMED, "tokenizer: token %d has unknown type %d", i, kind);
        else
            status = vocab_set_token(vocab, i, texts[i].data, texts[i].bytes, (enum vocab_kind)kind,
                                     err);
    }
done:
    free(texts);
    free(kinds);
    return status;
}

static sora_status load_merges(const struct gguf *gguf, struct vocab *vocab, int64_t count,
                               struct sora_error *err)
{
    struct gguf_string *lines = calloc((size_t)count + 1, sizeof *lines);
    if (lines == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tokenizer: merges");
    sora_status status = SORA_OK;
    gguf_copy_strings(gguf, GGUF_MERGES, lines);
    for (int64_t i = 0; status == SORA_OK && i < count; i++) {
        if (!vocab_add_merge_line(vocab, lines[i].data, lines[i].bytes, (int32_t)i))
            status =
                sora_fail(err, SORA_MALFORMED,
                          "tokenizer: merge %lld (%.*s) is not of two tokens that give a token",
                          (long long)i, shown_bytes(lines[i]), lines[i].data);
    }
    free(lines);
    return status;
}

// A token id of the metadata; -1 when absent.
static sora_status load_id(const struct gguf *gguf, const struct vocab *vocab, const char *key,
                           int32_t *id, struct sora_error *err)
{
    int64_t value;
    *id = -1;
    if (!gguf_get_int(gguf, key, &value))
        return SORA_OK;
    if (value < 0 || value >= vocab->token_count)
        return sora_fail(err, SORA_MALFORMED, "%s: %lld is not in [0, %d)", key, (long long)value,
                         vocab->token_count);
    *id = (int32_t)value;
    return SORA_OK;
}

static sora_status load_ids(const struct gguf *gguf, struct vocab *vocab, struct sora_error *err)
{
    static const char *const ends[] = {"tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    sora_status status = load_id(gguf, vocab, "tokenizer.ggml.bos_token_id", &vocab->bos, err);
    if (status == SORA_OK)
        status = load_id(gguf, vocab, "tokenizer.ggml.eos_token_id", &vocab->eos, err);
    for (size_t i = 0; status == SORA_OK && i < sizeof ends / sizeof ends[0]; i++) {
        int32_t id;
        status = load_id(gguf, vocab, ends[i], &id, err);
        if (status == SORA_OK && id >= 0)
            vocab->tokens[id].ends = true;
    }
    return status;
}

static sora_status load_preset(const struct gguf *gguf, struct sora_tokenizer *tokenizer,
                               struct sora_error *err)
{
    struct gguf_string name = {"", 0};
    (void)gguf_get_string(gguf, "tokenizer.ggml.pre", &name);
    const struct pretokenize_preset *preset = pretokenize_find_preset(name.data, name.bytes);
    if (preset == NULL)
        return sora_fail(err, SORA_UNSUPPORTED, "tokenizer.ggml.pre \"%.*s\" is none of: %s",
                         shown_bytes(name), name.data, pretokenize_preset_names());
    int32_t count = 0;
    while (preset->patterns[count] != NULL)
        count++;
    struct vocab *vocab = tokenizer->vocab;
    vocab->ignores_merges = preset->ignores_merges;
    vocab->normalizes_nfc = preset->normalizes_nfc;
    vocab->adds_bos = preset->adds_bos;
    (void)gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &vocab->adds_bos);
    return pretokenizer_create(preset->patterns, count, &tokenizer->pretokenizer, err);
}

sora_status vocab_gguf_load(const struct gguf *gguf, struct sora_tokenizer *tokenizer,
                            struct sora_error *err)
{
    struct gguf_string model, chat;
    if (!gguf_get_string(gguf, "tokenizer.ggml.model", &model) || string_is(model, "no_vocab") ||
        string_is(model, "none"))
        return sora_fail(err, SORA_NOT_FOUND, "the file has no vocabulary");
    if (!string_is(model, "gpt2"))
        return sora_fail(err, SORA_UNSUPPORTED,
                         "tokenizer.ggml.model \"%.*s\": only gpt2 (byte-level BPE) is supported",
                         shown_bytes(model), model.data);
    int64_t token_count = gguf_get_strings(gguf, GGUF_TOKENS);
    int64_t merge_count = gguf_get_strings(gguf, GGUF_MERGES);
    if (token_count < 0 || merge_count < 0)
        return sora_fail(err, SORA_MALFORMED, "%s is missing or no array of strings",
                         token_count < 0 ? GGUF_TOKENS : GGUF_MERGES);
    sora_status status = vocab_create(token_count, &tokenizer->vocab, err);
    if (status == SORA_OK)
        status = load_tokens(gguf, tokenizer->vocab, err);
    if (status == SORA_OK)
        status = vocab_index(tokenizer->vocab, merge_count, err);
    if (status == SORA_OK)
        status = load_merges(gguf, tokenizer->vocab, merge_count, err);
    if (status == SORA_OK)
        status = load_ids(gguf, tokenizer->vocab, err);
    if (status == SORA_OK)
        status = load_preset(gguf, tokenizer, err);
    if (status != SORA_OK)
        return status;
    vocab_mark_ends(tokenizer->vocab);
    tokenizer->chat = CHAT_NONE;
    if (gguf_get_string(gguf, "tokenizer.chat_template", &chat))
        tokenizer->chat = chat_template_recognise(chat.data, chat.bytes);
    return SORA_OK;
}

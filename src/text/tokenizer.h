// SPDX-License-Identifier: Apache-2.0
// Inside of a sora_tokenizer, for the loaders and the chat templates. Immutable once opened.
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "base/gguf.h"
#include "sora/text.h"
#include "text/pretokenize.h"
#include "text/vocab.h"

enum chat_kind {
    CHAT_NONE,    // the model brings no template
    CHAT_UNKNOWN, // it brings one that we do not understand
    CHAT_SMOLLM,
    CHAT_CHATML
};

struct sora_tokenizer {
    struct vocab *vocab;
    struct pretokenizer *pretokenizer;
    enum chat_kind chat;
};

// Which known template this is, up to space inside of tags and the way newlines are written.
enum chat_kind chat_template_recognise(const char *text, size_t bytes);

// Loaders fill a zeroed tokenizer; on failure what they made is freed by sora_tokenizer_close.
// The vocabulary of a GGUF file; SORA_NOT_FOUND when it has none.
SORA_CHECKED sora_status vocab_gguf_load(const struct gguf *gguf, struct sora_tokenizer *tokenizer,
                                         struct sora_error *err);
// The vocabulary in a folder; SORA_NOT_FOUND when there is no tokenizer.json.
SORA_CHECKED sora_status vocab_hf_load(const char *folder, struct sora_tokenizer *tokenizer,
                                       struct sora_error *err);
// The texts of the files in such a folder; all but `tokenizer` may be NULL.
struct vocab_hf_files {
    const char *tokenizer;
    size_t tokenizer_bytes;
    const char *tokenizer_config;
    size_t tokenizer_config_bytes;
    const char *generation_config;
    size_t generation_config_bytes;
    const char *config;
    size_t config_bytes;
    const char *chat_template;
    size_t chat_template_bytes;
};
SORA_CHECKED sora_status vocab_hf_parse(const struct vocab_hf_files *files,
                                        struct sora_tokenizer *tokenizer, struct sora_error *err);

#endif

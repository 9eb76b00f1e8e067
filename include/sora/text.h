// SPDX-License-Identifier: Apache-2.0
// Text to tokens and back. A sora_tokenizer is immutable once opened: any thread may use it. A
// sora_detokenizer belongs to one request. Text is UTF-8; invalid bytes are tokenized as bytes.
#ifndef SORA_TEXT_H
#define SORA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

typedef struct sora_tokenizer sora_tokenizer;
typedef struct sora_detokenizer sora_detokenizer;

// Opens the vocabulary of a model: a .gguf file, or a folder with tokenizer.json. A model that
// has none is no error: *tokenizer becomes NULL.
SORA_CHECKED sora_status sora_tokenizer_open(const char *model_path, sora_tokenizer **tokenizer,
                                             struct sora_error *err);
void sora_tokenizer_close(sora_tokenizer *tokenizer);

int32_t sora_tokenizer_vocab_size(const sora_tokenizer *tokenizer);
int32_t sora_tokenizer_bos(const sora_tokenizer *tokenizer); // -1: none
int32_t sora_tokenizer_eos(const sora_tokenizer *tokenizer); // -1: none
bool sora_tokenizer_adds_bos(const sora_tokenizer *tokenizer);
// Ends a generation: eos, and end-of-turn tokens such as <|im_end|> and <|endoftext|>.
bool sora_tokenizer_is_end(const sora_tokenizer *tokenizer, int32_t token);
bool sora_tokenizer_is_special(const sora_tokenizer *tokenizer, int32_t token);

// Bytes of one token as they appear in text (not zero-terminated). Special tokens give their own
// text. An unknown id gives 0 bytes.
const char *sora_tokenizer_piece(const sora_tokenizer *tokenizer, int32_t token, size_t *bytes);

// Tokens of a text, in a malloc'ed array that the caller frees. With parse_special, the text of a
// special token becomes that token; without, it is plain text. bos is added only by add_bos.
SORA_CHECKED sora_status sora_tokenizer_encode(const sora_tokenizer *tokenizer, const char *text,
                                               size_t text_bytes, bool parse_special, bool add_bos,
                                               int32_t **tokens, int32_t *token_count,
                                               struct sora_error *err);

// Whole text of tokens, malloc'ed and zero-terminated; broken UTF-8 becomes U+FFFD.
SORA_CHECKED sora_status sora_tokenizer_decode(const sora_tokenizer *tokenizer,
                                               const int32_t *tokens, int32_t token_count,
                                               bool skip_special, char **text, size_t *text_bytes,
                                               struct sora_error *err);

// Incremental detokenization that never gives out half a code point. push returns the bytes that
// became final with this token (possibly none), flush what is left at the end, broken rests as
// U+FFFD. The pointer is valid until the next call on the same detokenizer.
SORA_CHECKED sora_status sora_detokenizer_create(const sora_tokenizer *tokenizer, bool skip_special,
                                                 sora_detokenizer **detokenizer,
                                                 struct sora_error *err);
void sora_detokenizer_destroy(sora_detokenizer *detokenizer);
const char *sora_detokenizer_push(sora_detokenizer *detokenizer, int32_t token, size_t *bytes);
const char *sora_detokenizer_flush(sora_detokenizer *detokenizer, size_t *bytes);

struct sora_message {
    const char *role;    // "system", "user", "assistant"
    const char *content; // UTF-8
};

// The chat text of a conversation. `name` chooses a template ("smollm", "chatml"); NULL takes the
// one that the model's own template is recognised as, and an unknown one is SORA_UNSUPPORTED with
// a text that lists the names and the option to give one with. *text is malloc'ed.
SORA_CHECKED sora_status sora_chat_render(const sora_tokenizer *tokenizer, const char *name,
                                          const struct sora_message *messages,
                                          int32_t message_count, bool add_generation_prompt,
                                          char **text, size_t *text_bytes, struct sora_error *err);

#endif

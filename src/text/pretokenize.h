// SPDX-License-Identifier: Apache-2.0
// Splits text into words (pre-tokens) by regular expressions, before BPE. A pretokenizer is a
// list of stages; each splits the pieces of the one before into its matches and what lies between
// them. Immutable once created; any thread may split.
#ifndef TEXT_PRETOKENIZE_H
#define TEXT_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

#define PRETOKENIZE_STAGES_MAX 8 // real tokenizers have at most three

struct pretokenizer;

// A known way to split, by the name that GGUF has for it.
struct pretokenize_preset {
    const char *name;
    const char *patterns[3];                       // the last ones may be NULL
    bool ignores_merges, adds_bos, normalizes_nfc; // what the name implies besides
};
const struct pretokenize_preset *pretokenize_find_preset(const char *name, size_t bytes);
// "smollm, gpt-2, ..." for error texts.
const char *pretokenize_preset_names(void);

// The pattern of GPT-2 (Hugging Face's ByteLevel with use_regex), and single digits.
extern const char *const pretokenize_gpt2;
extern const char *const pretokenize_digit;
extern const char *const pretokenize_digits; // runs of digits

// patterns: PCRE2, or the exact text of a well-known Hugging Face pattern. Errors:
// SORA_UNSUPPORTED with the place for a pattern that does not compile.
SORA_CHECKED sora_status pretokenizer_create(const char *const *patterns, int32_t pattern_count,
                                             struct pretokenizer **pretokenizer,
                                             struct sora_error *err);
void pretokenizer_destroy(struct pretokenizer *pretokenizer);

typedef sora_status (*pretokenize_word)(void *context, const char *word, size_t bytes,
                                        struct sora_error *err);
// Calls word for every piece in order; the pieces joined are the text. A run of bytes that is not
// UTF-8 is a piece of its own. Stops at the first failure of word.
SORA_CHECKED sora_status pretokenizer_split(const struct pretokenizer *pretokenizer,
                                            const char *text, size_t bytes, pretokenize_word word,
                                            void *context, struct sora_error *err);

#endif

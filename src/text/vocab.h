// SPDX-License-Identifier: Apache-2.0
// The vocabulary of a byte-level BPE tokenizer: tokens as the bytes they stand for, merges as
// pairs of token ids. Built by one thread (create, set_token..., index, add_merge...), immutable
// afterwards. Loaders fill it; bpe, tokenizer and chat_template read it.
#ifndef TEXT_VOCAB_H
#define TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "sora/status.h"

// Numbers are GGUF's token types.
enum vocab_kind {
    VOCAB_NORMAL = 1,
    VOCAB_UNKNOWN = 2,
    VOCAB_CONTROL = 3, // "special": found in text only on request
    VOCAB_USER = 4,    // added, but plain: always found in text
    VOCAB_UNUSED = 5,
    VOCAB_BYTE = 6
};

struct vocab_token {
    size_t offset; // of its bytes in the pool
    uint32_t byte_count;
    uint8_t kind;
    bool ends; // ends a generation
};

struct vocab_merge {
    uint64_t pair; // left id, right id; VOCAB_NO_PAIR in a free slot
    int32_t rank;  // smaller is merged first
    int32_t merged;
};

// Tokens found in text before BPE, sorted by their bytes.
struct vocab_added {
    int32_t *ids;
    int32_t count;
};

struct vocab {
    int32_t token_count;
    struct vocab_token *tokens;
    struct buf pool;
    int32_t *by_bytes; // open addressing; -1 in a free slot
    size_t by_bytes_mask;
    struct vocab_merge *merges; // open addressing
    size_t merges_mask;
    int32_t byte_tokens[256];      // token of each single byte; -1: none
    struct vocab_added added;      // control and user tokens
    struct vocab_added user_added; // user tokens only
    size_t longest_bytes;
    int32_t bos, eos; // -1: none
    int32_t unk;      // stands for a byte without a token; -1: such a byte is left out
    bool adds_bos;
    bool ignores_merges; // a word that is a token is not merged from its bytes
    bool normalizes_nfc;
};

// token_count in [1, SORA_VOCAB_SIZE_MAX]; every token is unused and empty at first.
SORA_CHECKED sora_status vocab_create(int64_t token_count, struct vocab **vocab,
                                      struct sora_error *err);
void vocab_destroy(struct vocab *vocab);

// Sets token `id` from its text in the vocabulary file: GPT-2's printable code points for normal
// tokens, plain text for the other kinds.
SORA_CHECKED sora_status vocab_set_token(struct vocab *vocab, int32_t id, const char *text,
                                         size_t bytes, enum vocab_kind kind,
                                         struct sora_error *err);
// After the last set_token: builds what the look-ups need, and makes room for merge_count merges.
SORA_CHECKED sora_status vocab_index(struct vocab *vocab, int64_t merge_count,
                                     struct sora_error *err);
// Adds the merge of two texts in GPT-2's code points. False when one of the parts or the whole
// is not in the vocabulary. A pair that was there before keeps its rank.
bool vocab_add_merge(struct vocab *vocab, const char *left, size_t left_bytes, const char *right,
                     size_t right_bytes, int32_t rank);
// Adds a merge written "left right"; false as above or without the space.
bool vocab_add_merge_line(struct vocab *vocab, const char *line, size_t bytes, int32_t rank);
// Marks eos and the well-known end-of-turn tokens.
void vocab_mark_ends(struct vocab *vocab);

const char *vocab_bytes(const struct vocab *vocab, int32_t id, size_t *bytes);
int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t byte_count); // -1: none
// An added token by its exact text; -1: none.
int32_t vocab_find_added(const struct vocab *vocab, const char *text, size_t bytes);
// The merge of two neighbours, or NULL.
const struct vocab_merge *vocab_find_merge(const struct vocab *vocab, int32_t left, int32_t right);
// The longest added token that starts exactly at text; -1: none.
int32_t vocab_match_added(const struct vocab *vocab, const struct vocab_added *added,
                          const char *text, size_t bytes);

#endif

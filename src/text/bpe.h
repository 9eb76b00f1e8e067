// SPDX-License-Identifier: Apache-2.0
// Byte-level byte pair encoding of one word (pre-token). The scratch belongs to one encode call
// and is used again for every word of the text.
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "text/token_list.h"
#include "text/vocab.h"

struct bpe_symbol {
    int32_t token; // -1: merged into its left neighbour
    int32_t prev, next;
    int32_t rank; // of the merge with `next`; -1: none
};

struct bpe_scratch {
    struct bpe_symbol *symbols;
    uint64_t *heap; // rank << 32 | index of the left symbol
    size_t symbol_capacity, heap_count;
};

void bpe_scratch_deinit(struct bpe_scratch *scratch); // a zeroed one is ready for use

// Appends the tokens of a word of any bytes. Time: n log n in its length. Errors: SORA_LIMIT for
// a word over SORA_WORD_BYTES_MAX, SORA_NO_MEMORY.
SORA_CHECKED sora_status bpe_encode_word(const struct vocab *vocab, struct bpe_scratch *scratch,
                                         const char *word, size_t bytes, struct token_list *tokens,
                                         struct sora_error *err);

#endif

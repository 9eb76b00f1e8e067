// SPDX-License-Identifier: Apache-2.0
// BPE with a linked list of symbols and a heap of possible merges, smallest rank first and then
// leftmost, which is the order of the reference implementation. A heap entry is stale when the
// symbol at its index no longer has that rank; stale entries are dropped when they surface.
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sora/limits.h"

sora_status token_list_push(struct token_list *list, int32_t id, struct sora_error *err)
{
    if (list->count == list->capacity) {
        int32_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        int32_t *ids = reallocarray(list->ids, (size_t)capacity, sizeof *ids);
        if (ids == NULL)
            return sora_fail(err, SORA_NO_MEMORY, "tokens of a text");
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return SORA_OK;
}

void bpe_scratch_deinit(struct bpe_scratch *scratch)
{
    free(scratch->symbols);
    free(scratch->heap);
    memset(scratch, 0, sizeof *scratch);
}

static sora_status reserve(struct bpe_scratch *scratch, size_t bytes, struct sora_error *err)
{
    if (bytes <= scratch->symbol_capacity)
        return SORA_OK;
    size_t capacity = bytes < 64 ? 64 : bytes;
    bpe_scratch_deinit(scratch);
    scratch->symbols = calloc(capacity, sizeof *scratch->symbols);
    // Each of the at most n-1 merges takes one entry out and puts at most two in.
    scratch->heap = calloc(2 * capacity, sizeof *scratch->heap);
    if (scratch->symbols == NULL || scratch->heap == NULL) {
        bpe_scratch_deinit(scratch);
        return sora_fail(err, SORA_NO_MEMORY, "a word of %zu bytes", bytes);
    }
    scratch->symbol_capacity = capacity;
    return SORA_OK;
}

static void heap_push(struct bpe_scratch *scratch, uint64_t entry)
{
    ASSERT(scratch->heap_count < 2 * scratch->symbol_capacity);
    uint64_t *heap = scratch->heap;
    size_t i = scratch->heap_count++;
    while (i > 0 && heap[(i - 1) / 2] > entry) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = entry;
}

static uint64_t heap_pop(struct bpe_scratch *scratch)
{
    uint64_t *heap = scratch->heap;
    uint64_t top = heap[0];
    uint64_t last = heap[--scratch->heap_count];
    size_t i = 0, count = scratch->heap_count;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

// Sets the rank of a symbol with its right neighbour and queues the merge.
static void consider(const struct vocab *vocab, struct bpe_scratch *scratch, int32_t index)
{
    struct bpe_symbol *symbol = &scratch->symbols[index];
    symbol->rank = -1;
    if (symbol->next < 0)
        return;
    const struct vocab_merge *merge =
        vocab_find_merge(vocab, symbol->token, scratch->symbols[symbol->next].token);
    if (merge == NULL)
        return;
    symbol->rank = merge->rank;
    heap_push(scratch, (uint64_t)(uint32_t)merge->rank << 32 | (uint32_t)index);
}

// One symbol for each byte; a byte without a token becomes unk, or nothing. Number of symbols.
static int32_t split_bytes(const struct vocab *vocab, struct bpe_scratch *scratch, const char *word,
                           size_t bytes)
{
    int32_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        int32_t token = vocab->byte_tokens[(uint8_t)word[i]];
        if (token < 0)
            token = vocab->unk;
        if (token < 0)
            continue;
        scratch->symbols[count] = (struct bpe_symbol){token, count - 1, count + 1, -1};
        count++;
    }
    if (count > 0)
        scratch->symbols[count - 1].next = -1;
    return count;
}

static void merge_all(const struct vocab *vocab, struct bpe_scratch *scratch)
{
    struct bpe_symbol *symbols = scratch->symbols;
    while (scratch->heap_count > 0) {
        uint64_t entry = heap_pop(scratch);
        int32_t index = (int32_t)(uint32_t)entry;
        struct bpe_symbol *left = &symbols[index];
        if (left->token < 0 || left->rank != (int32_t)(entry >> 32))
            continue; // stale
        struct bpe_symbol *right = &symbols[left->next];
        left->token = vocab_find_merge(vocab, left->token, right->token)->merged;
        right->token = -1;
        left->next = right->next;
        if (left->next >= 0)
            symbols[left->next].prev = index;
        consider(vocab, scratch, index);
        if (left->prev >= 0)
            consider(vocab, scratch, left->prev);
    }
}

sora_status bpe_encode_word(const struct vocab *vocab, struct bpe_scratch *scratch,
                            const char *word, size_t bytes, struct token_list *tokens,
                            struct sora_error *err)
{
    if (bytes == 0)
        return SORA_OK;
    if (bytes > SORA_WORD_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "a word of %zu bytes exceeds %u", bytes,
                         SORA_WORD_BYTES_MAX);
    if (vocab->ignores_merges || bytes == 1) {
        int32_t whole = vocab_find(vocab, word, bytes);
        if (whole >= 0)
            return token_list_push(tokens, whole, err);
    }
    sora_status status = reserve(scratch, bytes, err);
    if (status != SORA_OK)
        return status;
    int32_t count = split_bytes(vocab, scratch, word, bytes);
    scratch->heap_count = 0;
    for (int32_t i = 0; i < count; i++)
        consider(vocab, scratch, i);
    merge_all(vocab, scratch);
    for (int32_t i = count > 0 ? 0 : -1; i >= 0; i = scratch->symbols[i].next) {
        status = token_list_push(tokens, scratch->symbols[i].token, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

// SPDX-License-Identifier: Apache-2.0
// Two open-addressing tables (bytes to token, pair to merge) and a sorted list of added tokens.
// Built by one thread, read by any. The byte-to-code-point map is GPT-2's: a printable byte stands
// for itself, the other 68 for U+0100 onwards in order.
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sora/limits.h"

#define VOCAB_POOL_BYTES_MAX (256u << 20) // the largest vocabularies hold under 10 MB of text
#define VOCAB_NO_PAIR UINT64_MAX
#define VOCAB_MERGE_COUNT_MAX (16 << 20)
#define VOCAB_MERGE_BYTES_MAX 4096 // of one merge's text; real tokens are under 300 bytes

sora_status vocab_create(int64_t token_count, struct vocab **vocab, struct sora_error *err)
{
    *vocab = NULL;
    if (token_count < 1 || token_count > SORA_VOCAB_SIZE_MAX)
        return sora_fail(err, SORA_LIMIT, "tokenizer: %lld tokens are not in [1, %d]",
                         (long long)token_count, SORA_VOCAB_SIZE_MAX);
    struct vocab *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tokenizer");
    buf_init(&made->pool, VOCAB_POOL_BYTES_MAX);
    made->tokens = calloc((size_t)token_count, sizeof *made->tokens);
    if (made->tokens == NULL) {
        vocab_destroy(made);
        return sora_fail(err, SORA_NO_MEMORY, "tokenizer: tokens");
    }
    made->token_count = (int32_t)token_count;
    for (int32_t i = 0; i < made->token_count; i++)
        made->tokens[i].kind = VOCAB_UNUSED;
    made->bos = made->eos = made->unk = -1;
    *vocab = made;
    return SORA_OK;
}

void vocab_destroy(struct vocab *vocab)
{
    if (vocab == NULL)
        return;
    free(vocab->tokens);
    free(vocab->by_bytes);
    free(vocab->merges);
    free(vocab->added.ids);
    free(vocab->user_added.ids);
    buf_deinit(&vocab->pool);
    free(vocab);
}

// The byte that a code point of GPT-2's map stands for; -1 outside of the map.
static int byte_of_code_point(uint32_t code_point)
{
    if ((code_point >= 33 && code_point <= 126) || (code_point >= 161 && code_point <= 172) ||
        (code_point >= 174 && code_point <= 255))
        return (int)code_point;
    if (code_point < 256 || code_point > 256 + 67)
        return -1;
    int index = (int)code_point - 256;
    if (index < 33)
        return index; // 0..32
    return index < 67 ? 127 + index - 33 : 173;
}

// Decodes GPT-2's code points into out [bytes]. Number of bytes, or -1 when the text is not made
// of them. All of them are one or two bytes of UTF-8.
static int64_t decode_byte_level(const char *text, size_t bytes, char *out)
{
    int64_t count = 0;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t lead = (uint8_t)text[i];
        uint32_t code_point = lead;
        if (lead >= 0x80) {
            if ((lead & 0xe0) != 0xc0 || i + 1 >= bytes || ((uint8_t)text[i + 1] & 0xc0) != 0x80)
                return -1;
            code_point = (lead & 0x1fu) << 6 | ((uint8_t)text[++i] & 0x3fu);
        }
        int byte = byte_of_code_point(code_point);
        if (byte < 0)
            return -1;
        out[count++] = (char)byte;
    }
    return count;
}

sora_status vocab_set_token(struct vocab *vocab, int32_t id, const char *text, size_t bytes,
                            enum vocab_kind kind, struct sora_error *err)
{
    if (id < 0 || id >= vocab->token_count)
        return sora_fail(err, SORA_MALFORMED, "tokenizer: token id %d is not in [0, %d)", id,
                         vocab->token_count);
    struct vocab_token *token = &vocab->tokens[id];
    size_t offset = vocab->pool.bytes;
    buf_append(&vocab->pool, text, bytes);
    sora_status status = buf_status(&vocab->pool, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "tokenizer: token %d", id);
    if (kind == VOCAB_NORMAL && bytes > 0) {
        // In place: the bytes are never more than the text.
        int64_t decoded = decode_byte_level(text, bytes, vocab->pool.data + offset);
        if (decoded >= 0) {
            bytes = (size_t)decoded;
        } else {
            memcpy(vocab->pool.data + offset, text, bytes); // plain text; never reached by BPE
            kind = VOCAB_UNUSED;
        }
    }
    *token = (struct vocab_token){
        .offset = offset, .byte_count = (uint32_t)bytes, .kind = (uint8_t)kind};
    if (bytes > vocab->longest_bytes)
        vocab->longest_bytes = bytes;
    return SORA_OK;
}

const char *vocab_bytes(const struct vocab *vocab, int32_t id, size_t *bytes)
{
    if (id < 0 || id >= vocab->token_count || vocab->tokens[id].byte_count == 0) {
        *bytes = 0;
        return "";
    }
    *bytes = vocab->tokens[id].byte_count;
    return vocab->pool.data + vocab->tokens[id].offset;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    return x;
}

// FNV-1a with a final mix.
static uint64_t hash_bytes(const char *bytes, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    return mix(hash);
}

// The slot of these bytes, or the free slot where they would go.
static size_t bytes_slot(const struct vocab *vocab, const char *bytes, size_t count)
{
    size_t slot = hash_bytes(bytes, count) & vocab->by_bytes_mask;
    for (;;) {
        int32_t id = vocab->by_bytes[slot];
        if (id < 0)
            return slot;
        size_t there_count;
        const char *there = vocab_bytes(vocab, id, &there_count);
        if (there_count == count && memcmp(there, bytes, count) == 0)
            return slot;
        slot = (slot + 1) & vocab->by_bytes_mask;
    }
}

int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t byte_count)
{
    if (byte_count == 0 || byte_count > vocab->longest_bytes)
        return -1;
    return vocab->by_bytes[bytes_slot(vocab, bytes, byte_count)];
}

// A power of two of at least twice the count, so that probes stay short and always end.
static size_t table_size(size_t count)
{
    size_t size = 16;
    while (size < 2 * count)
        size *= 2;
    return size;
}

static sora_status index_bytes(struct vocab *vocab, struct sora_error *err)
{
    size_t size = table_size((size_t)vocab->token_count);
    vocab->by_bytes = calloc(size, sizeof *vocab->by_bytes);
    if (vocab->by_bytes == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tokenizer: token table");
    memset(vocab->by_bytes, 0xff, size * sizeof *vocab->by_bytes); // -1
    vocab->by_bytes_mask = size - 1;
    // Plain tokens come first: an added token of the same bytes must not hide one.
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t id = 0; id < vocab->token_count; id++) {
            const struct vocab_token *token = &vocab->tokens[id];
            bool wanted = pass == 0 ? token->kind == VOCAB_NORMAL || token->kind == VOCAB_BYTE
                                    : token->kind == VOCAB_USER;
            if (!wanted || token->byte_count == 0)
                continue;
            size_t slot = bytes_slot(vocab, vocab->pool.data + token->offset, token->byte_count);
            if (vocab->by_bytes[slot] < 0)
                vocab->by_bytes[slot] = id;
        }
    }
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        vocab->byte_tokens[byte] = vocab_find(vocab, &text, 1);
    }
    return SORA_OK;
}

static int added_order(const void *a, const void *b, void *context)
{
    const struct vocab *vocab = context;
    size_t a_bytes, b_bytes;
    const char *a_text = vocab_bytes(vocab, *(const int32_t *)a, &a_bytes);
    const char *b_text = vocab_bytes(vocab, *(const int32_t *)b, &b_bytes);
    size_t shared = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = memcmp(a_text, b_text, shared);
    if (order != 0)
        return order;
    if (a_bytes != b_bytes)
        return a_bytes < b_bytes ? -1 : 1;
    return *(const int32_t *)a - *(const int32_t *)b;
}

static sora_status index_added(struct vocab *vocab, struct vocab_added *added, bool with_control,
                               struct sora_error *err)
{
    int32_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            added->ids = calloc((size_t)count + 1, sizeof *added->ids);
            if (added->ids == NULL)
                return sora_fail(err, SORA_NO_MEMORY, "tokenizer: added tokens");
        }
        count = 0;
        for (int32_t id = 0; id < vocab->token_count; id++) {
            const struct vocab_token *token = &vocab->tokens[id];
            bool wanted =
                token->kind == VOCAB_USER || (with_control && token->kind == VOCAB_CONTROL);
            if (!wanted || token->byte_count == 0)
                continue;
            if (pass == 1)
                added->ids[count] = id;
            count++;
        }
    }
    added->count = count;
    qsort_r(added->ids, (size_t)count, sizeof *added->ids, added_order, vocab);
    return SORA_OK;
}

sora_status vocab_index(struct vocab *vocab, int64_t merge_count, struct sora_error *err)
{
    ASSERT(vocab->by_bytes == NULL);
    if (merge_count < 0 || merge_count > VOCAB_MERGE_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "tokenizer: %lld merges are not in [0, %d]",
                         (long long)merge_count, VOCAB_MERGE_COUNT_MAX);
    sora_status status = index_bytes(vocab, err);
    if (status == SORA_OK)
        status = index_added(vocab, &vocab->added, true, err);
    if (status == SORA_OK)
        status = index_added(vocab, &vocab->user_added, false, err);
    if (status != SORA_OK)
        return status;
    size_t size = table_size((size_t)merge_count);
    vocab->merges = calloc(size, sizeof *vocab->merges);
    if (vocab->merges == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "tokenizer: merges");
    for (size_t i = 0; i < size; i++)
        vocab->merges[i].pair = VOCAB_NO_PAIR;
    vocab->merges_mask = size - 1;
    return SORA_OK;
}

static size_t pair_slot(const struct vocab *vocab, uint64_t pair)
{
    size_t slot = mix(pair * 0xff51afd7ed558ccdu) & vocab->merges_mask;
    while (vocab->merges[slot].pair != VOCAB_NO_PAIR && vocab->merges[slot].pair != pair)
        slot = (slot + 1) & vocab->merges_mask;
    return slot;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

const struct vocab_merge *vocab_find_merge(const struct vocab *vocab, int32_t left, int32_t right)
{
    const struct vocab_merge *merge = &vocab->merges[pair_slot(vocab, pair_of(left, right))];
    return merge->pair != VOCAB_NO_PAIR ? merge : NULL;
}

bool vocab_add_merge(struct vocab *vocab, const char *left, size_t left_bytes, const char *right,
                     size_t right_bytes, int32_t rank)
{
    char whole[VOCAB_MERGE_BYTES_MAX];
    if (left_bytes > sizeof whole || right_bytes > sizeof whole - left_bytes)
        return false;
    int64_t left_count = decode_byte_level(left, left_bytes, whole);
    if (left_count < 0)
        return false;
    int64_t right_count = decode_byte_level(right, right_bytes, whole + left_count);
    if (right_count < 0)
        return false;
    int32_t left_id = vocab_find(vocab, whole, (size_t)left_count);
    int32_t right_id = vocab_find(vocab, whole + left_count, (size_t)right_count);
    int32_t merged = vocab_find(vocab, whole, (size_t)(left_count + right_count));
    if (left_id < 0 || right_id < 0 || merged < 0)
        return false;
    uint64_t pair = pair_of(left_id, right_id);
    struct vocab_merge *slot = &vocab->merges[pair_slot(vocab, pair)];
    if (slot->pair == VOCAB_NO_PAIR)
        *slot = (struct vocab_merge){.pair = pair, .rank = rank, .merged = merged};
    return true;
}

bool vocab_add_merge_line(struct vocab *vocab, const char *line, size_t bytes, int32_t rank)
{
    const char *space = bytes > 1 ? memchr(line + 1, ' ', bytes - 1) : NULL;
    if (space == NULL)
        return false;
    size_t left_bytes = (size_t)(space - line);
    return vocab_add_merge(vocab, line, left_bytes, space + 1, bytes - left_bytes - 1, rank);
}

int32_t vocab_match_added(const struct vocab *vocab, const struct vocab_added *added,
                          const char *text, size_t bytes)
{
    int32_t found = -1;
    int32_t low = 0, high = added->count;
    // [low, high) are the tokens that start with the first `depth` bytes of the text.
    for (size_t depth = 0; low < high; depth++) {
        size_t first_bytes;
        (void)vocab_bytes(vocab, added->ids[low], &first_bytes);
        if (first_bytes == depth) {
            found = added->ids[low];
            low++;
            while (low < high && vocab->tokens[added->ids[low]].byte_count == depth)
                low++; // a second token of the same text
        }
        if (depth == bytes)
            break;
        uint8_t wanted = (uint8_t)text[depth];
        int32_t edges[2]; // first token whose next byte is >= wanted, and > wanted
        for (int edge = 0; edge < 2; edge++) {
            int32_t a = low, b = high;
            while (a < b) {
                int32_t middle = a + (b - a) / 2;
                size_t count;
                uint8_t byte = (uint8_t)vocab_bytes(vocab, added->ids[middle], &count)[depth];
                if (byte < wanted + edge)
                    a = middle + 1;
                else
                    b = middle;
            }
            edges[edge] = a;
        }
        low = edges[0];
        high = edges[1];
    }
    return found;
}

int32_t vocab_find_added(const struct vocab *vocab, const char *text, size_t bytes)
{
    int32_t id = vocab_match_added(vocab, &vocab->added, text, bytes);
    return id >= 0 && vocab->tokens[id].byte_count == bytes ? id : -1;
}

void vocab_mark_ends(struct vocab *vocab)
{
    static const char *const names[] = {"<|im_end|>", "<|endoftext|>", "<|end_of_text|>",
                                        "<|eot_id|>", "<|eom_id|>",    "<|end|>",
                                        "</s>",       "<end_of_turn>"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int32_t id = vocab_find_added(vocab, names[i], strlen(names[i]));
        if (id >= 0 && vocab->tokens[id].kind == VOCAB_CONTROL)
            vocab->tokens[id].ends = true;
    }
    if (vocab->eos >= 0)
        vocab->tokens[vocab->eos].ends = true;
}

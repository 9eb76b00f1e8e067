// SPDX-License-Identifier: Apache-2.0
// The heap-based BPE against a plain one that looks for the best pair again and again.
#include "text_fixture.h"

#include "base/rng.h"
#include "text/bpe.h"
#include "text/vocab.h"

#define LETTERS 4
#define TOKENS 60

// A random vocabulary over four letters: every later token is the sum of two earlier ones.
static struct vocab *random_vocab(struct rng *rng)
{
    struct sora_error err = {0};
    struct vocab *vocab;
    char texts[TOKENS][32];
    int32_t parts[TOKENS][2];
    int32_t count = 0;
    for (; count < LETTERS; count++)
        snprintf(texts[count], sizeof texts[count], "%c", 'a' + count);
    for (int tries = 0; count < TOKENS && tries < 1000; tries++) {
        int32_t left = (int32_t)rng_below(rng, (uint64_t)count);
        int32_t right = (int32_t)rng_below(rng, (uint64_t)count);
        if (strlen(texts[left]) + strlen(texts[right]) > 10)
            continue;
        size_t left_bytes = strlen(texts[left]);
        memcpy(texts[count], texts[left], left_bytes);
        memcpy(texts[count] + left_bytes, texts[right], strlen(texts[right]) + 1);
        bool known = false;
        for (int32_t i = 0; i < count; i++)
            known = known || strcmp(texts[i], texts[count]) == 0;
        parts[count][0] = left;
        parts[count][1] = right;
        count += !known;
    }
    assert_ok(vocab_create(count, &vocab, &err));
    for (int32_t i = 0; i < count; i++)
        assert_ok(vocab_set_token(vocab, i, texts[i], strlen(texts[i]), VOCAB_NORMAL, &err));
    assert_ok(vocab_index(vocab, count - LETTERS, &err));
    for (int32_t i = LETTERS; i < count; i++) {
        const char *left = texts[parts[i][0]], *right = texts[parts[i][1]];
        assert_true(vocab_add_merge(vocab, left, strlen(left), right, strlen(right), i - LETTERS));
    }
    return vocab;
}

// Merges the leftmost pair of the smallest rank until none is left. Number of tokens.
static int32_t encode_plainly(const struct vocab *vocab, const char *word, size_t bytes,
                              int32_t *tokens)
{
    int32_t count = 0;
    for (size_t i = 0; i < bytes; i++)
        tokens[count++] = vocab->byte_tokens[(uint8_t)word[i]];
    for (;;) {
        const struct vocab_merge *best = NULL;
        int32_t at = 0;
        for (int32_t i = 0; i + 1 < count; i++) {
            const struct vocab_merge *merge = vocab_find_merge(vocab, tokens[i], tokens[i + 1]);
            if (merge != NULL && (best == NULL || merge->rank < best->rank)) {
                best = merge;
                at = i;
            }
        }
        if (best == NULL)
            return count;
        tokens[at] = best->merged;
        memmove(tokens + at + 1, tokens + at + 2, (size_t)(count - at - 2) * sizeof *tokens);
        count--;
    }
}

static void the_heap_merges_in_the_order_of_the_plain_algorithm(void **state)
{
    (void)state;
    struct sora_error err = {0};
    struct rng rng;
    rng_seed(&rng, 11);
    struct bpe_scratch scratch = {0};
    int merged = 0;
    for (int round = 0; round < 40; round++) {
        struct vocab *vocab = random_vocab(&rng);
        for (int words = 0; words < 50; words++) {
            char word[80];
            int32_t plain[80];
            size_t bytes = rng_below(&rng, sizeof word);
            for (size_t i = 0; i < bytes; i++)
                word[i] = (char)('a' + rng_below(&rng, LETTERS));
            int32_t plain_count = encode_plainly(vocab, word, bytes, plain);
            struct token_list tokens = {0};
            assert_ok(bpe_encode_word(vocab, &scratch, word, bytes, &tokens, &err));
            assert_int_equal(tokens.count, plain_count);
            if (plain_count > 0)
                assert_memory_equal(tokens.ids, plain, (size_t)plain_count * sizeof *plain);
            merged += (int)bytes - plain_count;
            free(tokens.ids);
        }
        vocab_destroy(vocab);
    }
    assert_true(merged > 10000); // the test merges indeed
    bpe_scratch_deinit(&scratch);
}

static void every_byte_round_trips_through_the_code_points_of_the_file(void **state)
{
    (void)state;
    struct sora_error err = {0};
    struct vocab *vocab;
    assert_ok(vocab_create(256, &vocab, &err));
    // GPT-2's map, by its definition: printable ones first, the others from U+0100 on.
    uint32_t next = 256;
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) ||
                         (byte >= 0xae && byte <= 0xff);
        uint32_t code = printable ? (uint32_t)byte : next++;
        char text[2] = {(char)code};
        if (code >= 0x80) {
            text[0] = (char)(0xc0 | code >> 6);
            text[1] = (char)(0x80 | (code & 0x3f));
        }
        assert_ok(vocab_set_token(vocab, byte, text, code >= 0x80 ? 2 : 1, VOCAB_NORMAL, &err));
    }
    assert_ok(vocab_index(vocab, 0, &err));
    for (int byte = 0; byte < 256; byte++) {
        size_t bytes;
        assert_int_equal((uint8_t)vocab_bytes(vocab, byte, &bytes)[0], byte);
        assert_int_equal(bytes, 1);
        assert_int_equal(vocab->byte_tokens[byte], byte);
    }
    vocab_destroy(vocab);
}

static void a_token_of_other_code_points_is_plain_text_outside_of_bpe(void **state)
{
    (void)state;
    struct sora_error err = {0};
    struct vocab *vocab;
    assert_ok(vocab_create(2, &vocab, &err));
    assert_ok(vocab_set_token(vocab, 0, "\xe6\x97\xa5", 3, VOCAB_NORMAL, &err));
    assert_ok(vocab_set_token(vocab, 1, "a b", 3, VOCAB_NORMAL, &err)); // a raw space
    assert_ok(vocab_index(vocab, 0, &err));
    assert_int_equal(vocab_find(vocab, "\xe6\x97\xa5", 3), -1);
    assert_int_equal(vocab_find(vocab, "a b", 3), -1);
    size_t bytes;
    assert_memory_equal(vocab_bytes(vocab, 0, &bytes), "\xe6\x97\xa5", 3);
    assert_int_equal(vocab_set_token(vocab, 2, "x", 1, VOCAB_NORMAL, &err), SORA_MALFORMED);
    vocab_destroy(vocab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heap_merges_in_the_order_of_the_plain_algorithm),
        cmocka_unit_test(every_byte_round_trips_through_the_code_points_of_the_file),
        cmocka_unit_test(a_token_of_other_code_points_is_plain_text_outside_of_bpe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

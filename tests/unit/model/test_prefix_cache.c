// SPDX-License-Identifier: Apache-2.0
// Shared KV blocks: found by the same view and tokens only, kept while held, given away oldest
// first, and without any influence on what is computed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/kvcache.h"
#include "sora/engine.h"

#define T SORA_KV_BLOCK_TOKENS

static const struct sora_prefix_view base = {.part_count = 0};
static const struct sora_prefix_view adapter = {
    .parts = {{.digest = "aa11", .scale = 1}},
    .part_count = 1,
};

static struct kvcache cache_of(int32_t blocks)
{
    struct kvcache cache;
    struct sora_error err;
    assert_int_equal(kvcache_init(&cache, SORA_F32, 1, 1, 2, blocks, 8, 16 * T, &err), SORA_OK);
    return cache;
}

static void fill(int32_t *tokens, int32_t count, int32_t start)
{
    for (int32_t i = 0; i < count; i++)
        tokens[i] = start + i;
}

// Opens, computes and leaves open a sequence of these tokens; returns how many were known.
static int32_t compute(struct kvcache *cache, const struct sora_prefix_view *view,
                       const int32_t *tokens, int32_t count, int32_t *seq)
{
    int32_t cached;
    *seq = kvcache_open_prefix(cache, view, tokens, count, &cached);
    assert_true(*seq >= 0);
    assert_true(kvcache_reserve(cache, *seq, count));
    kvcache_computed(cache, *seq, tokens + cached, count - cached);
    return cached;
}

static int32_t known(struct kvcache *cache, const struct sora_prefix_view *view,
                     const int32_t *tokens, int32_t count)
{
    int32_t seq, cached = compute(cache, view, tokens, count, &seq);
    kvcache_close(cache, seq);
    return cached;
}

// Blocks that would be found, without taking any.
static int32_t listed(const struct kvcache *cache, const int32_t *tokens, int32_t blocks)
{
    int32_t found = 0;
    for (int32_t parent = -1; found < blocks; found++) {
        parent = prefix_cache_find(&cache->prefix, &base, parent, tokens + found * T);
        if (parent < 0)
            break;
    }
    return found;
}

static void full_blocks_of_the_same_beginning_are_shared(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(32);
    int32_t tokens[4 * T], other[4 * T], first;
    fill(tokens, 4 * T, 100);
    memcpy(other, tokens, sizeof other);
    other[2 * T + 3] = 7;
    assert_int_equal(compute(&cache, &base, tokens, 3 * T + 5, &first), 0);
    assert_int_equal(known(&cache, &base, tokens, 3 * T + 5), 3 * T); // while it is held
    assert_int_equal(known(&cache, &base, other, 3 * T + 5), 2 * T);  // as far as they agree
    assert_int_equal(known(&cache, &base, tokens + 1, 3 * T), 0);
    assert_int_equal(known(&cache, &base, tokens, 2 * T), T); // the last token is computed
    assert_int_equal(known(&cache, &base, tokens, 2 * T + 1), 2 * T);
    assert_int_equal(known(&cache, &base, tokens, 1), 0);
    kvcache_close(&cache, first);
    assert_int_equal(known(&cache, &base, tokens, 3 * T + 5), 3 * T); // and after
    assert_int_equal(kvcache_available(&cache), 32);
    kvcache_deinit(&cache);
}

static void another_view_shares_nothing(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(32);
    int32_t tokens[3 * T];
    fill(tokens, 3 * T, 1);
    struct sora_prefix_view views[6] = {adapter, adapter, adapter, base, adapter, base};
    views[1].parts[0].digest[3] ^= 1;
    views[2].parts[0].scale = 0.5f;
    views[4].tenant = views[5].tenant = 7;
    struct sora_prefix_view ranked = adapter;
    ranked.parts[0].rank_max = 4;
    assert_int_equal(known(&cache, &adapter, tokens, 3 * T), 0);
    for (int i = 1; i < 6; i++)
        assert_int_equal(known(&cache, &views[i], tokens, 3 * T), 0);
    assert_int_equal(known(&cache, &ranked, tokens, 3 * T), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal(known(&cache, &views[i], tokens, 3 * T), 2 * T);
    kvcache_deinit(&cache);
}

// Every adapter of a composition, its scale, its ranks and its place count.
static void another_composition_shares_nothing(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(64);
    int32_t tokens[3 * T];
    fill(tokens, 3 * T, 1);
    const struct sora_prefix_view two = {
        .parts = {{.digest = "aa11", .scale = 1}, {.digest = "bb22", .scale = 2, .rank_max = 3}},
        .part_count = 2,
    };
    struct sora_prefix_view views[8] = {two, two, two, two, two, two, two, adapter};
    views[1].parts[1].digest[0] ^= 1;
    views[2].parts[1].scale = 1;
    views[3].parts[1].rank_max = 0;
    views[4].parts[0] = two.parts[1];
    views[4].parts[1] = two.parts[0];
    views[5].parts[2] = two.parts[1];
    views[5].part_count = 3;
    views[6].tenant = 1;
    for (int i = 0; i < 8; i++)
        assert_int_equal(known(&cache, &views[i], tokens, 3 * T), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(known(&cache, &views[i], tokens, 3 * T), 2 * T);
    kvcache_deinit(&cache);
}

// A block in the middle of one sequence is not the first block of another with the same tokens.
static void the_same_tokens_elsewhere_are_not_found(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(32);
    int32_t tokens[3 * T];
    fill(tokens, T, 1);
    fill(tokens + T, T, 500);
    fill(tokens + 2 * T, T, 900);
    assert_int_equal(known(&cache, &base, tokens, 3 * T), 0);
    assert_int_equal(known(&cache, &base, tokens + T, 2 * T), 0);
    kvcache_deinit(&cache);
}

static void the_oldest_go_first_and_ends_before_beginnings(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(6);
    int32_t a[3 * T + 1], b[3 * T + 1], c[3 * T + 1];
    fill(a, 3 * T + 1, 0);
    fill(b, 3 * T + 1, 1000);
    fill(c, 3 * T + 1, 2000);
    assert_int_equal(known(&cache, &base, a, 2 * T + 1), 0); // 2 blocks stay, one is free again
    assert_int_equal(known(&cache, &base, b, 2 * T + 1), 0);
    assert_int_equal(known(&cache, &base, a, 2 * T + 1), 2 * T); // a is the younger now
    int32_t seq;
    assert_int_equal(compute(&cache, &base, c, 2 * T + 1, &seq), 0); // takes 2 free and b's last
    assert_int_equal(listed(&cache, b, 2), 1);
    assert_int_equal(listed(&cache, a, 2), 2);
    kvcache_close(&cache, seq);
    assert_int_equal(kvcache_available(&cache), 6);
    kvcache_deinit(&cache);
}

static void held_blocks_are_never_given_away(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(4);
    int32_t a[3 * T], first, second, cached;
    fill(a, 3 * T, 0);
    compute(&cache, &base, a, 3 * T, &first);
    second = kvcache_open_prefix(&cache, &base, a, 3 * T, &cached);
    assert_int_equal(cached, 2 * T);
    kvcache_close(&cache, first); // two of its blocks live on in the second
    assert_int_equal(kvcache_available(&cache), 2);
    assert_false(kvcache_reserve(&cache, second, 5 * T));
    assert_true(kvcache_reserve(&cache, second, 4 * T));
    assert_int_equal(kvcache_available(&cache), 0);
    assert_int_equal(cache.seqs[second].blocks[0], prefix_cache_find(&cache.prefix, &base, -1, a));
    kvcache_close(&cache, second);
    assert_int_equal(kvcache_available(&cache), 4);
    kvcache_deinit(&cache);
}

static void what_two_compute_at_once_is_kept_once(void **state)
{
    (void)state;
    struct kvcache cache = cache_of(8);
    int32_t a[3 * T], one, two, cached;
    fill(a, 3 * T, 0);
    one = kvcache_open_prefix(&cache, &base, a, 3 * T, &cached);
    two = kvcache_open_prefix(&cache, &base, a, 3 * T, &cached);
    assert_true(kvcache_reserve(&cache, one, 3 * T) && kvcache_reserve(&cache, two, 3 * T));
    assert_int_equal(kvcache_available(&cache), 2);
    kvcache_computed(&cache, one, a, 3 * T);
    kvcache_computed(&cache, two, a, 3 * T);
    assert_int_equal(kvcache_available(&cache), 5);
    kvcache_close(&cache, one);
    assert_int_equal(kvcache_available(&cache), 5);
    kvcache_close(&cache, two);
    assert_int_equal(kvcache_available(&cache), 8);
    kvcache_deinit(&cache);
}

// Thousands of sequences over few blocks: every count adds up, whatever the order.
static void counts_add_up_under_pressure(void **state)
{
    (void)state;
    enum { BLOCKS = 24, SEQS = 6 };
    struct kvcache cache = cache_of(BLOCKS);
    struct rng rng;
    rng_seed(&rng, 41);
    int32_t seqs[SEQS], tokens[5 * T];
    int64_t hits = 0;
    for (int i = 0; i < SEQS; i++)
        seqs[i] = -1;
    for (int round = 0; round < 20000; round++) {
        int at = (int)rng_below(&rng, SEQS);
        if (seqs[at] >= 0) {
            kvcache_close(&cache, seqs[at]);
            seqs[at] = -1;
            continue;
        }
        int32_t count = 1 + (int32_t)rng_below(&rng, 4 * T), cached;
        fill(tokens, count, 1000 * (int32_t)rng_below(&rng, 7));
        if (rng_below(&rng, 3) == 0)
            tokens[count / 2] = -1; // parts from its kin in the middle
        const struct sora_prefix_view *view = rng_below(&rng, 2) ? &base : &adapter;
        seqs[at] = kvcache_open_prefix(&cache, view, tokens, count, &cached);
        assert_true(cached < count && cached % T == 0);
        assert_true(kvcache_reserve(&cache, seqs[at], count));
        kvcache_computed(&cache, seqs[at], tokens + cached, count - cached);
        hits += cached;
        assert_in_range(kvcache_available(&cache), 0, BLOCKS);
    }
    for (int i = 0; i < SEQS; i++)
        if (seqs[i] >= 0)
            kvcache_close(&cache, seqs[i]);
    assert_int_equal(kvcache_available(&cache), BLOCKS);
    assert_true(hits > 1000);
    kvcache_deinit(&cache);
}

// The logits after a shared beginning have the bits of those without.
static void sharing_does_not_change_a_bit(void **state)
{
    (void)state;
    enum { COUNT = 70 };
    sora_model *model = NULL;
    struct sora_error err;
    assert_int_equal(sora_model_open(GOLDEN_DIR "/tiny/llama", &model, &err), SORA_OK);
    const int32_t vocab = sora_model_get_info(model)->base.vocab_size;
    float *logits[2] = {NULL, NULL};
    int32_t tokens[COUNT];
    for (int32_t i = 0; i < COUNT; i++)
        tokens[i] = (i * 31 + 7) % vocab;
    for (int shared = 0; shared < 2; shared++) {
        struct sora_engine_options options = sora_engine_options_defaults(model);
        sora_engine *engine = NULL;
        options.prefix_cache = shared == 1;
        assert_int_equal(sora_engine_create(model, &options, &engine, &err), SORA_OK);
        for (int round = 0; round < 2; round++) {
            int32_t cached,
                seq = sora_engine_seq_open_prefix(engine, &base, tokens, COUNT, &cached);
            assert_int_equal(cached, shared == 1 && round == 1 ? COUNT / T * T : 0);
            assert_true(sora_engine_seq_reserve(engine, seq, COUNT));
            struct sora_span span = {.seq = seq,
                                     .tokens = tokens + cached,
                                     .token_count = COUNT - cached,
                                     .want = SORA_LOGITS_LAST};
            sora_engine_step(engine, &span, 1, NULL);
            if (round == 1) {
                logits[shared] = calloc((size_t)vocab, sizeof(float));
                assert_non_null(logits[shared]);
                memcpy(logits[shared], span.logits, (size_t)vocab * sizeof(float));
            }
            sora_engine_seq_close(engine, seq);
        }
        assert_int_equal(sora_engine_kv_stats(engine).blocks_used, 0);
        sora_engine_destroy(engine);
    }
    assert_memory_equal(logits[0], logits[1], (size_t)vocab * sizeof(float));
    free(logits[0]);
    free(logits[1]);
    sora_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_blocks_of_the_same_beginning_are_shared),
        cmocka_unit_test(another_view_shares_nothing),
        cmocka_unit_test(another_composition_shares_nothing),
        cmocka_unit_test(the_same_tokens_elsewhere_are_not_found),
        cmocka_unit_test(the_oldest_go_first_and_ends_before_beginnings),
        cmocka_unit_test(held_blocks_are_never_given_away),
        cmocka_unit_test(what_two_compute_at_once_is_kept_once),
        cmocka_unit_test(counts_add_up_under_pressure),
        cmocka_unit_test(sharing_does_not_change_a_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

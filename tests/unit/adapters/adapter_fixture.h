// SPDX-License-Identifier: Apache-2.0
// What the adapter tests share: small bases and adapters, folders that go away, and a comparer of
// adapters. Each test program is one thread unless it says so.
#ifndef TESTS_ADAPTER_FIXTURE_H
#define TESTS_ADAPTER_FIXTURE_H

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "sora/adapter.h"
#include "sora/lora.h"

#define FIXTURE_FINGERPRINT "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static inline void fixture_widths(struct sora_base *base)
{
    int32_t q = base->head_count * base->head_dim, kv = base->kv_head_count * base->head_dim;
    const int32_t d_in[] = {base->hidden, base->hidden, base->hidden,      q,
                            base->hidden, base->hidden, base->intermediate};
    const int32_t d_out[] = {
        q, kv, kv, base->hidden, base->intermediate, base->intermediate, base->hidden};
    memcpy(base->d_in, d_in, sizeof d_in);
    memcpy(base->d_out, d_out, sizeof d_out);
}

// 3 layers, hidden 16, intermediate 24: q 16x16, k and v 16x8, mlp 16x24.
static inline struct sora_base fixture_base(void)
{
    struct sora_base base = {.architecture = "llama",
                             .layer_count = 3,
                             .hidden = 16,
                             .intermediate = 24,
                             .head_count = 4,
                             .kv_head_count = 2,
                             .head_dim = 4,
                             .vocab_size = 50,
                             .fingerprint = FIXTURE_FINGERPRINT,
                             .weight_type = "Q4_1"};
    fixture_widths(&base);
    return base;
}

// The default model's dimensions, which the golden adapters fit.
static inline struct sora_base fixture_smollm(void)
{
    struct sora_base base = {.architecture = "llama",
                             .layer_count = 30,
                             .hidden = 576,
                             .intermediate = 1536,
                             .head_count = 9,
                             .kv_head_count = 3,
                             .head_dim = 64,
                             .vocab_size = 49152,
                             .fingerprint = FIXTURE_FINGERPRINT,
                             .weight_type = "Q4_1"};
    fixture_widths(&base);
    return base;
}

// Ranks and values of a made-up adapter; the same seed makes the same one.
struct fixture_pairs {
    struct sora_adapter_tensor_pair items[64 * SORA_PROJ_COUNT];
    int32_t count;
};

static inline float *fixture_values(struct rng *rng, size_t count)
{
    float *values = malloc((count ? count : 1) * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)rng_normal(rng);
    return values;
}

// A pair for every module, ranks 0 to 4.
static inline struct fixture_pairs *fixture_pairs_make(const struct sora_base *base, uint64_t seed)
{
    struct fixture_pairs *pairs = calloc(1, sizeof *pairs);
    struct rng rng;
    assert_non_null(pairs);
    assert_true(base->layer_count <= 64);
    rng_seed(&rng, seed);
    for (int32_t i = 0; i < base->layer_count * SORA_PROJ_COUNT; i++) {
        struct sora_adapter_tensor_pair *pair = &pairs->items[pairs->count++];
        pair->layer = i / SORA_PROJ_COUNT;
        pair->proj = (enum sora_proj)(i % SORA_PROJ_COUNT);
        pair->rank = i == 0 ? 2 : (int32_t)rng_below(&rng, 5);
        pair->scale = 0.1 + rng_uniform(&rng);
        size_t rank = (size_t)pair->rank;
        pair->a = fixture_values(&rng, rank * (size_t)base->d_in[pair->proj]);
        pair->b = fixture_values(&rng, rank * (size_t)base->d_out[pair->proj]);
    }
    return pairs;
}

static inline void fixture_pairs_free(struct fixture_pairs *pairs)
{
    for (int32_t i = 0; i < pairs->count; i++) {
        free((void *)pairs->items[i].a);
        free((void *)pairs->items[i].b);
    }
    free(pairs);
}

static inline void fixture_file_of(const struct sora_base *base, const struct fixture_pairs *pairs,
                                   enum sora_dtype dtype, uint8_t **bytes, size_t *byte_count)
{
    struct sora_error err = {SORA_OK, ""};
    struct sora_adapter_source source = {.base = base,
                                         .base_name = "tiny/base",
                                         .r_max = 8,
                                         .alpha = 16,
                                         .dtype = dtype,
                                         .pairs = pairs->items,
                                         .pair_count = pairs->count,
                                         .training_json = "{\"method\":\"sora\",\"seed\":1}"};
    if (sora_adapter_encode(&source, bytes, byte_count, &err) != SORA_OK)
        fail_msg("encode: %s", err.text);
}

static inline void fixture_file(const struct sora_base *base, uint64_t seed, uint8_t **bytes,
                                size_t *byte_count)
{
    struct fixture_pairs *pairs = fixture_pairs_make(base, seed);
    fixture_file_of(base, pairs, SORA_F32, bytes, byte_count);
    fixture_pairs_free(pairs);
}

// Whether two adapters compute the same: ranks, scales, types and every bit of a and bt.
static inline bool fixture_same_lora(const struct sora_base *base, const sora_adapter *left,
                                     const sora_adapter *right)
{
    const struct sora_lora *x = sora_adapter_get_lora(left), *y = sora_adapter_get_lora(right);
    if (x->layer_count != y->layer_count)
        return false;
    for (int32_t i = 0; i < x->layer_count * SORA_PROJ_COUNT; i++) {
        const struct sora_lora_module *a = &x->modules[i], *b = &y->modules[i];
        int p = i % SORA_PROJ_COUNT;
        size_t item = a->dtype == SORA_F32 ? 4 : 2, rank = (size_t)a->rank;
        if (a->rank != b->rank || a->dtype != b->dtype ||
            memcmp(&a->scale, &b->scale, sizeof a->scale) != 0)
            return false;
        if (rank == 0)
            continue;
        if (memcmp(a->a, b->a, rank * (size_t)base->d_in[p] * item) != 0 ||
            memcmp(a->bt, b->bt, rank * (size_t)base->d_out[p] * item) != 0)
            return false;
    }
    return true;
}

// A new folder under `root`, or under TMPDIR or /tmp when that is NULL; malloc'ed.
static inline char *fixture_folder_in(const char *root)
{
    char *path = NULL;
    const char *tmp = root ? root : getenv("TMPDIR");
    assert_true(asprintf(&path, "%s/sora-test-XXXXXX", tmp ? tmp : "/tmp") > 0);
    assert_non_null(mkdtemp(path));
    return path;
}

static inline char *fixture_folder(void)
{
    return fixture_folder_in(NULL);
}

static inline int fixture_remove_one(const char *path, const struct stat *info, int type,
                                     struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static inline void fixture_folder_remove(char *path)
{
    nftw(path, fixture_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(path);
}

#define assert_ok(call)                                                                  \
    do {                                                                                 \
        sora_status assert_ok_status = (call);                                           \
        if (assert_ok_status != SORA_OK)                                                 \
            fail_msg("%s: %s: %s", #call, sora_status_name(assert_ok_status), err.text); \
    } while (0)

// The call fails with this status, and its text contains `part`.
#define assert_refused(call, status, part)                                                         \
    do {                                                                                           \
        err.text[0] = 0;                                                                           \
        sora_status assert_refused_status = (call);                                                \
        if (assert_refused_status != (status) || !strstr(err.text, (part)))                        \
            fail_msg("%s: expected %s with \"%s\", found %s: %s", #call, sora_status_name(status), \
                     (part), sora_status_name(assert_refused_status), err.text);                   \
    } while (0)

#endif

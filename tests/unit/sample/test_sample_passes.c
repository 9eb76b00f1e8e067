// SPDX-License-Identifier: Apache-2.0
// The passes over a vocabulary: the same bits on every instruction set, and what they mean against
// plain loops.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "sample/sample_math.h"
#include "sample/sample_passes.h"
#include "sample/sample_select.h"

#define COUNT_MAX 49159

// All that the passes give for one vocabulary.
struct results {
    float work[COUNT_MAX], maxima[COUNT_MAX / SAMPLE_BLOCK_TOKENS + 1];
    float best;
    double sum;
    uint64_t keys[COUNT_MAX];
    int32_t key_count;
};

#define CUT 0.01f

static void run(const struct sample_passes *passes, const float *logits, int32_t count,
                struct results *out)
{
    memset(out, 0, sizeof *out);
    passes->tame(logits, count, out->work, out->maxima);
    out->best = sample_largest(out->maxima, sample_block_count(count));
    passes->weights(out->work, count, out->best, 1.5f);
    passes->weights(out->maxima, sample_block_count(count), out->best, 1.5f);
    out->sum = passes->sum(out->work, count, 0.001f);
    out->key_count = passes->collect(out->work, out->maxima, count, CUT, out->keys);
    // What collect may have written beyond what it found is nobody's.
    memset(out->keys + out->key_count, 0, (size_t)(count - out->key_count) * sizeof *out->keys);
}

static float *random_logits(uint64_t seed, int32_t count)
{
    struct rng rng;
    rng_seed(&rng, seed);
    float *logits = calloc((size_t)count, sizeof *logits);
    assert_non_null(logits);
    for (int32_t i = 0; i < count; i++)
        logits[i] = 2.0f * (float)rng_normal(&rng);
    if (count > 40) {
        logits[3] = NAN;
        logits[17] = -INFINITY;
        logits[40] = logits[39]; // equal ones
    }
    return logits;
}

static const int32_t counts[] = {1,  2,  7,  8,   15,   16,   17,       31,
                                 32, 33, 48, 100, 1000, 4097, COUNT_MAX};
#define COUNTS (sizeof counts / sizeof counts[0])

static void check_bits(enum cpu_isa isa, const struct sample_passes *passes, const char *test)
{
    if (cpu_isa() < isa) {
        printf("SKIPPED %s: this machine lacks %s\n", test, cpu_isa_name(isa));
        skip();
    }
    struct results *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    assert_true(a != NULL && b != NULL);
    for (size_t c = 0; c < COUNTS; c++) {
        float *logits = random_logits(c, counts[c]);
        run(&sample_passes_portable, logits, counts[c], a);
        run(passes, logits, counts[c], b);
        assert_memory_equal(a, b, sizeof *a);
        free(logits);
    }
    free(a);
    free(b);
}

static void avx2_gives_the_bits_of_portable(void **state)
{
    (void)state;
    check_bits(CPU_AVX2, &sample_passes_avx2, __func__);
}

static void avx512_gives_the_bits_of_portable(void **state)
{
    (void)state;
    check_bits(CPU_AVX512, &sample_passes_avx512, __func__);
}

static void sums_and_keys_are_those_of_plain_loops(void **state)
{
    (void)state;
    struct results *r = malloc(sizeof *r);
    assert_non_null(r);
    for (size_t c = 0; c < COUNTS; c++) {
        float *logits = random_logits(100 + c, counts[c]);
        double sum = 0;
        int32_t keys = 0;
        run(sample_passes(), logits, counts[c], r);
        for (int32_t i = 0; i < counts[c]; i++) {
            const float w = r->work[i];
            sum += w >= 0.001f ? (double)w : 0;
            if (w >= CUT)
                assert_true(keys < r->key_count && r->keys[keys++] == select_key(w, i));
        }
        assert_int_equal(keys, r->key_count);
        assert_true(fabs(r->sum - sum) <= 1e-12 * sum);
        free(logits);
    }
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(avx2_gives_the_bits_of_portable),
        cmocka_unit_test(avx512_gives_the_bits_of_portable),
        cmocka_unit_test(sums_and_keys_are_those_of_plain_loops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

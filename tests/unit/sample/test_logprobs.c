// SPDX-License-Identifier: Apache-2.0
// Raw log-probabilities against a computation in double with sorting.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "sora/sampler.h"

#define VOCAB 5000

static const float *sort_logits;

static int by_logit(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (sort_logits[x] != sort_logits[y])
        return sort_logits[x] < sort_logits[y] ? 1 : -1;
    return x - y;
}

static void values_ranks_and_top_are_those_of_sorting(void **state)
{
    (void)state;
    static float logits[VOCAB];
    static int32_t order[VOCAB];
    struct rng rng;
    rng_seed(&rng, 1);
    for (int round = 0; round < 50; round++) {
        double sum = 0;
        for (int32_t i = 0; i < VOCAB; i++) {
            // Few distinct values in every other round, for ties.
            double value = rng_normal(&rng) * 5;
            logits[i] = (float)(round % 2 ? floor(value) : value) + 100;
            order[i] = i;
            sum += exp((double)logits[i] - 100);
        }
        double normalizer = 100 + log(sum);
        sort_logits = logits;
        qsort(order, VOCAB, sizeof *order, by_logit);
        int32_t rank = (int32_t)rng_below(&rng, VOCAB);
        struct sora_logprobs out;
        sora_logprobs_of(logits, VOCAB, order[rank], SORA_LOGPROBS_MAX, &out);
        assert_int_equal(out.token, order[rank]);
        assert_int_equal(out.rank, rank + 1);
        assert_true(fabs(out.logprob - (logits[order[rank]] - normalizer)) < 2e-6 * 50);
        assert_int_equal(out.top_count, SORA_LOGPROBS_MAX);
        for (int i = 0; i < SORA_LOGPROBS_MAX; i++) {
            assert_int_equal(out.top_tokens[i], order[i]);
            assert_true(fabs(out.top_logprobs[i] - (logits[order[i]] - normalizer)) < 2e-5);
        }
    }
}

static void they_sum_to_one(void **state)
{
    (void)state;
    float logits[SORA_LOGPROBS_MAX];
    for (int i = 0; i < SORA_LOGPROBS_MAX; i++)
        logits[i] = (float)i / 10;
    struct sora_logprobs out;
    sora_logprobs_of(logits, SORA_LOGPROBS_MAX, 0, SORA_LOGPROBS_MAX, &out);
    double sum = 0;
    for (int i = 0; i < out.top_count; i++)
        sum += exp(out.top_logprobs[i]);
    assert_true(fabs(sum - 1) < 1e-5);
}

static void a_small_vocabulary_gives_fewer_and_zero_gives_none(void **state)
{
    (void)state;
    const float logits[3] = {1, 1, 0};
    struct sora_logprobs out;
    sora_logprobs_of(logits, 3, 1, 10, &out);
    assert_int_equal(out.top_count, 3);
    assert_int_equal(out.top_tokens[0], 0); // of equal ones the smaller id
    assert_int_equal(out.rank, 2);
    sora_logprobs_of(logits, 3, 1, 0, &out);
    assert_int_equal(out.top_count, 0);
    assert_int_equal(out.rank, 2);
}

static void logits_that_are_no_numbers_give_no_nan(void **state)
{
    (void)state;
    const float rows[][3] = {{NAN, NAN, NAN},
                             {-INFINITY, -INFINITY, -INFINITY},
                             {NAN, 2, -INFINITY},
                             {INFINITY, 0, 0},
                             {-3e38f, 3e38f, 0}};
    for (int r = 0; r < 5; r++) {
        struct sora_logprobs out;
        for (int32_t token = 0; token < 3; token++) {
            sora_logprobs_of(rows[r], 3, token, 3, &out);
            assert_false(isnan(out.logprob) || out.logprob > 0);
            for (int i = 0; i < 3; i++)
                assert_false(isnan(out.top_logprobs[i]) || out.top_logprobs[i] > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_ranks_and_top_are_those_of_sorting),
        cmocka_unit_test(they_sum_to_one),
        cmocka_unit_test(a_small_vocabulary_gives_fewer_and_zero_gives_none),
        cmocka_unit_test(logits_that_are_no_numbers_give_no_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The sampler: frequencies against probabilities (chi-square), what truncation leaves, penalties,
// bans, and logits that are no numbers.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "sora/sampler.h"

#define VOCAB 1000
#define LARGE 49159 // the largest here

static sora_sampler_scratch *scratch;

static sora_sampler *create(const struct sora_sampling *sampling, int32_t vocab_size)
{
    struct sora_error err = {0};
    sora_sampler *sampler;
    if (sora_sampler_create(sampling, vocab_size, &sampler, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return sampler;
}

// With what the choice before left in the scratch, whichever sampler's it was.
static int32_t next(sora_sampler *sampler, const float *logits, const int32_t *banned,
                    int32_t banned_count)
{
    return sora_sampler_next(sampler, scratch, 0, logits, banned, banned_count);
}

static struct sora_sampling greedy(void)
{
    struct sora_sampling sampling = sora_sampling_defaults();
    sampling.temperature = 0;
    return sampling;
}

// Chi-square of counts against probabilities; tokens of probability 0 must not have been drawn
// (a huge value then).
static double chi_square(const int32_t *counts, const double *probabilities, int32_t size,
                         int32_t draws)
{
    double sum = 0;
    for (int32_t i = 0; i < size; i++) {
        double expected = probabilities[i] * draws;
        if (expected == 0 && counts[i] > 0)
            return 1e9;
        if (expected > 0)
            sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    return sum;
}

// Draws from equal positions (no history) and counts tokens.
static void draw(const struct sora_sampling *sampling, const float *logits, int32_t size,
                 int32_t draws, int32_t *counts)
{
    sora_sampler *sampler = create(sampling, size);
    memset(counts, 0, (size_t)size * sizeof *counts);
    for (int32_t i = 0; i < draws; i++)
        counts[next(sampler, logits, NULL, 0)]++;
    sora_sampler_destroy(sampler);
}

static void frequencies_follow_the_softmax_at_every_seed(void **state)
{
    (void)state;
    const double p[6] = {0.4, 0.05, 0.25, 0.1, 0.0, 0.2};
    float logits[6];
    for (int i = 0; i < 6; i++)
        logits[i] = p[i] > 0 ? (float)log(p[i]) + 3 : -INFINITY;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.seed = seed;
        int32_t counts[6];
        draw(&sampling, logits, 6, 20000, counts);
        assert_true(chi_square(counts, p, 6, 20000) < 23.5); // 4 degrees: 1 in 10,000
    }
}

static void the_chi_square_sees_a_wrong_distribution(void **state)
{
    (void)state;
    const double wrong[2] = {0.53, 0.47};
    const float logits[2] = {0, 0};
    struct sora_sampling sampling = sora_sampling_defaults();
    int32_t counts[2];
    draw(&sampling, logits, 2, 20000, counts);
    assert_true(chi_square(counts, wrong, 2, 20000) > 23.5);
    const double impossible[2] = {1, 0};
    assert_true(chi_square(counts, impossible, 2, 20000) > 23.5);
}

static void temperature_sharpens_and_flattens(void **state)
{
    (void)state;
    const float logits[3] = {2, 1, 0};
    const float temperatures[] = {0.25f, 0.5f, 2, 10};
    for (int t = 0; t < 4; t++) {
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.temperature = temperatures[t];
        double p[3], sum = 0;
        for (int i = 0; i < 3; i++)
            sum += p[i] = exp(logits[i] / temperatures[t]);
        for (int i = 0; i < 3; i++)
            p[i] /= sum;
        int32_t counts[3];
        draw(&sampling, logits, 3, 20000, counts);
        assert_true(chi_square(counts, p, 3, 20000) < 18.4);
    }
}

struct ranked {
    double weight;
    int32_t token;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->token - y->token;
}

// Probabilities after min_p, top_k and top_p by sorting, in double.
static void truncate_plainly(const struct sora_sampling *s, const float *logits, int32_t size,
                             double *p)
{
    static struct ranked ranked[VOCAB];
    double best = -INFINITY, total = 0, before = 0, kept = 0;
    for (int32_t i = 0; i < size; i++)
        best = logits[i] > best ? logits[i] : best;
    for (int32_t i = 0; i < size; i++) {
        ranked[i] = (struct ranked){exp((logits[i] - best) / s->temperature), i};
        p[i] = 0;
    }
    qsort(ranked, (size_t)size, sizeof *ranked, by_rank);
    int32_t count = 0;
    while (count < size && ranked[count].weight >= s->min_p && (s->top_k <= 0 || count < s->top_k))
        total += ranked[count++].weight;
    for (int32_t i = 0; i < count && (i == 0 || before < s->top_p * total); i++) {
        before += ranked[i].weight;
        p[ranked[i].token] = ranked[i].weight;
        kept += ranked[i].weight;
    }
    for (int32_t i = 0; i < size; i++)
        p[i] /= kept;
}

static void truncation_leaves_what_sorting_leaves(void **state)
{
    (void)state;
    static const struct {
        float top_p, min_p;
        int32_t top_k;
        float temperature, spread;
    } cases[] = {
        {0.9f, 0, 0, 1, 3},      {0.5f, 0, 0, 1, 1},
        {0.05f, 0, 0, 1, 1},     {1, 0.1f, 0, 1, 2},
        {1, 1, 0, 1, 2},         {1, 0, 1, 1, 2},
        {1, 0, 7, 1, 2},         {1, 0, 500, 1, 1},
        {1, 0, VOCAB, 1, 2},     {1, 0, 2000000, 1, 2},
        {0.8f, 0, 20, 1, 1},     {0.8f, 0.2f, 20, 0.7f, 1},
        {0.9f, 0.01f, 0, 2, 3},  {0.999999f, 0, 0, 1, 0.5f},
        {1e-9f, 0, 0, 1, 1},     {0.7f, 0, -1, 1.5f, 1},
        {0.95f, 0, 0, 1, 0.01f}, {0.9f, 0, 300, 0.5f, 4},
    };
    struct rng rng;
    rng_seed(&rng, 8);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        static float logits[VOCAB];
        static double p[VOCAB];
        static int32_t counts[VOCAB];
        for (int i = 0; i < VOCAB; i++)
            logits[i] = (float)rng_normal(&rng) * cases[c].spread;
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.top_p = cases[c].top_p;
        sampling.min_p = cases[c].min_p;
        sampling.top_k = cases[c].top_k;
        sampling.temperature = cases[c].temperature;
        sampling.seed = c;
        truncate_plainly(&sampling, logits, VOCAB, p);
        draw(&sampling, logits, VOCAB, 20000, counts);
        int32_t kept = 0;
        for (int i = 0; i < VOCAB; i++)
            kept += p[i] > 0;
        double bound = kept + 5 * sqrt(2.0 * kept) + 10; // chi-square: mean k, variance 2k
        if (chi_square(counts, p, VOCAB, 20000) > bound)
            fail_msg("case %zu: %g > %g", c, chi_square(counts, p, VOCAB, 20000), bound);
    }
}

struct large {
    float weight;
    int32_t token;
};

static int heavier_first(const void *a, const void *b)
{
    const struct large *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->token - y->token;
}

// A vocabulary of the size of real ones, ragged: what is drawn lies within the nucleus that sorting
// gives, and half of the draws in the half of its mass that is heavier.
static void top_p_of_a_large_vocabulary_draws_from_the_nucleus(void **state)
{
    (void)state;
    enum { DRAWS = 4000 };
    static const struct {
        float top_p, spread;
    } cases[] = {{0.95f, 2}, {0.9f, 4}, {0.5f, 0.3f}, {0.999f, 1}, {0.8f, 0}, {0.1f, 8}};
    static float logits[LARGE];
    static struct large sorted[LARGE];
    static int32_t place[LARGE];
    struct rng rng;
    rng_seed(&rng, 5);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        double total = 0, sum = 0, best = -INFINITY;
        for (int32_t i = 0; i < LARGE; i++) {
            logits[i] = (float)rng_normal(&rng) * cases[c].spread;
            best = fmax(best, (double)logits[i]);
        }
        for (int32_t i = 0; i < LARGE; i++) {
            sorted[i] = (struct large){(float)exp((double)logits[i] - best), i};
            total += (double)sorted[i].weight;
        }
        qsort(sorted, LARGE, sizeof *sorted, heavier_first);
        int32_t nucleus = 0, half = 0;
        for (; nucleus < LARGE && sum < (double)cases[c].top_p * total; nucleus++) {
            sum += (double)sorted[nucleus].weight;
            half += sum < 0.5 * (double)cases[c].top_p * total;
            place[sorted[nucleus].token] = nucleus;
        }
        for (int32_t i = nucleus; i < LARGE; i++)
            place[sorted[i].token] = i;
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.top_p = cases[c].top_p;
        sampling.seed = c;
        sora_sampler *sampler = create(&sampling, LARGE);
        int32_t heavy = 0, farthest = 0;
        for (int32_t i = 0; i < DRAWS; i++) {
            const int32_t at = place[next(sampler, logits, NULL, 0)];
            // The weights are e^x to 3e-7: one beyond the end may be the last.
            assert_true(at <= nucleus);
            heavy += at <= half;
            farthest = at > farthest ? at : farthest;
        }
        sora_sampler_destroy(sampler);
        // Five standard errors, and the token at the half may be large.
        const double share = (double)heavy / DRAWS;
        const double token = half < LARGE ? (double)sorted[half].weight / sum : 0;
        assert_true(share > 0.5 - 0.04 && share < 0.5 + 0.04 + token);
        if (nucleus > 10)
            assert_true(farthest > nucleus / 2);
    }
}

static void top_k_among_equal_logits_takes_the_smallest_ids(void **state)
{
    (void)state;
    float logits[100] = {0};
    struct sora_sampling sampling = sora_sampling_defaults();
    sampling.top_k = 3;
    int32_t counts[100];
    draw(&sampling, logits, 100, 3000, counts);
    for (int i = 0; i < 100; i++)
        assert_int_equal(counts[i] > 0, i < 3);
}

static void top_p_stops_at_the_token_that_reaches_it(void **state)
{
    (void)state;
    const float logits[4] = {0, 0, 0, 0}; // a quarter each, exactly
    static const struct {
        float top_p;
        int kept;
    } cases[] = {{0.25f, 1}, {0.26f, 2}, {0.5f, 2}, {0.75f, 3}, {0.7501f, 4}, {1, 4}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.top_p = cases[c].top_p;
        int32_t counts[4];
        draw(&sampling, logits, 4, 400, counts);
        for (int i = 0; i < 4; i++)
            assert_int_equal(counts[i] > 0, i < cases[c].kept);
    }
}

static void the_same_seed_gives_the_same_tokens_and_another_does_not(void **state)
{
    (void)state;
    float logits[50];
    for (int i = 0; i < 50; i++)
        logits[i] = (float)(i % 7) / 3;
    for (int truncated = 0; truncated < 2; truncated++) {
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.top_p = truncated ? 0.9f : 1;
        sampling.seed = 42;
        sora_sampler *a = create(&sampling, 50), *b = create(&sampling, 50);
        sampling.seed = 43;
        sora_sampler *c = create(&sampling, 50);
        int differences = 0;
        for (int i = 0; i < 100; i++) {
            int32_t token = next(a, logits, NULL, 0);
            assert_int_equal(token, next(b, logits, NULL, 0));
            differences += token != next(c, logits, NULL, 0);
        }
        assert_true(differences > 50);
        sora_sampler_destroy(a);
        sora_sampler_destroy(b);
        sora_sampler_destroy(c);
    }
}

static void greedy_takes_the_first_of_equal_maxima(void **state)
{
    (void)state;
    float logits[37] = {0};
    logits[9] = logits[20] = logits[36] = 5;
    struct sora_sampling sampling = greedy();
    sora_sampler *sampler = create(&sampling, 37);
    assert_int_equal(next(sampler, logits, NULL, 0), 9);
    const int32_t banned[] = {9, -5, 1000};
    assert_int_equal(next(sampler, logits, banned, 3), 20);
    sora_sampler_destroy(sampler);
}

static void a_bias_moves_a_token_and_bans_at_minus_100(void **state)
{
    (void)state;
    const float logits[4] = {3, 2, 1, 0};
    const struct sora_logit_bias bias[] = {{0, -100}, {3, 1.5f}, {3, 0.25f}};
    struct sora_sampling sampling = greedy();
    sampling.logit_bias = bias;
    sampling.logit_bias_count = 2;
    sora_sampler *sampler = create(&sampling, 4);
    assert_int_equal(next(sampler, logits, NULL, 0), 1); // 2 against 1.5
    sora_sampler_destroy(sampler);
    sampling.logit_bias_count = 3; // entries of one token add up
    sampling.temperature = 0.01f;
    sampler = create(&sampling, 4);
    assert_int_equal(next(sampler, logits, NULL, 0), 1); // 2 against 1.75
    sora_sampler_destroy(sampler);
}

static void presence_and_frequency_penalties_count_generated_tokens_only(void **state)
{
    (void)state;
    const float logits[3] = {3, 2.5f, 0};
    struct sora_sampling sampling = greedy();
    sampling.frequency_penalty = 0.3f;
    sora_sampler *sampler = create(&sampling, 3);
    const int32_t prompt[] = {0, 0, 0, 0, 0};
    sora_sampler_see_prompt(sampler, prompt, 5);
    const int32_t frequency[] = {0, 0, 1, 0, 1};
    // 3 | 2.7 | 2.4 < 2.5 | 2.4 > 2.2 | 2.1 < 2.2
    for (int i = 0; i < 5; i++)
        assert_int_equal(next(sampler, logits, NULL, 0), frequency[i]);
    sora_sampler_destroy(sampler);
    sampling.frequency_penalty = 0;
    sampling.presence_penalty = 0.6f;
    sampler = create(&sampling, 3);
    const int32_t presence[] = {0, 1, 0, 0};
    for (int i = 0; i < 4; i++) // 3 | 2.4 < 2.5 | 2.4 > 1.9 and so on
        assert_int_equal(next(sampler, logits, NULL, 0), presence[i]);
    sora_sampler_destroy(sampler);
}

static void repetition_penalty_counts_the_prompt_and_keeps_the_sign(void **state)
{
    (void)state;
    struct sora_sampling sampling = greedy();
    sampling.repetition_penalty = 2;
    sora_sampler *sampler = create(&sampling, 3);
    const int32_t prompt[] = {0, -3, 99};
    sora_sampler_see_prompt(sampler, prompt, 3);
    const float positive[3] = {3, 2, 1};
    assert_int_equal(next(sampler, positive, NULL, 0), 1); // 3 / 2 < 2
    const float negative[3] = {-1, -1.5f, -1.9f};
    // 0 and 1 were seen: -2 and -3.
    assert_int_equal(next(sampler, negative, NULL, 0), 2);
    sora_sampler_destroy(sampler);
}

static void banned_tokens_are_never_drawn(void **state)
{
    (void)state;
    const float logits[4] = {9, 8, 1, 1};
    const int32_t banned[] = {0, 1};
    for (int truncated = 0; truncated < 2; truncated++) {
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.top_k = truncated ? 3 : 0;
        sora_sampler *sampler = create(&sampling, 4);
        for (int i = 0; i < 1000; i++)
            assert_true(next(sampler, logits, banned, 2) >= 2);
        sora_sampler_destroy(sampler);
    }
}

static void when_all_is_banned_the_best_token_comes_out(void **state)
{
    (void)state;
    const float logits[3] = {1, 3, 2};
    const int32_t banned[] = {0, 1, 2};
    for (int temperature = 0; temperature < 2; temperature++) {
        struct sora_sampling sampling = sora_sampling_defaults();
        sampling.temperature = (float)temperature;
        sampling.top_p = 0.5f;
        sora_sampler *sampler = create(&sampling, 3);
        assert_int_equal(next(sampler, logits, banned, 3), 1);
        sora_sampler_destroy(sampler);
    }
}

static void logits_that_are_no_numbers_never_win_and_never_crash(void **state)
{
    (void)state;
    const float rows[][4] = {
        {NAN, NAN, NAN, NAN},       {-INFINITY, -INFINITY, -INFINITY, -INFINITY},
        {NAN, 1, NAN, -INFINITY},   {INFINITY, INFINITY, 1, NAN},
        {3e38f, -3e38f, 0, 3e38f},  {-3e38f, -3e38f, NAN, NAN},
        {1e-45f, 0, -0.0f, 1e-45f},
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (int mode = 0; mode < 16; mode++) {
            struct sora_sampling sampling = sora_sampling_defaults();
            sampling.temperature = mode & 1 ? 1e-30f : mode & 8 ? 0 : 1.3f;
            sampling.top_p = mode & 2 ? 0.9f : 1;
            sampling.top_k = mode & 4 ? 2 : 0;
            sampling.min_p = mode & 4 ? 0.5f : 0;
            sampling.repetition_penalty = mode & 8 ? 3 : 1;
            sampling.frequency_penalty = -2;
            sora_sampler *sampler = create(&sampling, 4);
            for (int i = 0; i < 20; i++) {
                int32_t token = next(sampler, rows[r], NULL, 0);
                assert_true(token >= 0 && token < 4);
                if (r >= 2)
                    assert_false(isnan(rows[r][token]) || rows[r][token] == -INFINITY);
            }
            sora_sampler_destroy(sampler);
        }
    }
}

static void a_vocabulary_of_one_gives_it(void **state)
{
    (void)state;
    const float logits[1] = {-7};
    struct sora_sampling sampling = sora_sampling_defaults();
    sampling.top_p = 0.5f;
    sampling.top_k = 5;
    sora_sampler *sampler = create(&sampling, 1);
    assert_int_equal(next(sampler, logits, NULL, 0), 0);
    sora_sampler_destroy(sampler);
}

static void values_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    const struct sora_logit_bias outside = {10, 1}, nan_bias = {1, NAN}, large = {1, 101};
    struct sora_sampling cases[16];
    const char *names[16];
    int count = 0;
#define BAD(field, value)                        \
    do {                                         \
        cases[count] = sora_sampling_defaults(); \
        cases[count].field = value;              \
        names[count++] = #field;                 \
    } while (0)
    BAD(temperature, -0.1f);
    BAD(temperature, NAN);
    BAD(temperature, INFINITY);
    BAD(top_p, 0);
    BAD(top_p, 1.01f);
    BAD(min_p, -1);
    BAD(top_k, -2);
    BAD(presence_penalty, 2.5f);
    BAD(frequency_penalty, -2.5f);
    BAD(repetition_penalty, 0);
    BAD(repetition_penalty, NAN);
    BAD(logit_bias_count, SORA_LOGIT_BIAS_COUNT_MAX + 1);
    BAD(logit_bias, &outside);
    BAD(logit_bias, &nan_bias);
    BAD(logit_bias, &large);
    for (int i = 0; i < count; i++) {
        struct sora_error err = {0};
        sora_sampler *sampler;
        if (cases[i].logit_bias != NULL)
            cases[i].logit_bias_count = 1;
        assert_int_equal(sora_sampler_create(&cases[i], 10, &sampler, &err), SORA_MALFORMED);
        assert_null(sampler);
        if (strncmp(err.text, names[i], strlen("logit_bias")) != 0 &&
            strstr(err.text, names[i]) == NULL)
            fail_msg("%s not in: %s", names[i], err.text);
    }
    struct sora_sampling sampling = sora_sampling_defaults();
    struct sora_error err = {0};
    sora_sampler *sampler;
    assert_int_equal(sora_sampler_create(&sampling, 0, &sampler, &err), SORA_MALFORMED);
}

// Blocks' maxima follow every change: logits that rise, that fall from the top of their block, that
// fall from elsewhere, and several of one block.
static void maxima_follow_bias_penalties_and_bans(void **state)
{
    (void)state;
    enum { SIZE = 77, ROUNDS = 300 };
    struct rng rng;
    rng_seed(&rng, 8);
    for (int round = 0; round < ROUNDS; round++) {
        struct sora_sampling sampling = greedy();
        struct sora_logit_bias bias[12];
        float logits[SIZE], expected[SIZE];
        int32_t prompt[20], banned[8], best = 0;
        bool seen[SIZE] = {false};
        for (int i = 0; i < SIZE; i++)
            expected[i] = logits[i] = (float)rng_normal(&rng);
        sampling.repetition_penalty = round % 2 == 0 ? 2 : 0.5f;
        sampling.logit_bias = bias;
        sampling.logit_bias_count = 12;
        for (int i = 0; i < 12; i++) {
            bias[i] = (struct sora_logit_bias){(int32_t)(rng_u64(&rng) % SIZE),
                                               2 * (float)rng_normal(&rng)};
            expected[bias[i].token] += bias[i].bias;
        }
        sora_sampler *sampler = create(&sampling, SIZE);
        for (int i = 0; i < 20; i++) {
            prompt[i] = (int32_t)(rng_u64(&rng) % SIZE);
            float *logit = &expected[prompt[i]];
            if (!seen[prompt[i]])
                *logit = *logit > 0 ? *logit / sampling.repetition_penalty
                                    : *logit * sampling.repetition_penalty;
            seen[prompt[i]] = true;
        }
        sora_sampler_see_prompt(sampler, prompt, 20);
        for (int i = 0; i < 8; i++) {
            banned[i] = (int32_t)(rng_u64(&rng) % SIZE);
            expected[banned[i]] = -INFINITY;
        }
        for (int i = 1; i < SIZE; i++)
            best = expected[i] > expected[best] ? i : best;
        assert_int_equal(next(sampler, logits, banned, 8), best);
        sora_sampler_destroy(sampler);
    }
}

static int make_scratch(void **state)
{
    (void)state;
    struct sora_error err = {0};
    return sora_sampler_scratch_create(LARGE, 1, &scratch, &err) == SORA_OK ? 0 : -1;
}

static int free_scratch(void **state)
{
    (void)state;
    sora_sampler_scratch_destroy(scratch);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_follow_the_softmax_at_every_seed),
        cmocka_unit_test(the_chi_square_sees_a_wrong_distribution),
        cmocka_unit_test(temperature_sharpens_and_flattens),
        cmocka_unit_test(truncation_leaves_what_sorting_leaves),
        cmocka_unit_test(top_p_of_a_large_vocabulary_draws_from_the_nucleus),
        cmocka_unit_test(top_k_among_equal_logits_takes_the_smallest_ids),
        cmocka_unit_test(top_p_stops_at_the_token_that_reaches_it),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens_and_another_does_not),
        cmocka_unit_test(maxima_follow_bias_penalties_and_bans),
        cmocka_unit_test(greedy_takes_the_first_of_equal_maxima),
        cmocka_unit_test(a_bias_moves_a_token_and_bans_at_minus_100),
        cmocka_unit_test(presence_and_frequency_penalties_count_generated_tokens_only),
        cmocka_unit_test(repetition_penalty_counts_the_prompt_and_keeps_the_sign),
        cmocka_unit_test(banned_tokens_are_never_drawn),
        cmocka_unit_test(when_all_is_banned_the_best_token_comes_out),
        cmocka_unit_test(logits_that_are_no_numbers_never_win_and_never_crash),
        cmocka_unit_test(a_vocabulary_of_one_gives_it),
        cmocka_unit_test(values_out_of_range_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, make_scratch, free_scratch);
}

// SPDX-License-Identifier: Apache-2.0
// ROUGE-L and BLEU against rouge_score 0.1.2 and sacrebleu 2.6.0 on the same texts.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "train/text_score.h"

static void expect_near(double got, double want)
{
    if (!(fabs(got - want) < 1e-10))
        fail_msg("%.12f, expected %.12f", got, want);
}

static void rouge_l_is_that_of_rouge_score(void **state)
{
    (void)state;
    const struct {
        const char *answer, *reference;
        double f1;
    } rows[] = {
        {"the cat sat on the mat", "the cat is on the mat", 0.833333333333333},
        {"The Vaults is a pub near Caf\xc3\xa9 Adriatic, rated 5 out of 5.",
         "The Vaults pub near Caf\xc3\xa9 Adriatic has a 5 star rating.", 0.583333333333333},
        {"", "something", 0.0},
        {"completely different words", "nothing shared here", 0.0},
        {"A B C D E F G", "g f e d c b a", 0.142857142857143},
        {"It's $1,000.50 (approx.) - isn't it?", "It is $1,000.50, approx. isn't it",
         0.888888888888889},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        double f1 = -1.0;
        struct sora_error err;
        assert_int_equal(text_score_rouge_l(rows[i].answer, rows[i].reference, &f1, &err), SORA_OK);
        expect_near(f1, rows[i].f1);
    }
}

struct bleu_row {
    const char *answer, *references[2];
    int32_t count;
};

static double bleu_of(const struct bleu_row *rows, int32_t count)
{
    struct bleu bleu = {0};
    struct sora_error err;
    for (int32_t i = 0; i < count; i++)
        assert_int_equal(bleu_add(&bleu, rows[i].answer, rows[i].references, rows[i].count, &err),
                         SORA_OK);
    return bleu_score(&bleu);
}

static void bleu_is_that_of_sacrebleu(void **state)
{
    (void)state;
    const struct bleu_row cat = {
        "the cat sat on the mat", {"the cat is on the mat", "a cat sat on the mat"}, 2};
    expect_near(bleu_of(&cat, 1), 0.840896415254);
    const struct bleu_row pubs[] = {
        {"The Vaults is a pub near Caf\xc3\xa9 Adriatic, rated 5 out of 5.",
         {"The Vaults pub near Caf\xc3\xa9 Adriatic has a 5 star rating.",
          "Near Caf\xc3\xa9 Adriatic, The Vaults is a pub rated 5 out of 5."},
         2},
        {"Cocum is a family-friendly coffee shop.",
         {"Cocum is a coffee shop that is family-friendly and cheap.", NULL},
         1}};
    expect_near(bleu_of(pubs, 2), 0.545566538439);
    const struct bleu_row signs = {
        "It's $1,000.50 (approx.) - isn't it? 10-20 &quot;x&quot; a..b, c.",
        {"It's $1,000.50, approx. - isn't it? 10-20 \"x\" a..b, c.", NULL},
        1};
    expect_near(bleu_of(&signs, 1), 0.778414310911);
    const struct bleu_row smoothed = {"a b c d x y z w", {"a b c q d x e y", NULL}, 1};
    expect_near(bleu_of(&smoothed, 1), 0.270541134527);
    const struct bleu_row repeated = {
        "the the the the the the the", {"the cat is on the mat", "there is a cat on the mat"}, 2};
    expect_near(bleu_of(&repeated, 1), 0.078098498423);
}

static void bleu_of_nothing_shared_or_too_short_is_zero(void **state)
{
    (void)state;
    const struct bleu_row apart = {"one two three four", {"five six seven eight", NULL}, 1};
    const struct bleu_row shorter = {"one two", {"one two", NULL}, 1};
    const struct bleu_row empty = {"", {"one two", NULL}, 1};
    assert_true(bleu_of(&apart, 1) == 0.0);
    assert_true(bleu_of(&shorter, 1) == 0.0);
    assert_true(bleu_of(&empty, 1) == 0.0);
    assert_true(bleu_of(NULL, 0) == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rouge_l_is_that_of_rouge_score),
        cmocka_unit_test(bleu_is_that_of_sacrebleu),
        cmocka_unit_test(bleu_of_nothing_shared_or_too_short_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

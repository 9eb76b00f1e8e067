// SPDX-License-Identifier: Apache-2.0
// Cross-entropy: values against plain sums, gradients against finite differences.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernel/loss.h"

enum { ROWS = 5, VOCAB = 37 };

static void random_logits(float *logits, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int32_t i = 0; i < ROWS * VOCAB; i++)
        logits[i] = 3.0f * (float)rng_normal(&rng);
}

static double plain_loss(const float *row, int32_t target)
{
    double sum = 0.0;
    for (int32_t v = 0; v < VOCAB; v++)
        sum += exp((double)row[v]);
    return log(sum) - (double)row[target];
}

static const int32_t targets[ROWS] = {0, 36, 5, 5, 20};

static void the_loss_is_the_log_of_the_softmax(void **state)
{
    (void)state;
    float logits[ROWS * VOCAB], kept[ROWS * VOCAB];
    double losses[ROWS];
    random_logits(logits, 1);
    memcpy(kept, logits, sizeof(kept));
    cross_entropy(NULL, logits, targets, ROWS, VOCAB, 1.0f, losses);
    for (int32_t i = 0; i < ROWS; i++) {
        const double want = plain_loss(kept + i * VOCAB, targets[i]);
        assert_true(fabs(losses[i] - want) < 1e-5);
        assert_true(fabs(token_logprob(kept + i * VOCAB, VOCAB, targets[i]) + want) < 1e-5);
    }
}

static void huge_logits_do_not_overflow(void **state)
{
    (void)state;
    float logits[VOCAB] = {0};
    logits[3] = 1e4f;
    const int32_t target = 3;
    double loss;
    cross_entropy(NULL, logits, &target, 1, VOCAB, 1.0f, &loss);
    assert_true(loss == 0.0);
    for (int32_t v = 0; v < VOCAB; v++)
        assert_true(fabsf(logits[v]) < 1e-6f);
}

static double max_gradient_error(float grad_scale_claimed)
{
    float logits[ROWS * VOCAB], kept[ROWS * VOCAB];
    double losses[ROWS], worst = 0.0;
    random_logits(logits, 2);
    memcpy(kept, logits, sizeof(kept));
    cross_entropy(NULL, logits, targets, ROWS, VOCAB, 0.5f, losses);
    for (int32_t i = 0; i < ROWS * VOCAB; i++) {
        const float before = kept[i];
        const int32_t row = i / VOCAB;
        kept[i] = before + 1e-2f;
        const double up = plain_loss(kept + row * VOCAB, targets[row]);
        kept[i] = before - 1e-2f;
        const double down = plain_loss(kept + row * VOCAB, targets[row]);
        kept[i] = before;
        const double slope = (double)grad_scale_claimed * (up - down) / 2e-2;
        worst = fmax(worst, fabs(slope - (double)logits[i]));
    }
    return worst;
}

static void the_gradient_is_the_slope_of_the_loss(void **state)
{
    (void)state;
    assert_true(max_gradient_error(0.5f) < 2e-5);
    assert_false(max_gradient_error(0.6f) < 2e-5); // the comparison can fail
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_loss_is_the_log_of_the_softmax),
        cmocka_unit_test(huge_logits_do_not_overflow),
        cmocka_unit_test(the_gradient_is_the_slope_of_the_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

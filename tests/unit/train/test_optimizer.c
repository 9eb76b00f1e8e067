// SPDX-License-Identifier: Apache-2.0
// AdamW and the proximal step: PyTorch's gates alone (prox.json), both thresholds, weight decay.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "expect_close.h"
#include "golden.h"
#include "train/adamw.h"
#include "train/proximal.h"
#include "train/schedule.h"

// Replays one case; xi_scale 1 is the case as it was run.
static bool replay_case(const cJSON *one, double xi_scale, char text[256])
{
    size_t count, all;
    float *gates = golden_floats(golden_member(one, "init"), &count);
    float *grads = golden_floats(golden_member(one, "grads"), &all);
    float *want = golden_floats(golden_member(one, "gates_after_step"), NULL);
    float *moments = calloc(2 * count, sizeof(float));
    assert_non_null(moments);
    struct adamw_step step = adamw_step_defaults();
    const int64_t steps = golden_member(one, "total_steps")->valueint;
    assert_int_equal(all, count * (size_t)steps);
    bool equal = true;
    for (int64_t s = 0; equal && s < steps; s++) {
        step.step = s + 1;
        step.lr = golden_member(one, "lr")->valuedouble *
                  schedule_factor(s, steps, golden_member(one, "warmup_steps")->valueint);
        adamw_update(NULL, &step, grads + (size_t)s * count, (int64_t)count, gates, moments,
                     moments + count);
        proximal_step(gates, (int64_t)count, xi_scale * golden_member(one, "xi")->valuedouble,
                      SORA_THRESHOLD_PAPER);
        equal = close_compare(gates, want + (size_t)s * count, count, 1e-6, 0.0, text);
    }
    free(gates);
    free(grads);
    free(want);
    free(moments);
    return equal;
}

static void gates_alone_follow_pytorch(void **state)
{
    (void)state;
    cJSON *cases = golden_json(GOLDEN_DIR "/prox.json");
    const cJSON *one;
    char text[256];
    cJSON_ArrayForEach(one, cases)
    {
        if (!replay_case(one, 1.0, text))
            fail_msg("%s", text);
        if (golden_member(one, "xi")->valuedouble > 0.0)
            assert_false(replay_case(one, 1.05, text)); // the comparison can fail
    }
    cJSON_Delete(cases);
}

static void the_two_thresholds_differ_between_xi_and_twice_xi(void **state)
{
    (void)state;
    const struct {
        float gate, paper, reference;
    } rows[] = {
        {0.0f, 0.0f, 0.0f},   {0.5f, 0.0f, 0.0f},   {-0.5f, 0.0f, 0.0f}, {1.0f, 0.0f, 1.0f},
        {-1.0f, 0.0f, -1.0f}, // exactly xi: the reference's < leaves it
        {1.5f, 0.5f, 0.0f},   {-1.5f, -0.5f, 0.0f}, {2.5f, 1.5f, 1.5f},  {-2.5f, -1.5f, -1.5f},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        float paper = rows[i].gate, reference = rows[i].gate;
        proximal_step(&paper, 1, 1.0, SORA_THRESHOLD_PAPER);
        proximal_step(&reference, 1, 1.0, SORA_THRESHOLD_REFERENCE);
        assert_true(paper == rows[i].paper);
        assert_true(reference == rows[i].reference);
    }
}

static void weight_decay_shrinks_what_has_no_gradient(void **state)
{
    (void)state;
    float value = 2.0f, m = 0.0f, v = 0.0f;
    const float grad = 0.0f;
    struct adamw_step step = adamw_step_defaults();
    step.step = 1;
    step.lr = 0.1;
    step.weight_decay = 0.5;
    adamw_update(NULL, &step, &grad, 1, &value, &m, &v);
    assert_true(fabsf(value - 1.9f) < 1e-6f);
}

static void a_first_step_moves_by_the_learning_rate(void **state)
{
    (void)state;
    float values[2] = {1.0f, 1.0f}, m[2] = {0}, v[2] = {0};
    const float grads[2] = {1e-3f, -50.0f};
    struct adamw_step step = adamw_step_defaults();
    step.step = 1;
    step.lr = 0.1;
    adamw_update(NULL, &step, grads, 2, values, m, v);
    assert_true(fabsf(values[0] - 0.9f) < 1e-5f);
    assert_true(fabsf(values[1] - 1.1f) < 1e-5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gates_alone_follow_pytorch),
        cmocka_unit_test(the_two_thresholds_differ_between_xi_and_twice_xi),
        cmocka_unit_test(weight_decay_shrinks_what_has_no_gradient),
        cmocka_unit_test(a_first_step_moves_by_the_learning_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Options of a training run: xi and target texts, bounds, the factor over time.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "train/schedule.h"

static void xi_texts_become_stages(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int32_t count;
        double values[4];
    } rows[] = {
        {"1e-3", 1, {1e-3}},
        {"0", 1, {0}},
        {"linear:0:3e-3:4", 4, {0, 1e-3, 2e-3, 3e-3}},
        {"list:3,1,2", 3, {3, 1, 2}},
        {"list:0.5", 1, {0.5}},
        {"exp-linear:1e-4:1e-2:3", 3, {1e-4, 1e-3, 1e-2}},
        {"log-linear:0:1:2", 2, {0, 1}},
        {"log-linear:0:2:3", 3, {0, 1.433780830483027, 2}}, // log((1 + e^2) / 2)
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sora_train_options options = sora_train_options_defaults();
        struct sora_error err;
        assert_int_equal(sora_train_parse_xi(rows[i].text, &options, &err), SORA_OK);
        assert_int_equal(options.xi_count, rows[i].count);
        for (int32_t x = 0; x < rows[i].count; x++)
            assert_true(fabs(options.xi[x] - rows[i].values[x]) < 1e-12);
    }
}

static void a_bad_xi_text_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    const char *texts[] = {"",
                           "x",
                           "-1",
                           "1e-3x",
                           "nan",
                           "inf",
                           "linear:0:1",
                           "linear:0:1:1",
                           "linear:0:1:65",
                           "linear:0:1:2.5",
                           "linear::1:3",
                           "exp-linear:0:1:3",
                           "log-linear:0:200:3",
                           "list:",
                           "list:1,,2",
                           "list:1,2,",
                           "cubic:0:1:3",
                           "linear:0:1:4:5"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct sora_train_options options = sora_train_options_defaults();
        struct sora_error err = {0};
        const sora_status status = sora_train_parse_xi(texts[i], &options, &err);
        if (status != SORA_MALFORMED && status != SORA_LIMIT)
            fail_msg("\"%s\" gives %s", texts[i], sora_status_name(status));
        assert_true(strncmp(err.text, "xi: ", 4) == 0);
        assert_int_equal(options.xi_count, 1);
        assert_true(options.xi[0] == 1e-3);
    }
}

static void a_list_of_too_many_values_is_refused(void **state)
{
    (void)state;
    char text[512] = "list:1";
    for (size_t i = 0; i < 64; i++)
        memcpy(text + 6 + 2 * i, ",1", 3);
    struct sora_train_options options = sora_train_options_defaults();
    struct sora_error err;
    assert_int_equal(sora_train_parse_xi(text, &options, &err), SORA_LIMIT);
    text[strlen(text) - 2] = '\0';
    assert_int_equal(sora_train_parse_xi(text, &options, &err), SORA_OK);
    assert_int_equal(options.xi_count, 64);
}

static void target_texts_choose_projections(void **state)
{
    (void)state;
    struct sora_train_options options = sora_train_options_defaults();
    struct sora_error err;
    assert_int_equal(sora_train_parse_targets("q,v,down_proj", &options, &err), SORA_OK);
    const bool want[SORA_PROJ_COUNT] = {true, false, true, false, false, false, true};
    assert_memory_equal(options.targets, want, sizeof(want));
    const char *bad[] = {"",    "q,",   "query",
                         "q;v", "q,,v", "a_name_that_is_much_longer_than_any_projection_has"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(sora_train_parse_targets(bad[i], &options, &err), SORA_MALFORMED);
        assert_memory_equal(options.targets, want, sizeof(want));
    }
}

static void target_params_are_a_share_or_a_count(void **state)
{
    (void)state;
    const struct {
        const char *text;
        double value;
    } rows[] = {{"30%", 0.3}, {"0.5%", 0.005}, {"100%", 0.0}, {"250000", 250000.0}};
    struct sora_train_options options = sora_train_options_defaults();
    struct sora_error err;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(sora_train_parse_target_params(rows[i].text, &options, &err), SORA_OK);
        assert_true(fabs(options.target_params - rows[i].value) < 1e-12);
    }
    const char *bad[] = {"", "%", "0%", "-3%", "101%", "0.3", "0", "1.5", "nan%", "1e99", "30 %"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (sora_train_parse_target_params(bad[i], &options, &err) != SORA_MALFORMED)
            fail_msg("\"%s\" is accepted", bad[i]);
    options.xi_count = 2;
    assert_int_equal(schedule_check_options(&options, &err), SORA_MALFORMED);
}

static void the_factor_rises_then_falls_to_zero(void **state)
{
    (void)state;
    assert_true(schedule_factor(0, 24, 2) == 0.0);
    assert_true(schedule_factor(1, 24, 2) == 0.5);
    assert_true(schedule_factor(2, 24, 2) == 1.0);
    assert_true(schedule_factor(13, 24, 2) == 0.5);
    assert_true(schedule_factor(23, 24, 2) == 1.0 / 22.0);
    assert_true(schedule_factor(0, 10, 0) == 0.0);
    assert_true(schedule_factor(1, 10, 0) == 0.9);
    assert_true(schedule_factor(9, 10, 10) == 0.9);
}

static void a_warmup_is_a_fraction_or_a_count(void **state)
{
    (void)state;
    assert_int_equal(schedule_warmup_steps(0.06, 100), 6);
    assert_int_equal(schedule_warmup_steps(0.06, 10), 0);
    assert_int_equal(schedule_warmup_steps(5.0, 100), 5);
    assert_int_equal(schedule_warmup_steps(500.0, 100), 100);
    assert_int_equal(schedule_warmup_steps(0.0, 100), 0);
}

static void options_out_of_range_are_named(void **state)
{
    (void)state;
    struct sora_error err;
    struct sora_train_options options = sora_train_options_defaults();
    assert_int_equal(schedule_check_options(&options, &err), SORA_OK);
    options.rank = 0;
    assert_int_equal(schedule_check_options(&options, &err), SORA_LIMIT);
    assert_string_equal(err.text, "rank is 0, expected 1 to 1024");
    options = sora_train_options_defaults();
    options.lr = NAN;
    assert_int_equal(schedule_check_options(&options, &err), SORA_LIMIT);
    options = sora_train_options_defaults();
    options.xi[0] = -1.0;
    assert_int_equal(schedule_check_options(&options, &err), SORA_LIMIT);
    options = sora_train_options_defaults();
    options.dropout = 1.0;
    assert_int_equal(schedule_check_options(&options, &err), SORA_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xi_texts_become_stages),
        cmocka_unit_test(a_bad_xi_text_is_refused_and_changes_nothing),
        cmocka_unit_test(a_list_of_too_many_values_is_refused),
        cmocka_unit_test(target_texts_choose_projections),
        cmocka_unit_test(target_params_are_a_share_or_a_count),
        cmocka_unit_test(the_factor_rises_then_falls_to_zero),
        cmocka_unit_test(a_warmup_is_a_fraction_or_a_count),
        cmocka_unit_test(options_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

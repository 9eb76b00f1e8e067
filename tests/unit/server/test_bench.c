// SPDX-License-Identifier: Apache-2.0
// What bench is asked for, its statistics, and the adapters it makes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "server/bench.h"

static void lists_are_read_and_wrong_words_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *complaint; // NULL: fine
    } cases[] = {
        {"1,4,16", NULL},
        {"256", NULL},
        {"", "empty"},
        {"1,,4", "''"},
        {"0", "'0'"},
        {"257", "'257' is no number from 1 to 256"},
        {"4x", "'4x'"},
        {"-1", "'-1'"},
        {"99999999999999999999", "'99999999999999999999'"},
        {"111111111111111111111111111111111111111111", "''"},
        {"1,2,3,4,5,6,7,8,9", "more than 8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t out[BENCH_LIST_MAX], count;
        struct sora_error err;
        sora_status status =
            bench_parse_counts(cases[i].text, "--batch", BENCH_BATCH_MAX, out, &count, &err);
        assert_int_equal(status == SORA_OK, cases[i].complaint == NULL);
        if (status != SORA_OK)
            assert_non_null(strstr(err.text, cases[i].complaint));
    }
    int32_t out[BENCH_LIST_MAX], count;
    assert_int_equal(bench_parse_counts("1,4,16", "x", 16, out, &count, NULL), SORA_OK);
    assert_int_equal(count, 3);
    assert_true(out[0] == 1 && out[1] == 4 && out[2] == 16);
}

static void ranks_are_numbers_or_words(void **state)
{
    (void)state;
    struct bench_plan plan;
    assert_int_equal(bench_parse_ranks("4,ragged,zipf", &plan, NULL), SORA_OK);
    assert_int_equal(plan.rank_count, 3);
    assert_true(plan.ranks[0].kind == BENCH_UNIFORM && plan.ranks[0].rank == 4);
    assert_int_equal(plan.ranks[1].kind, BENCH_RAGGED);
    assert_int_equal(plan.ranks[2].kind, BENCH_ZIPF);
    assert_string_equal(plan.ranks[1].name, "ragged");
    assert_int_equal(bench_parse_ranks("257", &plan, NULL), SORA_MALFORMED);
    assert_int_equal(bench_parse_ranks("raged", &plan, NULL), SORA_MALFORMED);
    assert_int_equal(bench_parse_ranks("1,1,1,1,1,1,1,1,1", &plan, NULL), SORA_LIMIT);
    unsigned parts;
    assert_int_equal(bench_parse_parts("decode,rank-sum", &parts, NULL), SORA_OK);
    assert_int_equal(parts, BENCH_DECODE | BENCH_RANK_SUM);
    assert_int_equal(bench_parse_parts("decode,all", &parts, NULL), SORA_MALFORMED);
}

static void the_fit_goes_through_zero_and_knows_how_well(void **state)
{
    (void)state;
    struct bench_point line[4], bent[4], flat[4];
    for (int i = 0; i < 4; i++) {
        line[i] = (struct bench_point){100.0 * (i + 1), 250.0 * (i + 1)};
        bent[i] = (struct bench_point){100.0 * (i + 1), i % 2 == 0 ? 100 : 900};
        flat[i] = (struct bench_point){100.0 * (i + 1), 700};
    }
    double slope, r2;
    bench_fit(line, 4, &slope, &r2);
    assert_true(fabs(slope - 2.5) < 1e-12 && fabs(r2 - 1) < 1e-12);
    bench_fit(bent, 4, &slope, &r2);
    assert_true(r2 < 0.9);
    bench_fit(flat, 4, &slope, &r2); // a constant is no line through zero
    assert_true(r2 <= 0);
    double odd[3] = {3, 1, 2}, even[4] = {4, 1, 3, 2};
    assert_true(bench_median(odd, 3) == 2 && bench_median(even, 4) == 2.5);
    assert_true(bench_median(odd, 0) == 0);
}

static void made_adapters_have_the_ranks_asked_for(void **state)
{
    (void)state;
    const struct sora_base base = {.layer_count = 3,
                                   .hidden = 64,
                                   .intermediate = 128,
                                   .head_count = 4,
                                   .kv_head_count = 2,
                                   .head_dim = 16,
                                   .vocab_size = 100,
                                   .d_in = {64, 64, 64, 64, 64, 64, 128},
                                   .d_out = {64, 32, 32, 64, 128, 128, 64}};
    const struct bench_ranks uniform = {.kind = BENCH_UNIFORM, .rank = 5};
    const struct bench_ranks ragged = {.kind = BENCH_RAGGED, .rank = 16};
    struct bench_adapters *adapters = NULL;
    assert_int_equal(bench_adapters_create(&base, &uniform, 2, false, 1, &adapters, NULL), SORA_OK);
    const int64_t widths = (64 + 64) * 2 + (64 + 32) * 2 + (64 + 128) * 3;
    assert_int_equal(bench_adapters_parameters(adapters, 0), 3 * 5 * widths);
    assert_int_equal(bench_adapters_parameters(adapters, 1), 3 * 5 * widths);
    assert_ptr_not_equal(bench_adapters_get(adapters, 0), bench_adapters_get(adapters, 1));
    bench_adapters_destroy(adapters);
    assert_int_equal(bench_adapters_create(&base, &ragged, 8, true, 1, &adapters, NULL), SORA_OK);
    bool differ = false;
    for (int32_t i = 0; i < 8; i++) {
        int64_t count = bench_adapters_parameters(adapters, i);
        assert_true(count >= 0 && count <= 3 * 16 * widths);
        differ = differ || count != bench_adapters_parameters(adapters, 0);
    }
    assert_true(differ);
    bench_adapters_destroy(adapters);

    // Of fewer ranks, in the memory of others.
    struct bench_adapters *within = NULL;
    const struct bench_ranks four = {.kind = BENCH_UNIFORM, .rank = 4};
    assert_int_equal(bench_adapters_create(&base, &four, 2, true, 1, &adapters, NULL), SORA_OK);
    assert_int_equal(bench_adapters_within(&base, adapters, 2, &within, NULL), SORA_OK);
    for (int32_t i = 0; i < 2; i++) {
        const struct sora_lora_module *all = bench_adapters_get(adapters, i)->modules;
        const struct sora_lora_module *few = bench_adapters_get(within, i)->modules;
        assert_int_equal(bench_adapters_parameters(within, i), 3 * 2 * widths);
        const int last = 3 * SORA_PROJ_COUNT - 1;
        // 2 of 4 ranks everywhere, all in whole lines: half of the way.
        const uint8_t *first = all[0].a;
        assert_ptr_equal(few[0].a, first);
        assert_true(few[last].rank == 2 && few[last].dtype == SORA_I8);
        assert_int_equal(2 * ((const uint8_t *)few[last].bt - first),
                         (const uint8_t *)all[last].bt - first);
    }
    bench_adapters_destroy(within);
    bench_adapters_destroy(adapters);
    bench_adapters_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read_and_wrong_words_named),
        cmocka_unit_test(ranks_are_numbers_or_words),
        cmocka_unit_test(the_fit_goes_through_zero_and_knows_how_well),
        cmocka_unit_test(made_adapters_have_the_ranks_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The statistics of a run, fed with records whose figures are known.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/rng.h"
#include "loadtest/stats.h"
#include "sora/limits.h"

static const char *const three[] = {"base", "red", "blue"};

static struct stats *make(const char *slo_text)
{
    struct slo slo;
    struct stats *stats = NULL;
    struct sora_error err;
    if (slo_text != NULL)
        assert_int_equal(slo_parse(slo_text, &slo, &err), SORA_OK);
    assert_int_equal(stats_create(three, 3, slo_text != NULL ? &slo : NULL, &stats, &err), SORA_OK);
    return stats;
}

// Sent at planned_ms; first token after ttft_ms; then 10 ms for each further token.
static struct record reply(int32_t adapter, int64_t planned_ms, int64_t ttft_ms, int32_t tokens)
{
    int64_t planned_us = planned_ms * 1000, first_us = planned_us + ttft_ms * 1000;
    return (struct record){.adapter = adapter,
                           .outcome = RECORD_OK,
                           .http_status = 200,
                           .planned_us = planned_us,
                           .sent_us = planned_us + 100,
                           .first_us = first_us,
                           .end_us = first_us + (tokens - 1) * 10000,
                           .prompt_tokens = 20,
                           .output_tokens = tokens};
}

static void add(struct stats *stats, struct record record)
{
    stats_add_record(stats, &record);
}

static bool near(double found, double expected)
{
    return fabs(found - expected) <= 1e-9 * fmax(1, fabs(expected));
}

static void an_empty_run_has_no_figures(void **state)
{
    (void)state;
    struct stats *stats = make("ttft_p95=1s");
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.requests, 0);
    assert_true(summary.seconds == 0 && summary.ok_per_s == 0 && summary.error_share == 0);
    assert_int_equal(stats_slot_count(stats), 0);
    assert_false(stats_slo_met(stats)); // no sample is no success
    stats_destroy(stats);
    stats_destroy(NULL);
}

static void rates_are_over_first_planned_to_last_end(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    for (int i = 0; i < 10; ++i)
        add(stats, reply(i % 3, 2000 + i * 100, 50, 6)); // last: sent at 2.9 s, ends at 3.0 s
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.start_us, 2000000);
    assert_int_equal(summary.end_us, 3000000);
    assert_true(near(summary.seconds, 1));
    assert_true(near(summary.ok_per_s, 10) && near(summary.good_per_s, 10));
    assert_true(near(summary.output_tokens_per_s, 60) && near(summary.prompt_tokens_per_s, 200));
    assert_true(near(summary.offered_per_s, 10));
    assert_int_equal(summary.latency[LATENCY_TTFT].min_us, 50000);
    assert_int_equal(summary.latency[LATENCY_E2E].max_us, 100000);
    assert_int_equal(summary.adapters_used, 3);
    assert_true(summary.slo_met);
    stats_destroy(stats);
}

static void latency_counts_from_the_planned_time_and_not_from_sending(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct record late = reply(0, 1000, 300, 1);
    late.sent_us = late.planned_us + 250000;
    add(stats, late);
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.latency[LATENCY_TTFT].p50_us, 300000);
    assert_int_equal(summary.client.late_max_us, 250000);
    stats_destroy(stats);
}

static void quantiles_of_a_random_run_are_within_one_percent(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct rng rng;
    enum { COUNT = 100000 };
    rng_seed(&rng, 5);
    for (int i = 0; i < COUNT; ++i) {
        struct record record = reply(i % 3, i, 1, 1);
        double u = (i * 61 % COUNT + rng_uniform(&rng)) / COUNT; // each stratum once
        record.first_us = record.planned_us + llround(-150000 * log(1 - u));
        record.end_us = record.first_us;
        add(stats, record);
    }
    struct stats_summary summary;
    stats_summary(stats, &summary);
    const struct stats_latency *ttft = &summary.latency[LATENCY_TTFT];
    const int64_t found[] = {ttft->p50_us, ttft->p90_us, ttft->p95_us, ttft->p99_us};
    const double at[] = {0.5, 0.9, 0.95, 0.99};
    for (int i = 0; i < 4; ++i) {
        double expected = -150000 * log(1 - at[i]);
        assert_true(fabs((double)found[i] - expected) <= 0.01 * expected);
        assert_false(fabs((double)found[i] - 1.03 * expected) <= 0.01 * expected); // can fail
    }
    assert_true(fabs(ttft->mean_us - 150000) < 1500);
    stats_destroy(stats);
}

static void errors_are_counted_by_kind_and_give_no_latency(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    for (int kind = RECORD_OK; kind < RECORD_OUTCOME_COUNT; ++kind) {
        struct record record = reply(1, 100 * kind, 10, 4);
        record.outcome = (enum record_outcome)kind;
        add(stats, record);
    }
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.requests, RECORD_OUTCOME_COUNT);
    assert_int_equal(summary.ok, 1);
    assert_int_equal(summary.dropped, 1);
    assert_int_equal(summary.errors, RECORD_OUTCOME_COUNT - 2);
    for (int kind = 0; kind < RECORD_OUTCOME_COUNT; ++kind)
        assert_int_equal(summary.outcomes[kind], 1);
    assert_true(near(summary.error_share, 0.8));
    assert_int_equal(summary.latency[LATENCY_TTFT].count, 2); // a dropped one saw its first token
    assert_int_equal(summary.latency[LATENCY_E2E].count, 1);
    assert_int_equal(summary.output_tokens, 8);
    stats_destroy(stats);
}

static void the_warm_up_is_not_counted(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct record warm = reply(0, 0, 5000, 100);
    warm.warmup = true;
    add(stats, warm);
    add(stats, reply(0, 6000, 20, 2));
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.warmup, 1);
    assert_int_equal(summary.requests, 1);
    assert_int_equal(summary.start_us, 6000000);
    assert_int_equal(summary.latency[LATENCY_TTFT].max_us, 20000);
    stats_destroy(stats);
}

static void goodput_asks_each_reply_for_every_bound(void **state)
{
    (void)state;
    struct stats *stats = make("ttft_p95=100ms,itl_p95=12ms,e2e_p99=300ms");
    add(stats, reply(0, 0, 100, 5));   // good: at the bounds
    add(stats, reply(0, 100, 101, 5)); // first token too late
    add(stats, reply(0, 200, 50, 40)); // 440 ms end to end
    struct record slow = reply(0, 300, 50, 5);
    slow.end_us += 10000; // 12.5 ms between tokens
    add(stats, slow);
    struct record failed = reply(0, 400, 50, 5);
    failed.outcome = RECORD_HTTP_5XX;
    add(stats, failed);
    struct record whole = reply(0, 500, 90, 1); // not streamed: the first token is seen at the end
    whole.first_us = 0;
    whole.output_tokens = 8;
    add(stats, whole);
    struct record whole_late = whole;
    whole_late.end_us += 20000;
    add(stats, whole_late);
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.good, 2);
    assert_int_equal(summary.latency[LATENCY_TTFT].count, 4);
    stats_destroy(stats);
}

static void an_slo_is_met_or_not(void **state)
{
    (void)state;
    static const struct {
        const char *slo;
        bool met;
    } cases[] = {
        {"ttft_p95=96ms", true},
        {"ttft_p95=90ms", false},
        {"ttft_max=100ms", true},
        {"ttft_max=99ms", false},
        {"ttft_mean=51ms", true},
        {"ttft_mean=50ms", false},
        {"itl_p95=1s", false}, // no sample
        {"ttft_p95=96ms,errors=0%", true},
        {"ttft_p95=96ms,e2e_p50=1ms", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        struct stats *stats = make(cases[i].slo);
        for (int ms = 1; ms <= 100; ++ms)
            add(stats, reply(0, ms, ms, 2));
        if (stats_slo_met(stats) != cases[i].met)
            fail_msg("%s: must be %s", cases[i].slo, cases[i].met ? "met" : "missed");
        stats_destroy(stats);
    }
}

static void too_many_errors_miss_the_slo(void **state)
{
    (void)state;
    for (int errors = 1; errors <= 2; ++errors) {
        struct stats *stats = make("ttft_p95=1s"); // 1 % of errors are forgiven
        for (int i = 0; i < 100; ++i) {
            struct record record = reply(0, i, 10, 2);
            record.outcome = i < errors ? RECORD_HTTP_429 : RECORD_OK;
            add(stats, record);
        }
        assert_int_equal(stats_slo_met(stats), errors == 1);
        stats_destroy(stats);
    }
}

static void jains_index_is_one_for_equals_and_one_nth_for_a_monopoly(void **state)
{
    (void)state;
    const double equal[] = {5, 5, 5, 5}, one[] = {7, 0, 0, 0}, mixed[] = {1, 2, 3};
    assert_true(near(stats_jain(equal, 4), 1));
    assert_true(near(stats_jain(one, 4), 0.25));
    assert_true(near(stats_jain(mixed, 3), 36.0 / 42));
    assert_true(near(stats_jain(NULL, 0), 1));
    assert_false(near(stats_jain(mixed, 3), 1));
}

static void fairness_by_good_share_ignores_popularity(void **state)
{
    (void)state;
    struct stats *stats = make("ttft_p95=100ms");
    for (int i = 0; i < 90; ++i)
        add(stats, reply(0, i, 10, 10));
    for (int i = 0; i < 10; ++i)
        add(stats, reply(1, i, 10, 10));
    struct stats_summary summary;
    stats_summary(stats, &summary);
    assert_int_equal(summary.adapters_used, 2); // the third was never asked for
    assert_true(near(summary.jain_good, 1));
    assert_true(near(summary.jain_tokens, 10000.0 / (2 * 8200)));
    for (int i = 0; i < 10; ++i)
        add(stats, reply(2, i, 500, 10)); // this one starves
    stats_summary(stats, &summary);
    assert_true(near(summary.jain_good, 2.0 / 3));
    stats_destroy(stats);
}

static void figures_over_time_are_filed_where_they_belong(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    add(stats, reply(0, 500, 2000, 101)); // planned in second 0, tokens from 2.5 to 3.5 s
    stats_add_gap(stats, 0, 3200000, 10000);
    struct stats_slot slots[4];
    assert_int_equal(stats_slot_count(stats), 4);
    for (int32_t i = 0; i < 4; ++i)
        stats_slot_at(stats, i, &slots[i]);
    assert_int_equal(slots[0].planned, 1);
    assert_int_equal(slots[0].latency[LATENCY_TTFT].p50_us, 2000000);
    assert_int_equal(slots[2].running, 1);
    assert_int_equal(slots[3].running, 0);
    assert_int_equal(slots[3].ok, 1);
    assert_true(near(slots[2].output_tokens, 50.5) && near(slots[3].output_tokens, 50.5));
    assert_int_equal(slots[3].latency[LATENCY_ITL].count, 1);
    assert_int_equal(slots[3].width_us, 1000000);
    stats_destroy(stats);
}

static void a_long_run_gets_wider_slots_and_loses_nothing(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    enum { COUNT = 3000 };
    for (int i = 0; i < COUNT; ++i)
        add(stats, reply(0, (int64_t)i * 2000, 1500, 21)); // 100 minutes
    int64_t planned = 0, ok = 0, samples = 0;
    double tokens = 0;
    assert_true(stats_slot_count(stats) <= SORA_LOADTEST_SLOTS);
    for (int32_t i = 0; i < stats_slot_count(stats); ++i) {
        struct stats_slot slot;
        stats_slot_at(stats, i, &slot);
        assert_int_equal(slot.width_us, 16000000);
        planned += slot.planned;
        ok += slot.ok;
        samples += slot.latency[LATENCY_TTFT].count;
        tokens += slot.output_tokens;
    }
    assert_int_equal(planned, COUNT);
    assert_int_equal(ok, COUNT);
    assert_int_equal(samples, COUNT);
    assert_true(fabs(tokens - COUNT * 21) < 1e-3);
    stats_destroy(stats);
}

static void the_live_window_forgets_what_is_old(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct stats_recent recent;
    for (int i = 0; i < 40; ++i)
        add(stats, reply(0, i * 100, 20, 11)); // 10 a second for 4 s
    stats_recent(stats, 4100000, &recent);
    assert_true(fabs(recent.ok_per_s - 10) < 0.5);
    assert_true(fabs(recent.output_tokens_per_s - 110) < 5);
    assert_int_equal(recent.ttft.p95_us, 20000);
    stats_recent(stats, 30000000, &recent);
    assert_true(recent.ok_per_s == 0);
    assert_int_equal(recent.ttft.count, 0);
    stats_destroy(stats);
}

static void the_clients_cost_is_stated_and_a_slow_client_is_named(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct stats_summary summary;
    for (int i = 0; i < 100; ++i)
        add(stats, reply(0, i * 10, 50, 3));
    stats_set_client_cost(stats, 200000, 10000000, 20000); // 2 % at 2,000 events/s
    stats_summary(stats, &summary);
    assert_true(near(summary.client.core_share, 0.02));
    assert_true(near(summary.client.share_per_1000, 0.01));
    assert_false(summary.client.bottleneck);
    stats_set_client_cost(stats, 9000000, 10000000, 20000);
    stats_summary(stats, &summary);
    assert_true(summary.client.bottleneck);
    assert_non_null(strstr(summary.client.warning, "90 %"));
    stats_destroy(stats);
}

static void a_client_that_sends_late_is_named(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct stats_summary summary;
    for (int i = 0; i < 100; ++i) {
        struct record record = reply(0, i * 10, 50, 3);
        record.sent_us = record.planned_us + (i < 5 ? 30000 : 100);
        add(stats, record);
    }
    stats_summary(stats, &summary);
    assert_true(summary.client.bottleneck);
    assert_non_null(strstr(summary.client.warning, "later than planned"));
    stats_destroy(stats);
}

static void marks_are_kept_up_to_their_bound_and_counted_beyond(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct stats_summary summary;
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    for (int i = 0; i < SORA_LOADTEST_MARKS_MAX + 5; ++i)
        stats_add_mark(stats, i, STATS_MARK_UPDATE, name);
    stats_summary(stats, &summary);
    assert_int_equal(stats_mark_count(stats), SORA_LOADTEST_MARKS_MAX);
    assert_int_equal(summary.marks[STATS_MARK_UPDATE], SORA_LOADTEST_MARKS_MAX + 5);
    assert_int_equal(strlen(stats_mark_at(stats, 0)->name), 127);
    stats_destroy(stats);
}

static void a_plan_without_models_or_with_too_many_is_refused(void **state)
{
    (void)state;
    struct stats *stats = NULL;
    struct sora_error err;
    assert_int_equal(stats_create(three, 0, NULL, &stats, &err), SORA_LIMIT);
    assert_int_equal(stats_create(three, SORA_LOADTEST_MODELS_MAX + 1, NULL, &stats, &err),
                     SORA_LIMIT);
    assert_non_null(strstr(err.text, "models"));
    assert_null(stats);
}

static void adapters_have_figures_of_their_own(void **state)
{
    (void)state;
    struct stats *stats = make(NULL);
    struct stats_adapter adapter;
    add(stats, reply(1, 0, 10, 4));
    add(stats, reply(2, 0, 900, 7));
    stats_add_gap(stats, 2, 950000, 33000);
    stats_adapter_at(stats, 2, &adapter);
    assert_string_equal(adapter.name, "blue");
    assert_int_equal(adapter.requests, 1);
    assert_int_equal(adapter.output_tokens, 7);
    assert_int_equal(adapter.latency[LATENCY_TTFT].p50_us, 900000);
    assert_int_equal(adapter.latency[LATENCY_ITL].max_us, 33000);
    stats_adapter_at(stats, 0, &adapter);
    assert_int_equal(adapter.requests, 0);
    stats_destroy(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_run_has_no_figures),
        cmocka_unit_test(rates_are_over_first_planned_to_last_end),
        cmocka_unit_test(latency_counts_from_the_planned_time_and_not_from_sending),
        cmocka_unit_test(quantiles_of_a_random_run_are_within_one_percent),
        cmocka_unit_test(errors_are_counted_by_kind_and_give_no_latency),
        cmocka_unit_test(the_warm_up_is_not_counted),
        cmocka_unit_test(goodput_asks_each_reply_for_every_bound),
        cmocka_unit_test(an_slo_is_met_or_not),
        cmocka_unit_test(too_many_errors_miss_the_slo),
        cmocka_unit_test(jains_index_is_one_for_equals_and_one_nth_for_a_monopoly),
        cmocka_unit_test(fairness_by_good_share_ignores_popularity),
        cmocka_unit_test(figures_over_time_are_filed_where_they_belong),
        cmocka_unit_test(a_long_run_gets_wider_slots_and_loses_nothing),
        cmocka_unit_test(the_live_window_forgets_what_is_old),
        cmocka_unit_test(the_clients_cost_is_stated_and_a_slow_client_is_named),
        cmocka_unit_test(a_client_that_sends_late_is_named),
        cmocka_unit_test(marks_are_kept_up_to_their_bound_and_counted_beyond),
        cmocka_unit_test(a_plan_without_models_or_with_too_many_is_refused),
        cmocka_unit_test(adapters_have_figures_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

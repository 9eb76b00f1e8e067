// SPDX-License-Identifier: Apache-2.0
// The reports of a run: JSON that parses and says what the statistics say, HTML that is whole,
// needs no network and lets no foreign name through, the table and the live line.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "loadtest/report.h"
#include "loadtest/report_svg.h"
#include "loadtest/report_text.h"
#include "sora/limits.h"

#define EVIL "</title><script>alert(\"&'x\")</script>\x1b[31m\xff\xe2\x80\xae"

static struct report_fact facts[] = {{"arrivals", "Poisson, 4 requests/s"}, {"evil", EVIL}};
static const char *const names[] = {"base", EVIL};

static struct report_run make_run(void)
{
    return (struct report_run){.title = "two adapters " EVIL,
                               .label = "server 1.0",
                               .url = "http://127.0.0.1:8080",
                               .started_unix_s = 1760000000,
                               .facts = facts,
                               .fact_count = 2};
}

static struct stats *make_stats(int requests)
{
    struct slo slo;
    struct stats *stats = NULL;
    struct sora_error err;
    assert_int_equal(slo_parse("ttft_p95=500ms,itl_p95=100ms", &slo, &err), SORA_OK);
    assert_int_equal(stats_create(names, 2, &slo, &stats, &err), SORA_OK);
    for (int i = 0; i < requests; ++i) {
        int64_t planned_us = i * 250000ll;
        struct record record = {.adapter = i % 2,
                                .planned_us = planned_us,
                                .sent_us = planned_us + 90,
                                .first_us = planned_us + 40000 + i * 1000,
                                .end_us = planned_us + 440000 + i * 1000,
                                .prompt_tokens = 30,
                                .output_tokens = 21};
        if (i == 5)
            record.outcome = RECORD_HTTP_429;
        stats_add_record(stats, &record);
        for (int gap = 0; gap < 20; ++gap)
            stats_add_gap(stats, record.adapter, record.first_us + gap * 20000, 20000);
    }
    if (requests > 0)
        stats_add_mark(stats, 1500000, STATS_MARK_UPLOAD, EVIL);
    stats_set_client_cost(stats, 20000, 10000000, 800);
    return stats;
}

static cJSON *parse(const struct buf *text)
{
    cJSON *tree = NULL;
    struct sora_error err = {0};
    if (json_parse(text->data, text->bytes, &tree, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return tree;
}

static double number_at(const cJSON *tree, const char *path)
{
    char copy[128], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (char *name = strtok_r(copy, ".", &rest); name != NULL; name = strtok_r(NULL, ".", &rest)) {
        tree = cJSON_GetObjectItemCaseSensitive(tree, name);
        if (tree == NULL)
            fail_msg("%s: no %s", path, name);
    }
    assert_true(cJSON_IsNumber(tree));
    return tree->valuedouble;
}

static const char *text_of(const cJSON *tree, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tree, name));
}

static void the_json_says_what_the_statistics_say(void **state)
{
    (void)state;
    struct stats *stats = make_stats(40);
    struct report_run run = make_run();
    struct stats_summary summary;
    struct buf text;
    buf_init(&text, SORA_JSON_BYTES_MAX);
    stats_summary(stats, &summary);
    report_json(&text, &run, stats);
    cJSON *tree = parse(&text);
    assert_string_equal(text_of(tree, "format"), "sora-loadtest");
    assert_int_equal(number_at(tree, "summary.requests"), 40);
    assert_int_equal(number_at(tree, "summary.errors_by_kind.http_429"), 1);
    assert_int_equal(number_at(tree, "summary.latency.ttft.p95_us"),
                     summary.latency[LATENCY_TTFT].p95_us);
    assert_true(number_at(tree, "summary.output_tokens_per_s") > 70);
    assert_int_equal(number_at(tree, "summary.churn.upload"), 1);
    const cJSON *adapters = cJSON_GetObjectItem(tree, "per_adapter");
    assert_int_equal(cJSON_GetArraySize(adapters), 2);
    assert_int_equal(number_at(cJSON_GetArrayItem(adapters, 1), "requests"), 20);
    const cJSON *bucket,
        *buckets = cJSON_GetObjectItem(cJSON_GetObjectItem(tree, "histograms"), "itl");
    double samples = 0;
    cJSON_ArrayForEach(bucket, buckets) samples += cJSON_GetArrayItem(bucket, 2)->valuedouble;
    assert_int_equal(samples, 800);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "series")),
                     stats_slot_count(stats));
    assert_string_equal(text_of(cJSON_GetArrayItem(cJSON_GetObjectItem(tree, "marks"), 0), "kind"),
                        "upload");
    cJSON_Delete(tree);
    buf_deinit(&text);
    stats_destroy(stats);
}

static void an_empty_run_is_a_whole_document_too(void **state)
{
    (void)state;
    struct stats *stats = make_stats(0);
    struct report_run run = {0};
    struct buf text;
    struct sora_error err;
    buf_init(&text, SORA_JSON_BYTES_MAX);
    report_json(&text, &run, stats);
    cJSON *tree = parse(&text);
    assert_int_equal(number_at(tree, "summary.requests"), 0);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(tree, "search")));
    cJSON_Delete(tree);
    buf_clear(&text);
    report_html(&text, &run, stats);
    assert_int_equal(buf_status(&text, &err), SORA_OK);
    assert_non_null(strstr(text.data, "</html>"));
    buf_deinit(&text);
    stats_destroy(stats);
}

// True when no foreign markup, control byte or broken UTF-8 is in the page, nor a way out of it.
static bool is_safe(const char *html)
{
    static const char *const banned[] = {"<script",      "alert(\"", "\x1b",  "\xff",
                                         "\xe2\x80\xae", "src=",     "href=", "@import",
                                         "url(",         "nan",      "=inf"};
    for (size_t i = 0; i < sizeof banned / sizeof banned[0]; ++i)
        if (strstr(html, banned[i]) != NULL)
            return false;
    return true;
}

static void the_page_is_self_contained_and_escapes_foreign_names(void **state)
{
    (void)state;
    struct stats *stats = make_stats(40);
    struct report_run run = make_run();
    struct report_point point = {.rate = 4};
    stats_summary(stats, &point.summary);
    run.points = &point;
    run.point_count = 1;
    run.found_rate = 4;
    struct buf page;
    struct sora_error err;
    buf_init(&page, SORA_JSON_BYTES_MAX);
    report_html(&page, &run, stats);
    assert_int_equal(buf_status(&page, &err), SORA_OK);
    assert_true(is_safe(page.data));
    static const char *const wanted[] = {
        "<svg",         "two adapters &lt;/title&gt;", "&quot;&amp;&#39;x", "time between tokens",
        "Highest rate", "prefers-color-scheme:dark",   "adapter uploaded",  "HTTP 429"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i)
        if (strstr(page.data, wanted[i]) == NULL)
            fail_msg("the page has no %s", wanted[i]);
    buf_deinit(&page);
    stats_destroy(stats);
}

static void an_unsafe_page_is_told_apart(void **state)
{
    (void)state;
    assert_true(is_safe("<h1>fine</h1>"));
    assert_false(is_safe("<h1>" EVIL "</h1>"));
    assert_false(is_safe("<img src=http://example.com/x>"));
    assert_false(is_safe("<rect x=nan>"));
}

static void a_document_over_its_bound_is_an_error(void **state)
{
    (void)state;
    struct stats *stats = make_stats(10);
    struct report_run run = make_run();
    struct sora_error err;
    struct buf text;
    buf_init(&text, 1000);
    report_json(&text, &run, stats);
    assert_int_equal(buf_status(&text, &err), SORA_LIMIT);
    buf_clear(&text);
    report_html(&text, &run, stats);
    assert_int_equal(buf_status(&text, &err), SORA_LIMIT);
    buf_deinit(&text);
    stats_destroy(stats);
}

static char *table_of(const struct report_run *run, const struct stats *stats)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    report_table(out, run, stats);
    fclose(out);
    return text;
}

static void the_table_has_the_figures_and_no_foreign_bytes(void **state)
{
    (void)state;
    struct stats *stats = make_stats(40);
    struct report_run run = make_run();
    char *table = table_of(&run, stats);
    static const char *const wanted[] = {"39 complete",
                                         "HTTP 429",
                                         "time to first token",
                                         "SLO           NOT met", // 1 of 40 failed
                                         "fairness",
                                         "per 1,000 events/s",
                                         "base"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i)
        if (strstr(table, wanted[i]) == NULL)
            fail_msg("no \"%s\" in\n%s", wanted[i], table);
    assert_null(strstr(table, "\x1b"));
    assert_null(strstr(table, "\xff"));
    free(table);
    stats_destroy(stats);
}

static void the_live_line_says_progress_rate_and_latency(void **state)
{
    (void)state;
    struct stats *stats = make_stats(20);
    struct report_progress progress = {
        .now_us = 5300000, .sent = 22, .done = 20, .total = 40, .running = 2};
    struct buf line;
    buf_init(&line, 1000);
    report_live_text(&line, stats, &progress);
    static const char *const wanted[] = {"50 %",  "20/40 done", "2 running",
                                         "req/s", "ttft p50",   "1 errors"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; ++i)
        if (strstr(line.data, wanted[i]) == NULL)
            fail_msg("no \"%s\" in %s", wanted[i], line.data);
    buf_deinit(&line);
    stats_destroy(stats);
}

static void a_pipe_gets_plain_lines_and_few_of_them(void **state)
{
    (void)state;
    struct stats *stats = make_stats(20);
    struct report_live live;
    char text[4096] = "";
    FILE *out = tmpfile();
    assert_non_null(out);
    report_live_init(&live, out);
    assert_false(live.terminal);
    for (int64_t ms = 0; ms <= 25000; ms += 100) {
        struct report_progress progress = {.now_us = ms * 1000, .duration_us = 25000000};
        report_live_update(&live, stats, &progress);
    }
    report_live_end(&live);
    rewind(out);
    size_t bytes = fread(text, 1, sizeof text - 1, out);
    int lines = 0;
    for (size_t i = 0; i < bytes; ++i)
        lines += text[i] == '\n';
    assert_int_equal(lines, 2); // at 10 and 20 s
    assert_null(memchr(text, '\r', bytes));
    fclose(out);
    stats_destroy(stats);
}

static void figures_read_well(void **state)
{
    (void)state;
    static const struct {
        double us;
        const char *text;
    } durations[] = {{-1, "-"},           {0, "0 us"},        {84, "84 us"},
                     {999.4, "999 us"},   {999.6, "1.00 ms"}, {1250, "1.25 ms"},
                     {31400, "31.4 ms"},  {330000, "330 ms"}, {999600, "1.00 s"},
                     {61500000, "61.5 s"}};
    char out[REPORT_FIGURE_BYTES];
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; ++i)
        assert_string_equal(report_duration(out, durations[i].us), durations[i].text);
    assert_string_equal(report_count(out, 0), "0");
    assert_string_equal(report_count(out, 999), "999");
    assert_string_equal(report_count(out, 1234567), "1,234,567");
    assert_string_equal(report_count(out, -1234), "-1,234");
    assert_string_equal(report_rate(out, 7.84), "7.84");
    assert_string_equal(report_rate(out, 12345.6), "12,346");
    assert_string_equal(report_rate(out, 1e300), "1,000,000,000,000,000");
    assert_string_equal(report_share(out, 0.0104), "1.04 %");
    assert_string_equal(report_share(out, 1), "100 %");
}

static void bars_of_a_histogram_hold_every_value_once(void **state)
{
    (void)state;
    struct svg_axis axis = svg_axis_log(1000, 500000, report_duration_tick);
    struct svg_bins bins = {0};
    double sum = 0;
    for (double low = 1000; low < 500000; low *= 1.1)
        svg_bins_add(&bins, &axis, low, low * 1.1, 3);
    svg_bins_add(&bins, &axis, 1e8, 2e8, 3); // beyond the axis: in the last bar
    svg_bins_finish(&bins, 1);
    for (int i = 0; i < SVG_BINS; ++i)
        sum += bins.share[i];
    assert_true(sum > 3 * 66 - 1e-6 && sum < 3 * 67 + 1e-6);
    assert_true(bins.share[SVG_BINS - 1] > 2.9);
}

static void adapters_are_ordered_by_their_requests(void **state)
{
    (void)state;
    struct stats *stats = make_stats(3); // two for the first, one for the second
    struct record record = {.adapter = 1, .planned_us = 10, .end_us = 20};
    int32_t count = 0;
    stats_add_record(stats, &record);
    stats_add_record(stats, &record);
    int32_t *order = report_order(stats, &count);
    assert_non_null(order);
    assert_int_equal(count, 2);
    assert_int_equal(order[0], 1);
    free(order);
    stats_destroy(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_json_says_what_the_statistics_say),
        cmocka_unit_test(an_empty_run_is_a_whole_document_too),
        cmocka_unit_test(the_page_is_self_contained_and_escapes_foreign_names),
        cmocka_unit_test(an_unsafe_page_is_told_apart),
        cmocka_unit_test(a_document_over_its_bound_is_an_error),
        cmocka_unit_test(the_table_has_the_figures_and_no_foreign_bytes),
        cmocka_unit_test(the_live_line_says_progress_rate_and_latency),
        cmocka_unit_test(a_pipe_gets_plain_lines_and_few_of_them),
        cmocka_unit_test(figures_read_well),
        cmocka_unit_test(bars_of_a_histogram_hold_every_value_once),
        cmocka_unit_test(adapters_are_ordered_by_their_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

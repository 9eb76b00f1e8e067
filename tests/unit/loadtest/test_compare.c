// SPDX-License-Identifier: Apache-2.0
// Reports side by side: what is read is what was written, and foreign files are refused by name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "loadtest/compare.h"
#include "loadtest/compare_rows.h"
#include "loadtest/report.h"
#include "temp_folder.h"

static const char *const names[] = {"base"};

// A run whose replies take ttft_us to the first token.
static void write_report(struct buf *out, const char *label, int64_t ttft_us)
{
    struct stats *stats = NULL;
    struct sora_error err;
    struct report_run run = {.title = "one <adapter>", .label = label};
    assert_int_equal(stats_create(names, 1, NULL, &stats, &err), SORA_OK);
    for (int i = 0; i < 50; ++i) {
        int64_t planned_us = 1000000 + i * 100000;
        struct record record = {.planned_us = planned_us,
                                .sent_us = planned_us + 50,
                                .first_us = planned_us + ttft_us,
                                .end_us = planned_us + ttft_us + 200000,
                                .output_tokens = 11};
        stats_add_record(stats, &record);
        stats_add_gap(stats, 0, record.end_us, 20000);
    }
    buf_init(out, SORA_JSON_BYTES_MAX);
    report_json(out, &run, stats);
    assert_int_equal(buf_status(out, &err), SORA_OK);
    stats_destroy(stats);
}

static struct compare_run read_back(const char *label, int64_t ttft_us)
{
    struct buf text;
    struct compare_run run;
    struct sora_error err = {0};
    write_report(&text, label, ttft_us);
    if (compare_parse(text.data, text.bytes, "folder/stem.json", &run, &err) != SORA_OK)
        fail_msg("%s", err.text);
    buf_deinit(&text);
    return run;
}

static void what_was_written_is_read_back(void **state)
{
    (void)state;
    struct compare_run run = read_back("fast", 40000);
    assert_string_equal(run.name, "fast");
    assert_string_equal(run.title, "one <adapter>");
    assert_int_equal(run.requests, 50);
    assert_int_equal(run.latency[LATENCY_TTFT][COMPARE_P95], 40000);
    assert_true(run.ok_per_s > 9 && run.ok_per_s < 10);
    assert_true(run.slo < 0 && run.found_rate < 0);
    assert_int_equal(run.bucket_count[LATENCY_TTFT], 1);
    assert_true(run.buckets[LATENCY_TTFT][0].count == 50);
    assert_true(run.slot_count >= 5);
    assert_true(run.slots[0].at_s >= 1); // the second before the load is left out
    compare_run_deinit(&run);
}

static void a_run_without_a_label_has_its_files_name(void **state)
{
    (void)state;
    struct compare_run run = read_back(NULL, 40000);
    assert_string_equal(run.name, "stem");
    compare_run_deinit(&run);
}

static const struct compare_row *row_of(const struct compare_row *rows, int32_t used,
                                        const char *title)
{
    for (int32_t i = 0; i < used; ++i)
        if (strcmp(rows[i].title, title) == 0)
            return &rows[i];
    fail_msg("no row %s", title);
    return NULL;
}

static void the_better_run_is_found_and_a_tie_is_none(void **state)
{
    (void)state;
    struct compare_run runs[2] = {read_back("slow", 80000), read_back("fast", 40000)};
    struct compare_row rows[COMPARE_ROWS_MAX];
    char ratio[REPORT_FIGURE_BYTES];
    int32_t used = compare_rows(runs, 2, rows);
    const struct compare_row *ttft = row_of(rows, used, "time to first token p95");
    assert_int_equal(compare_best(ttft, 2), 1);
    assert_string_equal(compare_ratio(ratio, ttft->values[1], ttft->values[0]), "x0.50");
    assert_int_equal(compare_best(row_of(rows, used, "time between tokens p50"), 2), -1);
    assert_string_equal(compare_ratio(ratio, -1, 5), "");
    assert_string_equal(compare_ratio(ratio, 5, 0), "");
    compare_run_deinit(&runs[0]);
    compare_run_deinit(&runs[1]);
}

static void table_and_page_name_every_run_and_escape_it(void **state)
{
    (void)state;
    struct compare_run runs[2] = {read_back("<b>one", 80000), read_back("two\x1b", 40000)};
    struct buf text;
    struct sora_error err;
    buf_init(&text, SORA_JSON_BYTES_MAX);
    compare_table(&text, runs, 2);
    assert_int_equal(buf_status(&text, &err), SORA_OK);
    assert_non_null(strstr(text.data, "<b>one"));
    assert_non_null(strstr(text.data, "x0.50"));
    assert_null(strchr(text.data, '\x1b'));
    buf_clear(&text);
    compare_html(&text, runs, 2);
    assert_int_equal(buf_status(&text, &err), SORA_OK);
    assert_non_null(strstr(text.data, "&lt;b&gt;one"));
    assert_null(strstr(text.data, "<b>one"));
    assert_null(strchr(text.data, '\x1b'));
    assert_non_null(strstr(text.data, "<svg"));
    assert_non_null(strstr(text.data, "</html>"));
    buf_deinit(&text);
    compare_run_deinit(&runs[0]);
    compare_run_deinit(&runs[1]);
}

#define HEAD "{\"format\":\"sora-loadtest\",\"format_version\":1,"

static void foreign_files_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"", "JSON"},
        {"[]", "no object"},
        {"{}", "not a report"},
        {"{\"format\":\"k6\"}", "not a report"},
        {"{\"format\":\"sora-loadtest\",\"format_version\":2}", "format_version 2"},
        {"{\"format\":\"sora-loadtest\"}", "format_version 0"},
        {HEAD "\"label\":5,\"summary\":{}}", "label"},
        {HEAD "\"title\":\"x\"}", "summary: is missing"},
        {HEAD "\"summary\":[]}", "summary: must be an object"},
        {HEAD "\"summary\":{\"ok_per_s\":-1}}", "ok_per_s"},
        {HEAD "\"summary\":{\"ok_per_s\":1e300}}", "ok_per_s"},
        {HEAD "\"summary\":{\"seconds\":\"9\"}}", "seconds"},
        {HEAD "\"summary\":{\"latency\":3}}", "latency"},
        {HEAD "\"summary\":{\"latency\":{\"ttft\":{\"p95_us\":true}}}}", "ttft: p95_us"},
        {HEAD "\"summary\":{\"slo\":{\"met\":1}}}", "met"},
        {HEAD "\"summary\":{},\"search\":{\"found_rate\":\"x\"}}", "found_rate"},
        {HEAD "\"summary\":{},\"histograms\":{\"ttft\":{}}}", "ttft: must be an array"},
        {HEAD "\"summary\":{},\"histograms\":{\"ttft\":[5]}}", "ttft[0]"},
        {HEAD "\"summary\":{},\"histograms\":{\"ttft\":[[1,2,3],[1,2,3]]}}", "ttft[1]"},
        {HEAD "\"summary\":{},\"histograms\":{\"ttft\":[[1,2,0]]}}", "ttft[0]"},
        {HEAD "\"summary\":{},\"series\":{}}", "series: must be an array"},
        {HEAD "\"summary\":{},\"series\":[7]}", "series[0]"},
        {HEAD "\"summary\":{},\"series\":[{\"at_us\":5}]}", "series[0]"},
        {HEAD "\"summary\":{},\"series\":[{\"width_us\":5}]}", "series[0]"},
        {HEAD "\"summary\":{},\"series\":[{\"at_us\":5,\"width_us\":1,\"ok\":-2}]}", "ok"},
        {HEAD "\"summary\":{},\"series\":[{\"at_us\":5,\"width_us\":9},"
              "{\"at_us\":5,\"width_us\":9}]}",
         "series[1]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        struct compare_run run;
        struct sora_error err = {0};
        if (compare_parse(cases[i].text, strlen(cases[i].text), "f", &run, &err) == SORA_OK)
            fail_msg("accepted: %s", cases[i].text);
        if (strstr(err.text, cases[i].named) == NULL)
            fail_msg("%s: the text is \"%s\"", cases[i].text, err.text);
    }
}

static void a_report_of_nothing_but_its_head_is_shown(void **state)
{
    (void)state;
    static const char bare[] = HEAD "\"summary\":{}}";
    struct compare_run run;
    struct sora_error err = {0};
    struct buf text;
    assert_int_equal(compare_parse(bare, strlen(bare), "f", &run, &err), SORA_OK);
    buf_init(&text, SORA_JSON_BYTES_MAX);
    compare_table(&text, &run, 1);
    compare_html(&text, &run, 1);
    assert_int_equal(buf_status(&text, &err), SORA_OK);
    buf_deinit(&text);
    compare_run_deinit(&run);
}

// --- the subcommand ---

static int run_command(char **argv, char **out)
{
    size_t bytes = 0;
    int argc = 0;
    FILE *stream = open_memstream(out, &bytes);
    assert_non_null(stream);
    while (argv[argc] != NULL)
        ++argc;
    int code = compare_command(argc, argv, stream, stream);
    fclose(stream);
    return code;
}

static void the_subcommand_reads_files_and_writes_a_page(void **state)
{
    (void)state;
    char *folder = temp_folder_create();
    char *a = file_join(folder, "a.json"), *page = file_join(folder, "page.html"), *shown = NULL;
    struct buf text;
    struct sora_error err;
    write_report(&text, "same", 40000);
    assert_int_equal(file_write_atomic(a, text.data, text.bytes, &err), SORA_OK);
    char *argv[] = {"compare", a, a, "--html", page, NULL};
    assert_int_equal(run_command(argv, &shown), 0);
    assert_non_null(strstr(shown, "same #2")); // two of one name are told apart
    assert_true(file_exists(page));
    free(shown);
    buf_deinit(&text);
    free(a);
    free(page);
    temp_folder_remove(folder);
}

static void wrong_use_is_exit_code_two_with_a_reason(void **state)
{
    (void)state;
    char *cases[][12] = {
        {"compare", NULL},
        {"compare", "--html", NULL},
        {"compare", "--wrong", "a.json", NULL},
        {"compare", "no-such-file.json", NULL},
        {"compare", "a", "a", "a", "a", "a", "a", "a", "a", "a", NULL},
    };
    static const char *const reasons[] = {"no file", "without a file", "unknown option",
                                          "no-such-file.json", "too many"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char *shown = NULL;
        assert_int_equal(run_command(cases[i], &shown), 2);
        if (strstr(shown, reasons[i]) == NULL)
            fail_msg("no \"%s\" in: %s", reasons[i], shown);
        free(shown);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read_back),
        cmocka_unit_test(a_run_without_a_label_has_its_files_name),
        cmocka_unit_test(the_better_run_is_found_and_a_tie_is_none),
        cmocka_unit_test(table_and_page_name_every_run_and_escape_it),
        cmocka_unit_test(foreign_files_are_refused_by_name),
        cmocka_unit_test(a_report_of_nothing_but_its_head_is_shown),
        cmocka_unit_test(the_subcommand_reads_files_and_writes_a_page),
        cmocka_unit_test(wrong_use_is_exit_code_two_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Reads reports of runs and shows them side by side. The files are untrusted: every figure has a
// range, every list a bound. One thread.
#include "loadtest/compare.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "loadtest/compare_rows.h"
#include "sora/limits.h"

#define FIGURE_MAX 1e15 // 30 years in microseconds; more than any rate

// --- one file ---

static sora_status read_text(const cJSON *tree, const char *name, char *out, size_t out_bytes,
                             struct sora_error *err)
{
    const char *text = NULL;
    sora_status status = json_get_string(tree, name, &text, err);
    if (status == SORA_OK && text != NULL)
        snprintf(out, out_bytes, "%s", text);
    return status;
}

static sora_status check_format(const cJSON *tree, struct sora_error *err)
{
    const char *format = NULL;
    int64_t version = 0;
    if (!cJSON_IsObject(tree))
        return sora_fail(err, SORA_MALFORMED, "not a report: the document is no object");
    sora_status status = json_get_string(tree, "format", &format, err);
    if (status == SORA_OK && (format == NULL || strcmp(format, "sora-loadtest") != 0))
        return sora_fail(err, SORA_MALFORMED, "not a report of sora-loadtest: no \"format\" of it");
    if (status == SORA_OK)
        status = json_get_int(tree, "format_version", 0, INT32_MAX, &version, err);
    if (status == SORA_OK && version != 1)
        return sora_fail(err, SORA_UNSUPPORTED, "format_version %lld, this program reads 1",
                         (long long)version);
    return status;
}

// A member that must be an object; *out is NULL when it is absent or null.
static sora_status get_object(const cJSON *parent, const char *name, const cJSON **out,
                              struct sora_error *err)
{
    *out = NULL;
    if (!json_has(parent, name))
        return SORA_OK;
    *out = cJSON_GetObjectItemCaseSensitive(parent, name);
    if (!cJSON_IsObject(*out))
        return sora_fail(err, SORA_MALFORMED, "%s: must be an object", name);
    return SORA_OK;
}

static sora_status get_array(const cJSON *parent, const char *name, int32_t count_max,
                             const cJSON **out, int32_t *count, struct sora_error *err)
{
    *out = NULL;
    *count = 0;
    if (!json_has(parent, name))
        return SORA_OK;
    *out = cJSON_GetObjectItemCaseSensitive(parent, name);
    if (!cJSON_IsArray(*out))
        return sora_fail(err, SORA_MALFORMED, "%s: must be an array", name);
    *count = cJSON_GetArraySize(*out);
    if (*count > count_max)
        return sora_fail(err, SORA_LIMIT, "%s: %d items exceed %d", name, *count, count_max);
    return SORA_OK;
}

static sora_status read_latency(const cJSON *parent, const char *name, double *figures,
                                struct sora_error *err)
{
    static const char *const names[COMPARE_FIGURES] = {"mean_us", "p50_us", "p90_us",
                                                       "p95_us",  "p99_us", "max_us"};
    const cJSON *latency;
    sora_status status = get_object(parent, name, &latency, err);
    for (int i = 0; status == SORA_OK && latency != NULL && i < COMPARE_FIGURES; ++i)
        status = json_get_number(latency, names[i], 0, FIGURE_MAX, &figures[i], err);
    return status == SORA_OK ? SORA_OK : sora_fail_within(err, status, "%s", name);
}

static sora_status read_summary(const cJSON *tree, struct compare_run *run, struct sora_error *err)
{
    const struct {
        const char *name;
        double *out;
    } numbers[] = {
        {"seconds", &run->seconds},
        {"requests", &run->requests},
        {"offered_per_s", &run->offered_per_s},
        {"ok_per_s", &run->ok_per_s},
        {"good_per_s", &run->good_per_s},
        {"output_tokens_per_s", &run->output_tokens_per_s},
        {"error_share", &run->error_share},
        {"jain_tokens", &run->jain_tokens},
        {"jain_good", &run->jain_good},
    };
    const cJSON *summary, *latency, *slo;
    sora_status status = get_object(tree, "summary", &summary, err);
    if (status == SORA_OK && summary == NULL)
        return sora_fail(err, SORA_MALFORMED, "summary: is missing");
    for (size_t i = 0; status == SORA_OK && i < sizeof numbers / sizeof numbers[0]; ++i)
        status = json_get_number(summary, numbers[i].name, 0, FIGURE_MAX, numbers[i].out, err);
    if (status == SORA_OK)
        status = get_object(summary, "latency", &latency, err);
    for (int kind = 0; status == SORA_OK && latency != NULL && kind < LATENCY_KIND_COUNT; ++kind)
        status = read_latency(latency, latency_kind_name((enum latency_kind)kind),
                              run->latency[kind], err);
    if (status == SORA_OK)
        status = get_object(summary, "slo", &slo, err);
    bool met = false;
    if (status == SORA_OK && slo != NULL) {
        status = json_get_bool(slo, "met", &met, err);
        run->slo = met ? 1 : 0;
    }
    return status;
}

static sora_status read_search(const cJSON *tree, struct compare_run *run, struct sora_error *err)
{
    const cJSON *search;
    sora_status status = get_object(tree, "search", &search, err);
    if (status == SORA_OK && search != NULL)
        status = json_get_number(search, "found_rate", 0, FIGURE_MAX, &run->found_rate, err);
    return status;
}

// One [low_us, high_us, count]; the low bound is only for people.
static bool read_bucket(const cJSON *item, double after_us, struct compare_bucket *bucket)
{
    const cJSON *high = cJSON_GetArrayItem(item, 1), *count = cJSON_GetArrayItem(item, 2);
    if (!cJSON_IsArray(item) || !cJSON_IsNumber(high) || !cJSON_IsNumber(count))
        return false;
    *bucket = (struct compare_bucket){.high_us = high->valuedouble, .count = count->valuedouble};
    return bucket->high_us > after_us && bucket->high_us <= FIGURE_MAX && bucket->count > 0 &&
           bucket->count <= FIGURE_MAX;
}

static sora_status read_histogram(const cJSON *histograms, enum latency_kind kind,
                                  struct compare_run *run, struct sora_error *err)
{
    const cJSON *array, *item;
    const char *name = latency_kind_name(kind);
    int32_t count = 0;
    sora_status status = get_array(histograms, name, HISTOGRAM_BUCKETS, &array, &count, err);
    if (status != SORA_OK || count == 0)
        return status;
    run->buckets[kind] = calloc((size_t)count, sizeof *run->buckets[kind]);
    if (run->buckets[kind] == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a histogram of %d", count);
    double after_us = 0;
    cJSON_ArrayForEach(item, array)
    {
        int32_t index = run->bucket_count[kind];
        struct compare_bucket *bucket = &run->buckets[kind][index];
        if (!read_bucket(item, after_us, bucket))
            return sora_fail(err, SORA_MALFORMED,
                             "histograms %s[%d]: must be [low_us, high_us, count], rising, with a "
                             "positive count",
                             name, index);
        after_us = bucket->high_us;
        ++run->bucket_count[kind];
    }
    return SORA_OK;
}

static sora_status read_histograms(const cJSON *tree, struct compare_run *run,
                                   struct sora_error *err)
{
    const cJSON *histograms;
    sora_status status = get_object(tree, "histograms", &histograms, err);
    for (int kind = 0; status == SORA_OK && histograms != NULL && kind < LATENCY_KIND_COUNT; ++kind)
        status = read_histogram(histograms, (enum latency_kind)kind, run, err);
    return status;
}

static sora_status read_slot(const cJSON *item, double after_s, struct compare_slot *slot,
                             struct sora_error *err)
{
    double at_us = -1, width_us = 0, ok = 0, tokens = 0;
    double ttft[COMPARE_FIGURES], e2e[COMPARE_FIGURES];
    for (int i = 0; i < COMPARE_FIGURES; ++i)
        ttft[i] = e2e[i] = -1;
    if (!cJSON_IsObject(item))
        return sora_fail(err, SORA_MALFORMED, "must be an object");
    sora_status status = json_get_number(item, "at_us", 0, FIGURE_MAX, &at_us, err);
    if (status == SORA_OK)
        status = json_get_number(item, "width_us", 1, FIGURE_MAX, &width_us, err);
    if (status == SORA_OK)
        status = json_get_number(item, "ok", 0, FIGURE_MAX, &ok, err);
    if (status == SORA_OK)
        status = json_get_number(item, "output_tokens", 0, FIGURE_MAX, &tokens, err);
    if (status == SORA_OK)
        status = read_latency(item, "ttft", ttft, err);
    if (status == SORA_OK)
        status = read_latency(item, "e2e", e2e, err);
    if (status != SORA_OK)
        return status;
    if (at_us < 0 || at_us / 1e6 <= after_s || width_us < 1)
        return sora_fail(err, SORA_MALFORMED, "at_us must rise and width_us must be there");
    *slot = (struct compare_slot){.at_s = at_us / 1e6,
                                  .width_s = width_us / 1e6,
                                  .ok_per_s = ok / (width_us / 1e6),
                                  .tokens_per_s = tokens / (width_us / 1e6),
                                  .ttft_p95_us = ttft[COMPARE_P95],
                                  .e2e_p95_us = e2e[COMPARE_P95]};
    return SORA_OK;
}

static sora_status read_series(const cJSON *tree, struct compare_run *run, struct sora_error *err)
{
    const cJSON *series, *item;
    int32_t count = 0;
    sora_status status = get_array(tree, "series", SORA_LOADTEST_SLOTS, &series, &count, err);
    if (status != SORA_OK || count == 0)
        return status;
    run->slots = calloc((size_t)count, sizeof *run->slots);
    if (run->slots == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d slots", count);
    double after_s = -1;
    int32_t index = 0;
    cJSON_ArrayForEach(item, series)
    {
        struct compare_slot *slot = &run->slots[run->slot_count];
        status = read_slot(item, after_s, slot, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "series[%d]", index);
        after_s = slot->at_s;
        ++index;
        if (run->slot_count > 0 || slot->ok_per_s > 0 || slot->tokens_per_s > 0 ||
            slot->e2e_p95_us >= 0) // nothing is counted while the run warms up
            ++run->slot_count;
    }
    return SORA_OK;
}

static void clear_run(struct compare_run *run)
{
    *run = (struct compare_run){.seconds = -1,
                                .requests = -1,
                                .offered_per_s = -1,
                                .ok_per_s = -1,
                                .good_per_s = -1,
                                .output_tokens_per_s = -1,
                                .error_share = -1,
                                .jain_tokens = -1,
                                .jain_good = -1,
                                .found_rate = -1,
                                .slo = -1};
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        for (int figure = 0; figure < COMPARE_FIGURES; ++figure)
            run->latency[kind][figure] = -1;
}

sora_status compare_parse(const char *text, size_t bytes, const char *file, struct compare_run *run,
                          struct sora_error *err)
{
    cJSON *tree = NULL;
    clear_run(run);
    file_stem(file, run->name, sizeof run->name);
    sora_status status = json_parse(text, bytes, &tree, err);
    if (status == SORA_OK)
        status = check_format(tree, err);
    if (status == SORA_OK)
        status = read_text(tree, "label", run->name, sizeof run->name, err);
    if (status == SORA_OK)
        status = read_text(tree, "title", run->title, sizeof run->title, err);
    if (status == SORA_OK)
        status = read_summary(tree, run, err);
    if (status == SORA_OK)
        status = read_search(tree, run, err);
    if (status == SORA_OK)
        status = read_histograms(tree, run, err);
    if (status == SORA_OK)
        status = read_series(tree, run, err);
    cJSON_Delete(tree);
    if (status != SORA_OK)
        compare_run_deinit(run);
    return status;
}

void compare_run_deinit(struct compare_run *run)
{
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        free(run->buckets[kind]);
        run->buckets[kind] = NULL;
    }
    free(run->slots);
    run->slots = NULL;
}

// --- the subcommand ---

static int usage(FILE *errors, const char *what)
{
    fprintf(errors,
            "sora-loadtest compare: %s\n"
            "usage: sora-loadtest compare A.json B.json ... [--html FILE]\n"
            "Shows 1 to %d reports (sora-loadtest run ... --json FILE) side by side; ratios are\n"
            "against the first. --html writes one page with pictures.\n",
            what, SORA_LOADTEST_RUNS_MAX);
    return 2;
}

static sora_status read_run(const char *path, struct compare_run *run, struct sora_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    sora_status status = file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, err);
    if (status != SORA_OK)
        return status;
    status = compare_parse(text, bytes, path, run, err);
    free(text);
    return status == SORA_OK ? SORA_OK : sora_fail_within(err, status, "%s", path);
}

// Runs of one name would not be told apart in a legend: the second becomes "name #2".
static void tell_apart(struct compare_run *runs, int32_t count)
{
    for (int32_t i = 1; i < count; ++i) {
        int32_t same = 1;
        for (int32_t j = 0; j < i; ++j)
            same += strncmp(runs[i].name, runs[j].name, strlen(runs[i].name)) == 0;
        if (same == 1)
            continue;
        char suffix[16];
        int bytes = snprintf(suffix, sizeof suffix, " #%d", same);
        size_t at = strnlen(runs[i].name, sizeof runs[i].name - (size_t)bytes - 1);
        memcpy(runs[i].name + at, suffix, (size_t)bytes + 1);
    }
}

static sora_status show(const struct compare_run *runs, int32_t count, const char *html_path,
                        FILE *out, struct sora_error *err)
{
    struct buf text;
    buf_init(&text, SORA_JSON_BYTES_MAX);
    compare_table(&text, runs, count);
    sora_status status = buf_status(&text, err);
    if (status == SORA_OK)
        fwrite(text.data, 1, text.bytes, out);
    if (status == SORA_OK && html_path != NULL) {
        buf_clear(&text);
        compare_html(&text, runs, count);
        status = buf_status(&text, err);
        if (status == SORA_OK)
            status = file_write_atomic(html_path, text.data, text.bytes, err);
    }
    buf_deinit(&text);
    return status;
}

static int compare_files(char **paths, int32_t count, const char *html_path, FILE *out,
                         FILE *errors)
{
    struct compare_run runs[SORA_LOADTEST_RUNS_MAX];
    struct sora_error err;
    int32_t read = 0;
    sora_status status = SORA_OK;
    for (; read < count; ++read)
        if ((status = read_run(paths[read], &runs[read], &err)) != SORA_OK)
            goto done;
    tell_apart(runs, count);
    status = show(runs, count, html_path, out, &err);
done:
    for (int32_t i = 0; i < read; ++i)
        compare_run_deinit(&runs[i]);
    if (status == SORA_OK)
        return 0;
    fprintf(errors, "sora-loadtest compare: %s\n", err.text);
    return 2;
}

int compare_command(int argc, char **argv, FILE *out, FILE *errors)
{
    static const struct option options[] = {{"html", required_argument, NULL, 'H'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *html_path = NULL;
    int option;
    optind = 0; // the caller may have parsed its own command line
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            usage(out, "reports side by side");
            return 0;
        }
        if (option != 'H')
            return usage(errors, "unknown option, or --html without a file");
        html_path = optarg;
    }
    int32_t count = argc - optind;
    if (count < 1)
        return usage(errors, "no file given");
    if (count > SORA_LOADTEST_RUNS_MAX)
        return usage(errors, "too many files");
    return compare_files(argv + optind, count, html_path, out, errors);
}

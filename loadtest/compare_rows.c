// SPDX-License-Identifier: Apache-2.0
// Which figures stand side by side, and the plain table of them. Pure; any thread.
#include "loadtest/compare_rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"

#define TITLE_COLUMNS 26
#define RUN_COLUMNS 26
#define TIE 0.01 // quantiles are known to 1 %

static const char *index_figure(char out[REPORT_FIGURE_BYTES], double value)
{
    if (value < 0)
        snprintf(out, REPORT_FIGURE_BYTES, "-");
    else
        snprintf(out, REPORT_FIGURE_BYTES, "%.3f", value);
    return out;
}

static const char *slo_figure(char out[REPORT_FIGURE_BYTES], double value)
{
    snprintf(out, REPORT_FIGURE_BYTES, "%s", value < 0 ? "-" : value > 0 ? "met" : "not met");
    return out;
}

struct field {
    const char *title;
    const char *(*format)(char *, double);
    int better;
    size_t offset; // of the double in struct compare_run
};

#define FIELD(name) offsetof(struct compare_run, name)
static const struct field fields[] = {
    {"requests", report_rate, 0, FIELD(requests)},
    {"seconds", report_rate, 0, FIELD(seconds)},
    {"requests/s sent", report_rate, 0, FIELD(offered_per_s)},
    {"requests/s complete", report_rate, 1, FIELD(ok_per_s)},
    {"good requests/s", report_rate, 1, FIELD(good_per_s)},
    {"output tokens/s", report_rate, 1, FIELD(output_tokens_per_s)},
    {"errors", report_share, -1, FIELD(error_share)},
    {"highest rate in the SLO", report_rate, 1, FIELD(found_rate)},
    {"SLO", slo_figure, 1, FIELD(slo)},
    {"fairness by tokens", index_figure, 0, FIELD(jain_tokens)},
    {"fairness by good share", index_figure, 1, FIELD(jain_good)},
};

static void add_row(struct compare_row rows[COMPARE_ROWS_MAX], int32_t *used,
                    const struct compare_row *row, int32_t count)
{
    for (int32_t i = 0; i < count; ++i)
        if (row->values[i] >= 0) {
            ASSERT(*used < COMPARE_ROWS_MAX);
            rows[(*used)++] = *row;
            return;
        }
}

static void add_latencies(const struct compare_run *runs, int32_t count,
                          struct compare_row rows[COMPARE_ROWS_MAX], int32_t *used)
{
    static const char *const figures[COMPARE_FIGURES] = {"mean", "p50", "p90", "p95", "p99", "max"};
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        for (int figure = 0; figure < COMPARE_FIGURES; ++figure) {
            struct compare_row row = {.format = report_duration, .better = -1};
            snprintf(row.title, sizeof row.title, "%s %s",
                     latency_kind_title((enum latency_kind)kind), figures[figure]);
            for (int32_t i = 0; i < count; ++i)
                row.values[i] = runs[i].latency[kind][figure];
            add_row(rows, used, &row, count);
        }
}

int32_t compare_rows(const struct compare_run *runs, int32_t count,
                     struct compare_row rows[COMPARE_ROWS_MAX])
{
    int32_t used = 0;
    ASSERT(count >= 1 && count <= SORA_LOADTEST_RUNS_MAX);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; ++i) {
        struct compare_row row = {.format = fields[i].format, .better = fields[i].better};
        snprintf(row.title, sizeof row.title, "%s", fields[i].title);
        for (int32_t run = 0; run < count; ++run)
            memcpy(&row.values[run], (const char *)&runs[run] + fields[i].offset,
                   sizeof row.values[run]);
        add_row(rows, &used, &row, count);
    }
    add_latencies(runs, count, rows, &used);
    return used;
}

int32_t compare_best(const struct compare_row *row, int32_t count)
{
    int32_t best = -1;
    bool differ = false;
    for (int32_t i = 0; row->better != 0 && i < count; ++i) {
        if (row->values[i] < 0)
            continue;
        if (best >= 0) {
            double a = row->values[i], b = row->values[best];
            differ = differ || fabs(a - b) > TIE * fmax(a, b);
        }
        if (best < 0 || (row->values[i] - row->values[best]) * row->better > 0)
            best = i;
    }
    return differ ? best : -1;
}

const char *compare_ratio(char out[REPORT_FIGURE_BYTES], double value, double base)
{
    out[0] = 0;
    if (value > 0 && base > 0 && value / base < 1e6)
        snprintf(out, REPORT_FIGURE_BYTES, "x%.2f", value / base);
    return out;
}

void compare_table(struct buf *out, const struct compare_run *runs, int32_t count)
{
    struct compare_row rows[COMPARE_ROWS_MAX];
    int32_t used = compare_rows(runs, count, rows);
    buf_printf(out, "%-*s", TITLE_COLUMNS, "");
    for (int32_t i = 0; i < count; ++i) {
        char name[RUN_COLUMNS];
        utf8_escape(name, sizeof name, runs[i].name, strlen(runs[i].name), false);
        buf_printf(out, " %*s", RUN_COLUMNS, name);
    }
    for (int32_t i = 0; i < used; ++i) {
        buf_printf(out, "\n%-*s", TITLE_COLUMNS, rows[i].title);
        for (int32_t run = 0; run < count; ++run) {
            char figure[REPORT_FIGURE_BYTES], ratio[REPORT_FIGURE_BYTES] = "";
            rows[i].format(figure, rows[i].values[run]);
            if (run > 0 && rows[i].better != 0)
                compare_ratio(ratio, rows[i].values[run], rows[i].values[0]);
            buf_printf(out, " %*s %-*s", RUN_COLUMNS - 9, figure, 8, ratio);
        }
        while (out->status == SORA_OK && out->bytes > 0 && out->data[out->bytes - 1] == ' ')
            out->data[--out->bytes] = 0;
    }
    buf_text(out, "\n");
}

// SPDX-License-Identifier: Apache-2.0
// Runs side by side as one HTML page. Names and titles are foreign text. Pure; any thread.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "loadtest/compare.h"
#include "loadtest/compare_rows.h"
#include "loadtest/report_page.h"
#include "loadtest/report_svg.h"

static const char *const colours[SORA_LOADTEST_RUNS_MAX] = {"c1", "c2", "c3", "c4",
                                                            "c5", "c6", "c7", "c8"};

static void put_legend(struct buf *out, const struct compare_run *runs, int32_t count)
{
    buf_text(out, "<p>");
    for (int32_t i = 0; i < count; ++i)
        report_legend(out, colours[i], runs[i].name);
    buf_text(out, "</p>\n");
}

// --- bars ---

static const struct compare_row *find_row(const struct compare_row *rows, int32_t used,
                                          const char *title)
{
    for (int32_t i = 0; i < used; ++i)
        if (strcmp(rows[i].title, title) == 0)
            return &rows[i];
    return NULL;
}

static void put_bars(struct buf *out, const struct compare_row *row, const struct compare_run *runs,
                     int32_t count)
{
    double max = 0;
    for (int32_t i = 0; i < count; ++i)
        max = fmax(max, row->values[i]);
    buf_printf(out, "<div><h3>%s</h3><table>\n", row->title);
    for (int32_t i = 0; i < count; ++i) {
        char figure[REPORT_FIGURE_BYTES];
        double percent = row->values[i] > 0 && max > 0 ? 100 * row->values[i] / max : 0;
        buf_text(out, "<tr><td class=name title=\"");
        report_escape(out, runs[i].name);
        buf_text(out, "\">");
        report_escape(out, runs[i].name);
        buf_text(out, "<td class=bar>");
        if (percent > 0)
            buf_printf(out, "<i style=\"width:%.1f%%;background:var(--%s)\"></i>", percent,
                       colours[i]);
        buf_printf(out, "<td>%s</tr>\n", row->format(figure, row->values[i]));
    }
    buf_text(out, "</table></div>\n");
}

static void put_highlights(struct buf *out, const struct compare_row *rows, int32_t used,
                           const struct compare_run *runs, int32_t count)
{
    static const char *const titles[] = {"output tokens/s",         "good requests/s",
                                         "time to first token p95", "time between tokens p95",
                                         "end to end p95",          "highest rate in the SLO"};
    report_section_begin(out, "At a glance", NULL);
    buf_text(out, "<div class=trio>\n");
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; ++i) {
        const struct compare_row *row = find_row(rows, used, titles[i]);
        if (row != NULL)
            put_bars(out, row, runs, count);
    }
    buf_text(out, "</div>\n");
    report_section_end(out);
}

// --- latency distributions ---

static double bucket_total(const struct compare_run *run, enum latency_kind kind)
{
    double total = 0;
    for (int32_t i = 0; i < run->bucket_count[kind]; ++i)
        total += run->buckets[kind][i].count;
    return total;
}

static const char *share_tick(char out[REPORT_FIGURE_BYTES], double share)
{
    snprintf(out, REPORT_FIGURE_BYTES, "%.3g %%", share * 100);
    return out;
}

static void put_cumulative(struct buf *out, const struct compare_run *runs, int32_t count,
                           enum latency_kind kind)
{
    double min = INFINITY, max = 0;
    for (int32_t i = 0; i < count; ++i)
        if (runs[i].bucket_count[kind] > 0) {
            min = fmin(min, runs[i].buckets[kind][0].high_us);
            max = fmax(max, runs[i].buckets[kind][runs[i].bucket_count[kind] - 1].high_us);
        }
    if (max == 0)
        return;
    struct svg_plot plot = {.out = out,
                            .x = svg_axis_log(min, max, report_duration_tick),
                            .y = {.min = 0, .max = 1, .format = share_tick},
                            .width = 340,
                            .height = 220,
                            .left = 46,
                            .right = 12,
                            .top = 10,
                            .bottom = 26};
    buf_printf(out, "<div><h3>%s</h3>\n", latency_kind_title(kind));
    svg_begin(&plot, latency_kind_title(kind));
    for (int32_t i = 0; i < count; ++i) {
        struct svg_line line;
        double total = bucket_total(&runs[i], kind), below = 0;
        svg_line_begin(&line, &plot, colours[i]);
        for (int32_t b = 0; b < runs[i].bucket_count[kind]; ++b) {
            below += runs[i].buckets[kind][b].count;
            svg_line_point(&line, runs[i].buckets[kind][b].high_us, below / total);
        }
        svg_line_end(&line);
    }
    svg_end(&plot);
    buf_text(out, "</div>\n");
}

static void put_distributions(struct buf *out, const struct compare_run *runs, int32_t count)
{
    report_section_begin(out, "Latency",
                         "Share of requests (or tokens) that took at most so long: further left is "
                         "faster; the x axis is logarithmic.");
    put_legend(out, runs, count);
    buf_text(out, "<div class=trio>\n");
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        put_cumulative(out, runs, count, (enum latency_kind)kind);
    buf_text(out, "</div>\n");
    report_section_end(out);
}

// --- over time ---

static const char *second_tick(char out[REPORT_FIGURE_BYTES], double seconds)
{
    snprintf(out, REPORT_FIGURE_BYTES, "%.4g s", seconds);
    return out;
}

static const char *minute_tick(char out[REPORT_FIGURE_BYTES], double seconds)
{
    snprintf(out, REPORT_FIGURE_BYTES, "%.4g min", seconds / 60);
    return out;
}

static double tokens_of(const struct compare_slot *slot)
{
    return slot->tokens_per_s;
}

static double ttft_of(const struct compare_slot *slot)
{
    return slot->ttft_p95_us;
}

static double e2e_of(const struct compare_slot *slot)
{
    return slot->e2e_p95_us;
}

// The last slot of a run is cut short by its end, so that its rate says nothing.
static void put_over_time(struct buf *out, const struct compare_run *runs, int32_t count,
                          const char *heading, double (*value)(const struct compare_slot *),
                          const char *(*format)(char *, double))
{
    double end_s = 0, max = 0;
    for (int32_t i = 0; i < count; ++i)
        for (int32_t s = 0; s + 1 < runs[i].slot_count; ++s) {
            end_s = fmax(end_s, runs[i].slots[s].at_s + runs[i].slots[s].width_s);
            max = fmax(max, value(&runs[i].slots[s]));
        }
    if (max <= 0)
        return;
    struct svg_plot plot = {.out = out,
                            .x = {.min = 0,
                                  .max = end_s,
                                  .unit = end_s > 300 ? 60 : 1,
                                  .format = end_s > 300 ? minute_tick : second_tick},
                            .y = svg_axis_from_zero(max, format),
                            .width = 1000,
                            .height = 200,
                            .left = 62,
                            .right = 12,
                            .top = 10,
                            .bottom = 26};
    buf_printf(out, "<h3>%s</h3>\n", heading);
    svg_begin(&plot, heading);
    for (int32_t i = 0; i < count; ++i) {
        struct svg_line line;
        svg_line_begin(&line, &plot, colours[i]);
        for (int32_t s = 0; s + 1 < runs[i].slot_count; ++s) {
            const struct compare_slot *slot = &runs[i].slots[s];
            if (value(slot) >= 0)
                svg_line_point(&line, slot->at_s + slot->width_s / 2, value(slot));
            else
                svg_line_gap(&line);
        }
        svg_line_end(&line);
    }
    svg_end(&plot);
}

// --- the table ---

static void put_row(struct buf *out, const struct compare_row *row, int32_t count)
{
    int32_t best = compare_best(row, count);
    buf_printf(out, "<tr><td>%s", row->title);
    for (int32_t i = 0; i < count; ++i) {
        char figure[REPORT_FIGURE_BYTES], ratio[REPORT_FIGURE_BYTES] = "";
        if (i > 0 && row->better != 0)
            compare_ratio(ratio, row->values[i], row->values[0]);
        buf_printf(out, "<td%s>%s", i == best ? " class=good" : "",
                   row->format(figure, row->values[i]));
        if (i > 0)
            buf_printf(out, "<td class=ratio>%s", ratio);
    }
    buf_text(out, "</tr>\n");
}

static void put_table(struct buf *out, const struct compare_row *rows, int32_t used,
                      const struct compare_run *runs, int32_t count)
{
    report_section_begin(out, "All figures",
                         "Ratios are against the first run; the best of a row is green.");
    buf_text(out, "<div class=scroll><table><tr><th>");
    for (int32_t i = 0; i < count; ++i) {
        buf_text(out, "<th>");
        report_escape(out, runs[i].name);
        buf_text(out, i > 0 ? "<th>" : "");
    }
    buf_text(out, "</tr>\n");
    for (int32_t i = 0; i < used; ++i)
        put_row(out, &rows[i], count);
    buf_text(out, "</table></div>\n<table>\n");
    for (int32_t i = 0; i < count; ++i) {
        buf_text(out, "<tr><td>");
        report_escape(out, runs[i].name);
        buf_text(out, "<td class=text>");
        report_escape(out, runs[i].title);
        buf_text(out, "</tr>\n");
    }
    buf_text(out, "</table>\n");
    report_section_end(out);
}

void compare_html(struct buf *out, const struct compare_run *runs, int32_t count)
{
    struct compare_row rows[COMPARE_ROWS_MAX];
    int32_t used = compare_rows(runs, count, rows);
    char title[SORA_LOADTEST_RUNS_MAX * sizeof runs[0].name] = "";
    size_t at = 0;
    for (int32_t i = 0; i < count && at < sizeof title; ++i)
        at += (size_t)snprintf(title + at, sizeof title - at, "%s%s", i > 0 ? " / " : "",
                               runs[i].name);
    report_page_begin(out, title, runs[0].title);
    put_highlights(out, rows, used, runs, count);
    put_distributions(out, runs, count);
    report_section_begin(out, "Over time", "Since the start of each run.");
    put_legend(out, runs, count);
    put_over_time(out, runs, count, "output tokens a second", tokens_of, report_rate_tick);
    put_over_time(out, runs, count, "time to first token, p95, by planned send time", ttft_of,
                  report_duration_tick);
    put_over_time(out, runs, count, "end to end, p95, by planned send time", e2e_of,
                  report_duration_tick);
    report_section_end(out);
    put_table(out, rows, used, runs, count);
    report_page_end(out);
}

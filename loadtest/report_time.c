// SPDX-License-Identifier: Apache-2.0
// Figures over time. All panels share one time axis, so that what happens together stands one above
// the other. Called by the client's thread.
#include "loadtest/report_time.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loadtest/report_page.h"
#include "loadtest/report_svg.h"
#include "loadtest/report_text.h"

#define PARTIAL_MIN 0.3 // a slot that the run covers less of has no rate worth drawing
#define MINUTES_FROM_US 300e6
#define RULES_MAX 80 // more churn than this is drawn as ticks at the top, not through the plot

struct time_view {
    struct buf *out;
    const struct stats *stats;
    const struct stats_summary *summary;
    struct stats_slot *slots;
    int32_t count;
    struct svg_axis x;
};

static const char *second_tick(char out[REPORT_FIGURE_BYTES], double us)
{
    snprintf(out, REPORT_FIGURE_BYTES, "%.4g s", us / 1e6);
    return out;
}

static const char *minute_tick(char out[REPORT_FIGURE_BYTES], double us)
{
    snprintf(out, REPORT_FIGURE_BYTES, "%.4g min", us / 60e6);
    return out;
}

static struct svg_plot panel(const struct time_view *view, double max,
                             const char *(*format)(char *, double))
{
    return (struct svg_plot){
        .out = view->out,
        .x = view->x,
        .y = svg_axis_from_zero(max, format),
        .width = 1000,
        .height = 190,
        .left = 62,
        .right = 12,
        .top = 14,
        .bottom = 26,
    };
}

// How much of a slot the run covers.
static double covered(const struct time_view *view, const struct stats_slot *slot)
{
    double from = fmax((double)slot->start_us, (double)view->summary->start_us);
    double to = fmin((double)(slot->start_us + slot->width_us), (double)view->summary->end_us);
    return (to - from) / (double)slot->width_us;
}

static double middle(const struct stats_slot *slot)
{
    return (double)slot->start_us + (double)slot->width_us / 2;
}

static void put_marks(const struct time_view *view, const struct svg_plot *plot)
{
    static const char *const css[STATS_MARK_KIND_COUNT] = {"c3", "c4", "c5", "c6"};
    int32_t count = stats_mark_count(view->stats);
    double bottom = count > RULES_MAX ? 8 : plot->height - plot->top - plot->bottom;
    for (int32_t i = 0; i < count; ++i) {
        const struct stats_mark *mark = stats_mark_at(view->stats, i);
        if ((double)mark->at_us < view->x.min || (double)mark->at_us > view->x.max)
            continue; // during the warm-up
        buf_printf(view->out, "<path class=\"churn %s\" d=\"M%.1f %.1fv%.1f\"><title>%s ",
                   css[mark->kind], svg_x(plot, (double)mark->at_us), plot->top, bottom,
                   stats_mark_kind_name(mark->kind));
        report_escape(view->out, mark->name);
        buf_text(view->out, "</title></path>\n");
    }
}

static void put_marks_legend(const struct time_view *view)
{
    static const char *const css[STATS_MARK_KIND_COUNT] = {"c3", "c4", "c5", "c6"};
    static const char *const names[STATS_MARK_KIND_COUNT] = {"adapter uploaded", "adapter updated",
                                                             "adapter deleted", "change failed"};
    for (int kind = 0; kind < STATS_MARK_KIND_COUNT; ++kind) {
        char name[64], count[REPORT_FIGURE_BYTES];
        if (view->summary->marks[kind] == 0)
            continue;
        snprintf(name, sizeof name, "%s (%s)", names[kind],
                 report_count(count, view->summary->marks[kind]));
        report_legend(view->out, css[kind], name);
    }
}

static double latency_figure(const struct stats_latency *latency, int which)
{
    return (double)(which == 0 ? latency->p50_us : which == 1 ? latency->p95_us : latency->p99_us);
}

static void put_latency_hover(const struct time_view *view, const struct svg_plot *plot,
                              enum latency_kind kind)
{
    for (int32_t i = 0; i < view->count; ++i) {
        const struct stats_slot *slot = &view->slots[i];
        const struct stats_latency *latency = &slot->latency[kind];
        char at[REPORT_FIGURE_BYTES], figures[3][REPORT_FIGURE_BYTES];
        if (latency->count == 0)
            continue;
        svg_hover_begin(plot, (double)slot->start_us, (double)(slot->start_us + slot->width_us));
        buf_printf(view->out, "at %s: p50 %s, p95 %s, p99 %s (%lld samples)",
                   view->x.format(at, (double)slot->start_us),
                   report_duration(figures[0], (double)latency->p50_us),
                   report_duration(figures[1], (double)latency->p95_us),
                   report_duration(figures[2], (double)latency->p99_us), (long long)latency->count);
        svg_hover_end(plot);
    }
}

// The SLO's bounds on this latency, where they are within the picture.
static void put_limits(const struct time_view *view, const struct svg_plot *plot,
                       enum latency_kind kind)
{
    const struct slo *slo = &view->summary->slo;
    for (int32_t i = 0; i < slo->term_count; ++i) {
        double limit_us = (double)slo->terms[i].limit_us;
        char name[SLO_TERM_NAME_BYTES], figure[REPORT_FIGURE_BYTES];
        if (slo->terms[i].kind != kind || limit_us > plot->y.max)
            continue;
        slo_term_name(&slo->terms[i], name);
        buf_printf(view->out,
                   "<path class=limit d=\"M%.1f %.1fH%.1f\"><title>%s: %s</title></path>",
                   plot->left, svg_y(plot, limit_us), plot->width - plot->right, name,
                   report_duration(figure, limit_us));
    }
}

static void put_latency(const struct time_view *view, enum latency_kind kind)
{
    static const char *const css[] = {"q3", "q2", "q1"};
    double max = 0;
    for (int32_t i = 0; i < view->count; ++i)
        max = fmax(max, (double)view->slots[i].latency[kind].p99_us);
    struct svg_plot plot = panel(view, max, report_duration_tick);
    buf_printf(view->out, "<h3>%s%s</h3>\n", latency_kind_title(kind),
               kind == LATENCY_ITL ? "" : ", by planned send time");
    svg_begin(&plot, latency_kind_title(kind));
    for (int which = 2; which >= 0; --which) { // p50 on top
        struct svg_line line;
        svg_line_begin(&line, &plot, css[2 - which]);
        for (int32_t i = 0; i < view->count; ++i) {
            const struct stats_latency *latency = &view->slots[i].latency[kind];
            if (latency->count > 0)
                svg_line_point(&line, middle(&view->slots[i]), latency_figure(latency, which));
            else
                svg_line_gap(&line);
        }
        svg_line_end(&line);
    }
    put_latency_hover(view, &plot, kind);
    put_limits(view, &plot, kind);
    put_marks(view, &plot); // last, so that they answer the pointer
    svg_end(&plot);
}

// A rate over time: value(slot) a second.
static void put_rate_line(const struct time_view *view, const struct svg_plot *plot,
                          const char *css, double (*value)(const struct stats_slot *))
{
    struct svg_line line;
    svg_line_begin(&line, plot, css);
    for (int32_t i = 0; i < view->count; ++i) {
        const struct stats_slot *slot = &view->slots[i];
        double share = covered(view, slot);
        if (share >= PARTIAL_MIN)
            svg_line_point(&line, middle(slot),
                           value(slot) / (share * (double)slot->width_us / 1e6));
    }
    svg_line_end(&line);
}

static void put_rate_hover(const struct time_view *view, const struct svg_plot *plot)
{
    for (int32_t i = 0; i < view->count; ++i) {
        const struct stats_slot *slot = &view->slots[i];
        char at[REPORT_FIGURE_BYTES], tokens[REPORT_FIGURE_BYTES];
        svg_hover_begin(plot, (double)slot->start_us, (double)(slot->start_us + slot->width_us));
        buf_printf(view->out,
                   "%s and the next %.0f s: %lld planned, %lld complete, %lld errors, %s tokens; "
                   "%lld on their way at its end",
                   view->x.format(at, (double)slot->start_us), (double)slot->width_us / 1e6,
                   (long long)slot->planned, (long long)slot->ok, (long long)slot->errors,
                   report_rate(tokens, slot->output_tokens), (long long)slot->running);
        svg_hover_end(plot);
    }
}

static double rate_max(const struct time_view *view, double (*value)(const struct stats_slot *))
{
    double max = 0;
    for (int32_t i = 0; i < view->count; ++i) {
        double share = covered(view, &view->slots[i]);
        if (share >= PARTIAL_MIN)
            max =
                fmax(max, value(&view->slots[i]) / (share * (double)view->slots[i].width_us / 1e6));
    }
    return max;
}

static double tokens_of(const struct stats_slot *slot)
{
    return slot->output_tokens;
}

static double planned_of(const struct stats_slot *slot)
{
    return (double)slot->planned;
}

static double ok_of(const struct stats_slot *slot)
{
    return (double)slot->ok;
}

static double errors_of(const struct stats_slot *slot)
{
    return (double)slot->errors;
}

static void put_tokens(const struct time_view *view)
{
    struct svg_plot plot = panel(view, rate_max(view, tokens_of), report_rate_tick);
    buf_text(view->out, "<h3>output tokens a second</h3>\n");
    svg_begin(&plot, "output tokens a second over time");
    put_rate_line(view, &plot, "c1", tokens_of);
    put_rate_hover(view, &plot);
    put_marks(view, &plot);
    svg_end(&plot);
}

static void put_requests(const struct time_view *view)
{
    double max = fmax(rate_max(view, planned_of), rate_max(view, ok_of));
    struct svg_plot plot = panel(view, fmax(max, rate_max(view, errors_of)), report_rate_tick);
    buf_text(view->out, "<h3>requests a second</h3>\n");
    report_legend(view->out, "faint", "planned");
    report_legend(view->out, "c1", "complete");
    if (view->summary->errors > 0)
        report_legend(view->out, "c2", "errors");
    svg_begin(&plot, "requests a second over time");
    put_rate_line(view, &plot, "faint", planned_of);
    put_rate_line(view, &plot, "c1", ok_of);
    if (view->summary->errors > 0)
        put_rate_line(view, &plot, "c2", errors_of);
    put_rate_hover(view, &plot);
    svg_end(&plot);
}

static void put_running(const struct time_view *view)
{
    double max = 0;
    for (int32_t i = 0; i < view->count; ++i)
        max = fmax(max, (double)view->slots[i].running);
    struct svg_plot plot = panel(view, max, report_rate_tick);
    struct svg_line line;
    buf_text(view->out, "<h3>requests on their way</h3>\n");
    svg_begin(&plot, "requests that were sent and not answered, over time");
    svg_line_begin(&line, &plot, "c1");
    for (int32_t i = 0; i < view->count; ++i)
        svg_line_point(&line, (double)(view->slots[i].start_us + view->slots[i].width_us),
                       (double)view->slots[i].running);
    svg_line_end(&line);
    put_rate_hover(view, &plot);
    svg_end(&plot);
}

static void put_all(const struct time_view *view)
{
    report_section_begin(view->out, "Over time",
                         "Since the start of the run; point at a picture for its figures.");
    report_legend(view->out, "q1", "p50");
    report_legend(view->out, "q2", "p95");
    report_legend(view->out, "q3", "p99");
    if (view->summary->has_slo)
        report_legend(view->out, "limit", "bound of the SLO");
    put_marks_legend(view);
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        if (view->summary->latency[kind].count > 0)
            put_latency(view, (enum latency_kind)kind);
    put_tokens(view);
    put_requests(view);
    put_running(view);
    report_section_end(view->out);
}

void report_time(struct buf *out, const struct stats *stats, const struct stats_summary *summary)
{
    int32_t count = stats_slot_count(stats);
    if (summary->requests == 0 || count == 0)
        return;
    struct time_view view = {.out = out, .stats = stats, .summary = summary};
    view.slots = calloc((size_t)count, sizeof *view.slots);
    if (view.slots == NULL) {
        out->status = SORA_NO_MEMORY;
        return;
    }
    for (int32_t i = 0; i < count; ++i) {
        stats_slot_at(stats, i, &view.slots[view.count]);
        const struct stats_slot *slot = &view.slots[view.count];
        if (slot->start_us + slot->width_us > summary->start_us) // the warm-up is left out
            ++view.count;
    }
    const struct stats_slot *first = &view.slots[0], *last = &view.slots[view.count - 1];
    double end_us = (double)(last->start_us + last->width_us);
    bool minutes = end_us > MINUTES_FROM_US;
    view.x = (struct svg_axis){.min = (double)first->start_us,
                               .max = end_us,
                               .unit = minutes ? 60e6 : 1e6,
                               .format = minutes ? minute_tick : second_tick};
    put_all(&view);
    free(view.slots);
}

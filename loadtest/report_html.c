// SPDX-License-Identifier: Apache-2.0
// A run as one HTML page: what was run, the figures, the pictures, no network. Foreign names are
// escaped. Called by the client's thread.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loadtest/report.h"
#include "loadtest/report_page.h"
#include "loadtest/report_svg.h"
#include "loadtest/report_text.h"
#include "loadtest/report_time.h"

#define ADAPTERS_SHOWN 25
#define ADAPTERS_MORE 1000 // behind a fold; the JSON has all
#define ADAPTERS_DRAWN 250

static void put_tiles(struct buf *out, const struct stats_summary *summary)
{
    static const char *const names[LATENCY_KIND_COUNT] = {"first token, p95", "inter-token, p95",
                                                          "end to end, p95"};
    char figure[REPORT_FIGURE_BYTES], a[REPORT_FIGURE_BYTES], detail[96];
    buf_text(out, "<div class=tiles>\n");
    snprintf(detail, sizeof detail, "%s sent", report_rate(a, summary->offered_per_s));
    report_tile(out, "requests/s", report_rate(figure, summary->ok_per_s), detail);
    snprintf(detail, sizeof detail, "%s in all", report_count(a, summary->output_tokens));
    report_tile(out, "output tokens/s", report_rate(figure, summary->output_tokens_per_s), detail);
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const struct stats_latency *own = &summary->latency[kind];
        snprintf(detail, sizeof detail, "p50 %s",
                 report_duration(a, own->count > 0 ? (double)own->p50_us : -1));
        report_tile(out, names[kind],
                    report_duration(figure, own->count > 0 ? (double)own->p95_us : -1), detail);
    }
    snprintf(detail, sizeof detail, "%s of %s", report_count(a, summary->errors),
             report_count(figure, summary->requests));
    report_tile(out, "errors", report_share(figure, summary->error_share), detail);
    if (summary->has_slo)
        report_tile(out, "good requests/s", report_rate(figure, summary->good_per_s),
                    summary->slo_met ? "SLO met" : "SLO not met");
    buf_text(out, "</div>\n");
}

static void put_verdict(struct buf *out, bool met, const char *bad)
{
    buf_printf(out, "<td class=%s>%s</td></tr>\n", met ? "good" : "bad", met ? "met" : bad);
}

static void put_slo(struct buf *out, const struct stats_summary *summary)
{
    char found[REPORT_FIGURE_BYTES], limit[REPORT_FIGURE_BYTES];
    if (!summary->has_slo)
        return;
    report_section_begin(out, summary->slo_met ? "SLO: met" : "SLO: not met", NULL);
    buf_text(out, "<table><tr><th>figure<th>found<th>at most<th></tr>\n");
    for (int32_t i = 0; i < summary->slo.term_count; ++i) {
        const struct stats_slo_result *result = &summary->slo_results[i];
        char name[SLO_TERM_NAME_BYTES];
        slo_term_name(&summary->slo.terms[i], name);
        buf_printf(out, "<tr><td>%s<td>%s<td>%s", name,
                   report_duration(found, result->measured ? (double)result->found_us : -1),
                   report_duration(limit, (double)summary->slo.terms[i].limit_us));
        put_verdict(out, result->met, result->measured ? "not met" : "no sample");
    }
    buf_printf(out, "<tr><td>errors<td>%s<td>%s", report_share(found, summary->error_share),
               report_share(limit, summary->slo.errors_max));
    put_verdict(out, summary->error_share <= summary->slo.errors_max, "not met");
    buf_text(out, "</table>\n");
    report_section_end(out);
}

static void put_errors(struct buf *out, const struct stats_summary *summary)
{
    if (summary->errors == 0)
        return;
    char count[REPORT_FIGURE_BYTES], share[REPORT_FIGURE_BYTES];
    report_section_begin(out, "Errors by kind", NULL);
    buf_text(out, "<table><tr><th>kind<th>requests<th>share</tr>\n");
    for (int kind = RECORD_CONNECT; kind < RECORD_OUTCOME_COUNT; ++kind)
        if (summary->outcomes[kind] > 0)
            buf_printf(
                out, "<tr><td>%s<td>%s<td>%s</tr>\n",
                record_outcome_title((enum record_outcome)kind),
                report_count(count, summary->outcomes[kind]),
                report_share(share, (double)summary->outcomes[kind] / (double)summary->requests));
    buf_text(out, "</table>\n");
    report_section_end(out);
}

// --- distributions ---

static void put_histogram(struct buf *out, const struct histogram *histogram,
                          enum latency_kind kind, const struct stats_latency *latency)
{
    struct svg_bins bins = {0};
    struct svg_plot plot = {
        .out = out, .width = 340, .height = 210, .left = 6, .right = 10, .top = 46, .bottom = 26};
    plot.x =
        svg_axis_log((double)histogram->min_us, (double)histogram->max_us, report_duration_tick);
    for (int32_t i = 0; i < HISTOGRAM_BUCKETS; ++i)
        if (histogram->buckets[i] > 0)
            svg_bins_add(&bins, &plot.x, (double)histogram_bucket_low(i),
                         (double)histogram_bucket_high(i), histogram->buckets[i]);
    svg_bins_finish(&bins, (double)histogram->count);
    plot.y = (struct svg_axis){.min = 0, .max = bins.max};
    char count[REPORT_FIGURE_BYTES];
    buf_printf(out, "<div><h3>%s</h3><p class=note2>%s samples</p>\n", latency_kind_title(kind),
               report_count(count, histogram->count));
    svg_begin(&plot, latency_kind_title(kind));
    double ratio = pow(plot.x.max / plot.x.min, 1.0 / SVG_BINS), low = plot.x.min;
    for (int i = 0; i < SVG_BINS; ++i, low *= ratio)
        svg_bar(&plot, "fc1", low, low * ratio, 0, bins.share[i]);
    const int64_t marks_us[] = {latency->p50_us, latency->p95_us, latency->p99_us};
    static const char *const names[] = {"p50", "p95", "p99"};
    for (int i = 0; i < 3; ++i) {
        char figure[REPORT_FIGURE_BYTES], label[REPORT_FIGURE_BYTES + 8];
        snprintf(label, sizeof label, "%s %s", names[i],
                 report_duration(figure, (double)marks_us[i]));
        svg_rule(&plot, "c2", (double)marks_us[i], label, i);
    }
    svg_end(&plot);
    buf_text(out, "</div>\n");
}

static void put_latency_row(struct buf *out, const char *name, const struct stats_latency *own)
{
    const double values[] = {(double)own->min_us, (double)own->p50_us, (double)own->p90_us,
                             (double)own->p95_us, (double)own->p99_us, (double)own->p999_us,
                             (double)own->max_us, own->mean_us};
    char figure[REPORT_FIGURE_BYTES];
    buf_printf(out, "<tr><td>%s", name);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; ++i)
        buf_printf(out, "<td>%s", report_duration(figure, own->count > 0 ? values[i] : -1));
    buf_text(out, "</tr>\n");
}

static void put_distributions(struct buf *out, const struct stats *stats,
                              const struct stats_summary *summary)
{
    report_section_begin(out, "Latency",
                         "How often each latency was seen; the x axis is "
                         "logarithmic.");
    buf_text(out, "<div class=trio>\n");
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        if (summary->latency[kind].count > 0)
            put_histogram(out, stats_histogram(stats, (enum latency_kind)kind),
                          (enum latency_kind)kind, &summary->latency[kind]);
    buf_text(out, "</div>\n<div class=scroll><table><tr><th><th>min<th>p50<th>p90<th>p95<th>p99"
                  "<th>p99.9<th>max<th>mean</tr>\n");
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        put_latency_row(out, latency_kind_title((enum latency_kind)kind), &summary->latency[kind]);
    buf_text(out, "</table></div>\n");
    report_section_end(out);
}

// --- the search for the highest rate ---

static void put_point_row(struct buf *out, const struct report_point *point)
{
    const struct stats_summary *found = &point->summary;
    char a[REPORT_FIGURE_BYTES], b[REPORT_FIGURE_BYTES], c[REPORT_FIGURE_BYTES];
    buf_printf(out, "<tr><td>%s%s<td>%s<td>%s", report_rate(a, point->rate),
               point->repeat ? " (repeat)" : "", report_rate(b, found->ok_per_s),
               report_rate(c, found->output_tokens_per_s));
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const struct stats_latency *own = &found->latency[kind];
        buf_printf(out, "<td>%s", report_duration(a, own->count > 0 ? (double)own->p95_us : -1));
    }
    buf_printf(out, "<td>%s", report_share(a, found->error_share));
    put_verdict(out, found->slo_met, "not met");
}

static void put_search(struct buf *out, const struct report_run *run)
{
    if (run->point_count == 0)
        return;
    char rate[REPORT_FIGURE_BYTES], heading[128];
    snprintf(heading, sizeof heading, "Highest rate that holds the SLO: %s requests a second",
             report_rate(rate, run->found_rate));
    report_section_begin(out, heading, "Each row is one try, in the order they were made.");
    buf_text(out, "<div class=scroll><table><tr><th>rate<th>complete/s<th>tokens/s<th>ttft p95"
                  "<th>itl p95<th>e2e p95<th>errors<th>SLO</tr>\n");
    for (int32_t i = 0; i < run->point_count; ++i)
        put_point_row(out, &run->points[i]);
    buf_text(out, "</table></div>\n");
    report_section_end(out);
}

// --- adapters ---

static const char *adapter_tick(char out[REPORT_FIGURE_BYTES], double value)
{
    return report_count(out, llround(value));
}

// Time to first token of each adapter (end to end when nothing streamed), busiest on the left.
static void put_adapter_picture(struct buf *out, const struct stats *stats, const int32_t *order,
                                int32_t count, enum latency_kind kind)
{
    double max = 0;
    struct stats_adapter adapter;
    for (int32_t i = 0; i < count; ++i) {
        stats_adapter_at(stats, order[i], &adapter);
        max = fmax(max, (double)adapter.latency[kind].p95_us);
    }
    struct svg_plot plot = {.out = out,
                            .x = {.min = 0.5, .max = count + 0.5, .format = adapter_tick},
                            .y = svg_axis_from_zero(max, report_duration_tick),
                            .width = 1000,
                            .height = 190,
                            .left = 62,
                            .right = 12,
                            .top = 10,
                            .bottom = 26};
    buf_printf(out, "<h3>%s of each adapter, p50 to p95, busiest first</h3>\n",
               latency_kind_title(kind));
    svg_begin(&plot, "latency of each adapter");
    for (int32_t i = 0; i < count; ++i) {
        stats_adapter_at(stats, order[i], &adapter);
        const struct stats_latency *own = &adapter.latency[kind];
        char p50[REPORT_FIGURE_BYTES], p95[REPORT_FIGURE_BYTES];
        if (own->count == 0)
            continue;
        double least = plot.y.max / 60; // one sample is still seen
        double top = fmax((double)own->p95_us, (double)own->p50_us + least);
        svg_bar(&plot, "fc1", i + 0.65, i + 1.35, (double)own->p50_us, top);
        svg_hover_begin(&plot, i + 0.5, i + 1.5);
        report_escape(out, adapter.name);
        buf_printf(out, ": p50 %s, p95 %s, %lld requests",
                   report_duration(p50, (double)own->p50_us),
                   report_duration(p95, (double)own->p95_us), (long long)adapter.requests);
        svg_hover_end(&plot);
    }
    svg_end(&plot);
}

static void put_adapter_row(struct buf *out, const struct stats_adapter *adapter, double seconds,
                            int64_t requests_max)
{
    char figure[REPORT_FIGURE_BYTES];
    buf_text(out, "<tr><td class=name>");
    report_escape(out, adapter->name);
    buf_printf(out, "<td class=bar><i style=\"width:%.1f%%\"></i><td>%s",
               100.0 * (double)adapter->requests / (double)requests_max,
               report_count(figure, adapter->requests));
    buf_printf(out, "<td%s>%s", adapter->errors > 0 ? " class=bad" : "",
               report_count(figure, adapter->errors));
    buf_printf(out, "<td>%s",
               report_rate(figure, seconds > 0 ? (double)adapter->output_tokens / seconds : 0));
    const struct stats_latency *ttft = &adapter->latency[LATENCY_TTFT];
    buf_printf(out, "<td>%s", report_duration(figure, ttft->count > 0 ? (double)ttft->p50_us : -1));
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const struct stats_latency *own = &adapter->latency[kind];
        buf_printf(out, "<td>%s",
                   report_duration(figure, own->count > 0 ? (double)own->p95_us : -1));
    }
    buf_text(out, "</tr>\n");
}

static void put_adapter_rows(struct buf *out, const struct stats *stats, const int32_t *order,
                             int32_t from, int32_t to, double seconds)
{
    buf_text(out, "<div class=scroll><table><tr><th>adapter<th><th>requests<th>errors<th>tokens/s"
                  "<th>ttft p50<th>ttft p95<th>itl p95<th>e2e p95</tr>\n");
    for (int32_t i = from; i < to; ++i) {
        struct stats_adapter adapter;
        stats_adapter_at(stats, order[i], &adapter);
        put_adapter_row(out, &adapter, seconds, stats_adapter_requests(stats, order[0]));
    }
    buf_text(out, "</table></div>\n");
}

static void put_adapters(struct buf *out, const struct stats *stats,
                         const struct stats_summary *summary)
{
    int32_t count = 0;
    int32_t *order = report_order(stats, &count);
    char note[256];
    if (order == NULL) {
        out->status = SORA_NO_MEMORY;
        return;
    }
    snprintf(note, sizeof note,
             "%d of %d used. Jain's index of fairness (1 is equal): %.3f over output tokens, "
             "%.3f over each adapter's share of good requests.",
             summary->adapters_used, summary->adapters, summary->jain_tokens, summary->jain_good);
    report_section_begin(out, "Adapters", note);
    enum latency_kind kind = summary->latency[LATENCY_TTFT].count > 0 ? LATENCY_TTFT : LATENCY_E2E;
    if (count > 1)
        put_adapter_picture(out, stats, order, count < ADAPTERS_DRAWN ? count : ADAPTERS_DRAWN,
                            kind);
    int32_t shown = count < ADAPTERS_SHOWN ? count : ADAPTERS_SHOWN;
    int32_t more = count < ADAPTERS_MORE ? count : ADAPTERS_MORE;
    if (count > 0)
        put_adapter_rows(out, stats, order, 0, shown, summary->seconds);
    if (more > shown) {
        buf_printf(out, "<details><summary>the next %d of %d</summary>\n", more - shown, count);
        put_adapter_rows(out, stats, order, shown, more, summary->seconds);
        buf_text(out, "</details>\n");
    }
    report_section_end(out);
    free(order);
}

// --- what was run ---

static void put_fact(struct buf *out, const char *name, const char *value)
{
    if (value == NULL)
        return;
    buf_text(out, "<tr><td>");
    report_escape(out, name);
    buf_text(out, "<td class=text>");
    report_escape(out, value);
    buf_text(out, "</tr>\n");
}

static void put_facts(struct buf *out, const struct report_run *run,
                      const struct stats_summary *summary)
{
    char text[160], late[2][REPORT_FIGURE_BYTES];
    const struct stats_client *client = &summary->client;
    report_section_begin(out, "What was run", NULL);
    buf_text(out, "<table>\n");
    put_fact(out, "server", run->label);
    put_fact(out, "url", run->url);
    for (int32_t i = 0; i < run->fact_count; ++i)
        put_fact(out, run->facts[i].name, run->facts[i].value);
    snprintf(text, sizeof text, "%lld ended in %.1f s, %lld dropped as planned, %lld of warm-up",
             (long long)summary->requests, summary->seconds, (long long)summary->dropped,
             (long long)summary->warmup);
    put_fact(out, "requests", text);
    snprintf(text, sizeof text,
             "%.1f %% of a core, %.2f %% per 1,000 events/s; requests sent %s late at p99, %s at "
             "most",
             client->core_share * 100, client->share_per_1000 * 100,
             report_duration(late[0], (double)client->late_p99_us),
             report_duration(late[1], (double)client->late_max_us));
    put_fact(out, "client's own cost", client->events > 0 ? text : NULL);
    buf_text(out, "</table>\n");
    report_section_end(out);
}

static void put_subtitle(char *out, size_t bytes, const struct report_run *run)
{
    char when[64] = "";
    time_t started = (time_t)run->started_unix_s;
    struct tm parts;
    if (started > 0 && gmtime_r(&started, &parts) != NULL)
        strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &parts);
    const char *items[] = {run->label, run->url, when};
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof items / sizeof items[0]; ++i)
        if (items[i] != NULL && items[i][0] != 0 && used < bytes)
            used +=
                (size_t)snprintf(out + used, bytes - used, "%s%s", used > 0 ? " · " : "", items[i]);
}

void report_html(struct buf *out, const struct report_run *run, const struct stats *stats)
{
    struct stats_summary summary;
    char subtitle[512];
    stats_summary(stats, &summary);
    put_subtitle(subtitle, sizeof subtitle, run);
    report_page_begin(out, run->title != NULL ? run->title : "load test", subtitle);
    if (summary.client.bottleneck)
        buf_printf(out, "<div class=warn><b>The client was the bottleneck.</b> %s</div>\n",
                   summary.client.warning);
    put_tiles(out, &summary);
    put_search(out, run);
    put_slo(out, &summary);
    put_errors(out, &summary);
    put_distributions(out, stats, &summary);
    report_time(out, stats, &summary);
    put_adapters(out, stats, &summary);
    put_facts(out, run, &summary);
    report_page_end(out);
}

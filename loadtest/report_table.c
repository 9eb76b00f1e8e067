// SPDX-License-Identifier: Apache-2.0
// The table at the end of a run. Foreign names are escaped. Called by the client's thread.
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "loadtest/report.h"
#include "loadtest/report_text.h"

#define ADAPTERS_SHOWN 20
#define NAME_BYTES 36

static void put_fact(FILE *out, const char *name, const char *value)
{
    char safe_name[64], safe[512];
    utf8_escape(safe_name, sizeof safe_name, name, strlen(name), false);
    utf8_escape(safe, sizeof safe, value, strlen(value), false);
    fprintf(out, "%-12s  %s\n", safe_name, safe);
}

static void put_head(FILE *out, const struct report_run *run)
{
    if (run->title != NULL)
        put_fact(out, "run", run->title);
    if (run->label != NULL)
        put_fact(out, "server", run->label);
    if (run->url != NULL)
        put_fact(out, "url", run->url);
    for (int32_t i = 0; i < run->fact_count; ++i)
        put_fact(out, run->facts[i].name, run->facts[i].value);
    fputc('\n', out);
}

static void put_requests(FILE *out, const struct stats_summary *summary)
{
    char requests[REPORT_FIGURE_BYTES], ok[REPORT_FIGURE_BYTES], share[REPORT_FIGURE_BYTES];
    fprintf(out, "%-12s  %s in %.1f s: %s complete", "requests",
            report_count(requests, summary->requests), summary->seconds,
            report_count(ok, summary->ok));
    if (summary->dropped > 0)
        fprintf(out, ", %lld dropped as planned", (long long)summary->dropped);
    fprintf(out, ", %lld errors (%s)", (long long)summary->errors,
            report_share(share, summary->error_share));
    if (summary->warmup > 0)
        fprintf(out, "; %lld of warm-up not counted", (long long)summary->warmup);
    fputc('\n', out);
    for (int kind = RECORD_CONNECT; kind < RECORD_OUTCOME_COUNT; ++kind)
        if (summary->outcomes[kind] > 0)
            fprintf(out, "%-12s  %8lld  %s\n", "", (long long)summary->outcomes[kind],
                    record_outcome_title((enum record_outcome)kind));
}

static void put_rates(FILE *out, const struct stats_summary *summary)
{
    char a[REPORT_FIGURE_BYTES], b[REPORT_FIGURE_BYTES], c[REPORT_FIGURE_BYTES];
    fprintf(out, "%-12s  %s/s sent, %s/s complete, %s/s good%s\n", "rate",
            report_rate(a, summary->offered_per_s), report_rate(b, summary->ok_per_s),
            report_rate(c, summary->good_per_s),
            summary->has_slo ? " (complete and within the SLO)" : "");
    fprintf(out, "%-12s  %s/s out (%s), %s/s in\n", "tokens",
            report_rate(a, summary->output_tokens_per_s), report_count(b, summary->output_tokens),
            report_rate(c, summary->prompt_tokens_per_s));
}

static void put_latencies(FILE *out, const struct stats_summary *summary)
{
    fprintf(out, "\n%-20s %9s %9s %9s %9s %9s %9s %10s\n", "latency", "p50", "p90", "p95", "p99",
            "max", "mean", "samples");
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const struct stats_latency *own = &summary->latency[kind];
        double values[] = {(double)own->p50_us, (double)own->p90_us, (double)own->p95_us,
                           (double)own->p99_us, (double)own->max_us, own->mean_us};
        char figure[REPORT_FIGURE_BYTES];
        fprintf(out, "%-20s", latency_kind_title((enum latency_kind)kind));
        for (size_t i = 0; i < sizeof values / sizeof values[0]; ++i)
            fprintf(out, " %9s", report_duration(figure, own->count > 0 ? values[i] : -1));
        fprintf(out, " %10s\n", report_count(figure, own->count));
    }
    fputc('\n', out);
}

static void put_slo(FILE *out, const struct stats_summary *summary)
{
    if (!summary->has_slo)
        return;
    fprintf(out, "%-12s  %s\n", "SLO", summary->slo_met ? "met" : "NOT met");
    for (int32_t i = 0; i < summary->slo.term_count; ++i) {
        const struct slo_term *term = &summary->slo.terms[i];
        const struct stats_slo_result *result = &summary->slo_results[i];
        char name[SLO_TERM_NAME_BYTES], limit[REPORT_FIGURE_BYTES], found[REPORT_FIGURE_BYTES];
        slo_term_name(term, name);
        fprintf(out, "%-12s  %-12s %9s, at most %s%s\n", "", name,
                report_duration(found, result->measured ? (double)result->found_us : -1),
                report_duration(limit, (double)term->limit_us),
                result->met        ? ""
                : result->measured ? "  <- not met"
                                   : "  <- no sample");
    }
    char found[REPORT_FIGURE_BYTES], limit[REPORT_FIGURE_BYTES];
    bool few = summary->error_share <= summary->slo.errors_max;
    fprintf(out, "%-12s  %-12s %9s, at most %s%s\n", "", "errors",
            report_share(found, summary->error_share), report_share(limit, summary->slo.errors_max),
            few ? "" : "  <- not met");
}

static void put_rest(FILE *out, const struct stats_summary *summary)
{
    char late[REPORT_FIGURE_BYTES];
    const struct stats_client *client = &summary->client;
    fprintf(out, "%-12s  %d of %d used; fairness (Jain) %.3f by tokens, %.3f by share of good\n",
            "adapters", summary->adapters_used, summary->adapters, summary->jain_tokens,
            summary->jain_good);
    int64_t marks = 0;
    for (int kind = 0; kind < STATS_MARK_KIND_COUNT; ++kind)
        marks += summary->marks[kind];
    if (marks > 0)
        fprintf(out, "%-12s  %lld uploads, %lld updates, %lld deletions, %lld failed\n", "churn",
                (long long)summary->marks[STATS_MARK_UPLOAD],
                (long long)summary->marks[STATS_MARK_UPDATE],
                (long long)summary->marks[STATS_MARK_DELETE],
                (long long)summary->marks[STATS_MARK_FAILED]);
    if (client->events > 0)
        fprintf(out, "%-12s  %.1f %% of a core, %.2f %% per 1,000 events/s; sent %s late at p99\n",
                "client", client->core_share * 100, client->share_per_1000 * 100,
                report_duration(late, (double)client->late_p99_us));
    if (client->bottleneck)
        fprintf(out, "%-12s  %s\n", "WARNING", client->warning);
}

static void put_points(FILE *out, const struct report_run *run)
{
    if (run->point_count == 0)
        return;
    fprintf(out, "\n%10s %10s %10s %9s %9s %9s %8s  %s\n", "rate/s", "complete/s", "tokens/s",
            "ttft p95", "itl p95", "e2e p95", "errors", "SLO");
    for (int32_t i = 0; i < run->point_count; ++i) {
        const struct report_point *point = &run->points[i];
        const struct stats_summary *found = &point->summary;
        char figures[7][REPORT_FIGURE_BYTES];
        fprintf(out, "%10s %10s %10s", report_rate(figures[0], point->rate),
                report_rate(figures[1], found->ok_per_s),
                report_rate(figures[2], found->output_tokens_per_s));
        for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
            const struct stats_latency *own = &found->latency[kind];
            fprintf(out, " %9s",
                    report_duration(figures[3 + kind], own->count > 0 ? (double)own->p95_us : -1));
        }
        fprintf(out, " %8s  %s%s\n", report_share(figures[6], found->error_share),
                found->slo_met ? "met" : "not met", point->repeat ? " (repeat)" : "");
    }
    fprintf(out, "highest rate that held the SLO: %.2f requests/s\n", run->found_rate);
}

static void put_adapter(FILE *out, const struct stats_adapter *adapter, double seconds)
{
    char name[NAME_BYTES + 1], rate[REPORT_FIGURE_BYTES], figure[REPORT_FIGURE_BYTES];
    utf8_escape(name, sizeof name, adapter->name, strlen(adapter->name), false);
    fprintf(out, "%-*s %9lld %7lld %9s", NAME_BYTES, name, (long long)adapter->requests,
            (long long)adapter->errors,
            report_rate(rate, seconds > 0 ? (double)adapter->output_tokens / seconds : 0));
    const struct stats_latency *ttft = &adapter->latency[LATENCY_TTFT];
    fprintf(out, " %9s", report_duration(figure, ttft->count > 0 ? (double)ttft->p50_us : -1));
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const struct stats_latency *own = &adapter->latency[kind];
        fprintf(out, " %9s", report_duration(figure, own->count > 0 ? (double)own->p95_us : -1));
    }
    fputc('\n', out);
}

static void put_adapters(FILE *out, const struct stats *stats, double seconds)
{
    int32_t count = 0;
    int32_t *order = report_order(stats, &count);
    if (order == NULL) {
        fputs("no memory for the table of adapters\n", out);
        return;
    }
    if (count > 1)
        fprintf(out, "\n%-*s %9s %7s %9s %9s %9s %9s %9s\n", NAME_BYTES, "adapter, by requests",
                "requests", "errors", "tokens/s", "ttft p50", "ttft p95", "itl p95", "e2e p95");
    for (int32_t i = 0; count > 1 && i < count && i < ADAPTERS_SHOWN; ++i) {
        struct stats_adapter adapter;
        stats_adapter_at(stats, order[i], &adapter);
        put_adapter(out, &adapter, seconds);
    }
    if (count > ADAPTERS_SHOWN)
        fprintf(out, "and %d more\n", count - ADAPTERS_SHOWN);
    free(order);
}

void report_table(FILE *out, const struct report_run *run, const struct stats *stats)
{
    struct stats_summary summary;
    stats_summary(stats, &summary);
    put_head(out, run);
    put_requests(out, &summary);
    put_rates(out, &summary);
    put_latencies(out, &summary);
    put_slo(out, &summary);
    put_rest(out, &summary);
    put_points(out, run);
    put_adapters(out, stats, summary.seconds);
    fflush(out);
}

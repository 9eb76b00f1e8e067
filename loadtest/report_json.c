// SPDX-License-Identifier: Apache-2.0
// A run as one JSON document, for programs and for `compare`. Times in microseconds, rates a
// second, shares from 0 to 1. Called by the client's thread.
#include <math.h>
#include <string.h>

#include "loadtest/report.h"

static void put_string(struct buf *out, const char *name, const char *value)
{
    buf_printf(out, "\"%s\":", name);
    if (value == NULL)
        buf_text(out, "null");
    else
        buf_json_string(out, value, strlen(value));
    buf_text(out, ",");
}

static void put_int(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "\"%s\":%lld,", name, (long long)value);
}

static void put_number(struct buf *out, const char *name, double value)
{
    buf_printf(out, "\"%s\":%.9g,", name, isfinite(value) ? value : 0);
}

static void put_bool(struct buf *out, const char *name, bool value)
{
    buf_printf(out, "\"%s\":%s,", name, value ? "true" : "false");
}

// Closes an object or array; the comma that its last member left goes.
static void close_with(struct buf *out, const char *end)
{
    if (out->status == SORA_OK && out->bytes > 0 && out->data[out->bytes - 1] == ',')
        out->data[--out->bytes] = 0;
    buf_text(out, end);
}

// null when there is no sample, so that nobody takes a zero for a latency.
static void put_latency(struct buf *out, const char *name, const struct stats_latency *latency)
{
    if (latency->count == 0) {
        buf_printf(out, "\"%s\":null,", name);
        return;
    }
    buf_printf(out, "\"%s\":{", name);
    put_int(out, "count", latency->count);
    put_number(out, "mean_us", latency->mean_us);
    put_int(out, "min_us", latency->min_us);
    put_int(out, "p50_us", latency->p50_us);
    put_int(out, "p90_us", latency->p90_us);
    put_int(out, "p95_us", latency->p95_us);
    put_int(out, "p99_us", latency->p99_us);
    put_int(out, "p999_us", latency->p999_us);
    put_int(out, "max_us", latency->max_us);
    close_with(out, "},");
}

static void put_latencies(struct buf *out, const struct stats_latency latency[LATENCY_KIND_COUNT])
{
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        put_latency(out, latency_kind_name((enum latency_kind)kind), &latency[kind]);
}

static void put_slo(struct buf *out, const struct stats_summary *summary)
{
    char text[SLO_TEXT_BYTES];
    if (!summary->has_slo) {
        buf_text(out, "\"slo\":null,");
        return;
    }
    slo_text(&summary->slo, text);
    buf_text(out, "\"slo\":{");
    put_string(out, "text", text);
    put_bool(out, "met", summary->slo_met);
    buf_text(out, "\"terms\":[");
    for (int32_t i = 0; i < summary->slo.term_count; ++i) {
        char name[SLO_TERM_NAME_BYTES];
        slo_term_name(&summary->slo.terms[i], name);
        buf_text(out, "{");
        put_string(out, "name", name);
        put_int(out, "limit_us", summary->slo.terms[i].limit_us);
        if (summary->slo_results[i].measured)
            put_int(out, "found_us", summary->slo_results[i].found_us);
        put_bool(out, "met", summary->slo_results[i].met);
        close_with(out, "},");
    }
    close_with(out, "],");
    put_number(out, "errors_max", summary->slo.errors_max);
    close_with(out, "},");
}

static void put_client(struct buf *out, const struct stats_client *client)
{
    buf_text(out, "\"client\":{");
    put_int(out, "cpu_us", client->cpu_us);
    put_int(out, "wall_us", client->wall_us);
    put_int(out, "events", client->events);
    put_number(out, "core_share", client->core_share);
    put_number(out, "core_share_per_1000_events_per_s", client->share_per_1000);
    put_int(out, "late_p50_us", client->late_p50_us);
    put_int(out, "late_p99_us", client->late_p99_us);
    put_int(out, "late_max_us", client->late_max_us);
    put_bool(out, "bottleneck", client->bottleneck);
    put_string(out, "warning", client->bottleneck ? client->warning : NULL);
    close_with(out, "},");
}

static void put_counts(struct buf *out, const struct stats_summary *summary)
{
    put_int(out, "requests", summary->requests);
    put_int(out, "warmup", summary->warmup);
    put_int(out, "ok", summary->ok);
    put_int(out, "dropped", summary->dropped);
    put_int(out, "errors", summary->errors);
    put_int(out, "good", summary->good);
    put_int(out, "prompt_tokens", summary->prompt_tokens);
    put_int(out, "output_tokens", summary->output_tokens);
    buf_text(out, "\"errors_by_kind\":{");
    for (int kind = RECORD_CONNECT; kind < RECORD_OUTCOME_COUNT; ++kind)
        put_int(out, record_outcome_name((enum record_outcome)kind), summary->outcomes[kind]);
    close_with(out, "},");
    buf_text(out, "\"churn\":{");
    for (int kind = 0; kind < STATS_MARK_KIND_COUNT; ++kind)
        put_int(out, stats_mark_kind_name((enum stats_mark_kind)kind), summary->marks[kind]);
    close_with(out, "},");
}

static void put_summary(struct buf *out, const struct stats_summary *summary)
{
    put_counts(out, summary);
    put_number(out, "seconds", summary->seconds);
    put_number(out, "offered_per_s", summary->offered_per_s);
    put_number(out, "ok_per_s", summary->ok_per_s);
    put_number(out, "good_per_s", summary->good_per_s);
    put_number(out, "prompt_tokens_per_s", summary->prompt_tokens_per_s);
    put_number(out, "output_tokens_per_s", summary->output_tokens_per_s);
    put_number(out, "error_share", summary->error_share);
    put_int(out, "adapters", summary->adapters);
    put_int(out, "adapters_used", summary->adapters_used);
    put_number(out, "jain_tokens", summary->jain_tokens);
    put_number(out, "jain_good", summary->jain_good);
    buf_text(out, "\"latency\":{");
    put_latencies(out, summary->latency);
    close_with(out, "},");
    put_slo(out, summary);
    put_client(out, &summary->client);
}

// [low_us, high_us, count] of every bucket that is not empty.
static void put_histograms(struct buf *out, const struct stats *stats)
{
    buf_text(out, "\"histograms\":{");
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind) {
        const struct histogram *histogram = stats_histogram(stats, (enum latency_kind)kind);
        buf_printf(out, "\"%s\":[", latency_kind_name((enum latency_kind)kind));
        for (int32_t i = 0; i < HISTOGRAM_BUCKETS; ++i)
            if (histogram->buckets[i] > 0)
                buf_printf(out, "[%lld,%lld,%u],", (long long)histogram_bucket_low(i),
                           (long long)histogram_bucket_high(i), histogram->buckets[i]);
        close_with(out, "],");
    }
    close_with(out, "},\n");
}

static void put_series(struct buf *out, const struct stats *stats)
{
    buf_text(out, "\"series\":[\n");
    for (int32_t i = 0; i < stats_slot_count(stats); ++i) {
        struct stats_slot slot;
        stats_slot_at(stats, i, &slot);
        buf_text(out, "{");
        put_int(out, "at_us", slot.start_us);
        put_int(out, "width_us", slot.width_us);
        put_int(out, "planned", slot.planned);
        put_int(out, "ok", slot.ok);
        put_int(out, "dropped", slot.dropped);
        put_int(out, "errors", slot.errors);
        put_int(out, "running", slot.running);
        put_number(out, "output_tokens", slot.output_tokens);
        put_latencies(out, slot.latency);
        close_with(out, "}");
        buf_text(out, i + 1 < stats_slot_count(stats) ? ",\n" : "");
    }
    buf_text(out, "],\n");
}

static void put_adapters(struct buf *out, const struct stats *stats)
{
    int32_t count = stats_adapter_count(stats);
    buf_text(out, "\"per_adapter\":[\n");
    for (int32_t i = 0; i < count; ++i) {
        struct stats_adapter adapter;
        stats_adapter_at(stats, i, &adapter);
        buf_text(out, "{");
        put_string(out, "name", adapter.name);
        put_int(out, "requests", adapter.requests);
        put_int(out, "ok", adapter.ok);
        put_int(out, "dropped", adapter.dropped);
        put_int(out, "errors", adapter.errors);
        put_int(out, "good", adapter.good);
        put_int(out, "prompt_tokens", adapter.prompt_tokens);
        put_int(out, "output_tokens", adapter.output_tokens);
        if (adapter.requests > 0)
            put_latencies(out, adapter.latency);
        close_with(out, "}");
        buf_text(out, i + 1 < count ? ",\n" : "");
    }
    buf_text(out, "],\n");
}

static void put_marks(struct buf *out, const struct stats *stats)
{
    buf_text(out, "\"marks\":[");
    for (int32_t i = 0; i < stats_mark_count(stats); ++i) {
        const struct stats_mark *mark = stats_mark_at(stats, i);
        buf_text(out, "{");
        put_int(out, "at_us", mark->at_us);
        put_string(out, "kind", stats_mark_kind_name(mark->kind));
        put_string(out, "name", mark->name);
        close_with(out, "},");
    }
    close_with(out, "],\n");
}

static void put_search(struct buf *out, const struct report_run *run)
{
    if (run->point_count == 0) {
        buf_text(out, "\"search\":null,\n");
        return;
    }
    buf_text(out, "\"search\":{");
    put_number(out, "found_rate", run->found_rate);
    buf_text(out, "\"points\":[\n");
    for (int32_t i = 0; i < run->point_count; ++i) {
        buf_text(out, "{");
        put_number(out, "rate", run->points[i].rate);
        put_bool(out, "repeat", run->points[i].repeat);
        put_summary(out, &run->points[i].summary);
        close_with(out, "}");
        buf_text(out, i + 1 < run->point_count ? ",\n" : "");
    }
    buf_text(out, "]},\n");
}

void report_json(struct buf *out, const struct report_run *run, const struct stats *stats)
{
    struct stats_summary summary;
    stats_summary(stats, &summary);
    buf_text(out, "{\"format\":\"sora-loadtest\",\"format_version\":1,\n");
    put_string(out, "title", run->title);
    put_string(out, "label", run->label);
    put_string(out, "url", run->url);
    put_int(out, "started_unix_s", run->started_unix_s);
    buf_text(out, "\"facts\":[");
    for (int32_t i = 0; i < run->fact_count; ++i) {
        buf_text(out, "{");
        put_string(out, "name", run->facts[i].name);
        put_string(out, "value", run->facts[i].value);
        close_with(out, "},");
    }
    close_with(out, "],\n\"summary\":{");
    put_summary(out, &summary);
    close_with(out, "},\n");
    put_search(out, run);
    put_histograms(out, stats);
    put_series(out, stats);
    put_adapters(out, stats);
    put_marks(out, stats);
    if (out->status == SORA_OK) // the comma and newline behind the last member
        out->bytes -= 2;
    buf_text(out, "}\n");
}

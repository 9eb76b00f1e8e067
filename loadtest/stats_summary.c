// SPDX-License-Identifier: Apache-2.0
// What the gathered figures say: rates, quantiles, fairness, the SLO, and whether the client was
// fast enough for its own measurement. Reads the statistics; called by the client's thread.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "loadtest/stats.h"
#include "loadtest/stats_inside.h"

#define CLIENT_CORE_SHARE_MAX 0.8 // one thread; beyond it sending waits for it at every burst
#define CLIENT_LATE_US 10000      // sending later than this shows in a time to first token ...
#define CLIENT_LATE_SHARE 0.05    // ... when it is more than this share of it

static void fill_latency(const struct histogram *from, struct stats_latency *latency)
{
    *latency = (struct stats_latency){
        .count = from->count,
        .mean_us = histogram_mean(from),
        .min_us = from->min_us,
        .max_us = from->max_us,
        .p50_us = histogram_quantile(from, 0.5),
        .p90_us = histogram_quantile(from, 0.9),
        .p95_us = histogram_quantile(from, 0.95),
        .p99_us = histogram_quantile(from, 0.99),
        .p999_us = histogram_quantile(from, 0.999),
    };
}

struct jain {
    double sum, squares;
    int32_t count;
};

static void jain_add(struct jain *jain, double value)
{
    ASSERT(value >= 0);
    jain->sum += value;
    jain->squares += value * value;
    ++jain->count;
}

static double jain_index(const struct jain *jain)
{
    return jain->squares > 0 ? jain->sum * jain->sum / (jain->count * jain->squares) : 1;
}

double stats_jain(const double *values, int32_t count)
{
    struct jain jain = {0};
    for (int32_t i = 0; i < count; ++i)
        jain_add(&jain, values[i]);
    return jain_index(&jain);
}

static void fill_fairness(const struct stats *stats, struct stats_summary *summary)
{
    struct jain tokens = {0}, good = {0};
    for (int32_t i = 0; i < stats->adapter_count; ++i) {
        const struct stats_counts *counts = &stats->adapters[i].counts;
        int64_t asked = counts->requests - counts->dropped;
        if (counts->requests == 0)
            continue;
        ++summary->adapters_used;
        jain_add(&tokens, (double)counts->output_tokens);
        if (asked > 0)
            jain_add(&good, (double)counts->good / (double)asked);
    }
    summary->adapters = stats->adapter_count;
    summary->jain_tokens = jain_index(&tokens);
    summary->jain_good = jain_index(&good);
}

static void fill_rates(const struct stats *stats, struct stats_summary *summary)
{
    const struct stats_counts *counts = &stats->counts;
    if (counts->requests == 0)
        return;
    int64_t span_us = stats->end_us - stats->start_us;
    double seconds = (double)(span_us > 0 ? span_us : 1) / 1e6;
    summary->start_us = stats->start_us;
    summary->end_us = stats->end_us;
    summary->seconds = seconds;
    summary->ok_per_s = (double)counts->ok / seconds;
    summary->good_per_s = (double)counts->good / seconds;
    summary->prompt_tokens_per_s = (double)counts->prompt_tokens / seconds;
    summary->output_tokens_per_s = (double)counts->output_tokens / seconds;
    summary->error_share = (double)counts->errors / (double)counts->requests;
    // The last request's end is not part of the time in which requests were sent.
    int64_t last_us = stats->last_planned_us - stats->start_us;
    if (last_us > 0)
        summary->offered_per_s = (double)(counts->requests - 1) / ((double)last_us / 1e6);
}

static void fill_client(const struct stats *stats, struct stats_summary *summary)
{
    struct stats_client *client = &summary->client;
    client->cpu_us = stats->cpu_us;
    client->wall_us = stats->wall_us;
    client->events = stats->events;
    client->late_p50_us = histogram_quantile(&stats->late, 0.5);
    client->late_p99_us = histogram_quantile(&stats->late, 0.99);
    client->late_max_us = stats->late.max_us;
    if (stats->wall_us > 0)
        client->core_share = (double)stats->cpu_us / (double)stats->wall_us;
    if (stats->events > 0) // the wall time of both rates cancels out
        client->share_per_1000 = (double)stats->cpu_us / 1e6 / (double)stats->events * 1000;
    int64_t typical_us = summary->latency[LATENCY_TTFT].count > 0
                             ? summary->latency[LATENCY_TTFT].p50_us
                             : summary->latency[LATENCY_E2E].p50_us;
    if (client->core_share > CLIENT_CORE_SHARE_MAX)
        snprintf(client->warning, sizeof client->warning,
                 "The client used %.0f %% of a core: its own speed is part of these figures. "
                 "Spread the load over several clients.",
                 client->core_share * 100);
    else if (client->late_p99_us > CLIENT_LATE_US &&
             (double)client->late_p99_us > CLIENT_LATE_SHARE * (double)typical_us)
        snprintf(client->warning, sizeof client->warning,
                 "The client sent 1 %% of the requests more than %.0f ms later than planned: it "
                 "had too little processor time, and that delay is part of these figures.",
                 (double)client->late_p99_us / 1e3);
    client->bottleneck = client->warning[0] != 0;
}

static int64_t figure_of(const struct histogram *histogram, const struct slo_term *term)
{
    if (term->figure == SLO_MAX)
        return histogram->max_us;
    if (term->figure == SLO_MEAN)
        return (int64_t)histogram_mean(histogram);
    return histogram_quantile(histogram, term->quantile);
}

static void fill_slo(const struct stats *stats, struct stats_summary *summary)
{
    summary->has_slo = stats->has_slo;
    summary->slo = stats->slo;
    summary->slo_met = true;
    if (!stats->has_slo)
        return;
    summary->slo_met = summary->error_share <= stats->slo.errors_max;
    for (int32_t i = 0; i < stats->slo.term_count; ++i) {
        const struct slo_term *term = &stats->slo.terms[i];
        const struct histogram *histogram = &stats->latency[term->kind];
        struct stats_slo_result *result = &summary->slo_results[i];
        result->measured = histogram->count > 0;
        result->found_us = figure_of(histogram, term);
        result->met = result->measured && result->found_us <= term->limit_us;
        summary->slo_met = summary->slo_met && result->met;
    }
}

void stats_summary(const struct stats *stats, struct stats_summary *summary)
{
    memset(summary, 0, sizeof *summary);
    summary->requests = stats->counts.requests;
    summary->warmup = stats->warmup;
    summary->ok = stats->counts.ok;
    summary->dropped = stats->counts.dropped;
    summary->errors = stats->counts.errors;
    summary->good = stats->counts.good;
    summary->prompt_tokens = stats->counts.prompt_tokens;
    summary->output_tokens = stats->counts.output_tokens;
    memcpy(summary->outcomes, stats->outcomes, sizeof summary->outcomes);
    memcpy(summary->marks, stats->mark_totals, sizeof summary->marks);
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        fill_latency(&stats->latency[kind], &summary->latency[kind]);
    fill_rates(stats, summary);
    fill_fairness(stats, summary);
    fill_client(stats, summary);
    fill_slo(stats, summary);
}

int64_t stats_error_count(const struct stats *stats)
{
    return stats->counts.errors;
}

bool stats_slo_met(const struct stats *stats)
{
    struct stats_summary summary;
    stats_summary(stats, &summary);
    return summary.slo_met;
}

int32_t stats_adapter_count(const struct stats *stats)
{
    return stats->adapter_count;
}

int64_t stats_adapter_requests(const struct stats *stats, int32_t index)
{
    ASSERT(index >= 0 && index < stats->adapter_count);
    return stats->adapters[index].counts.requests;
}

void stats_adapter_at(const struct stats *stats, int32_t index, struct stats_adapter *adapter)
{
    ASSERT(index >= 0 && index < stats->adapter_count);
    const struct stats_one_adapter *from = &stats->adapters[index];
    *adapter = (struct stats_adapter){
        .name = from->name,
        .requests = from->counts.requests,
        .ok = from->counts.ok,
        .dropped = from->counts.dropped,
        .errors = from->counts.errors,
        .good = from->counts.good,
        .prompt_tokens = from->counts.prompt_tokens,
        .output_tokens = from->counts.output_tokens,
    };
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        fill_latency(&from->latency[kind], &adapter->latency[kind]);
}

int32_t stats_slot_count(const struct stats *stats)
{
    return stats->slot_count;
}

void stats_slot_at(const struct stats *stats, int32_t index, struct stats_slot *slot)
{
    ASSERT(index >= 0 && index < stats->slot_count);
    const struct stats_one_slot *from = &stats->slots[index];
    *slot = (struct stats_slot){
        .start_us = index * stats->slot_width_us,
        .width_us = stats->slot_width_us,
        .planned = from->planned,
        .ok = from->ok,
        .dropped = from->dropped,
        .errors = from->errors,
        .output_tokens = from->output_tokens,
    };
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        fill_latency(&from->latency[kind], &slot->latency[kind]);
    for (int32_t i = 0; i <= index; ++i) {
        const struct stats_one_slot *earlier = &stats->slots[i];
        slot->running += earlier->planned - earlier->ok - earlier->dropped - earlier->errors;
    }
}

int32_t stats_mark_count(const struct stats *stats)
{
    return stats->mark_count;
}

const struct stats_mark *stats_mark_at(const struct stats *stats, int32_t index)
{
    ASSERT(index >= 0 && index < stats->mark_count);
    return &stats->marks[index];
}

const struct histogram *stats_histogram(const struct stats *stats, enum latency_kind kind)
{
    return &stats->latency[kind];
}

// SPDX-License-Identifier: Apache-2.0
// Gathers the figures of a run. Memory is taken once at creation; the system gives pages of
// histograms only where something is counted. Owned and called by the client's one thread.
#include "loadtest/stats.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "loadtest/stats_inside.h"
#include "sora/limits.h"

#define SLOT_WIDTH_US 1000000
#define WINDOW_US 5000000

const char *record_outcome_name(enum record_outcome outcome)
{
    static const char *const names[RECORD_OUTCOME_COUNT] = {
        "ok",       "dropped",  "connect", "timeout",   "http_4xx",
        "http_429", "http_5xx", "stream",  "truncated", "verify"};
    return names[outcome];
}

const char *record_outcome_title(enum record_outcome outcome)
{
    static const char *const titles[RECORD_OUTCOME_COUNT] = {
        "complete",         "dropped as planned",           "no connection", "timeout",
        "HTTP 4xx",         "HTTP 429 (too many requests)", "HTTP 5xx",      "error in the stream",
        "stream cut short", "another reply than before"};
    return titles[outcome];
}

const char *stats_mark_kind_name(enum stats_mark_kind kind)
{
    static const char *const names[STATS_MARK_KIND_COUNT] = {"upload", "update", "delete",
                                                             "failed"};
    return names[kind];
}

sora_status stats_create(const char *const *names, int32_t count, const struct slo *slo,
                         struct stats **stats, struct sora_error *err)
{
    if (count < 1 || count > SORA_LOADTEST_MODELS_MAX)
        return sora_fail(err, SORA_LIMIT, "%d models in the plan: 1 to %d are possible", count,
                         SORA_LOADTEST_MODELS_MAX);
    struct stats *made = calloc(1, sizeof *made);
    if (made == NULL)
        goto no_memory;
    made->adapters = calloc((size_t)count, sizeof *made->adapters);
    made->slots = calloc(SORA_LOADTEST_SLOTS, sizeof *made->slots);
    made->marks = calloc(SORA_LOADTEST_MARKS_MAX, sizeof *made->marks);
    if (made->adapters == NULL || made->slots == NULL || made->marks == NULL)
        goto no_memory;
    made->adapter_count = count;
    for (int32_t i = 0; i < count; ++i)
        if ((made->adapters[i].name = strdup(names[i])) == NULL)
            goto no_memory;
    made->slot_width_us = SLOT_WIDTH_US;
    made->has_slo = slo != NULL;
    if (slo != NULL)
        made->slo = *slo;
    *stats = made;
    return SORA_OK;
no_memory:
    stats_destroy(made);
    return sora_fail(err, SORA_NO_MEMORY, "no memory for the statistics of %d models", count);
}

void stats_destroy(struct stats *stats)
{
    if (stats == NULL)
        return;
    for (int32_t i = 0; i < stats->adapter_count; ++i)
        free(stats->adapters[i].name);
    free(stats->adapters);
    free(stats->slots);
    free(stats->marks);
    free(stats);
}

// --- figures over time ---

static void merge_slots(struct stats_one_slot *into, const struct stats_one_slot *from)
{
    into->planned += from->planned;
    into->ok += from->ok;
    into->dropped += from->dropped;
    into->errors += from->errors;
    into->output_tokens += from->output_tokens;
    for (int kind = 0; kind < LATENCY_KIND_COUNT; ++kind)
        histogram_merge(&into->latency[kind], &from->latency[kind]);
}

// Twice the width, half the slots.
static void widen_slots(struct stats *stats)
{
    for (int32_t i = 0; i < SORA_LOADTEST_SLOTS / 2; ++i) {
        if (i > 0)
            stats->slots[i] = stats->slots[2 * i];
        merge_slots(&stats->slots[i], &stats->slots[2 * i + 1]);
    }
    memset(&stats->slots[SORA_LOADTEST_SLOTS / 2], 0,
           SORA_LOADTEST_SLOTS / 2 * sizeof *stats->slots);
    stats->slot_width_us *= 2;
    stats->slot_count = (stats->slot_count + 1) / 2;
}

static struct stats_one_slot *slot_at(struct stats *stats, int64_t at_us)
{
    if (at_us < 0)
        at_us = 0;
    while (at_us / stats->slot_width_us >= SORA_LOADTEST_SLOTS)
        widen_slots(stats);
    int32_t index = (int32_t)(at_us / stats->slot_width_us);
    if (index >= stats->slot_count)
        stats->slot_count = index + 1;
    return &stats->slots[index];
}

// Tokens evenly from the first one to the end; all at the end when no first one was seen.
static void spread_tokens(struct stats *stats, const struct record *record)
{
    int64_t from_us = record->first_us > 0 ? record->first_us : record->end_us;
    int64_t to_us = record->end_us;
    slot_at(stats, to_us); // widens first, so that the width below is the last one
    if (to_us <= from_us) {
        slot_at(stats, to_us)->output_tokens += record->output_tokens;
        return;
    }
    double per_us = record->output_tokens / (double)(to_us - from_us);
    for (int64_t at_us = from_us; at_us < to_us;) {
        int64_t next_us = (at_us / stats->slot_width_us + 1) * stats->slot_width_us;
        if (next_us > to_us)
            next_us = to_us;
        slot_at(stats, at_us)->output_tokens += per_us * (double)(next_us - at_us);
        at_us = next_us;
    }
}

// --- the live line's window ---

static void turn_windows(struct stats *stats, int64_t now_us)
{
    if (now_us - stats->window_start_us < WINDOW_US)
        return;
    bool next = now_us - stats->window_start_us < 2 * WINDOW_US;
    if (next)
        stats->windows[1] = stats->windows[0];
    else
        memset(&stats->windows[1], 0, sizeof stats->windows[1]);
    memset(&stats->windows[0], 0, sizeof stats->windows[0]);
    stats->window_full = true;
    stats->window_start_us += (now_us - stats->window_start_us) / WINDOW_US * WINDOW_US;
}

static void add_to_window(struct stats *stats, const struct record *record)
{
    turn_windows(stats, record->end_us);
    if (record->outcome != RECORD_OK)
        return;
    struct stats_window *window = &stats->windows[0];
    ++window->ok;
    window->output_tokens += record->output_tokens;
    if (record->first_us > 0)
        histogram_add(&window->ttft, record->first_us - record->planned_us);
    histogram_add(&window->e2e, record->end_us - record->planned_us);
}

static void fill_latency(const struct histogram *histogram, struct stats_latency *latency)
{
    *latency = (struct stats_latency){.count = histogram->count,
                                      .p50_us = histogram_quantile(histogram, 0.5),
                                      .p95_us = histogram_quantile(histogram, 0.95)};
}

void stats_recent(struct stats *stats, int64_t now_us, struct stats_recent *recent)
{
    turn_windows(stats, now_us);
    int64_t start_us = stats->window_start_us - (stats->window_full ? WINDOW_US : 0);
    double seconds = now_us - start_us > SLOT_WIDTH_US ? (double)(now_us - start_us) / 1e6 : 1;
    struct stats_window both = stats->windows[1];
    histogram_merge(&both.ttft, &stats->windows[0].ttft);
    histogram_merge(&both.e2e, &stats->windows[0].e2e);
    recent->ok_per_s = (double)(both.ok + stats->windows[0].ok) / seconds;
    recent->output_tokens_per_s =
        (double)(both.output_tokens + stats->windows[0].output_tokens) / seconds;
    fill_latency(&both.ttft, &recent->ttft);
    fill_latency(&both.e2e, &recent->e2e);
}

// --- records ---

static bool is_error(enum record_outcome outcome)
{
    return outcome != RECORD_OK && outcome != RECORD_DROPPED;
}

// Whether a whole reply is within the SLO's bounds by itself. Without a stream the first token is
// seen at the end; the time between tokens is the reply's mean.
static bool is_good(const struct stats *stats, const struct record *record)
{
    if (record->outcome != RECORD_OK)
        return false;
    int64_t first_us = record->first_us > 0 ? record->first_us : record->end_us;
    int64_t gaps = record->output_tokens > 1 ? record->output_tokens - 1 : 1;
    int64_t own_us[LATENCY_KIND_COUNT] = {
        [LATENCY_TTFT] = first_us - record->planned_us,
        [LATENCY_ITL] = (record->end_us - first_us) / gaps,
        [LATENCY_E2E] = record->end_us - record->planned_us,
    };
    for (int32_t i = 0; i < stats->slo.term_count; ++i)
        if (own_us[stats->slo.terms[i].kind] > stats->slo.terms[i].limit_us)
            return false;
    return true;
}

static void count(struct stats_counts *counts, const struct record *record, bool good)
{
    ++counts->requests;
    counts->ok += record->outcome == RECORD_OK;
    counts->dropped += record->outcome == RECORD_DROPPED;
    counts->good += good;
    if (is_error(record->outcome)) {
        ++counts->errors;
        return;
    }
    counts->prompt_tokens += record->prompt_tokens;
    counts->output_tokens += record->output_tokens;
}

static void add_latencies(struct stats *stats, const struct record *record)
{
    struct stats_one_adapter *adapter = &stats->adapters[record->adapter];
    struct stats_one_slot *slot = slot_at(stats, record->planned_us);
    if (!is_error(record->outcome) && record->first_us > 0) {
        int64_t ttft_us = record->first_us - record->planned_us;
        histogram_add(&stats->latency[LATENCY_TTFT], ttft_us);
        histogram_add(&adapter->latency[LATENCY_TTFT], ttft_us);
        histogram_add(&slot->latency[LATENCY_TTFT], ttft_us);
    }
    if (record->outcome == RECORD_OK) {
        int64_t e2e_us = record->end_us - record->planned_us;
        histogram_add(&stats->latency[LATENCY_E2E], e2e_us);
        histogram_add(&adapter->latency[LATENCY_E2E], e2e_us);
        histogram_add(&slot->latency[LATENCY_E2E], e2e_us);
    }
    if (record->sent_us > 0)
        histogram_add(&stats->late, record->sent_us - record->planned_us);
}

void stats_add_record(struct stats *stats, const struct record *record)
{
    ASSERT(record->adapter >= 0 && record->adapter < stats->adapter_count);
    ASSERT(record->outcome >= RECORD_OK && record->outcome < RECORD_OUTCOME_COUNT);
    add_to_window(stats, record);
    if (record->warmup) {
        ++stats->warmup;
        return;
    }
    if (stats->counts.requests == 0 || record->planned_us < stats->start_us)
        stats->start_us = record->planned_us;
    if (record->planned_us > stats->last_planned_us)
        stats->last_planned_us = record->planned_us;
    if (record->end_us > stats->end_us)
        stats->end_us = record->end_us;
    bool good = is_good(stats, record);
    count(&stats->counts, record, good);
    count(&stats->adapters[record->adapter].counts, record, good);
    ++stats->outcomes[record->outcome];
    add_latencies(stats, record);
    if (!is_error(record->outcome))
        spread_tokens(stats, record);
    ++slot_at(stats, record->planned_us)->planned;
    struct stats_one_slot *slot = slot_at(stats, record->end_us);
    slot->ok += record->outcome == RECORD_OK;
    slot->dropped += record->outcome == RECORD_DROPPED;
    slot->errors += is_error(record->outcome);
}

void stats_add_gap(struct stats *stats, int32_t adapter, int64_t at_us, int64_t gap_us)
{
    ASSERT(adapter >= 0 && adapter < stats->adapter_count);
    histogram_add(&stats->latency[LATENCY_ITL], gap_us);
    histogram_add(&stats->adapters[adapter].latency[LATENCY_ITL], gap_us);
    histogram_add(&slot_at(stats, at_us)->latency[LATENCY_ITL], gap_us);
}

void stats_add_mark(struct stats *stats, int64_t at_us, enum stats_mark_kind kind, const char *name)
{
    ASSERT(kind >= STATS_MARK_UPLOAD && kind < STATS_MARK_KIND_COUNT);
    ++stats->mark_totals[kind];
    if (stats->mark_count == SORA_LOADTEST_MARKS_MAX)
        return;
    struct stats_mark *mark = &stats->marks[stats->mark_count++];
    size_t bytes = strnlen(name, sizeof mark->name - 1);
    *mark = (struct stats_mark){.at_us = at_us, .kind = kind};
    memcpy(mark->name, name, bytes);
}

void stats_set_client_cost(struct stats *stats, int64_t cpu_us, int64_t wall_us, int64_t events)
{
    stats->cpu_us = cpu_us;
    stats->wall_us = wall_us;
    stats->events = events;
}

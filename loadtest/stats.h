// SPDX-License-Identifier: Apache-2.0
// All figures of one run, gathered as requests end, in constant memory: histograms of the run and
// of each adapter, figures over time, errors by kind, fairness, and what the client itself cost.
// Owned and called by the client's one thread. Times are microseconds since the start of the run.
// Requests of the warm-up are counted as such and nowhere else; the client adds no gaps of theirs.
#ifndef LOADTEST_STATS_H
#define LOADTEST_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "loadtest/histogram.h"
#include "loadtest/record.h"
#include "loadtest/slo.h"
#include "sora/status.h"

struct stats;

enum stats_mark_kind {
    STATS_MARK_UPLOAD, // a new adapter
    STATS_MARK_UPDATE, // a new version of one
    STATS_MARK_DELETE,
    STATS_MARK_FAILED, // the server refused one of these
    STATS_MARK_KIND_COUNT
};

// names: the plan's models, copied; 1..SORA_LOADTEST_MODELS_MAX of them (SORA_LIMIT beyond).
// slo: copied; NULL: none, then every reply that came whole is a good one.
SORA_CHECKED sora_status stats_create(const char *const *names, int32_t count,
                                      const struct slo *slo, struct stats **stats,
                                      struct sora_error *err);
void stats_destroy(struct stats *stats); // accepts NULL

// One ended request. record->adapter must be in [0, count).
void stats_add_record(struct stats *stats, const struct record *record);
// Time from one token (or event with tokens) to the next of the same reply, seen at at_us.
void stats_add_gap(struct stats *stats, int32_t adapter, int64_t at_us, int64_t gap_us);
// A change of the adapters beside the load. name is copied, cut at 127 bytes; beyond
// SORA_LOADTEST_MARKS_MAX only counted.
void stats_add_mark(struct stats *stats, int64_t at_us, enum stats_mark_kind kind,
                    const char *name);
// Processor time of the client's process during the measured part, that part's length, and how
// many events (requests sent, tokens and replies received) it handled. Replaces earlier values.
void stats_set_client_cost(struct stats *stats, int64_t cpu_us, int64_t wall_us, int64_t events);

struct stats_latency {
    int64_t count;
    double mean_us;
    int64_t min_us, max_us, p50_us, p90_us, p95_us, p99_us, p999_us;
};

struct stats_client {
    int64_t cpu_us, wall_us, events;               // 0: never set
    double core_share;                             // cpu_us / wall_us
    double share_per_1000;                         // of a core, per 1,000 events/s
    int64_t late_p50_us, late_p99_us, late_max_us; // sent later than planned
    bool bottleneck;
    char warning[256]; // why, as a sentence; empty when it was not
};

struct stats_slo_result {
    bool measured; // false: no sample, which fails the term
    bool met;
    int64_t found_us;
};

struct stats_summary {
    int64_t requests; // ended, the warm-up aside: ok + dropped + errors
    int64_t warmup;
    int64_t ok, dropped, errors;
    int64_t good; // ok and within the SLO's bounds (a request's own itl is its mean)
    int64_t outcomes[RECORD_OUTCOME_COUNT];
    int64_t prompt_tokens, output_tokens; // of ok and dropped requests
    int64_t start_us, end_us;             // first planned send, last end
    double seconds;
    double offered_per_s, ok_per_s, good_per_s, prompt_tokens_per_s, output_tokens_per_s;
    double error_share; // errors / requests, 0 when there is none
    struct stats_latency latency[LATENCY_KIND_COUNT];
    int32_t adapters, adapters_used;
    double jain_tokens; // Jain's index over the output tokens of used adapters: 1 is equal
    double jain_good;   // over each used adapter's share of good requests: popularity drops out
    int64_t marks[STATS_MARK_KIND_COUNT];
    bool has_slo;
    bool slo_met;
    struct slo slo;
    struct stats_slo_result slo_results[SORA_LOADTEST_SLO_TERMS_MAX];
    struct stats_client client;
};

int64_t stats_error_count(const struct stats *stats); // so far; cheap
void stats_summary(const struct stats *stats, struct stats_summary *summary);
// Whether the SLO holds so far: every term has a sample and is met, and errors are within their
// share. True without an SLO.
bool stats_slo_met(const struct stats *stats);

struct stats_adapter {
    const char *name; // the statistics' own
    int64_t requests, ok, dropped, errors, good, prompt_tokens, output_tokens;
    struct stats_latency latency[LATENCY_KIND_COUNT];
};
int32_t stats_adapter_count(const struct stats *stats);
int64_t stats_adapter_requests(const struct stats *stats, int32_t index); // cheap: no quantiles
void stats_adapter_at(const struct stats *stats, int32_t index, struct stats_adapter *adapter);

// One stretch of the run. ttft and e2e are filed under the planned send time, so that a stall of
// the server is seen where it began; ends, errors and tokens where they were seen.
struct stats_slot {
    int64_t start_us, width_us;
    int64_t planned, ok, dropped, errors;
    int64_t running; // at the end of the slot: sent as planned and not ended
    double output_tokens;
    struct stats_latency latency[LATENCY_KIND_COUNT];
};
int32_t stats_slot_count(const struct stats *stats); // up to the last event
void stats_slot_at(const struct stats *stats, int32_t index, struct stats_slot *slot);

struct stats_mark {
    int64_t at_us;
    enum stats_mark_kind kind;
    char name[128];
};
int32_t stats_mark_count(const struct stats *stats);
const struct stats_mark *stats_mark_at(const struct stats *stats, int32_t index);

const struct histogram *stats_histogram(const struct stats *stats, enum latency_kind kind);

// The last 5 to 10 seconds before now_us, for the live line.
struct stats_recent {
    double ok_per_s, output_tokens_per_s;
    struct stats_latency ttft, e2e;
};
void stats_recent(struct stats *stats, int64_t now_us, struct stats_recent *recent);

const char *record_outcome_name(enum record_outcome outcome);  // "http_429"
const char *record_outcome_title(enum record_outcome outcome); // "HTTP 429 (too many requests)"
const char *stats_mark_kind_name(enum stats_mark_kind kind);   // "upload"
// Jain's index of values that are not negative; 1 for none or all zero.
double stats_jain(const double *values, int32_t count);

#endif

// SPDX-License-Identifier: Apache-2.0
// Counters and histograms of one server, as Prometheus text. Any thread may count; every value is
// an atomic of its own, so a scrape may see one counter a moment before another.
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"
#include "server/api_error.h"

// clang-format off
#define METRICS_COUNTERS(X)                                                                      \
    X(PROMPT_TOKENS, "sora_prompt_tokens_total", "Prompt tokens of accepted requests", 1)         \
    X(OUTPUT_TOKENS, "sora_generation_tokens_total", "Tokens generated", 1)                       \
    X(PREFIX_HIT_TOKENS, "sora_prefix_hit_tokens_total", "Prompt tokens found in the cache", 1)   \
    X(PREEMPTIONS, "sora_preemptions_total", "Sequences put back for want of KV blocks", 1)       \
    X(CANCELLED, "sora_requests_cancelled_total", "Requests whose client went away", 1)           \
    X(REJECTED, "sora_requests_rejected_total", "Requests refused because the queue was full", 1) \
    X(SHORTENED, "sora_requests_shortened_total", "Elastic requests answered with fewer ranks", 1) \
    X(STEPS, "sora_steps_total", "Steps of the engine", 1)                                        \
    X(STEP_RANK_SUM, "sora_step_rank_sum_total", "Ranks computed, over rows and modules", 1)      \
    X(STEP_ATTENTION_US, "sora_step_attention_seconds_total", "Step time in attention", 1e-6)     \
    X(STEP_BASE_US, "sora_step_base_matmul_seconds_total", "Step time in base matrices", 1e-6)    \
    X(STEP_ADAPTER_US, "sora_step_adapter_matmul_seconds_total", "Step time in adapters", 1e-6)   \
    X(STEP_SAMPLING_US, "sora_step_sampling_seconds_total", "Step time in sampling", 1e-6)        \
    X(STEP_TOTAL_US, "sora_step_seconds_total", "Step time in all", 1e-6)

#define METRICS_GAUGES(X)                                                                  \
    X(RUNNING, "sora_requests_running", "Requests with a sequence in the engine")          \
    X(WAITING, "sora_requests_waiting", "Requests in the queue")                           \
    X(SEQS_RUNNING, "sora_sequences_running", "Sequences in the engine")                   \
    X(KV_BLOCKS_USED, "sora_kv_blocks_used", "KV blocks held by sequences")                \
    X(KV_BLOCKS_TOTAL, "sora_kv_blocks_total", "KV blocks there are")

#define METRICS_HISTOGRAMS(X)                                                                  \
    X(FIRST_TOKEN, "sora_time_to_first_token_seconds", "From arrival to the first token", 1e-6) \
    X(INTER_TOKEN, "sora_inter_token_seconds", "Between tokens of one sequence", 1e-6)          \
    X(REQUEST, "sora_request_seconds", "From arrival to the last token", 1e-6)                  \
    X(ADAPTER_LOAD, "sora_adapter_load_seconds", "Reading and packing one adapter", 1e-6)       \
    X(STEP_ROWS, "sora_step_rows", "Rows of a step", 1)
// clang-format on

enum metrics_counter {
#define METRICS_ENUM(name, ...) METRICS_##name,
    METRICS_COUNTERS(METRICS_ENUM) METRICS_COUNTER_COUNT
};
enum metrics_gauge { METRICS_GAUGES(METRICS_ENUM) METRICS_GAUGE_COUNT };
enum metrics_histogram { METRICS_HISTOGRAMS(METRICS_ENUM) METRICS_HISTOGRAM_COUNT };
#undef METRICS_ENUM

#define METRICS_BUCKET_COUNT 16
#define METRICS_ROUTE_MAX 32 // routes of the server

struct metrics_buckets {
    _Atomic uint64_t counts[METRICS_BUCKET_COUNT + 1]; // not cumulative; the last is +Inf
    _Atomic int64_t sum;
};

struct metrics {
    _Atomic int64_t counters[METRICS_COUNTER_COUNT];
    _Atomic int64_t gauges[METRICS_GAUGE_COUNT];
    struct metrics_buckets histograms[METRICS_HISTOGRAM_COUNT];
    _Atomic int64_t replies[METRICS_ROUTE_MAX][API_CODE_COUNT];
};

void metrics_add(struct metrics *metrics, enum metrics_counter counter, int64_t value);
void metrics_set(struct metrics *metrics, enum metrics_gauge gauge, int64_t value);
int64_t metrics_get(const struct metrics *metrics, enum metrics_gauge gauge);
void metrics_observe(struct metrics *metrics, enum metrics_histogram histogram, int64_t value);
void metrics_reply(struct metrics *metrics, int32_t route, enum api_code code);
// routes: names of the label "route", by index.
void metrics_encode(const struct metrics *metrics, const char *const *routes, int32_t route_count,
                    struct buf *out);
// "# HELP", "# TYPE" of a metric that somebody else writes.
void metrics_encode_head(struct buf *out, const char *name, const char *type, const char *help);
// A label's value with its quotes.
void metrics_encode_label(struct buf *out, const char *text);

#endif

// SPDX-License-Identifier: Apache-2.0
// What the statistics hold (internal to stats.c, which fills it, and stats_summary.c, which reads
// it). One thread.
#ifndef LOADTEST_STATS_INSIDE_H
#define LOADTEST_STATS_INSIDE_H

#include "loadtest/stats.h"

struct stats_counts {
    int64_t requests, ok, dropped, errors, good, prompt_tokens, output_tokens;
};

struct stats_one_adapter {
    char *name;
    struct stats_counts counts;
    struct histogram latency[LATENCY_KIND_COUNT];
};

struct stats_one_slot {
    int64_t planned, ok, dropped, errors;
    double output_tokens;
    struct histogram latency[LATENCY_KIND_COUNT];
};

// Half of what the live line looks back on.
struct stats_window {
    int64_t ok, output_tokens;
    struct histogram ttft, e2e;
};

struct stats {
    struct slo slo;
    bool has_slo;
    struct stats_one_adapter *adapters;
    int32_t adapter_count;
    struct stats_counts counts;
    int64_t warmup, outcomes[RECORD_OUTCOME_COUNT];
    int64_t start_us, last_planned_us, end_us; // of counted requests; 0 while there is none
    struct histogram latency[LATENCY_KIND_COUNT], late;
    struct stats_one_slot *slots; // SORA_LOADTEST_SLOTS of them
    int64_t slot_width_us;
    int32_t slot_count;
    struct stats_mark *marks; // SORA_LOADTEST_MARKS_MAX of them
    int32_t mark_count;
    int64_t mark_totals[STATS_MARK_KIND_COUNT];
    struct stats_window windows[2]; // the current one and the one before
    int64_t window_start_us;
    bool window_full; // windows[1] is a whole one
    int64_t cpu_us, wall_us, events;
};

#endif

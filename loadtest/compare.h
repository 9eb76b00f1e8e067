// SPDX-License-Identifier: Apache-2.0
// `sora-loadtest compare a.json b.json … [--html FILE]`: reports of several runs side by side. The
// files are untrusted input. One thread.
#ifndef LOADTEST_COMPARE_H
#define LOADTEST_COMPARE_H

#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "loadtest/stats.h"
#include "sora/status.h"

struct compare_slot {
    double at_s, width_s, ok_per_s, tokens_per_s, ttft_p95_us, e2e_p95_us;
};

struct compare_bucket {
    double high_us, count;
};

enum {
    COMPARE_MEAN,
    COMPARE_P50,
    COMPARE_P90,
    COMPARE_P95,
    COMPARE_P99,
    COMPARE_MAX,
    COMPARE_FIGURES
};

// One run as its JSON tells it. Figures that the file lacks are negative.
struct compare_run {
    char name[128], title[256];
    double seconds, requests;
    double offered_per_s, ok_per_s, good_per_s, output_tokens_per_s, error_share;
    double jain_tokens, jain_good, found_rate;
    double latency[LATENCY_KIND_COUNT][COMPARE_FIGURES]; // us
    struct compare_bucket *buckets[LATENCY_KIND_COUNT];
    int32_t bucket_count[LATENCY_KIND_COUNT];
    struct compare_slot *slots;
    int32_t slot_count;
    double slo; // 1 met, 0 not met
};

// Reads what report_json wrote. SORA_MALFORMED names the field, SORA_LIMIT the bound. `file` names
// the run when it has no label of its own. *run must be deinitialized when SORA_OK.
SORA_CHECKED sora_status compare_parse(const char *text, size_t bytes, const char *file,
                                       struct compare_run *run, struct sora_error *err);
void compare_run_deinit(struct compare_run *run);
void compare_table(struct buf *out, const struct compare_run *runs, int32_t count);
void compare_html(struct buf *out, const struct compare_run *runs, int32_t count);

// The subcommand; argv[0] is "compare". 0 done, 2 usage or a file that cannot be used.
int compare_command(int argc, char **argv, FILE *out, FILE *errors);

#endif

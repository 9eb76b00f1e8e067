// SPDX-License-Identifier: Apache-2.0
// How a run is shown: a live line, a table, JSON for programs (and for `compare`), and one HTML
// file with its pictures inside. Reads the statistics; called by the client's thread.
#ifndef LOADTEST_REPORT_H
#define LOADTEST_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "loadtest/stats.h"
#include "sora/status.h"

struct report_fact {
    const char *name, *value; // "arrivals", "poisson, 8 requests/s, 60 s"
};

// One try of a search for the highest rate.
struct report_point {
    double rate; // requests a second, asked for
    bool repeat; // of the winning rate
    struct stats_summary summary;
};

// What was run. All texts may be foreign; NULL or zero: not known, not shown.
struct report_run {
    const char *title; // "32 adapters, Zipf 1, 8 requests/s for 60 s"
    const char *label; // short name of the server for comparisons: "sora-server 0.1"
    const char *url;
    int64_t started_unix_s;
    const struct report_fact *facts; // scenario, arrivals, mix, seed, ... in the order to show
    int32_t fact_count;
    const struct report_point *points; // of --find-rate, in the order they were tried
    int32_t point_count;               // at most SORA_LOADTEST_POINTS_MAX
    double found_rate;                 // the highest rate that held the SLO
};

struct report_progress {
    int64_t now_us, duration_us; // since the start of the run; duration 0: not known
    int64_t sent, done, total;   // requests; total 0: not known
    int32_t running;
    bool warmup;
};

// On a terminal one line that is drawn over itself; otherwise a plain line now and then.
struct report_live {
    FILE *out;
    bool terminal, drawn;
    int64_t last_us;
};
void report_live_init(struct report_live *live, FILE *out);
// Call as often as convenient (10 times a second is plenty): it prints when it is time to.
void report_live_update(struct report_live *live, struct stats *stats,
                        const struct report_progress *progress);
void report_live_end(struct report_live *live); // clears the line
// The text of the line, without a newline.
void report_live_text(struct buf *out, struct stats *stats, const struct report_progress *progress);

// The table at the end. Errors of writing are the stream's.
void report_table(FILE *out, const struct report_run *run, const struct stats *stats);
// Documents; the buffer's bound is the document's (SORA_JSON_BYTES_MAX serves), its status says
// whether all fitted.
void report_json(struct buf *out, const struct report_run *run, const struct stats *stats);
void report_html(struct buf *out, const struct report_run *run, const struct stats *stats);

#endif

// SPDX-License-Identifier: Apache-2.0
// The pictures of a run over its time (internal to the HTML report).
#ifndef LOADTEST_REPORT_TIME_H
#define LOADTEST_REPORT_TIME_H

#include "base/buf.h"
#include "loadtest/stats.h"

// Latencies, throughput and running requests over time, churn marked in each.
void report_time(struct buf *out, const struct stats *stats, const struct stats_summary *summary);

#endif

// SPDX-License-Identifier: Apache-2.0
// Figures as people read them, and foreign text made safe, for all reports. Pure.
#ifndef LOADTEST_REPORT_TEXT_H
#define LOADTEST_REPORT_TEXT_H

#include <stdint.h>

#include "base/buf.h"
#include "loadtest/stats.h"

#define REPORT_FIGURE_BYTES 32

// "84 us", "1.25 ms", "512 ms", "1.20 s"; "-" when negative.
const char *report_duration(char out[REPORT_FIGURE_BYTES], double us);
// The same for the marks of an axis: "500 ms", "1 s".
const char *report_duration_tick(char out[REPORT_FIGURE_BYTES], double us);
// A number for the marks of an axis: "0.5", "40", "2,000".
const char *report_rate_tick(char out[REPORT_FIGURE_BYTES], double value);
// "1,234,567".
const char *report_count(char out[REPORT_FIGURE_BYTES], int64_t count);
// "0.123", "7.84", "412", "12,345"; "-" when negative.
const char *report_rate(char out[REPORT_FIGURE_BYTES], double per_s);
// A share as "0.41 %"; "-" when negative.
const char *report_share(char out[REPORT_FIGURE_BYTES], double share);
// Text for HTML, in attributes too; control characters and broken UTF-8 are made visible.
void report_escape(struct buf *out, const char *text);

// Indices of the used adapters, most requests first. malloc'ed; NULL when out of memory.
int32_t *report_order(const struct stats *stats, int32_t *count);

#endif

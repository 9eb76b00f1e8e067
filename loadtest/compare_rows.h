// SPDX-License-Identifier: Apache-2.0
// The figures that a comparison lines up (internal to compare.c and compare_html.c). Pure.
#ifndef LOADTEST_COMPARE_ROWS_H
#define LOADTEST_COMPARE_ROWS_H

#include "loadtest/compare.h"
#include "loadtest/report_text.h"
#include "sora/limits.h"

#define COMPARE_ROWS_MAX 40

struct compare_row {
    char title[64];
    const char *(*format)(char out[REPORT_FIGURE_BYTES], double value);
    int better;                            // 1: more is better, -1: less, 0: neither
    double values[SORA_LOADTEST_RUNS_MAX]; // negative: not known
};

// Rows that at least one run has a figure for; returns how many.
int32_t compare_rows(const struct compare_run *runs, int32_t count,
                     struct compare_row rows[COMPARE_ROWS_MAX]);
// Index of the best run of a row, -1 when there is none or all are equal.
int32_t compare_best(const struct compare_row *row, int32_t count);
// "x1.32" of value against base; empty when one of them is not known or zero.
const char *compare_ratio(char out[REPORT_FIGURE_BYTES], double value, double base);

#endif

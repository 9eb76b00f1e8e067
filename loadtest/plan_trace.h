// SPDX-License-Identifier: Apache-2.0
// A recorded load: lines of t_ms,adapter,prompt_tokens,output_tokens. Pure; untrusted input.
#ifndef LOADTEST_PLAN_TRACE_H
#define LOADTEST_PLAN_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct trace_line {
    int64_t at_us;
    const char *adapter; // a name, or a number of the list of adapters; "" is the base
    int32_t prompt_tokens, output_tokens;
};

struct trace {
    char *text; // owned: the names point into it
    struct trace_line *lines;
    int32_t count;
};

// Takes the lines in the order of time (equal times as in the file). A first line that begins with
// a letter and lines that begin with '#' are skipped. SORA_MALFORMED names the line.
SORA_CHECKED sora_status trace_parse(const char *text, size_t bytes, struct trace *trace,
                                     struct sora_error *err);
void trace_deinit(struct trace *trace);

#endif

// SPDX-License-Identifier: Apache-2.0
// A service level objective: bounds on latencies and on the share of errors, from a text such as
// "ttft_p95=500ms,itl_p95=100ms,errors=0.5%". Pure.
#ifndef LOADTEST_SLO_H
#define LOADTEST_SLO_H

#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

enum latency_kind {
    LATENCY_TTFT, // planned send time to first token
    LATENCY_ITL,  // between two tokens of one reply
    LATENCY_E2E,  // planned send time to the end of the reply
    LATENCY_KIND_COUNT
};

enum slo_figure { SLO_QUANTILE, SLO_MEAN, SLO_MAX };

struct slo_term {
    enum latency_kind kind;
    enum slo_figure figure;
    double quantile; // of SLO_QUANTILE, in (0, 1)
    int64_t limit_us;
};

struct slo {
    struct slo_term terms[SORA_LOADTEST_SLO_TERMS_MAX];
    int32_t term_count;
    double errors_max; // share of requests that may fail, 0.01 unless the text says
};

#define SLO_TERM_NAME_BYTES 32
#define SLO_TEXT_BYTES 512

// Terms are KIND_FIGURE=DURATION or errors=PERCENT%, with commas between; KIND ttft, itl or e2e;
// FIGURE pNN (p50, p99.9), mean or max; DURATION a number with us, ms, s or min. At least one
// latency. SORA_MALFORMED names the term and what is expected; the same term twice is refused.
SORA_CHECKED sora_status slo_parse(const char *text, struct slo *slo, struct sora_error *err);
// "ttft", "itl", "e2e".
const char *latency_kind_name(enum latency_kind kind);
// "time to first token" and so on, for people.
const char *latency_kind_title(enum latency_kind kind);
// "ttft_p95".
void slo_term_name(const struct slo_term *term, char out[SLO_TERM_NAME_BYTES]);
// The whole as slo_parse reads it.
void slo_text(const struct slo *slo, char out[SLO_TEXT_BYTES]);

#endif

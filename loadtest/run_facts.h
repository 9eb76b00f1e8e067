// SPDX-License-Identifier: Apache-2.0
// What was run, in words, for the report. Pure.
#ifndef LOADTEST_RUN_FACTS_H
#define LOADTEST_RUN_FACTS_H

#include "base/buf.h"
#include "loadtest/churn.h"
#include "loadtest/plan.h"
#include "loadtest/report.h"
#include "loadtest/verify.h"

#define RUN_FACTS_MAX 24

struct run_facts {
    struct report_fact facts[RUN_FACTS_MAX];
    char *values[RUN_FACTS_MAX]; // owned
    int32_t count;
    char *title; // owned
};

// digest: of the plan; NULL with --find-rate, which has many. verify and churn may be NULL.
SORA_CHECKED sora_status run_facts_init(struct run_facts *facts, const struct plan *plan,
                                        const char *scenario_name, const char *digest,
                                        const struct verify *verify, const struct churn *churn,
                                        struct sora_error *err);
void run_facts_deinit(struct run_facts *facts);

#endif

// SPDX-License-Identifier: Apache-2.0
// Sends a plan to a server and measures: libcurl's multi interface on one thread, which owns all of
// this while it runs. An open loop sends when the plan says, whether or not earlier replies came;
// latency counts from then. libcurl's global state must be initialized.
#ifndef LOADTEST_CLIENT_H
#define LOADTEST_CLIENT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "loadtest/churn.h"
#include "loadtest/client_http.h"
#include "loadtest/plan.h"
#include "loadtest/record.h"
#include "loadtest/report.h"
#include "loadtest/stats.h"
#include "loadtest/verify.h"
#include "sora/status.h"

struct client_load {
    const struct client_config *config;
    const struct plan *plan;
    struct stats *stats;               // NULL: not measured
    struct verify *verify;             // NULL: replies are not compared
    struct churn *churn;               // NULL: none
    struct report_live *live;          // NULL: nothing is shown
    const volatile sig_atomic_t *stop; // set by a signal: the run ends at once
};

#define CLIENT_PROBLEM_BYTES 512 // as long as the text of an error
struct client_result {
    int64_t sent, ended;
    int64_t cut;  // still running when the drain time was over
    bool stopped; // by the signal
    bool run_dry; // a closed loop sent all requests of its plan before its time was over
    int64_t run_us;
    int64_t outcomes[RECORD_OUTCOME_COUNT]; // of all requests, the warm-up included
    char problems[RECORD_OUTCOME_COUNT][CLIENT_PROBLEM_BYTES]; // the first of each kind
};

// SORA_NO_MEMORY or SORA_IO when the client cannot work at all; what the server does is in result.
SORA_CHECKED sora_status client_run(const struct client_load *load, struct client_result *result,
                                    struct sora_error *err);

#endif

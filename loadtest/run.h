// SPDX-License-Identifier: Apache-2.0
// One call of the program: finds models, uploads what it makes, sends the plan (or searches for the
// highest rate), cleans up, and reports. Owned by main's thread.
#ifndef LOADTEST_RUN_H
#define LOADTEST_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "loadtest/client_http.h"
#include "loadtest/scenario.h"

struct run_options {
    struct client_config config;
    struct scenario *scenario;         // checked; --find-rate changes its rate
    const char *scenario_name;         // NULL: none was named
    const char *label;                 // of the server in comparisons
    const char *json_path, *html_path; // NULL: not written; "-": standard output
    const char *like;                  // adapter file whose base the made ones are for
    bool keep;                         // made adapters stay on the server
    bool print_plan;
    bool find_rate;
    double precision;
    bool quiet;
    const volatile sig_atomic_t *stop;
};

// Exit codes of the program.
enum { RUN_DONE = 0, RUN_FAILED = 1, RUN_USAGE = 2 };

int run_load(const struct run_options *options, FILE *out, FILE *errors);

#endif

// SPDX-License-Identifier: Apache-2.0
// See run.h.
#include "loadtest/run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "loadtest/client.h"
#include "loadtest/find_rate.h"
#include "loadtest/run_facts.h"
#include "loadtest/setup.h"

#define ALONE_COUNT 8           // requests that --verify sends once more, alone
#define PAUSE_US 1000000        // between two tries of a search: the server's queues empty
#define SEARCH_DRAIN_MIN_S 5.0  // of one try
#define SEARCH_DRAIN_LIMITS 4.0 // ... or so many times the objective's largest bound
#define UPLOAD_NOTE_US 1000000

// Everything of one call; run_load owns it.
struct run {
    const struct run_options *options;
    FILE *out, *errors;
    struct client_http *http;
    struct plan_models models;
    struct made_base base;
    struct trace trace;
    bool has_trace;
    int32_t uploaded; // made models that may be on the server
    struct slo slo;
    bool has_slo;
    struct plan plan;
    struct stats *stats;
    struct verify *verify;
    struct churn *churn;
    struct client_result result;
    struct report_point *points;
    int32_t point_count;
    double found_rate;
    int64_t started_unix_s, noted_us;
    bool usage; // what failed is the caller's input
};

static bool is_stopped(const struct run *run)
{
    return run->options->stop != NULL && *run->options->stop;
}

static bool note_upload(void *context, int32_t done, int32_t total)
{
    struct run *run = context;
    int64_t now_us = clock_now_us();
    run->uploaded = done + 1;
    if (!run->options->quiet && now_us - run->noted_us >= UPLOAD_NOTE_US) {
        run->noted_us = now_us;
        fprintf(run->errors, "uploading made adapters: %d of %d\n", (int)done, (int)total);
    }
    return !is_stopped(run);
}

static sora_status load_trace(struct run *run, struct sora_error *err)
{
    const struct scenario *scenario = run->options->scenario;
    char *text = NULL;
    size_t bytes = 0;
    if (scenario->arrivals != ARRIVALS_TRACE)
        return SORA_OK;
    sora_status status =
        file_read(scenario->trace, SORA_LOADTEST_FILE_BYTES_MAX, &text, &bytes, err);
    if (status == SORA_OK)
        status = trace_parse(text, bytes, &run->trace, err);
    run->has_trace = status == SORA_OK;
    run->usage = status != SORA_OK;
    free(text);
    return status;
}

static sora_status make_plan(struct run *run, struct sora_error *err)
{
    sora_status status = plan_create(run->options->scenario, &run->models,
                                     run->has_trace ? &run->trace : NULL, &run->plan, err);
    run->usage = status != SORA_OK;
    return status;
}

// The statistics and helpers of one sending of the plan.
static sora_status begin_point(struct run *run, struct sora_error *err)
{
    const struct scenario *scenario = run->options->scenario;
    sora_status status = make_plan(run, err);
    if (status == SORA_OK)
        status = stats_create((const char *const *)run->models.names, run->models.count,
                              run->has_slo ? &run->slo : NULL, &run->stats, err);
    if (status == SORA_OK && scenario->verify)
        status = verify_create(run->plan.request_count, &run->verify, err);
    if (status == SORA_OK && run->plan.churn_count > 0)
        status = churn_create(&run->plan, &run->base, scenario->churn_folder, &run->churn, err);
    return status;
}

static void end_point(struct run *run)
{
    if (run->churn != NULL)
        setup_remove(run->http, &run->models, 0, run->churn);
    churn_destroy(run->churn);
    verify_destroy(run->verify);
    stats_destroy(run->stats);
    plan_deinit(&run->plan);
    run->churn = NULL;
    run->verify = NULL;
    run->stats = NULL;
}

static sora_status send_plan(struct run *run, struct sora_error *err)
{
    struct report_live live;
    report_live_init(&live, run->errors);
    struct client_load load = {.config = &run->options->config,
                               .plan = &run->plan,
                               .stats = run->stats,
                               .verify = run->verify,
                               .churn = run->churn,
                               .live = run->options->quiet ? NULL : &live,
                               .stop = run->options->stop};
    sora_status status = client_run(&load, &run->result, err);
    if (!run->options->quiet)
        report_live_end(&live);
    return status;
}

// Some of the requests once more, each alone on the server: the mix must not have mattered.
static sora_status send_alone(struct run *run, struct sora_error *err)
{
    struct plan alone;
    struct client_result result;
    if (run->verify == NULL || is_stopped(run))
        return SORA_OK;
    sora_status status = plan_create_alone(&run->plan, ALONE_COUNT, &alone, err);
    if (status != SORA_OK)
        return status;
    struct client_load load = {.config = &run->options->config,
                               .plan = &alone,
                               .verify = run->verify,
                               .stop = run->options->stop};
    status = client_run(&load, &result, err);
    if (result.outcomes[RECORD_VERIFY] > 0 && run->result.problems[RECORD_VERIFY][0] == '\0')
        memcpy(run->result.problems[RECORD_VERIFY], result.problems[RECORD_VERIFY],
               CLIENT_PROBLEM_BYTES);
    run->result.outcomes[RECORD_VERIFY] += result.outcomes[RECORD_VERIFY];
    plan_deinit(&alone);
    return status;
}

static void print_problems(const struct run *run)
{
    for (int i = 0; i < RECORD_OUTCOME_COUNT; i++) {
        if (i == RECORD_OK || i == RECORD_DROPPED || run->result.outcomes[i] == 0)
            continue;
        fprintf(run->errors, "%s: %lld, the first: %s\n",
                record_outcome_title((enum record_outcome)i), (long long)run->result.outcomes[i],
                run->result.problems[i]);
    }
    if (run->result.run_dry)
        fprintf(run->errors, "all %d requests of the plan were sent before the time was over\n",
                (int)run->plan.request_count);
    if (run->churn != NULL) {
        struct churn_counts counts;
        churn_get_counts(run->churn, &counts);
        if (counts.failed > 0)
            fprintf(run->errors, "churn: %lld refused, the first: %s\n", (long long)counts.failed,
                    counts.first_failure);
    }
}

static sora_status write_document(const struct run *run, const struct report_run *report,
                                  const char *path, bool html, struct sora_error *err)
{
    struct buf document;
    if (path == NULL)
        return SORA_OK;
    buf_init(&document, SORA_JSON_BYTES_MAX);
    if (html)
        report_html(&document, report, run->stats);
    else
        report_json(&document, report, run->stats);
    sora_status status = buf_status(&document, err);
    if (status == SORA_OK && strcmp(path, "-") == 0)
        fwrite(document.data, 1, document.bytes, run->out);
    else if (status == SORA_OK)
        status = file_write_atomic(path, document.data, document.bytes, err);
    buf_deinit(&document);
    return status;
}

static sora_status report(struct run *run, struct sora_error *err)
{
    const struct run_options *options = run->options;
    struct run_facts facts;
    char digest[65] = "";
    sora_status status = plan_digest(&run->plan, digest, err);
    if (status == SORA_OK)
        status = run_facts_init(&facts, &run->plan, options->scenario_name, digest, run->verify,
                                run->churn, err);
    if (status != SORA_OK)
        return status;
    struct report_run report = {.title = facts.title,
                                .label = options->label,
                                .url = options->config.url,
                                .started_unix_s = run->started_unix_s,
                                .facts = facts.facts,
                                .fact_count = facts.count,
                                .points = run->points,
                                .point_count = run->point_count,
                                .found_rate = run->found_rate};
    bool to_stdout = (options->json_path != NULL && strcmp(options->json_path, "-") == 0) ||
                     (options->html_path != NULL && strcmp(options->html_path, "-") == 0);
    report_table(to_stdout ? run->errors : run->out, &report, run->stats);
    print_problems(run);
    status = write_document(run, &report, options->json_path, false, err);
    if (status == SORA_OK)
        status = write_document(run, &report, options->html_path, true, err);
    run_facts_deinit(&facts);
    return status;
}

// What the exit code says about the server.
static bool passed(const struct run *run)
{
    const struct client_result *result = &run->result;
    if (result->ended == result->outcomes[RECORD_CONNECT]) {
        fprintf(run->errors, "no request could be sent to %s\n", run->options->config.url);
        return false;
    }
    if (run->verify != NULL) {
        struct verify_counts counts = verify_counts(run->verify);
        if (counts.different > 0 || counts.compared == 0) {
            fprintf(run->errors, "--verify failed: %lld of %lld compared replies differ\n",
                    (long long)counts.different, (long long)counts.compared);
            return false;
        }
    }
    if (run->has_slo && !stats_slo_met(run->stats)) {
        fprintf(run->errors, "the objective does not hold: %s\n", run->options->scenario->slo);
        return false;
    }
    return true;
}

static sora_status run_once(struct run *run, bool *good, struct sora_error *err)
{
    sora_status status = begin_point(run, err);
    if (status == SORA_OK)
        status = send_plan(run, err);
    if (status == SORA_OK)
        status = send_alone(run, err);
    if (status == SORA_OK)
        status = report(run, err);
    if (status == SORA_OK)
        *good = passed(run);
    end_point(run);
    return status;
}

// Overload would take as long to drain as it was sent.
static void shorten_drain(const struct run *run, struct scenario *scenario)
{
    double drain_s = SEARCH_DRAIN_MIN_S;
    for (int32_t i = 0; i < run->slo.term_count; i++)
        drain_s = fmax(drain_s, SEARCH_DRAIN_LIMITS * (double)run->slo.terms[i].limit_us / 1e6);
    scenario->drain_s = fmin(scenario->drain_s, drain_s);
}

static sora_status try_rate(struct run *run, double rate, bool repeat, bool *held,
                            struct sora_error *err)
{
    run->options->scenario->rate = rate;
    sora_status status = scenario_check(run->options->scenario, err);
    if (status == SORA_OK)
        status = begin_point(run, err);
    if (status == SORA_OK)
        status = send_plan(run, err);
    if (status != SORA_OK || is_stopped(run))
        return status;
    struct report_point *point = &run->points[run->point_count++];
    *point = (struct report_point){.rate = rate, .repeat = repeat};
    stats_summary(run->stats, &point->summary);
    *held = stats_slo_met(run->stats);
    if (!run->options->quiet)
        fprintf(run->errors, "%8.3f requests/s%s: %s\n", rate, repeat ? " again" : "",
                *held ? "holds" : "does not hold");
    return SORA_OK;
}

// The last try stays in place for the report: a repeat of the winner, unless nothing held.
static sora_status search_rate(struct run *run, bool *good, struct sora_error *err)
{
    struct find_rate find;
    double rate = 0;
    bool repeat = false, held = false;
    sora_status status = SORA_OK;
    run->points = calloc(SORA_LOADTEST_POINTS_MAX, sizeof *run->points);
    if (run->points == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a search");
    shorten_drain(run, run->options->scenario);
    find_rate_init(&find, run->options->scenario->rate, run->options->precision);
    while (find_rate_next(&find, &rate, &repeat) && status == SORA_OK && !is_stopped(run)) {
        if (run->point_count > 0) {
            end_point(run);
            clock_sleep_us(PAUSE_US);
        }
        status = try_rate(run, rate, repeat, &held, err);
        if (status == SORA_OK && !is_stopped(run))
            find_rate_tell(&find, held);
    }
    run->found_rate = find.found;
    if (status == SORA_OK && run->stats != NULL)
        status = report(run, err);
    *good = find.found > 0;
    if (status == SORA_OK && !*good)
        fprintf(run->errors, "no rate was found that holds %s\n", run->options->scenario->slo);
    end_point(run);
    return status;
}

static sora_status prepare(struct run *run, struct sora_error *err)
{
    const struct scenario *scenario = run->options->scenario;
    sora_status status = client_http_create(&run->options->config, &run->http, err);
    if (status == SORA_OK)
        status = load_trace(run, err);
    if (status == SORA_OK && scenario->slo != NULL) {
        status = slo_parse(scenario->slo, &run->slo, err);
        run->has_slo = true;
    }
    if (status == SORA_OK)
        status =
            setup_models(run->http, scenario, run->options->config.selector, &run->models, err);
    return status;
}

static sora_status upload(struct run *run, struct sora_error *err)
{
    const struct scenario *scenario = run->options->scenario;
    bool makes_churn = scenario->churn_rate > 0 && scenario->churn_folder == NULL;
    if (run->models.made_count == 0 && !makes_churn)
        return SORA_OK;
    sora_status status = setup_base(run->http, run->options->like, &run->base, err);
    if (status == SORA_OK)
        status = setup_upload(run->http, scenario, &run->models, &run->base, note_upload, run, err);
    return status;
}

static sora_status print_plan(struct run *run, struct sora_error *err)
{
    sora_status status = make_plan(run, err);
    if (status == SORA_OK)
        plan_print(&run->plan, run->out);
    plan_deinit(&run->plan);
    return status;
}

static void clean_up(struct run *run)
{
    if (!run->options->keep && run->uploaded > 0) {
        int32_t failed = setup_remove(run->http, &run->models, run->uploaded, NULL);
        if (failed > 0)
            fprintf(run->errors, "%d made adapters could not be deleted\n", (int)failed);
    }
    made_base_deinit(&run->base);
    trace_deinit(&run->trace);
    plan_models_deinit(&run->models);
    client_http_destroy(run->http);
    free(run->points);
}

int run_load(const struct run_options *options, FILE *out, FILE *errors)
{
    struct run run = {.options = options, .out = out, .errors = errors, .models = {.base = -1}};
    struct sora_error err;
    bool good = true;
    run.started_unix_s = clock_unix_s();
    sora_status status = prepare(&run, &err);
    if (status == SORA_OK && options->print_plan)
        status = print_plan(&run, &err);
    else if (status == SORA_OK) {
        status = upload(&run, &err);
        if (status == SORA_OK)
            status =
                options->find_rate ? search_rate(&run, &good, &err) : run_once(&run, &good, &err);
    }
    clean_up(&run);
    if (status == SORA_OK)
        return good ? RUN_DONE : RUN_FAILED;
    fprintf(errors, "sora-loadtest: %s\n", err.text);
    return run.usage ? RUN_USAGE : RUN_FAILED;
}

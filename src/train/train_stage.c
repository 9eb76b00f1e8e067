// SPDX-License-Identifier: Apache-2.0
// Evaluations of a run and the ends of its stages, see train_run.h. The caller's thread.
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "sora/adapter.h"
#include "train/evaluate.h"
#include "train/prune.h"
#include "train/train_group.h"
#include "train/train_record.h"
#include "train/train_run.h"

static const struct batches_step *last_step(const struct train_run *run)
{
    return &run->batches.steps[run->state.step - 1];
}

bool train_stage_evaluates(const struct train_run *run)
{
    const int32_t every = run->options->eval_steps;
    return last_step(run)->ends_stage ||
           (run->has_eval_data && every > 0 && run->state.step % every == 0);
}

// The adapter as it is now; the rung's size is filled in, and its measures go into the record.
static sora_status encode_adapter(struct train_run *run, struct sora_train_rung *rung,
                                  struct train_best *file, struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(run->model);
    const struct sora_train_options *options = run->options;
    const double scale = options->alpha / options->rank;
    struct prune prune;
    char *record = NULL;
    *file = (struct train_best){0};
    sora_status status = prune_init(&prune, trainer_params(run->trainer), &info->base, scale, err);
    if (status != SORA_OK)
        return status;
    rung->parameters = prune.parameters;
    rung->parameters_full = prune.parameters_full;
    rung->kept = (double)prune.parameters / (double)prune.parameters_full;
    status = train_record_encode(options, &info->base, run->data.digest, rung, &record, err);
    if (status == SORA_OK) {
        const struct sora_adapter_source source = {.base = &info->base,
                                                   .base_name = info->name,
                                                   .r_max = options->rank,
                                                   .alpha = options->alpha,
                                                   .dtype = options->dtype,
                                                   .pairs = prune.pairs,
                                                   .pair_count = prune.pair_count,
                                                   .training_json = record};
        status = sora_adapter_encode(&source, &file->bytes, &file->byte_count, err);
    }
    free(record);
    prune_deinit(&prune);
    return status;
}

static struct sora_train_rung rung_now(struct train_run *run)
{
    const struct run_state *state = &run->state;
    const struct params *params = trainer_params(run->trainer);
    return (struct sora_train_rung){.stage = last_step(run)->stage,
                                    .xi = state->xi,
                                    .step = state->step,
                                    .steps = state->steps_done,
                                    .tokens = state->tokens,
                                    .scored_tokens = state->scored_tokens,
                                    .gates_kept = params_ranks_kept(params),
                                    .gates = params->rank_count_full,
                                    .seconds = run->progress.seconds,
                                    .loss = state->loss};
}

static bool metric_generates(enum sora_metric metric)
{
    return metric == SORA_METRIC_EXACT_MATCH || metric == SORA_METRIC_ROUGE_L ||
           metric == SORA_METRIC_BLEU;
}

// Evaluates the file that would be written now, so that the figure is what serving gives.
static sora_status evaluate_file(struct train_run *run, const struct train_best *file,
                                 struct sora_train_rung *rung, struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(run->model);
    const struct sora_eval_options options = {.threads = run->options->threads,
                                              .generate = metric_generates(run->options->metric),
                                              .chat_template = run->options->chat_template};
    sora_adapter *adapter = NULL;
    const bool int8 = sora_compute_for(run->model, options.compute) == SORA_COMPUTE_INT8;
    sora_status status =
        sora_adapter_parse_as(file->bytes, file->byte_count, &info->base, int8, &adapter, err);
    if (status == SORA_OK)
        status = evaluate_dataset(run->model, run->tokenizer, sora_adapter_get_lora(adapter),
                                  &run->eval_data, &options, run->hooks->cancel, &rung->eval, err);
    sora_adapter_destroy(adapter);
    if (status == SORA_OK && !isfinite(sora_metric_value(run->options->metric, &rung->eval)))
        status = sora_fail(err, SORA_MISMATCH, "the evaluation data does not give the metric %s",
                           sora_metric_name(run->options->metric));
    return status;
}

// One process of a group measures and tells the others, so that all judge by the same numbers.
static sora_status evaluate(struct train_run *run, const struct train_best *file,
                            struct sora_train_rung *rung, struct sora_error *err)
{
    const struct sora_train_group *group = run->options->group;
    sora_status status = train_group_leads(group) ? evaluate_file(run, file, rung, err) : SORA_OK;
    const bool cancelled = train_group_any(group, status == SORA_CANCELLED);
    if (cancelled && status == SORA_OK)
        status = sora_fail(err, SORA_CANCELLED, "the evaluation was cancelled");
    status = train_group_agree(group, status, err);
    if (status == SORA_OK && group != NULL)
        group->broadcast(group->context, &rung->eval, sizeof(rung->eval));
    rung->has_eval = status == SORA_OK;
    return status;
}

// The adapter of now with its evaluation, where there is data for one.
static sora_status make_rung(struct train_run *run, struct sora_train_rung *rung,
                             struct train_best *file, struct sora_error *err)
{
    *rung = rung_now(run);
    sora_status status =
        train_group_agree(run->options->group, encode_adapter(run, rung, file, err), err);
    if (status != SORA_OK || !run->has_eval_data)
        return status;
    status = evaluate(run, file, rung, err);
    free(file->bytes);
    *file = (struct train_best){0};
    if (status == SORA_OK)
        status = encode_adapter(run, rung, file, err);
    return status;
}

static bool is_better(const struct train_run *run, const struct sora_train_rung *rung)
{
    const enum sora_metric metric = sora_metric_resolve(run->options->metric, &rung->eval);
    const double now = sora_metric_value(metric, &rung->eval);
    const double best = sora_metric_value(metric, &run->state.best.eval);
    return sora_metric_rises(metric) ? now > best : now < best;
}

// Keeps the rung as the stage's when it is the first, the better, or there is no patience to
// choose by. Above a budget nothing counts.
static void judge_rung(struct train_run *run, const struct sora_train_rung *rung,
                       struct train_best *file)
{
    struct run_state *state = &run->state;
    const bool waits = run->options->patience > 0 && rung->has_eval;
    const bool over_budget = run->parameters_end > 0 && rung->parameters > run->parameters_end;
    if (waits && over_budget && !last_step(run)->ends_stage)
        return;
    if (waits && state->has_best && !is_better(run, rung)) {
        state->evals_stale++;
        return;
    }
    free(run->best.bytes);
    run->best = *file;
    *file = (struct train_best){0};
    state->best = *rung;
    state->has_best = true;
    state->evals_stale = 0;
}

// The stage's adapter goes out, zero ranks leave the training, and the next stage is up.
static sora_status end_stage(struct train_run *run, struct sora_error *err)
{
    struct run_state *state = &run->state;
    const struct sora_train_hooks *hooks = run->hooks;
    const int32_t stage = last_step(run)->stage;
    if (hooks->on_rung != NULL) {
        const sora_status status = hooks->on_rung(hooks->context, &state->best, run->best.bytes,
                                                  run->best.byte_count, err);
        if (status != SORA_OK)
            return status;
    }
    while (state->step < run->batches.step_count && run->batches.steps[state->step].stage == stage)
        state->step++;
    state->rungs[state->rung_count++] = state->best;
    state->evals_stale = 0;
    if (state->step == run->batches.step_count)
        return SORA_OK; // the best of the last stage is the run's
    state->has_best = false;
    free(run->best.bytes);
    run->best = (struct train_best){0};
    const bool keeps = run->options->keep_zero_ranks || run->parameters_end > 0;
    return keeps ? SORA_OK : trainer_cut(run->trainer, err);
}

sora_status train_stage_finish(struct train_run *run, struct sora_error *err)
{
    struct run_state *state = &run->state;
    const struct sora_train_hooks *hooks = run->hooks;
    struct sora_train_rung rung;
    struct train_best file;
    // Evaluation is not training: its time is taken out of the rate.
    const int64_t before_us = clock_now_us();
    sora_status status = make_rung(run, &rung, &file, err);
    run->start_us += clock_now_us() - before_us;
    if (status == SORA_OK) {
        if (rung.has_eval && hooks->on_eval != NULL)
            hooks->on_eval(hooks->context, &run->progress, &rung.eval);
        judge_rung(run, &rung, &file);
        const bool out_of_patience =
            run->options->patience > 0 && state->evals_stale >= run->options->patience;
        state->eval_pending = false;
        if (last_step(run)->ends_stage || out_of_patience)
            status = end_stage(run, err);
    }
    free(file.bytes);
    return status;
}

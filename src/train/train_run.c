// SPDX-License-Identifier: Apache-2.0
// A whole training run: data, steps through all stages, checkpoints, the adapter's file. See
// sora/train.h; runs in the caller's thread.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "train/schedule.h"
#include "train/train_group.h"
#include "train/train_identity.h"
#include "train/train_run.h"

#define CHECKPOINT_US 60000000 // a minute of work is what a crash may cost

static sora_status open_data(struct train_run *run, const char *data_path, const char *eval_path,
                             struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(run->model);
    struct dataset_rules rules = {.tokenizer = run->tokenizer,
                                  .chat_template = run->options->chat_template,
                                  .vocab_size = info->base.vocab_size,
                                  .example_tokens_max = info->context_length};
    const int32_t limit = run->options->example_tokens_max;
    if (limit > 0 && limit < rules.example_tokens_max)
        rules.example_tokens_max = limit;
    rules.cut = run->options->cut;
    sora_status status = example_index_open(data_path, &rules, &run->data, err);
    rules.cut = false;
    rules.example_tokens_max = info->context_length;
    if (status == SORA_OK && eval_path != NULL)
        status = dataset_open(eval_path, &rules, &run->eval_data, err);
    run->has_eval_data = status == SORA_OK && eval_path != NULL;
    if (status == SORA_OK && !run->has_eval_data &&
        (run->options->eval_steps > 0 || run->options->patience > 0))
        status = sora_fail(err, SORA_MALFORMED,
                           "evaluations and patience need evaluation data, and there is none");
    return status;
}

// By anyone: a signal reaches the processes of a group at different steps.
static bool is_cancelled(const struct train_run *run)
{
    const bool own = run->hooks->cancel != NULL && atomic_load(run->hooks->cancel);
    return train_group_any(run->options->group, own);
}

static sora_status save_checkpoint(struct train_run *run, struct sora_error *err)
{
    if (run->options->checkpoint == NULL || run->saved_step == run->state.step ||
        !train_group_leads(run->options->group))
        return SORA_OK;
    run->state.seconds = run->progress.seconds;
    run->saved_us = clock_now_us();
    run->saved_step = run->state.step;
    const sora_status status =
        train_checkpoint_save(run->options->checkpoint, run->identity, &run->state,
                              trainer_params(run->trainer), &run->best, err);
    return status == SORA_OK ? status
                             : sora_fail_within(err, status, "checkpoint after step %lld",
                                                (long long)run->state.step);
}

static bool checkpoint_is_due(const struct train_run *run)
{
    const int64_t every = run->options->checkpoint_steps;
    if (run->state.step == run->batches.step_count)
        return true;
    return every > 0 ? run->state.step - run->saved_step >= every
                     : clock_now_us() - run->saved_us >= CHECKPOINT_US;
}

// Leaves in good order: what was reached is on disk, where there is a folder for it.
static sora_status leave(struct train_run *run, struct sora_error *err)
{
    const long long step = (long long)run->state.step;
    const sora_status status = save_checkpoint(run, err);
    if (status != SORA_OK)
        return status;
    if (run->options->checkpoint != NULL)
        return sora_fail(err, SORA_CANCELLED,
                         "stopped after step %lld; the checkpoint in %s goes on from there", step,
                         run->options->checkpoint);
    return sora_fail(err, SORA_CANCELLED, "training was cancelled after step %lld", step);
}

static void show_totals(struct train_run *run)
{
    const struct params *params = trainer_params(run->trainer);
    struct sora_train_progress *progress = &run->progress;
    progress->step = run->state.step;
    progress->tokens = run->state.tokens;
    progress->scored_tokens = run->state.scored_tokens;
    progress->gates = params->rank_count_full;
    progress->gates_kept = params_ranks_kept(params);
}

static void count_step(struct train_run *run, const struct batches_step *plan,
                       const struct trainer_outcome *outcome)
{
    struct run_state *state = &run->state;
    struct sora_train_progress *progress = &run->progress;
    state->step++;
    state->xi = outcome->xi;
    state->steps_done = trainer_steps_done(run->trainer);
    state->tokens += outcome->tokens;
    state->scored_tokens += outcome->scored;
    state->epoch_loss += outcome->cross_entropy * (double)outcome->scored;
    state->epoch_scored += outcome->scored;
    if (plan->ends_epoch) {
        state->loss = state->epoch_loss / (double)state->epoch_scored;
        state->epoch_loss = 0.0;
        state->epoch_scored = 0;
    }
    state->eval_pending = train_stage_evaluates(run);
    progress->stage = plan->stage;
    progress->xi = outcome->xi;
    progress->loss = outcome->cross_entropy;
    progress->gate_l1 = outcome->gate_l1;
    progress->grad_norm = outcome->grad_norm;
    progress->seconds = (double)(clock_now_us() - run->start_us) / 1e6;
    show_totals(run);
    progress->tokens_per_second = (double)progress->tokens / (progress->seconds + 1e-9);
}

static sora_status take_step(struct train_run *run, struct sora_error *err)
{
    const int64_t step = run->state.step;
    const struct batches_step *plan = &run->batches.steps[step];
    struct train_batch batch;
    struct trainer_outcome outcome;
    run->progress.lr_factor = schedule_factor(step, run->batches.step_count, run->warmup_steps);
    const double xi = run->options->target_params > 0.0 ? 0.0 : run->options->xi[plan->stage];
    sora_status status =
        train_group_agree(run->options->group, batches_get(&run->batches, step, &batch, err), err);
    if (status == SORA_OK)
        status = trainer_step(run->trainer, &batch, run->progress.lr_factor, xi, &outcome, err);
    if (status != SORA_OK)
        return status;
    count_step(run, plan, &outcome);
    if (run->hooks->on_step != NULL)
        run->hooks->on_step(run->hooks->context, &run->progress);
    return SORA_OK;
}

static sora_status run_steps(struct train_run *run, struct sora_error *err)
{
    while (run->state.step < run->batches.step_count || run->state.eval_pending) {
        if (is_cancelled(run))
            return leave(run, err);
        sora_status status = SORA_OK;
        if (!run->state.eval_pending)
            status = take_step(run, err);
        if (status == SORA_OK && run->state.eval_pending)
            status = train_stage_finish(run, err);
        if (status == SORA_CANCELLED)
            return leave(run, err);
        if (status == SORA_OK && checkpoint_is_due(run))
            status = save_checkpoint(run, err);
        status = train_group_agree(run->options->group, status, err);
        if (status != SORA_OK)
            return status;
    }
    return SORA_OK;
}

// A budget given as a share is one of all A and B.
static sora_status steer(struct train_run *run, struct sora_error *err)
{
    const double target = run->options->target_params;
    if (target == 0.0)
        return SORA_OK;
    const int64_t full = trainer_params(run->trainer)->matrix_count;
    const double count = target < 1.0 ? floor(target * (double)full) : target;
    run->parameters_end = count < (double)full ? (int64_t)count : full;
    return trainer_steer(run->trainer, run->parameters_end, run->batches.step_count, err);
}

// What a decoded state must keep to, so that no index of it is trusted.
static sora_status check_state(const struct train_run *run, struct sora_error *err)
{
    const struct run_state *state = &run->state;
    const int32_t stage_count = run->options->xi_count;
    if (state->step > run->batches.step_count || state->steps_done > state->step ||
        state->rung_count > stage_count || (state->eval_pending && state->step == 0) ||
        (!state->eval_pending && state->step == run->batches.step_count &&
         (state->rung_count != stage_count || !state->has_best)))
        return sora_fail(err, SORA_MALFORMED,
                         "checkpoint in %s: step %lld of %lld with %d of %d stages ended is no "
                         "state of this run",
                         run->options->checkpoint, (long long)state->step,
                         (long long)run->batches.step_count, state->rung_count, stage_count);
    return SORA_OK;
}

static void restore_progress(struct train_run *run)
{
    struct run_state *state = &run->state;
    trainer_set_steps_done(run->trainer, state->steps_done);
    run->progress.seconds = state->seconds;
    run->start_us -= (int64_t)(state->seconds * 1e6);
    run->saved_step = state->eval_pending ? -1 : state->step;
    show_totals(run);
    run->progress.xi = state->xi;
    if (state->step > 0)
        run->progress.stage = run->batches.steps[state->step - 1].stage;
}

// What makes this run the one it is, the same in all processes of a group.
static sora_status identify(struct train_run *run, struct sora_error *err)
{
    const struct sora_train_group *group = run->options->group;
    sora_status status = train_identity_encode(
        run->options, &sora_model_get_info(run->model)->base, run->data.digest,
        run->has_eval_data ? run->eval_data.digest : "", &run->identity, err);
    status = train_group_agree(group, status, err);
    return status == SORA_OK
               ? train_group_same(group, "model, data and options", run->identity, err)
               : status;
}

static sora_status load_checkpoint(struct train_run *run, struct sora_train_start *start,
                                   struct sora_error *err)
{
    const struct sora_train_options *options = run->options;
    const struct sora_base *base = &sora_model_get_info(run->model)->base;
    bool found;
    if (options->checkpoint == NULL)
        return options->resume ? sora_fail(err, SORA_MALFORMED, "resume needs a checkpoint folder")
                               : SORA_OK;
    sora_status status = train_checkpoint_open(options->checkpoint, &found, err);
    if (status != SORA_OK || !found)
        return status;
    if (!options->resume)
        return sora_fail(err, SORA_PRECONDITION,
                         "%s holds the checkpoint of a run: resume it, or remove it to start over",
                         options->checkpoint);
    status = train_checkpoint_load(options->checkpoint, run->identity, base, &run->state,
                                   trainer_params(run->trainer), &run->best, err);
    if (status == SORA_OK)
        status = check_state(run, err);
    if (status != SORA_OK)
        return status;
    restore_progress(run);
    start->resumed = true;
    start->resumed_step = run->state.step;
    start->resumed_eval_pending = run->state.eval_pending;
    return SORA_OK;
}

// All processes read the checkpoint, which is one that all of them must see.
static sora_status open_checkpoint(struct train_run *run, struct sora_train_start *start,
                                   struct sora_error *err)
{
    const struct sora_train_group *group = run->options->group;
    sora_status status = train_group_agree(group, load_checkpoint(run, start, err), err);
    if (status != SORA_OK)
        return status;
    char step[32];
    snprintf(step, sizeof(step), "%lld", start->resumed ? (long long)run->state.step : -1);
    return train_group_same(group, "checkpoint", step, err);
}

static void report_start(const struct train_run *run, struct sora_train_start *start)
{
    start->examples = run->data.example_count;
    start->longest = run->data.longest;
    start->tokens = run->data.token_count;
    start->scored_tokens = run->data.scored_count;
    start->cut_examples = run->data.cut_count;
    start->eval_examples = run->eval_data.example_count;
    start->steps = run->batches.step_count;
    if (run->hooks->on_start != NULL)
        run->hooks->on_start(run->hooks->context, start);
}

// The last rung is the result.
static void take_result(struct train_run *run)
{
    const struct run_state *state = &run->state;
    const struct sora_train_rung *last = &state->rungs[state->rung_count - 1];
    struct sora_train_result *result = &run->result;
    *result = (struct sora_train_result){.steps = state->steps_done,
                                         .tokens = state->tokens,
                                         .scored_tokens = state->scored_tokens,
                                         .seconds = run->progress.seconds,
                                         .loss = state->loss,
                                         .parameters = last->parameters,
                                         .parameters_full = last->parameters_full,
                                         .kept = last->kept,
                                         .has_eval = last->has_eval,
                                         .eval = last->eval,
                                         .rung_count = state->rung_count,
                                         .bytes = run->best.bytes,
                                         .byte_count = run->best.byte_count};
    result->tokens_per_second = (double)state->tokens / (run->progress.seconds + 1e-9);
    memcpy(result->rungs, state->rungs, sizeof(result->rungs));
    run->best = (struct train_best){0};
}

static sora_status run_all(struct train_run *run, const char *data_path, const char *eval_path,
                           struct sora_error *err)
{
    struct sora_train_start start = {0};
    sora_status status = schedule_check_options(run->options, err);
    if (status == SORA_OK)
        status = open_data(run, data_path, eval_path, err);
    if (status == SORA_OK)
        status = batches_init(&run->batches, &run->data, run->options, err);
    if (status == SORA_OK)
        status =
            trainer_create(run->model, run->options, run->batches.tokens_max, &run->trainer, err);
    status = train_group_agree(run->options->group, status, err);
    if (status == SORA_OK)
        status = identify(run, err);
    if (status != SORA_OK)
        return status;
    run->start_us = run->saved_us = clock_now_us();
    run->warmup_steps = schedule_warmup_steps(run->options->warmup, run->batches.step_count);
    run->progress.steps = run->batches.step_count;
    run->progress.stage_count = run->options->xi_count;
    status = open_checkpoint(run, &start, err);
    if (status == SORA_OK)
        status = train_group_agree(run->options->group, steer(run, err), err);
    if (status != SORA_OK)
        return status;
    report_start(run, &start);
    status = run_steps(run, err);
    if (status == SORA_OK)
        take_result(run);
    return status;
}

sora_status sora_train_run(const sora_model *model, const sora_tokenizer *tokenizer,
                           const char *data_path, const char *eval_path,
                           const struct sora_train_options *options,
                           const struct sora_train_hooks *hooks, struct sora_train_result *result,
                           struct sora_error *err)
{
    const struct sora_train_hooks quiet = {.cancel = hooks != NULL ? hooks->cancel : NULL};
    const bool speaks = hooks != NULL && train_group_leads(options->group);
    struct train_run run = {.model = model,
                            .tokenizer = tokenizer,
                            .options = options,
                            .hooks = speaks ? hooks : &quiet};
    const sora_status status = run_all(&run, data_path, eval_path, err);
    if (status == SORA_OK)
        *result = run.result;
    free(run.best.bytes);
    free(run.identity);
    trainer_destroy(run.trainer);
    batches_deinit(&run.batches);
    dataset_close(&run.eval_data);
    example_index_close(&run.data);
    return status;
}

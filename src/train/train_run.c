// SPDX-License-Identifier: Apache-2.0
// A whole training run: data, steps through all stages, evaluation, pruning, the adapter's file.
// See sora/train.h; runs in the caller's thread.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "sora/adapter.h"
#include "sora/train.h"
#include "train/batches.h"
#include "train/dataset.h"
#include "train/evaluate.h"
#include "train/prune.h"
#include "train/schedule.h"
#include "train/train_record.h"
#include "train/trainer.h"

struct train_run {
    const sora_model *model;
    const sora_tokenizer *tokenizer;
    const struct sora_train_options *options;
    const struct sora_train_hooks *hooks; // may be NULL
    struct dataset data, eval_data;
    bool has_eval_data;
    struct batches batches;
    struct trainer *trainer;
    int64_t start_us;
    int64_t warmup_steps;
    double epoch_loss; // sum over scored tokens of the current epoch
    int64_t epoch_scored;
    struct sora_train_progress progress;
    struct sora_train_result result;
};

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
    sora_status status = dataset_open(data_path, &rules, &run->data, err);
    rules.example_tokens_max = info->context_length;
    if (status == SORA_OK && eval_path != NULL)
        status = dataset_open(eval_path, &rules, &run->eval_data, err);
    run->has_eval_data = status == SORA_OK && eval_path != NULL;
    return status;
}

// The adapter as it is now, with its record.
static sora_status encode_adapter(struct train_run *run, uint8_t **bytes, size_t *byte_count,
                                  struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(run->model);
    const struct sora_train_options *options = run->options;
    const double scale = options->alpha / options->rank;
    struct prune prune;
    char *record = NULL;
    sora_status status = prune_init(&prune, trainer_params(run->trainer), &info->base, scale, err);
    if (status != SORA_OK)
        return status;
    run->result.parameters = prune.parameters;
    run->result.parameters_full = prune.parameters_full;
    run->result.kept = (double)prune.parameters / (double)prune.parameters_full;
    status =
        train_record_encode(options, &info->base, run->data.digest, &run->result, &record, err);
    if (status == SORA_OK) {
        const struct sora_adapter_source source = {.base = &info->base,
                                                   .base_name = info->name,
                                                   .r_max = options->rank,
                                                   .alpha = options->alpha,
                                                   .dtype = options->dtype,
                                                   .pairs = prune.pairs,
                                                   .pair_count = prune.pair_count,
                                                   .training_json = record};
        status = sora_adapter_encode(&source, bytes, byte_count, err);
    }
    free(record);
    prune_deinit(&prune);
    return status;
}

// Evaluates the file that would be written now, so that the figure is what serving gives.
static sora_status evaluate_stage(struct train_run *run, struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(run->model);
    const atomic_bool *cancel = run->hooks != NULL ? run->hooks->cancel : NULL;
    const struct sora_eval_options options = {.threads = run->options->threads,
                                              .chat_template = run->options->chat_template};
    uint8_t *bytes = NULL;
    size_t byte_count;
    sora_adapter *adapter = NULL;
    sora_status status = encode_adapter(run, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = sora_adapter_parse(bytes, byte_count, &info->base, &adapter, err);
    if (status == SORA_OK)
        status = evaluate_dataset(run->model, run->tokenizer, sora_adapter_get_lora(adapter),
                                  &run->eval_data, &options, cancel, &run->result.eval, err);
    run->result.has_eval = run->result.has_eval || status == SORA_OK;
    if (status == SORA_OK && run->hooks != NULL && run->hooks->on_eval != NULL)
        run->hooks->on_eval(run->hooks->context, &run->progress, &run->result.eval);
    sora_adapter_destroy(adapter);
    free(bytes);
    return status;
}

static void report_step(struct train_run *run, int64_t step, const struct train_batch *batch,
                        const struct trainer_outcome *outcome)
{
    const struct batches_step *plan = &run->batches.steps[step];
    const struct params *params = trainer_params(run->trainer);
    struct sora_train_progress *progress = &run->progress;
    progress->step = step + 1;
    progress->stage = plan->stage;
    progress->xi = outcome->xi;
    progress->loss = outcome->cross_entropy;
    progress->gate_l1 = outcome->gate_l1;
    progress->grad_norm = outcome->grad_norm;
    progress->tokens += batch->token_count;
    progress->scored_tokens += batch->scored_count;
    progress->seconds = (double)(clock_now_us() - run->start_us) / 1e6;
    progress->tokens_per_second = (double)progress->tokens / (progress->seconds + 1e-9);
    progress->gates = params_ranks(params);
    progress->gates_kept = params_ranks_kept(params);
    run->epoch_loss += outcome->cross_entropy * batch->scored_count;
    run->epoch_scored += batch->scored_count;
    run->result.steps = progress->step;
    run->result.tokens = progress->tokens;
    run->result.scored_tokens = progress->scored_tokens;
    run->result.seconds = progress->seconds;
    run->result.tokens_per_second = progress->tokens_per_second;
    if (plan->ends_epoch) {
        run->result.loss = run->epoch_loss / (double)run->epoch_scored;
        run->epoch_loss = 0.0;
        run->epoch_scored = 0;
    }
    if (run->hooks != NULL && run->hooks->on_step != NULL)
        run->hooks->on_step(run->hooks->context, progress);
}

static sora_status run_step(struct train_run *run, int64_t step, struct sora_error *err)
{
    if (run->hooks != NULL && run->hooks->cancel != NULL && atomic_load(run->hooks->cancel))
        return sora_fail(err, SORA_CANCELLED, "training was cancelled after step %lld",
                         (long long)step);
    const struct batches_step *plan = &run->batches.steps[step];
    const struct train_batch batch = batches_get(&run->batches, step);
    struct trainer_outcome outcome;
    run->progress.lr_factor = schedule_factor(step, run->batches.step_count, run->warmup_steps);
    const double xi = run->options->target_params > 0.0 ? 0.0 : run->options->xi[plan->stage];
    const sora_status status =
        trainer_step(run->trainer, &batch, run->progress.lr_factor, xi, &outcome, err);
    if (status != SORA_OK)
        return status;
    report_step(run, step, &batch, &outcome);
    if (!plan->ends_stage || !run->has_eval_data)
        return SORA_OK;
    // Evaluation is not training: its time is taken out of the rate.
    const int64_t before_us = clock_now_us();
    const sora_status evaluated = evaluate_stage(run, err);
    run->start_us += clock_now_us() - before_us;
    return evaluated;
}

// A budget given as a share is one of all A and B.
static sora_status steer(struct train_run *run, struct sora_error *err)
{
    const double target = run->options->target_params;
    if (target == 0.0)
        return SORA_OK;
    const int64_t full = trainer_params(run->trainer)->matrix_count;
    const double count = target < 1.0 ? floor(target * (double)full) : target;
    return trainer_steer(run->trainer, count < (double)full ? (int64_t)count : full,
                         run->batches.step_count, err);
}

static sora_status run_all(struct train_run *run, const char *data_path, const char *eval_path,
                           struct sora_error *err)
{
    sora_status status = schedule_check_options(run->options, err);
    if (status == SORA_OK)
        status = open_data(run, data_path, eval_path, err);
    if (status == SORA_OK)
        status = batches_init(&run->batches, &run->data, run->options, err);
    if (status == SORA_OK)
        status =
            trainer_create(run->model, run->options, run->batches.tokens_max, &run->trainer, err);
    if (status == SORA_OK)
        status = steer(run, err);
    if (status != SORA_OK)
        return status;
    run->start_us = clock_now_us();
    run->warmup_steps = schedule_warmup_steps(run->options->warmup, run->batches.step_count);
    run->progress.steps = run->batches.step_count;
    run->progress.stage_count = run->options->xi_count;
    for (int64_t step = 0; status == SORA_OK && step < run->batches.step_count; step++)
        status = run_step(run, step, err);
    if (status == SORA_OK)
        status = encode_adapter(run, &run->result.bytes, &run->result.byte_count, err);
    return status;
}

sora_status sora_train_run(const sora_model *model, const sora_tokenizer *tokenizer,
                           const char *data_path, const char *eval_path,
                           const struct sora_train_options *options,
                           const struct sora_train_hooks *hooks, struct sora_train_result *result,
                           struct sora_error *err)
{
    struct train_run run = {
        .model = model, .tokenizer = tokenizer, .options = options, .hooks = hooks};
    const sora_status status = run_all(&run, data_path, eval_path, err);
    if (status == SORA_OK)
        *result = run.result;
    trainer_destroy(run.trainer);
    batches_deinit(&run.batches);
    dataset_close(&run.eval_data);
    dataset_close(&run.data);
    return status;
}

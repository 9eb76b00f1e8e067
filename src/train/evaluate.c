// SPDX-License-Identifier: Apache-2.0
// Evaluation of an adapter, see evaluate.h and sora/train.h: the loop of steps and the sums at the
// end. The caller's thread.
#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/pool.h"
#include "sora/limits.h"
#include "train/evaluate_slots.h"

// Memory for keys and values: evaluation needs no more sequences at once than fill a step.
enum { KV_BYTES_MAX = 256 << 20 };

static int32_t longest_item(const struct evaluation *evaluation)
{
    const struct dataset *dataset = evaluation->dataset;
    int32_t longest = 0;
    for (int32_t i = 0; i < evaluation->example_count; i++) {
        const struct dataset_example *example = &dataset->examples[i];
        int32_t tokens = example->token_count;
        if (evaluate_generates(evaluation, example) &&
            example->prompt_count + evaluate_generate_max(example) > tokens)
            tokens = example->prompt_count + evaluate_generate_max(example);
        for (int32_t c = 0; c < example->choice_count; c++) {
            const int32_t choice = dataset->choices[example->choice_first + c].token_count;
            if (example->prompt_count + choice > tokens)
                tokens = example->prompt_count + choice;
        }
        longest = tokens > longest ? tokens : longest;
    }
    return longest;
}

static sora_status create_engine(struct evaluation *evaluation, struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(evaluation->model);
    struct sora_engine_options *options = &evaluation->engine_options;
    evaluation->length_max = longest_item(evaluation);
    if (evaluation->length_max > info->context_length)
        return sora_fail(err, SORA_LIMIT,
                         "an example and its answer take %d tokens, the model's context is %d",
                         evaluation->length_max, info->context_length);
    *options = sora_engine_options_defaults(evaluation->model);
    options->compute = evaluation->options.compute;
    options->threads = evaluation->options.threads;
    options->seqs_max = EVALUATE_SLOTS_MAX;
    options->rows_max = SORA_STEP_ROWS_MAX;
    options->logit_rows_max = SORA_STEP_LOGIT_ROWS_MAX;
    options->context_max = evaluation->length_max;
    const size_t token_bytes = (size_t)info->base.layer_count * 2 *
                               (size_t)info->base.kv_head_count * (size_t)info->base.head_dim *
                               sizeof(float);
    // One block of slack for each sequence: lengths are rounded up to blocks.
    const size_t sequence_bytes =
        ((size_t)evaluation->length_max + SORA_KV_BLOCK_TOKENS) * token_bytes;
    options->kv_bytes = EVALUATE_SLOTS_MAX * sequence_bytes;
    if (options->kv_bytes > KV_BYTES_MAX)
        options->kv_bytes = sequence_bytes > KV_BYTES_MAX ? sequence_bytes : KV_BYTES_MAX;
    return sora_engine_create(evaluation->model, options, &evaluation->engine, err);
}

// Which examples are answered by generating, and which of them together.
static sora_status choose_answers(struct evaluation *evaluation, struct sora_error *err)
{
    bool *chosen = calloc((size_t)evaluation->example_count + 1, sizeof(chosen[0]));
    if (chosen == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to evaluate");
    for (int32_t i = 0; i < evaluation->example_count; i++)
        chosen[i] = evaluate_generates(evaluation, &evaluation->dataset->examples[i]);
    const sora_status status = evaluate_answers_init(&evaluation->answers, evaluation->dataset,
                                                     chosen, evaluation->example_count, err);
    free(chosen);
    return status;
}

static sora_status evaluation_init(struct evaluation *evaluation, struct sora_error *err)
{
    const struct dataset *dataset = evaluation->dataset;
    const int32_t limit = evaluation->options.limit;
    evaluation->example_count =
        limit > 0 && limit < dataset->example_count ? limit : dataset->example_count;
    sora_status status = create_engine(evaluation, err);
    if (status == SORA_OK)
        status = choose_answers(evaluation, err);
    if (status != SORA_OK)
        return status;
    const int32_t threads =
        evaluation->options.threads > 0 ? evaluation->options.threads : cpu_count();
    status = pool_create(threads, &evaluation->pool, err);
    if (status != SORA_OK)
        return status;
    bool ok = true;
    for (int32_t i = 0; i < EVALUATE_SLOTS_MAX; i++) {
        evaluation->slots[i].tokens = calloc((size_t)evaluation->length_max, sizeof(int32_t));
        ok = ok && evaluation->slots[i].tokens != NULL;
    }
    evaluation->scores =
        calloc((size_t)evaluation->engine_options.logit_rows_max, sizeof(*evaluation->scores));
    evaluation->choice_scores = calloc((size_t)dataset->choice_count + 1, sizeof(double));
    if (!ok || evaluation->scores == NULL || evaluation->choice_scores == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory to evaluate");
    return SORA_OK;
}

static void evaluation_deinit(struct evaluation *evaluation)
{
    for (int32_t i = 0; i < EVALUATE_SLOTS_MAX; i++) {
        if (evaluation->slots[i].open)
            sora_engine_seq_close(evaluation->engine, evaluation->slots[i].seq);
        free(evaluation->slots[i].tokens);
    }
    free(evaluation->scores);
    free(evaluation->choice_scores);
    evaluate_answers_deinit(&evaluation->answers);
    pool_destroy(evaluation->pool);
    sora_engine_destroy(evaluation->engine);
}

static sora_status run_steps(struct evaluation *evaluation, const atomic_bool *cancel,
                             struct sora_error *err)
{
    for (;;) {
        if (cancel != NULL && atomic_load(cancel))
            return sora_fail(err, SORA_CANCELLED, "evaluation was cancelled");
        sora_status status = evaluate_fill_slots(evaluation, err);
        if (status != SORA_OK || evaluation->slots_open == 0)
            return status;
        evaluate_plan_spans(evaluation);
        ASSERT(evaluation->span_count > 0);
        sora_engine_step(evaluation->engine, evaluation->spans, evaluation->span_count, NULL);
        status = evaluate_take_logits(evaluation, err);
        if (status != SORA_OK)
            return status;
    }
}

// Matthews correlation of two classes; 0 when a row or column of the table is empty.
static double matthews(const int64_t table[2][2])
{
    const double tn = (double)table[0][0], fp = (double)table[0][1];
    const double fn = (double)table[1][0], tp = (double)table[1][1];
    const double product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn);
    return product > 0.0 ? (tp * tn - fp * fn) / sqrt(product) : 0.0;
}

// Accuracy over the examples with choices; of equal scores the first wins.
static void judge_choices(const struct evaluation *evaluation, struct sora_eval_result *result)
{
    int64_t judged = 0, right = 0, table[2][2] = {{0}};
    bool binary = true;
    for (int32_t i = 0; i < evaluation->example_count; i++) {
        const struct dataset_example *example = &evaluation->dataset->examples[i];
        if (example->choice_count == 0)
            continue;
        const double *scores = evaluation->choice_scores + example->choice_first;
        int32_t best = 0;
        for (int32_t c = 1; c < example->choice_count; c++)
            best = scores[c] > scores[best] ? c : best;
        judged++;
        right += best == example->choice_right;
        binary = binary && example->choice_count == 2;
        if (binary)
            table[example->choice_right][best]++;
    }
    result->has_accuracy = judged > 0;
    result->accuracy = judged > 0 ? (double)right / (double)judged : 0.0;
    result->mcc = judged > 0 && binary ? matthews(table) : NAN;
}

sora_status evaluate_dataset(const sora_model *model, const sora_tokenizer *tokenizer,
                             const struct sora_lora *lora, const struct dataset *dataset,
                             const struct sora_eval_options *options, const atomic_bool *cancel,
                             struct sora_eval_result *result, struct sora_error *err)
{
    const int64_t start_us = clock_now_us();
    struct evaluation evaluation = {.model = model,
                                    .tokenizer = tokenizer,
                                    .part = {.lora = lora, .scale = 1.0f},
                                    .dataset = dataset,
                                    .options = *options};
    sora_status status = evaluation_init(&evaluation, err);
    if (status == SORA_OK)
        status = run_steps(&evaluation, cancel, err);
    if (status == SORA_OK) {
        *result = (struct sora_eval_result){.examples = evaluation.example_count,
                                            .tokens = evaluation.token_count};
        result->loss = evaluation.loss_sum / (double)evaluation.token_count;
        result->perplexity = exp(result->loss);
        judge_choices(&evaluation, result);
        status = evaluate_answers_judge(&evaluation.answers, dataset, tokenizer, result, err);
        result->seconds = (double)(clock_now_us() - start_us) / 1e6;
    }
    evaluation_deinit(&evaluation);
    return status;
}

sora_status sora_eval_run(const sora_model *model, const sora_tokenizer *tokenizer,
                          const struct sora_lora *lora, const char *data_path,
                          const struct sora_eval_options *options, struct sora_eval_result *result,
                          struct sora_error *err)
{
    const struct sora_model_info *info = sora_model_get_info(model);
    const struct dataset_rules rules = {.tokenizer = tokenizer,
                                        .chat_template = options->chat_template,
                                        .vocab_size = info->base.vocab_size,
                                        .example_tokens_max = info->context_length};
    struct dataset dataset;
    sora_status status = dataset_open(data_path, &rules, &dataset, err);
    if (status != SORA_OK)
        return status;
    status = evaluate_dataset(model, tokenizer, lora, &dataset, options, NULL, result, err);
    dataset_close(&dataset);
    return status;
}

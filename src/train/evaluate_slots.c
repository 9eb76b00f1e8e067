// SPDX-License-Identifier: Apache-2.0
// The sequences of an evaluation, see evaluate_slots.h. The evaluating thread only.
#include "train/evaluate_slots.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/pool.h"
#include "kernel/loss.h"
#include "sora/limits.h"

bool evaluate_choices_are_tokens(const struct dataset *dataset,
                                 const struct dataset_example *example)
{
    for (int32_t i = 0; i < example->choice_count; i++)
        if (dataset->choices[example->choice_first + i].token_count != 1)
            return false;
    return example->choice_count > 0;
}

bool evaluate_generates(const struct evaluation *evaluation, const struct dataset_example *example)
{
    return evaluation->options.generate && evaluation->tokenizer != NULL &&
           example->completion_count > 0 && example->choice_count == 0 && example->prompt_count > 0;
}

int32_t evaluate_generate_max(const struct dataset_example *example)
{
    const int32_t count = example->completion_count + 32;
    return count < SORA_EVAL_GENERATE_MAX ? count : SORA_EVAL_GENERATE_MAX;
}

// Whether an item has something to compute.
static bool item_is_real(const struct evaluation *evaluation, const struct evaluate_item *item)
{
    const struct dataset_example *example = &evaluation->dataset->examples[item->example];
    switch (item->kind) {
    case ITEM_REFERENCE:
        return true;
    case ITEM_CHOICE:
        return item->choice < example->choice_count && item->choice != example->choice_right &&
               !evaluate_choices_are_tokens(evaluation->dataset, example);
    default:
        return evaluation->answers.leads[item->example];
    }
}

static void advance_once(const struct evaluation *evaluation, struct evaluate_item *item)
{
    const struct dataset_example *example = &evaluation->dataset->examples[item->example];
    if (item->kind == ITEM_REFERENCE) {
        item->kind = ITEM_CHOICE;
        item->choice = 0;
    } else if (item->kind == ITEM_CHOICE && item->choice + 1 < example->choice_count) {
        item->choice++;
    } else if (item->kind == ITEM_CHOICE) {
        item->kind = ITEM_GENERATE;
    } else {
        item->example++;
        item->kind = ITEM_REFERENCE;
    }
}

static void advance(const struct evaluation *evaluation, struct evaluate_item *item)
{
    do {
        advance_once(evaluation, item);
    } while (item->example < evaluation->example_count && !item_is_real(evaluation, item));
}

// First scored token of an example; there is one.
static int32_t first_scored(const struct dataset *dataset, const struct dataset_example *example)
{
    int32_t at = 1;
    while (!dataset->scored[example->first + at])
        at++;
    return at;
}

// Tokens of the slot's item, and how far they go.
static void load_item(const struct evaluation *evaluation, struct evaluate_slot *slot)
{
    const struct dataset *dataset = evaluation->dataset;
    const struct dataset_example *example = &dataset->examples[slot->item.example];
    const int32_t *tokens = dataset->tokens + example->first;
    const bool whole = slot->item.kind == ITEM_REFERENCE;
    slot->token_count = whole ? example->token_count : example->prompt_count;
    memcpy(slot->tokens, tokens, (size_t)slot->token_count * sizeof(int32_t));
    slot->score_from = whole ? first_scored(dataset, example) : example->prompt_count;
    slot->token_limit = slot->token_count;
    slot->fed = 0;
    if (slot->item.kind == ITEM_CHOICE) {
        const struct dataset_choice *choice =
            &dataset->choices[example->choice_first + slot->item.choice];
        memcpy(slot->tokens + slot->token_count, dataset->choice_tokens + choice->first,
               (size_t)choice->token_count * sizeof(int32_t));
        slot->token_count += choice->token_count;
        slot->token_limit = slot->token_count;
    } else if (slot->item.kind == ITEM_GENERATE) {
        slot->token_limit += evaluate_generate_max(example);
    }
}

sora_status evaluate_fill_slots(struct evaluation *evaluation, struct sora_error *err)
{
    for (int32_t i = 0; i < evaluation->engine_options.seqs_max; i++) {
        struct evaluate_slot *slot = &evaluation->slots[i];
        if (slot->open || evaluation->next.example >= evaluation->example_count)
            continue;
        slot->item = evaluation->next;
        load_item(evaluation, slot);
        slot->seq = sora_engine_seq_open(evaluation->engine);
        ASSERT(slot->seq >= 0);
        if (!sora_engine_seq_reserve(evaluation->engine, slot->seq, slot->token_limit)) {
            sora_engine_seq_close(evaluation->engine, slot->seq);
            if (evaluation->slots_open > 0)
                return SORA_OK;
            return sora_fail(err, SORA_FULL, "an example of %d tokens does not fit into the cache",
                             slot->token_limit);
        }
        slot->open = true;
        evaluation->slots_open++;
        advance(evaluation, &evaluation->next);
    }
    return SORA_OK;
}

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

// The next span of a slot within what is left of rows and logit rows; false: nothing fits.
static bool plan_span(const struct evaluate_slot *slot, int32_t rows, int32_t logit_rows,
                      struct sora_span *span)
{
    const bool generates = slot->item.kind == ITEM_GENERATE;
    span->seq = slot->seq;
    span->tokens = slot->tokens + slot->fed;
    span->want = SORA_LOGITS_NONE;
    if (slot->fed < slot->score_from) {
        span->token_count = smaller(slot->score_from - slot->fed, rows);
        if (slot->fed + span->token_count == slot->score_from) {
            span->want = SORA_LOGITS_LAST;
            return span->token_count > 0 && logit_rows > 0;
        }
        return span->token_count > 0;
    }
    // Nothing follows the last token of a scored item, so it is never fed.
    const int32_t end = generates ? slot->token_count : slot->token_count - 1;
    span->token_count = smaller(smaller(end - slot->fed, rows), logit_rows);
    span->want = SORA_LOGITS_ALL;
    return span->token_count > 0;
}

void evaluate_plan_spans(struct evaluation *evaluation)
{
    int32_t rows = evaluation->engine_options.rows_max;
    int32_t logit_rows = evaluation->engine_options.logit_rows_max;
    evaluation->span_count = 0;
    for (int32_t i = 0; i < evaluation->engine_options.seqs_max; i++) {
        const struct evaluate_slot *slot = &evaluation->slots[i];
        struct sora_span span = {.parts = &evaluation->part,
                                 .part_count = evaluation->part.lora != NULL};
        if (!slot->open || !plan_span(slot, rows, logit_rows, &span))
            continue;
        rows -= span.token_count;
        if (span.want != SORA_LOGITS_NONE)
            logit_rows -= span.want == SORA_LOGITS_ALL ? span.token_count : 1;
        evaluation->span_slots[evaluation->span_count] = i;
        evaluation->spans[evaluation->span_count++] = span;
    }
}

// The tokens that this span's logits tell: of row j, the token at fed + j + 1 (LAST: at
// score_from). Called after fed has moved on.
static void collect_scores(struct evaluation *evaluation, const struct evaluate_slot *slot,
                           int32_t slot_index, const struct sora_span *span)
{
    const int32_t vocab = sora_model_get_info(evaluation->model)->base.vocab_size;
    const int32_t rows = span->want == SORA_LOGITS_ALL ? span->token_count : 1;
    const struct dataset *dataset = evaluation->dataset;
    const int64_t first = dataset->examples[slot->item.example].first;
    for (int32_t row = 0; row < rows; row++) {
        const int32_t position = slot->fed - rows + row + 1;
        if (slot->item.kind == ITEM_REFERENCE && !dataset->scored[first + position])
            continue;
        evaluation->scores[evaluation->score_count++] =
            (struct evaluate_score){.logits = span->logits + (size_t)row * (size_t)vocab,
                                    .token = slot->tokens[position],
                                    .slot = slot_index,
                                    .position = position};
    }
}

// The order of one-token choices, from the logits after the prompt.
static void score_token_choices(struct evaluation *evaluation, const struct evaluate_slot *slot,
                                const float *logits)
{
    const struct dataset *dataset = evaluation->dataset;
    const struct dataset_example *example = &dataset->examples[slot->item.example];
    if (slot->item.kind != ITEM_REFERENCE || !evaluate_choices_are_tokens(dataset, example))
        return;
    for (int64_t i = example->choice_first; i < example->choice_first + example->choice_count; i++)
        evaluation->choice_scores[i] =
            (double)logits[dataset->choice_tokens[dataset->choices[i].first]];
}

static int32_t greedy(const float *logits, int32_t vocab)
{
    int32_t best = 0;
    for (int32_t v = 1; v < vocab; v++)
        if (logits[v] > logits[best])
            best = v;
    return best;
}

// Keeps a finished answer until all are judged together.
static sora_status keep_answer(struct evaluation *evaluation, const struct evaluate_slot *slot,
                               struct sora_error *err)
{
    const struct dataset_example *example = &evaluation->dataset->examples[slot->item.example];
    size_t bytes;
    return sora_tokenizer_decode(evaluation->tokenizer, slot->tokens + example->prompt_count,
                                 slot->token_count - example->prompt_count, true,
                                 &evaluation->answers.texts[slot->item.example], &bytes, err);
}

// Adds the most likely token; true when the answer has ended.
static bool extend_answer(const struct evaluation *evaluation, struct evaluate_slot *slot,
                          const float *logits)
{
    const int32_t token = greedy(logits, sora_model_get_info(evaluation->model)->base.vocab_size);
    if (sora_tokenizer_is_end(evaluation->tokenizer, token))
        return true;
    slot->tokens[slot->token_count++] = token;
    return slot->token_count == slot->token_limit;
}

static void close_slot(struct evaluation *evaluation, struct evaluate_slot *slot)
{
    sora_engine_seq_close(evaluation->engine, slot->seq);
    slot->open = false;
    evaluation->slots_open--;
}

static sora_status take_span(struct evaluation *evaluation, int32_t slot_index,
                             const struct sora_span *span, struct sora_error *err)
{
    struct evaluate_slot *slot = &evaluation->slots[slot_index];
    sora_status status = SORA_OK;
    slot->fed += span->token_count;
    bool done = false;
    if (slot->item.kind == ITEM_GENERATE) {
        if (span->want != SORA_LOGITS_NONE)
            done = extend_answer(evaluation, slot, span->logits);
        if (done)
            status = keep_answer(evaluation, slot, err);
    } else if (span->want != SORA_LOGITS_NONE) {
        if (span->want == SORA_LOGITS_LAST)
            score_token_choices(evaluation, slot, span->logits);
        collect_scores(evaluation, slot, slot_index, span);
        done = slot->fed >= slot->token_count - 1;
    }
    if (done)
        close_slot(evaluation, slot);
    return status;
}

static void score_task(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    struct evaluation *evaluation = context;
    struct evaluate_score *score = &evaluation->scores[index];
    score->logprob = token_logprob(
        score->logits, sora_model_get_info(evaluation->model)->base.vocab_size, score->token);
}

static void add_score(struct evaluation *evaluation, const struct evaluate_score *score)
{
    const struct evaluate_item *item = &evaluation->slots[score->slot].item;
    const struct dataset_example *example = &evaluation->dataset->examples[item->example];
    if (item->kind == ITEM_REFERENCE) {
        evaluation->loss_sum -= score->logprob;
        evaluation->token_count++;
    }
    if (example->choice_count == 0 || evaluate_choices_are_tokens(evaluation->dataset, example))
        return;
    // The end token is no part of a choice.
    if (item->kind == ITEM_REFERENCE &&
        score->position >= example->prompt_count + example->completion_count)
        return;
    const int32_t choice = item->kind == ITEM_REFERENCE ? example->choice_right : item->choice;
    evaluation->choice_scores[example->choice_first + choice] += score->logprob;
}

sora_status evaluate_take_logits(struct evaluation *evaluation, struct sora_error *err)
{
    evaluation->score_count = 0;
    sora_status status = SORA_OK;
    for (int32_t i = 0; status == SORA_OK && i < evaluation->span_count; i++)
        status = take_span(evaluation, evaluation->span_slots[i], &evaluation->spans[i], err);
    if (status != SORA_OK)
        return status;
    // Slots that closed keep their item until they are filled again, after this.
    pool_run(evaluation->pool, evaluation->score_count, score_task, evaluation);
    for (int32_t i = 0; i < evaluation->score_count; i++)
        add_score(evaluation, &evaluation->scores[i]);
    return SORA_OK;
}

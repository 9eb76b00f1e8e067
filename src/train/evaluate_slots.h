// SPDX-License-Identifier: Apache-2.0
// The sequences of an evaluation: what each still has to be fed, and what its logits mean. Private
// to evaluate.c and evaluate_slots.c.
//
// An example becomes one or more items: REFERENCE scores its own scored tokens; CHOICE scores one
// other choice after the prompt, unless all choices are single tokens, whose order the logits after
// the prompt already tell; GENERATE continues the prompt greedily, once
// for all examples with that prompt. An item takes a slot, is fed in
// spans (up to the first scored token with the last logits only, then all logits) and leaves it.
#ifndef TRAIN_EVALUATE_SLOTS_H
#define TRAIN_EVALUATE_SLOTS_H

#include "sora/engine.h"
#include "train/evaluate.h"
#include "train/evaluate_answers.h"

enum { EVALUATE_SLOTS_MAX = 32 }; // as serving's default of sequences at once

enum item_kind { ITEM_REFERENCE, ITEM_CHOICE, ITEM_GENERATE };

struct evaluate_item {
    int32_t example;
    enum item_kind kind;
    int32_t choice;
};

struct evaluate_slot {
    bool open;
    struct evaluate_item item;
    int32_t seq;
    int32_t *tokens;     // [length_max]
    int32_t token_count; // known so far
    int32_t fed;         // already in the engine
    int32_t score_from;  // first token that logits are wanted for
    int32_t token_limit; // GENERATE: token_count may grow to this
};

// A log-probability to compute: logits of one row at one token.
struct evaluate_score {
    const float *logits;
    int32_t token, slot, position;
    double logprob;
};

struct evaluation {
    const sora_model *model;
    const sora_tokenizer *tokenizer;
    struct sora_lora_part part; // what is evaluated; lora NULL: the base
    const struct dataset *dataset;
    struct sora_eval_options options;
    int32_t example_count;
    sora_engine *engine;
    struct sora_engine_options engine_options;
    struct pool *pool;
    int32_t length_max;        // tokens of the longest item
    struct evaluate_item next; // not yet in a slot; example == example_count: none left
    struct evaluate_slot slots[EVALUATE_SLOTS_MAX];
    int32_t slots_open;
    struct sora_span spans[EVALUATE_SLOTS_MAX];
    int32_t span_slots[EVALUATE_SLOTS_MAX];
    int32_t span_count;
    struct evaluate_score *scores; // [logit_rows_max]
    int32_t score_count;
    // Sums.
    double loss_sum;
    int64_t token_count;
    double *choice_scores; // [dataset->choice_count]
    struct evaluate_answers answers;
};

// Whether every choice of an example is one token.
bool evaluate_choices_are_tokens(const struct dataset *dataset,
                                 const struct dataset_example *example);
// Whether the example is answered by generating.
bool evaluate_generates(const struct evaluation *evaluation, const struct dataset_example *example);
// Tokens that an answer may have.
int32_t evaluate_generate_max(const struct dataset_example *example);
// Opens slots for waiting items while there is room. SORA_FULL when not even one fits.
SORA_CHECKED sora_status evaluate_fill_slots(struct evaluation *evaluation, struct sora_error *err);
// Chooses what the next step feeds, within the engine's bounds.
void evaluate_plan_spans(struct evaluation *evaluation);
// After the step: scores, generated tokens, finished items.
SORA_CHECKED sora_status evaluate_take_logits(struct evaluation *evaluation,
                                              struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Generated answers of an evaluation. Examples with the same prompt are answered once, and their
// completions are that answer's references. Private to evaluate*.c; the evaluating thread only.
#ifndef TRAIN_EVALUATE_ANSWERS_H
#define TRAIN_EVALUATE_ANSWERS_H

#include "train/dataset.h"
#include "train/evaluate.h"

struct evaluate_answers {
    int32_t *order; // examples to answer, those of one prompt together, by line
    int32_t count;
    bool *leads;  // [example_count], the first of its prompt: the one that is answered
    char **texts; // [example_count], malloc'ed answers
    int32_t example_count;
};

// chosen [example_count]: examples that are answered at all.
SORA_CHECKED sora_status evaluate_answers_init(struct evaluate_answers *answers,
                                               const struct dataset *dataset, const bool *chosen,
                                               int32_t example_count, struct sora_error *err);
void evaluate_answers_deinit(struct evaluate_answers *answers);
// When all are answered: exact match over the examples, ROUGE-L over the prompts (each by its
// nearest reference), BLEU over all.
SORA_CHECKED sora_status evaluate_answers_judge(const struct evaluate_answers *answers,
                                                const struct dataset *dataset,
                                                const sora_tokenizer *tokenizer,
                                                struct sora_eval_result *result,
                                                struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Evaluation data, and a step's worth of training data (example_index.h): JSON lines, tokenized and
// checked. Immutable once opened; whoever opened it closes it. One line is one of
//   {"prompt","completion"[,"choices"]}  the completion and an end token are scored
//   {"messages":[{"role","content"}]}    every assistant turn and its end token are scored
//   {"text"}                             all but the first token, and an end token, are scored
//   {"tokens":[ids][,"loss_from":n]}     ids from n on (1 when absent) are scored; no tokenizer
// Other keys are ignored, empty lines skipped. Errors name file and line.
#ifndef TRAIN_DATASET_H
#define TRAIN_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/status.h"
#include "sora/text.h"

struct dataset_example {
    int64_t first; // into tokens and scored
    int32_t token_count, scored_count;
    int32_t prompt_count;     // prompt/completion lines: tokens before the completion
    int32_t completion_count; // and of the completion, without the end token; 0 for other lines
    int64_t choice_first;     // into choices
    int32_t choice_count;     // 0: none
    int32_t choice_right;     // the completion's place among the choices
    int32_t line;
    bool is_cut; // its end was cut off to fit
};

struct dataset_choice {
    int64_t first; // into choice_tokens
    int32_t token_count;
};

struct dataset {
    int32_t *tokens;
    uint8_t *scored; // 1 where a token is scored; never at the first of an example
    int32_t *choice_tokens;
    struct dataset_choice *choices;
    struct dataset_example *examples;
    int64_t token_count, choice_token_count, choice_count;
    int32_t example_count;
    int32_t longest; // tokens of the longest example
    char digest[65]; // SHA-256 of the file
    int64_t token_capacity, choice_token_capacity, choice_capacity, example_capacity;
};

struct dataset_rules {
    const sora_tokenizer *tokenizer; // NULL: only {"tokens"} lines
    const char *chat_template;       // NULL: the model's
    int32_t vocab_size;
    int32_t example_tokens_max;
    bool cut; // longer examples lose their end instead of being an error
};

// From a file, and from its text; `name` stands in the errors. An empty file is SORA_MALFORMED.
SORA_CHECKED sora_status dataset_open(const char *path, const struct dataset_rules *rules,
                                      struct dataset *dataset, struct sora_error *err);
SORA_CHECKED sora_status dataset_parse(const char *name, const char *text, size_t bytes,
                                       const struct dataset_rules *rules, struct dataset *dataset,
                                       struct sora_error *err);
void dataset_close(struct dataset *dataset); // accepts what a failed open left
void dataset_clear(struct dataset *dataset); // drops the examples, keeps the memory

#endif

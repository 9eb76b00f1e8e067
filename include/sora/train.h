// SPDX-License-Identifier: Apache-2.0
// Training and evaluation of adapters (DESIGN.md section 4; SoRA, arXiv 2311.11696). A call runs
// to its end in the calling thread and spreads its arithmetic over its own pool. The model and the
// tokenizer are borrowed. It writes files only where the options say.
#ifndef SORA_TRAIN_H
#define SORA_TRAIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/engine.h"
#include "sora/limits.h"
#include "sora/text.h"

enum sora_method { SORA_METHOD_SORA, SORA_METHOD_LORA };
enum sora_threshold {
    SORA_THRESHOLD_PAPER,    // g <- sign(g) max(|g| - xi, 0)
    SORA_THRESHOLD_REFERENCE // the authors' published optimizer: in place >, <, abs < in turn
};

struct sora_train_options {
    enum sora_method method;
    int32_t rank; // r_max
    double alpha;
    bool targets[SORA_PROJ_COUNT];
    double dropout; // on the adapter's input
    // Stages of xi in order; one entry: a fixed xi. Epochs are spent on each stage.
    double xi[SORA_XI_COUNT_MAX];
    int32_t xi_count;
    double lambda;
    enum sora_threshold threshold;
    double epochs;        // per stage
    int32_t batch_tokens; // tokens of a step; examples are packed until the next does not fit
    double lr, gate_lr, weight_decay, warmup, clip;
    uint64_t seed;
    int32_t threads;
    int32_t example_tokens_max; // longer examples are an error that says so; 0: the model's context
    enum sora_dtype dtype;      // of the adapter file
    const char *chat_template;  // for {"messages"}; NULL: the model's
    // Parameters to end with: a share of all below 1, or a count; 0: off. xi is then steered from
    // step to step, and xi[] is not used (xi_count must be 1).
    double target_params;
};
// The defaults of API.md section 1.
struct sora_train_options sora_train_options_defaults(void);

// Reads "1e-3", "linear:0:7e-4:7", "log-linear:a:b:n", "exp-linear:a:b:n" or "list:a,b,c".
SORA_CHECKED sora_status sora_train_parse_xi(const char *text, struct sora_train_options *options,
                                             struct sora_error *err);
// Reads "30%", or a count of parameters.
SORA_CHECKED sora_status sora_train_parse_target_params(const char *text,
                                                        struct sora_train_options *options,
                                                        struct sora_error *err);
// Reads "q,k,v,o,gate,up,down".
SORA_CHECKED sora_status sora_train_parse_targets(const char *text,
                                                  struct sora_train_options *options,
                                                  struct sora_error *err);

struct sora_eval_result {
    int64_t examples, tokens; // tokens: scored
    double loss, perplexity;
    double seconds;
    bool has_accuracy;    // the data has choices
    double accuracy, mcc; // mcc only with exactly two choices, NaN otherwise
    bool has_exact_match; // prompt/completion data without choices, unless switched off
    double exact_match;
};

struct sora_train_progress {
    int64_t step, steps; // over all stages
    int32_t stage, stage_count;
    double xi;
    double loss, gate_l1, grad_norm, lr_factor;
    int64_t tokens, scored_tokens;
    double tokens_per_second, seconds;
    int64_t gates_kept, gates;
};

struct sora_train_hooks {
    void *context;
    void (*on_step)(void *context, const struct sora_train_progress *progress);
    // After each stage that is evaluated.
    void (*on_eval)(void *context, const struct sora_train_progress *progress,
                    const struct sora_eval_result *result);
    const atomic_bool *cancel; // may be NULL; set: the run ends with SORA_CANCELLED
};

struct sora_train_result {
    int64_t steps, tokens, scored_tokens;
    double seconds, tokens_per_second, loss;
    int64_t parameters, parameters_full; // after and before pruning
    double kept;                         // parameters / parameters_full
    bool has_eval;
    struct sora_eval_result eval;
    uint8_t *bytes; // the adapter file, malloc'ed; the caller frees
    size_t byte_count;
};

// Trains on a data file (JSON lines, API.md section 1) and returns the adapter's file. The data is
// validated before anything is trained: a bad line is SORA_MALFORMED with its number.
SORA_CHECKED sora_status sora_train_run(const sora_model *model, const sora_tokenizer *tokenizer,
                                        const char *data_path, const char *eval_path,
                                        const struct sora_train_options *options,
                                        const struct sora_train_hooks *hooks,
                                        struct sora_train_result *result, struct sora_error *err);

struct sora_eval_options {
    int32_t limit;             // examples; 0: all
    enum sora_compute compute; // as serving would compute
    int32_t threads;
    bool generate;             // exact match by greedy generation where there are no choices
    const char *chat_template; // NULL: the model's
};
// Loss, accuracy, Matthews correlation and exact match of an adapter (NULL: the base) on a file,
// computed by the serving engine, so that it is what serving will give.
SORA_CHECKED sora_status sora_eval_run(const sora_model *model, const sora_tokenizer *tokenizer,
                                       const struct sora_lora *lora, const char *data_path,
                                       const struct sora_eval_options *options,
                                       struct sora_eval_result *result, struct sora_error *err);

#endif

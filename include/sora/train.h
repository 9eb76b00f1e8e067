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

// What a run is steered by and compared in. AUTO: accuracy where the data has choices, else loss.
enum sora_metric {
    SORA_METRIC_AUTO,
    SORA_METRIC_LOSS,
    SORA_METRIC_ACCURACY,
    SORA_METRIC_MCC,
    SORA_METRIC_EXACT_MATCH,
    SORA_METRIC_ROUGE_L,
    SORA_METRIC_BLEU
};

// The processes that share one run, each with the whole model: a step's examples are spread over
// them and their gradients added. The functions are called by all of them in the same order.
struct sora_train_group {
    int32_t rank, size; // rank 0 evaluates, writes and calls the hooks
    void *context;
    // Adds element by element over the processes; all hold the same bits afterwards.
    void (*sum)(void *context, float *values, size_t count);
    void (*sum_doubles)(void *context, double *values, size_t count);
    // What process 0 holds goes to all.
    void (*broadcast)(void *context, void *bytes, size_t byte_count);
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
    enum sora_compute compute;  // INT8: the forward multiplies as serving with it does; AUTO: F32
    bool recompute;             // less memory for activations, more time
    int32_t example_tokens_max; // longer examples are an error that says so; 0: the model's context
    enum sora_dtype dtype;      // of the adapter file
    const char *chat_template;  // for {"messages"}; NULL: the model's
    // Parameters to end with: a share of all below 1, or a count; 0: off. xi is then steered from
    // step to step, and xi[] is not used (xi_count must be 1).
    double target_params;
    bool keep_zero_ranks;     // do not cut them out of the training between stages
    bool cut;                 // longer examples lose their end instead of being an error
    int32_t eval_steps;       // evaluate every so many steps too; 0: at the end of a stage only
    int32_t patience;         // evaluations without a better one that end a stage; 0: none do
    enum sora_metric metric;  // for patience
    const char *checkpoint;   // folder; NULL: none are written
    bool resume;              // go on from the checkpoint there, if there is one
    int32_t checkpoint_steps; // steps between two checkpoints; 0: about a minute
    const struct sora_train_group *group; // borrowed; NULL: this process alone
};
// The share of parameters that a run should end with when nothing is said about xi.
#define SORA_TRAIN_TARGET_PARAMS_DEFAULT 0.5
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
    // Prompt/completion data without choices, unless generation is off: the greedy answer equals
    // the completion; ROUGE-L (F1 of words); BLEU of the whole set, 0 to 1.
    bool has_exact_match;
    double exact_match, rouge_l, bleu;
};

// "loss", "accuracy", ...; of AUTO what it stands for with this result.
enum sora_metric sora_metric_resolve(enum sora_metric metric,
                                     const struct sora_eval_result *result);
const char *sora_metric_name(enum sora_metric metric);
// The result's value of a metric, NaN when the data did not give it; and whether more is better.
double sora_metric_value(enum sora_metric metric, const struct sora_eval_result *result);
bool sora_metric_rises(enum sora_metric metric);

struct sora_train_progress {
    int64_t step, steps; // over all stages
    int32_t stage, stage_count;
    double xi;
    double loss, gate_l1, grad_norm, lr_factor;
    int64_t tokens, scored_tokens;
    double tokens_per_second, seconds;
    int64_t gates_kept, gates;
};

// What is about to be trained on, before the first step.
struct sora_train_start {
    int64_t examples, tokens, scored_tokens, longest, cut_examples;
    int64_t eval_examples;
    int64_t steps;
    bool resumed;
    int64_t resumed_step;      // steps that the checkpoint holds
    bool resumed_eval_pending; // the evaluation after that step was not finished
};

// The end of a stage: its adapter is a point of quality against size.
struct sora_train_rung {
    int32_t stage; // from 0
    double xi;
    int64_t step;                         // of the plan, whose evaluation or end it is
    int64_t steps, tokens, scored_tokens; // taken so far
    int64_t gates_kept, gates;
    double seconds, loss;
    int64_t parameters, parameters_full;
    double kept;
    bool has_eval;
    struct sora_eval_result eval;
};

struct sora_train_hooks {
    void *context;
    void (*on_step)(void *context, const struct sora_train_progress *progress);
    // After each evaluation.
    void (*on_eval)(void *context, const struct sora_train_progress *progress,
                    const struct sora_eval_result *result);
    // May be NULL. Set: the run saves a checkpoint, if it has a folder, and ends with
    // SORA_CANCELLED.
    const atomic_bool *cancel;
    // The rest may be NULL.
    void (*on_start)(void *context, const struct sora_train_start *start);
    // At the end of each stage, with the adapter's file as it is now. Its failure ends the run.
    sora_status (*on_rung)(void *context, const struct sora_train_rung *rung, const uint8_t *bytes,
                           size_t byte_count, struct sora_error *err);
};

struct sora_train_result {
    int64_t steps, tokens, scored_tokens;
    double seconds, tokens_per_second, loss;
    int64_t parameters, parameters_full; // after and before pruning
    double kept;                         // parameters / parameters_full
    bool has_eval;
    struct sora_eval_result eval;
    struct sora_train_rung rungs[SORA_XI_COUNT_MAX]; // one for each stage
    int32_t rung_count;
    uint8_t *bytes; // the adapter file of the last stage, malloc'ed; the caller frees
    size_t byte_count;
};

// Trains on a data file (JSON lines, API.md section 1) and returns the adapter's file. The data is
// validated before anything is trained: a bad line is SORA_MALFORMED with its number. A checkpoint
// of another model, data or options is SORA_MISMATCH that names what differs; one that would be
// overwritten because `resume` is not set is SORA_PRECONDITION.
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

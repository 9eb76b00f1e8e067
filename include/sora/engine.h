// SPDX-License-Identifier: Apache-2.0
// The base model and the engine that runs it.
//
// A sora_model is the weights: opened once, immutable, shared by any number of engines and
// trainers, closed after all of them. A sora_engine owns a KV cache and the scratch of one step.
// One thread at a time may call an engine (the engine thread); it spreads the work of a step over
// its own pool and allocates nothing inside a step. It knows tokens and adapters, never text,
// JSON, sockets or files.
#ifndef SORA_ENGINE_H
#define SORA_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/lora.h"
#include "sora/status.h"

typedef struct sora_model sora_model;
typedef struct sora_engine sora_engine;

struct sora_model_info {
    char name[128]; // the file's or folder's stem
    struct sora_base base;
    int32_t context_length; // positions the model was trained for
    bool tied_output;       // the output matrix is the token embedding
    int64_t parameters;
    size_t weight_bytes; // resident, packed
    // What a step multiplies by: the projections alone, and with the output matrix, whose bytes
    // a step reads once.
    int64_t projection_parameters, step_parameters;
    size_t step_bytes;
    double load_seconds;
};

// Opens a .gguf file, or a folder with config.json and *.safetensors, and packs its weights in the
// layout of the kernels. Errors name the tensor or field, what was expected and what was found.
SORA_CHECKED sora_status sora_model_open(const char *path, sora_model **model,
                                         struct sora_error *err);
void sora_model_close(sora_model *model);
const struct sora_model_info *sora_model_get_info(const sora_model *model);

// The dimensions and the fingerprint of a model file or folder, without loading its weights;
// weight_type is empty.
SORA_CHECKED sora_status sora_model_read_base(const char *path, struct sora_base *base,
                                              struct sora_error *err);

// What is in a model file or folder, without loading its weights, as the JSON object that
// `inspect --json` prints: architecture, layers, hidden, ..., tensors:[{name,type,shape}].
// *json is malloc'ed and zero-terminated.
SORA_CHECKED sora_status sora_model_describe(const char *path, char **json, struct sora_error *err);

// The arithmetic of the base's matrices. F32: activations stay f32, the reference's fidelity. INT8:
// activations are quantized per row and block of 32 (8 bits for weights of 4 bits, 16 for weights
// of 8), which is two to three times as fast; weights of other types are computed in f32. AUTO:
// INT8 where every projection has such weights, else F32.
enum sora_compute { SORA_COMPUTE_AUTO, SORA_COMPUTE_F32, SORA_COMPUTE_INT8 };
const char *sora_compute_name(enum sora_compute compute); // "auto", "f32", "int8"

// How keys and values are kept. F16 is half the memory and half the reading; I16, integers with a
// scale for each token and head, takes as much and half the arithmetic. AUTO: I16 with compute
// INT8, F32 with F32.
enum sora_kv { SORA_KV_AUTO, SORA_KV_F32, SORA_KV_F16, SORA_KV_I16 };

struct sora_engine_options {
    enum sora_compute compute;
    enum sora_kv kv;
    int32_t threads;        // 0: as many as the machine has
    int32_t seqs_max;       // sequences open at once
    int32_t rows_max;       // rows (tokens) in one step
    int32_t logit_rows_max; // rows of a step that ask for logits
    int32_t context_max;    // tokens in one sequence
    bool prefix_cache;      // whether seq_open_prefix shares blocks
    size_t kv_bytes;        // 0: enough for seqs_max sequences of context_max tokens, 2 GiB at most
};

// Defaults from limits.h; context_max is the model's, compute and kv are AUTO, prefix_cache is on.
struct sora_engine_options sora_engine_options_defaults(const sora_model *model);

SORA_CHECKED sora_status sora_engine_create(const sora_model *model,
                                            const struct sora_engine_options *options,
                                            sora_engine **engine, struct sora_error *err);
void sora_engine_destroy(sora_engine *engine);

// What the engine computes in: F32 or INT8.
enum sora_compute sora_engine_compute(const sora_engine *engine);
// What AUTO is for this model; others stay.
enum sora_compute sora_compute_for(const sora_model *model, enum sora_compute asked);

struct sora_kv_stats {
    int32_t blocks_total;
    int32_t blocks_used;
    int32_t block_tokens;
};
struct sora_kv_stats sora_engine_kv_stats(const sora_engine *engine);

// A sequence: a growing list of tokens with their keys and values. Returns a handle, or -1 when
// seqs_max are open. Closing gives its blocks back.
int32_t sora_engine_seq_open(sora_engine *engine);
void sora_engine_seq_close(sora_engine *engine, int32_t seq);
// What a sequence is computed with, as far as its keys and values depend on it, and who may share
// them. Filled with zeros before its fields are set.
struct sora_prefix_part {
    char digest[65]; // of the adapter, in hex
    float scale;
    int32_t rank_max;
};
struct sora_prefix_view {
    struct sora_prefix_part parts[SORA_REQUEST_ADAPTERS_MAX]; // as the spans' parts
    int32_t part_count;                                       // 0: the base
    int32_t tenant; // nothing is shared between two: a hit would tell what another has sent
};
// The same as seq_open for a sequence whose spans will all have this view, and that begins with
// these tokens: blocks that are known already are shared. *cached of the tokens, always less than
// token_count, are in the sequence at once; its own full blocks are found by later ones, also
// after it was closed, until their memory is needed.
int32_t sora_engine_seq_open_prefix(sora_engine *engine, const struct sora_prefix_view *view,
                                    const int32_t *tokens, int32_t token_count, int32_t *cached);
// Tokens in the sequence so far.
int32_t sora_engine_seq_length(const sora_engine *engine, int32_t seq);
// Takes KV blocks so that the sequence can hold token_count tokens in all. False, and nothing
// taken, when there are not enough free blocks or token_count exceeds context_max.
bool sora_engine_seq_reserve(sora_engine *engine, int32_t seq, int32_t token_count);

enum sora_logits { SORA_LOGITS_NONE, SORA_LOGITS_LAST, SORA_LOGITS_ALL };

// Consecutive new tokens of one sequence: a prompt chunk, or the one token of a decode.
struct sora_span {
    int32_t seq;
    const int32_t *tokens;              // [token_count], each 0 <= token < vocab_size
    int32_t token_count;                // >= 1
    const struct sora_lora_part *parts; // [part_count], added in this order
    int32_t part_count;                 // 0: the base; SORA_REQUEST_ADAPTERS_MAX at most
    enum sora_logits want;
    // Out: [1, vocab] for LAST, [token_count, vocab] for ALL, NULL for NONE. In the engine's
    // memory, valid until the next step.
    const float *logits;
};

// Where the time of a step went, and the ranks it computed.
struct sora_step_stats {
    int32_t rows;
    int64_t rank_sum; // over rows and modules
    int64_t base_matmul_us;
    int64_t adapter_us;
    int64_t attention_us;
    int64_t total_us;
};

// One forward pass over all spans together. Every seq appears in at most one span and has blocks
// reserved for its new tokens; the sums of token_count and of asked logits rows keep to the
// options. The logits of a row are bit-identical whatever else is in the step.
// stats may be NULL. Cannot fail: bad spans are the caller's bug and abort.
void sora_engine_step(sora_engine *engine, struct sora_span *spans, int32_t span_count,
                      struct sora_step_stats *stats);
// How many threads compute its steps; they are 0 .. threads - 1 in sora_engine_share.
int32_t sora_engine_threads(const sora_engine *engine);
// Lends the engine's threads between two steps: calls task(context, index, thread) once for every
// index in [0, count), in any order, and returns when all are done.
void sora_engine_share(sora_engine *engine, int32_t count,
                       void (*task)(void *context, int32_t index, int32_t thread), void *context);

#endif

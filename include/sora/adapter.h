// SPDX-License-Identifier: Apache-2.0
// The adapter file (DESIGN.md section 3): parse, validate, write, import from and export to PEFT.
// A sora_adapter is one parsed file, packed for the kernels; immutable, so any thread may read it.
// Whoever created it destroys it; the registry does so after the last unpin. The trainer writes
// with sora_adapter_encode what the server reads with sora_adapter_parse: one format, one code.
#ifndef SORA_ADAPTER_H
#define SORA_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/lora.h"
#include "sora/status.h"

typedef struct sora_adapter sora_adapter;

struct sora_adapter_module {
    int32_t layer;
    enum sora_proj proj;
    int32_t rank;
    double alpha; // scale = alpha / rank (alpha / sqrt(rank) with use_rslora)
    float scale;
};

struct sora_adapter_info {
    char digest[65];     // SHA-256 of the file's bytes, lower-case hex: the adapter's identity
    size_t bytes;        // of the file
    size_t packed_bytes; // memory of the sora_lora
    size_t int8_bytes;   // what it is, or would be, in int8
    int64_t parameters;  // sum over modules of rank x (d_in + d_out)
    double rank_mean;    // over all layers x 7 modules, absent ones as 0
    int32_t rank_max;
    int32_t r_max;                             // rank that training began with ("r" of the config)
    int32_t module_count;                      // modules with rank > 0
    const struct sora_adapter_module *modules; // by layer, then enum sora_proj
    int32_t layer_count;
    const char *config_json;   // adapter_config.json text, never NULL
    const char *base_json;     // the "base" record, or NULL
    const char *training_json; // the "training" record, or NULL
};

// "q_proj", ..., "down_proj", and "self_attn.q_proj", ..., "mlp.down_proj".
const char *sora_proj_name(enum sora_proj proj);
const char *sora_proj_path(enum sora_proj proj);
// From "q_proj" or "q"; SORA_PROJ_COUNT when unknown.
enum sora_proj sora_proj_from_name(const char *name);

// Parses and validates the bytes of a file. With `base`, also that every tensor matches a module
// of that base, by shape and by the file's own base record. Refused whole (SORA_MALFORMED,
// _MISMATCH, _UNSUPPORTED, _LIMIT) with the tensor, what was expected and what was found. The
// bytes are not needed after return.
SORA_CHECKED sora_status sora_adapter_parse(const void *bytes, size_t byte_count,
                                            const struct sora_base *base, sora_adapter **adapter,
                                            struct sora_error *err);
// The same from a path: our file, or whatever sora_adapter_import reads.
SORA_CHECKED sora_status sora_adapter_open(const char *path, const struct sora_base *base,
                                           sora_adapter **adapter, struct sora_error *err);
// Both, and with int8 A and B are packed in 8 bits with one scale for each rank: half of what a
// step reads of bf16, for a rounding of 1/254 of a row's largest value. For engines that compute in
// int8, where the base's own rounding is larger.
SORA_CHECKED sora_status sora_adapter_parse_as(const void *bytes, size_t byte_count,
                                               const struct sora_base *base, bool int8,
                                               sora_adapter **adapter, struct sora_error *err);
SORA_CHECKED sora_status sora_adapter_open_as(const char *path, const struct sora_base *base,
                                              bool int8, sora_adapter **adapter,
                                              struct sora_error *err);
void sora_adapter_destroy(sora_adapter *adapter);
const struct sora_adapter_info *sora_adapter_get_info(const sora_adapter *adapter);
const struct sora_lora *sora_adapter_get_lora(const sora_adapter *adapter);

// One module to be written; rank 0 is left out of the file.
struct sora_adapter_tensor_pair {
    int32_t layer;
    enum sora_proj proj;
    int32_t rank;
    double scale;   // alpha is written as scale x rank
    const float *a; // [rank, d_in]
    const float *b; // [d_out, rank]
};

struct sora_adapter_source {
    const struct sora_base *base;
    const char *base_name; // base_model_name_or_path of the PEFT config
    int32_t r_max;
    double alpha;          // lora_alpha of the PEFT config
    enum sora_dtype dtype; // of the tensors in the file
    const struct sora_adapter_tensor_pair *pairs;
    int32_t pair_count;
    const char *training_json; // a JSON object, or NULL
};

// Bytes of the file, malloc'ed; the same source gives the same bytes.
SORA_CHECKED sora_status sora_adapter_encode(const struct sora_adapter_source *source,
                                             uint8_t **bytes, size_t *byte_count,
                                             struct sora_error *err);

// A PEFT pair as our file's bytes: config text and adapter_model.safetensors. Scales are exact:
// rank_pattern, alpha_pattern and use_rslora are honoured. What PEFT has and this does not
// (DoRA, modules_to_save, biases, adapted embeddings) is refused by name. `base` as in parse.
SORA_CHECKED sora_status sora_adapter_from_peft(const char *config_json, const void *weights,
                                                size_t weights_bytes, const struct sora_base *base,
                                                uint8_t **bytes, size_t *byte_count,
                                                struct sora_error *err);
// A llama.cpp LoRA adapter (GGUF) as our file's bytes; `base` as in parse. Where the architecture
// is llama the rows of q and k are brought into HF's order, for which the size of a head must be
// known: SORA_MISMATCH when neither `base` nor the file tells it.
bool sora_adapter_is_gguf(const void *bytes, size_t byte_count); // begins as one
SORA_CHECKED sora_status sora_adapter_from_gguf(const void *bytes, size_t byte_count,
                                                const struct sora_base *base, uint8_t **out,
                                                size_t *out_bytes, struct sora_error *err);
// The same for looking at, without a base: ranks and scales are right, but the rows of q and k may
// stand in another order, so it is not for computing. Its digest is not the file's.
SORA_CHECKED sora_status sora_adapter_look_at_gguf(const void *bytes, size_t byte_count,
                                                   sora_adapter **adapter, struct sora_error *err);
// Our file as a llama.cpp adapter, all F32. Scales that no common alpha gives are folded into B,
// rounded once. Architecture and head size are the base's, or the file's record of it;
// SORA_MISMATCH when there is neither.
SORA_CHECKED sora_status sora_adapter_to_gguf(const void *bytes, size_t byte_count,
                                              const struct sora_base *base, uint8_t **out,
                                              size_t *out_bytes, struct sora_error *err);

// The same as from_peft from a folder, from a llama.cpp adapter, or from a lone .safetensors that
// carries its config; a file that already is ours comes back unchanged.
SORA_CHECKED sora_status sora_adapter_import(const char *path, const struct sora_base *base,
                                             uint8_t **bytes, size_t *byte_count,
                                             struct sora_error *err);
// Writes a PEFT folder from our file's bytes.
SORA_CHECKED sora_status sora_adapter_export_peft(const void *bytes, size_t byte_count,
                                                  const char *folder, struct sora_error *err);

#endif

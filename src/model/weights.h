// SPDX-License-Identifier: Apache-2.0
// The weights of a model, bound by role from GGUF or a Hugging Face folder into packed matrices.
// Rows are in HF's order (GGUF's permuted q and k rows are put back here and nowhere else). All is
// immutable after loading. This is what forward, the trainer's passes and inspect read.
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include <stdbool.h>

#include "base/pages.h"
#include "kernel/rope.h"
#include "kernel/weight.h"
#include "sora/engine.h"

struct weights_layer {
    float *attention_norm;  // [hidden]
    float *mlp_norm;        // [hidden]
    float *q_norm, *k_norm; // [head_dim] per head, before RoPE (qwen3), or NULL
    struct weight projections[SORA_PROJ_COUNT];
    float *q_bias, *k_bias, *v_bias; // [d_out] (qwen2), or NULL
};

struct weights {
    int32_t layer_count;
    struct weights_layer *layers;
    struct weight embedding; // [vocab, hidden]
    struct weight output;    // [vocab, hidden]; the embedding itself when tied
    float *output_norm;      // [hidden]
    struct pages_pool pages; // of all matrices
};

struct model_config {
    float norm_eps;
    double rope_theta;
    struct rope_scaling rope_scaling;
    int32_t sliding_window; // 0: none
    int32_t context_length;
    bool tied_output;
};

struct sora_model {
    struct sora_model_info info;
    struct model_config config;
    struct weights weights;
    float *inv_freq; // [head_dim / 2]
};

struct checkpoint;

// Packs every weight of a checkpoint into `model` (zeroed before), whose info.base and config
// are set here too, along with the fingerprint. Errors name the tensor, the expected and the found
// shape. On failure the model is empty again.
SORA_CHECKED sora_status weights_load(struct checkpoint *checkpoint, int32_t threads,
                                      struct sora_model *model, struct sora_error *err);
// The dimensions and the fingerprint alone, from norms and biases; no matrix is read.
SORA_CHECKED sora_status weights_read_base(struct checkpoint *checkpoint, struct sora_base *base,
                                           struct sora_error *err);
void weights_free(struct sora_model *model);

#endif

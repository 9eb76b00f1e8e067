// SPDX-License-Identifier: Apache-2.0
// A model on disk, whatever its container: dimensions, settings, and tensors found by their role.
// gguf_checkpoint.c and hf_checkpoint.c fill it; weights.c packs from it; nobody else reads it.
// One thread at a time. Tensors are views into mapped files that the checkpoint owns.
#ifndef MODEL_CHECKPOINT_H
#define MODEL_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/weight.h"
#include "model/weights.h"
#include "sora/limits.h"

enum checkpoint_role {
    CHECKPOINT_EMBEDDING,
    CHECKPOINT_OUTPUT,
    CHECKPOINT_OUTPUT_NORM,
    CHECKPOINT_ROPE_FACTORS,   // divisors of the RoPE frequencies [head_dim / 2] (GGUF, Llama 3)
    CHECKPOINT_ATTENTION_NORM, // from here on: one for each layer
    CHECKPOINT_MLP_NORM,
    CHECKPOINT_Q_NORM,
    CHECKPOINT_K_NORM,
    CHECKPOINT_Q_BIAS,
    CHECKPOINT_K_BIAS,
    CHECKPOINT_V_BIAS,
    CHECKPOINT_PROJ, // CHECKPOINT_PROJ + enum sora_proj
    CHECKPOINT_ROLE_COUNT = CHECKPOINT_PROJ + SORA_PROJ_COUNT
};

struct checkpoint_tensor {
    char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    enum weight_type type;
    int32_t rows, cols; // a vector: 1 row
    const uint8_t *data;
    size_t bytes;
    // Not 0: rows are permuted for GGML's interleaved rotary layout within heads of this size.
    int32_t permuted_head_dim;
};

struct checkpoint {
    struct sora_base base; // all but fingerprint and weight_type
    struct model_config config;
    void *state; // of the container
    // False: the checkpoint has no such tensor. A tensor of an unusable type or rank is an error.
    sora_status (*find)(struct checkpoint *checkpoint, enum checkpoint_role role, int32_t layer,
                        struct checkpoint_tensor *tensor, bool *found, struct sora_error *err);
    // The bytes of this tensor are not needed any more.
    void (*forget)(struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor);
    // SORA_UNSUPPORTED with the name of a tensor that nobody asked for: a model that has more
    // parts than this program computes must not be served without them.
    sora_status (*check_all_used)(struct checkpoint *checkpoint, struct sora_error *err);
    void (*close)(struct checkpoint *checkpoint);
};

SORA_CHECKED sora_status gguf_checkpoint_open(const char *path, struct checkpoint *checkpoint,
                                              struct sora_error *err);
SORA_CHECKED sora_status hf_checkpoint_open(const char *folder, struct checkpoint *checkpoint,
                                            struct sora_error *err);

// SORA_MISMATCH naming the shapes; SORA_MALFORMED when the bytes are not those of the shape.
SORA_CHECKED sora_status checkpoint_check_shape(const struct checkpoint_tensor *tensor,
                                                int32_t rows, int32_t cols, struct sora_error *err);

// The source row that holds row `row` in HF's order.
int32_t checkpoint_source_row(const struct checkpoint_tensor *tensor, int32_t row);

// The name of a role in Hugging Face's files; false: they have no such tensor.
bool hf_checkpoint_name(enum checkpoint_role role, int32_t layer,
                        char name[SORA_TENSOR_NAME_BYTES_MAX + 1]);

// The pattern with its "%d", if it has one, replaced by the layer.
void checkpoint_tensor_name(const char *pattern, int32_t layer,
                            char name[SORA_TENSOR_NAME_BYTES_MAX + 1]);

// Checks the dimensions against limits.h and each other and fills d_in, d_out.
SORA_CHECKED sora_status checkpoint_check_base(struct sora_base *base, struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// Names of the tensors in an adapter file. Pure functions, any thread.
#ifndef ADAPTERS_ADAPTER_NAMES_H
#define ADAPTERS_ADAPTER_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/lora.h"
#include "sora/status.h"

enum adapter_part {
    ADAPTER_PART_A,
    ADAPTER_PART_B,
    ADAPTER_PART_E // AdaLoRA's singular values
};

struct adapter_tensor_name {
    int32_t layer;
    enum sora_proj proj;
    enum adapter_part part;
    bool is_bare; // without ".weight" behind it, as AdaLoRA's are
    // The module as PEFT knows it, the key its patterns are matched with:
    // "model.layers.3.self_attn.q_proj" (without "model." when the file's names lack it).
    char module[SORA_TENSOR_NAME_BYTES_MAX + 1];
};

// Takes "base_model.model.model.layers.L.P.lora_A.weight", the same without the inner "model.",
// PEFT's form in memory, "...lora_A.default.weight", and AdaLoRA's "...lora_A". Everything else is
// refused: SORA_UNSUPPORTED for what PEFT can adapt and this cannot, SORA_MISMATCH for the rest.
SORA_CHECKED sora_status adapter_tensor_name_parse(const char *name,
                                                   struct adapter_tensor_name *out,
                                                   struct sora_error *err);

// The same for llama.cpp's names: "blk.L.attn_q.weight.lora_a".
SORA_CHECKED sora_status adapter_tensor_name_parse_gguf(const char *name,
                                                        struct adapter_tensor_name *out,
                                                        struct sora_error *err);
// "blk.3.attn_q.weight.lora_a" into out[SORA_TENSOR_NAME_BYTES_MAX + 1].
void adapter_tensor_name_print_gguf(int32_t layer, enum sora_proj proj, bool is_b, char *out);

// "model.layers.3.self_attn.q_proj" into out[SORA_TENSOR_NAME_BYTES_MAX + 1].
void adapter_module_name(int32_t layer, enum sora_proj proj, char *out);
// "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight" into the same size.
void adapter_tensor_name_print(int32_t layer, enum sora_proj proj, bool is_b, char *out);

#endif

// SPDX-License-Identifier: Apache-2.0
// Names of the tensors in an adapter file. Pure functions, any thread.
#ifndef ADAPTERS_ADAPTER_NAMES_H
#define ADAPTERS_ADAPTER_NAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/lora.h"
#include "sora/status.h"

struct adapter_tensor_name {
    int32_t layer;
    enum sora_proj proj;
    bool is_b;
    // The module as PEFT knows it, the key its patterns are matched with:
    // "model.layers.3.self_attn.q_proj" (without "model." when the file's names lack it).
    char module[SORA_TENSOR_NAME_BYTES_MAX + 1];
};

// Takes "base_model.model.model.layers.L.P.lora_A.weight", the same without the inner "model.",
// and PEFT's form in memory, "...lora_A.default.weight". Everything else is refused:
// SORA_UNSUPPORTED for what PEFT can adapt and this cannot, SORA_MISMATCH for the rest.
SORA_CHECKED sora_status adapter_tensor_name_parse(const char *name,
                                                   struct adapter_tensor_name *out,
                                                   struct sora_error *err);

// "model.layers.3.self_attn.q_proj" into out[SORA_TENSOR_NAME_BYTES_MAX + 1].
void adapter_module_name(int32_t layer, enum sora_proj proj, char *out);
// "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight" into the same size.
void adapter_tensor_name_print(int32_t layer, enum sora_proj proj, bool is_b, char *out);

#endif

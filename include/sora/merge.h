// SPDX-License-Identifier: Apache-2.0
// A base with an adapter multiplied into it, as a Hugging Face folder that needs no adapter any
// more. One call, one thread; memory stays near one row of the largest matrix and the adapter.
#ifndef SORA_MERGE_H
#define SORA_MERGE_H

#include "sora/lora.h"
#include "sora/status.h"

enum sora_merge_dtype {
    SORA_MERGE_AUTO, // as the base's projections are stored; F16 where those are quantized
    SORA_MERGE_F32,
    SORA_MERGE_F16,
    SORA_MERGE_BF16
};

// Writes `folder` (made when it is not there): config.json, model.safetensors with W + scale B A,
// and the tokenizer's files where the base is a folder that has them. `lora` fits the base
// (sora_adapter_parse has checked that). Refused: a folder that holds a model already, a base that
// Hugging Face's classes cannot express, a sum that is not finite in the type (SORA_MISMATCH).
SORA_CHECKED sora_status sora_model_merge(const char *model_path, const struct sora_lora *lora,
                                          enum sora_merge_dtype dtype, const char *folder,
                                          struct sora_error *err);

#endif

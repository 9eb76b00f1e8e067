// SPDX-License-Identifier: Apache-2.0
// What stands beside the tensors of a merged model, which merge.c writes: config.json and the
// tokenizer's files. One call, one thread.
#ifndef MODEL_MERGE_CONFIG_H
#define MODEL_MERGE_CONFIG_H

#include "base/buf.h"
#include "model/checkpoint.h"
#include "sora/lora.h"

// config.json for the merged model, whose tensors are of `dtype`: the folder's own with the type
// replaced, or one made from what a GGUF file says.
SORA_CHECKED sora_status merge_config_print(const char *model_path, struct checkpoint *checkpoint,
                                            enum sora_dtype dtype, struct buf *out,
                                            struct sora_error *err);
// Copies the tokenizer's files of a folder that has them.
SORA_CHECKED sora_status merge_config_copy_tokenizer(const char *model_path, const char *folder,
                                                     struct sora_error *err);

#endif

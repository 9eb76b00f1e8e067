// SPDX-License-Identifier: Apache-2.0
// The safetensors container: u64 header length, JSON header, tensor bytes. The reader checks every
// length, name, type, shape and offset before it returns a view; it copies nothing but the header.
// The bytes must outlive the reader. See https://huggingface.co/docs/safetensors for the format.
#ifndef BASE_SAFETENSORS_H
#define BASE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

struct safetensors_tensor {
    const char *name;
    char dtype[8]; // "F32", "BF16", ... as in the file
    int32_t rank;
    int64_t shape[SORA_TENSOR_RANK_MAX];
    const uint8_t *data;
    size_t bytes;
};

struct safetensors;

// Errors: SORA_MALFORMED (truncated, overlapping, holes, out of order offsets are allowed only as
// the format allows, wrong byte count for shape and type, unknown type, non-string metadata) with
// the tensor's name; SORA_LIMIT.
SORA_CHECKED sora_status safetensors_parse(const void *bytes, size_t byte_count,
                                           struct safetensors **file, struct sora_error *err);
void safetensors_destroy(struct safetensors *file);
int32_t safetensors_count(const struct safetensors *file);
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, int32_t index);
const struct safetensors_tensor *safetensors_find(const struct safetensors *file,
                                                  const char *name);               // NULL: none
const char *safetensors_metadata(const struct safetensors *file, const char *key); // NULL: none

// Copies a tensor of type F32, F16 or BF16 as f32 into out (item count as in the shape).
// SORA_UNSUPPORTED for other types.
SORA_CHECKED sora_status safetensors_to_f32(const struct safetensors_tensor *tensor, float *out,
                                            struct sora_error *err);

struct safetensors_meta {
    const char *key, *value;
};
// Writes a file: metadata and tensors in the given order (tensor data is concatenated in that
// order, header padded with spaces to 8 bytes). Deterministic. *bytes is malloc'ed.
SORA_CHECKED sora_status safetensors_encode(const struct safetensors_meta *meta, int32_t meta_count,
                                            const struct safetensors_tensor *tensors,
                                            int32_t tensor_count, uint8_t **bytes,
                                            size_t *byte_count, struct sora_error *err);
// What stands before the tensors' bytes, for writing those one after the other, in this order:
// length and header. The tensors' `data` are not looked at.
struct buf;
SORA_CHECKED sora_status safetensors_encode_header(const struct safetensors_meta *meta,
                                                   int32_t meta_count,
                                                   const struct safetensors_tensor *tensors,
                                                   int32_t tensor_count, struct buf *out,
                                                   struct sora_error *err);

#endif

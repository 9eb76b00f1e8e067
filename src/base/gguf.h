// SPDX-License-Identifier: Apache-2.0
// The GGUF container (versions 2 and 3): metadata and tensor directory over a mapped file. Every
// count, length, type and offset is checked before use; strings are views into the mapping.
#ifndef BASE_GGUF_H
#define BASE_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

struct gguf;

// A view, not zero-terminated.
struct gguf_string {
    const char *data;
    size_t bytes;
};

struct gguf_tensor {
    struct gguf_string name;
    int32_t type; // GGML's type id, also for types that this program cannot compute with
    int32_t rank;
    int64_t shape[SORA_TENSOR_RANK_MAX]; // GGUF order: shape[0] is the innermost
    const uint8_t *data;                 // NULL when the type's size is unknown to this program
    size_t bytes;
};

// Parses bytes that outlive the result.
SORA_CHECKED sora_status gguf_parse(const void *bytes, size_t byte_count, struct gguf **gguf,
                                    struct sora_error *err);
// Maps and parses a file; the mapping is closed with it.
SORA_CHECKED sora_status gguf_open(const char *path, struct gguf **gguf, struct sora_error *err);
void gguf_close(struct gguf *gguf);

int32_t gguf_tensor_count(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, int32_t index);
const struct gguf_tensor *gguf_find_tensor(const struct gguf *gguf, const char *name);
// Tells the system that a tensor's bytes are not needed any more (a mapped file only).
void gguf_forget_tensor(const struct gguf *gguf, const struct gguf_tensor *tensor);

// Metadata by key. False when absent or of another kind; integers of every width convert when
// they fit, floats of both widths convert.
bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *value);
bool gguf_get_number(const struct gguf *gguf, const char *key, double *value);
bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *value);
bool gguf_get_string(const struct gguf *gguf, const char *key, struct gguf_string *value);
// Number of elements of an array of strings (or of int32/uint32 for _ints); -1 when absent.
int64_t gguf_get_strings(const struct gguf *gguf, const char *key);
// Fills views [gguf_get_strings].
void gguf_copy_strings(const struct gguf *gguf, const char *key, struct gguf_string *values);
int64_t gguf_get_ints(const struct gguf *gguf, const char *key);
void gguf_copy_ints(const struct gguf *gguf, const char *key, int32_t *values);

// GGUF files of the llama architecture hold the q and k rows of each head interleaved, for GGML's
// rotary layout: HF's (half, i) is GGML's 2 i + half. The row there that is row `row` in HF's
// order.
int32_t gguf_rotary_row(int32_t row, int32_t head_dim);

// Metadata to be written: text when that is not NULL, else a whole number or a float.
struct gguf_entry {
    const char *key, *text;
    bool is_float;
    double number; // of an entry that is no float: within uint32
};
struct gguf_source {
    const char *name;
    int32_t type; // one that this program knows the size of
    int32_t rank;
    int64_t shape[SORA_TENSOR_RANK_MAX]; // GGUF order
    const void *data;
    size_t bytes;
};
// A file of version 3, entries and tensors in the given order. Deterministic; *bytes is malloc'ed.
SORA_CHECKED sora_status gguf_encode(const struct gguf_entry *entries, int32_t entry_count,
                                     const struct gguf_source *sources, int32_t source_count,
                                     size_t bytes_max, uint8_t **bytes, size_t *byte_count,
                                     struct sora_error *err);

#endif

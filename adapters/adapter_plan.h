// SPDX-License-Identifier: Apache-2.0
// A file, read and checked whole, before anything is copied: views of its tensors in pairs, with
// rank and scale. Packing, importing and exporting all start here. Owner: one call, one thread;
// the file's bytes and the config text must outlive it.
#ifndef ADAPTERS_ADAPTER_PLAN_H
#define ADAPTERS_ADAPTER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "adapters/adapter_config.h"
#include "adapters/adapter_names.h"
#include "base/arena.h"
#include "base/gguf.h"
#include "base/safetensors.h"
#include "sora/limits.h"
#include "sora/lora.h"
#include "sora/status.h"

#define ADAPTER_MODULE_COUNT_MAX (SORA_LAYER_COUNT_MAX * SORA_PROJ_COUNT)
#define ADAPTER_FORMAT_NAME "sora-adapter"
#define ADAPTER_FORMAT_VERSION "1"
// The "training" record: settings, metrics and a schedule of 64 stages are under 20 KB.
#define ADAPTER_RECORD_BYTES_MAX (1u << 20)

// One module of the file; a == NULL: rank 0.
struct adapter_pair {
    const struct safetensors_tensor *a, *b; // [rank, d_in], [d_out, rank]
    const struct safetensors_tensor *e;     // AdaLoRA's [rank, 1], until it is folded into b
    int32_t rank, d_in, d_out;
    enum sora_dtype dtype;
    double alpha;
    float scale;
};

typedef sora_status adapter_name_parser(const char *name, struct adapter_tensor_name *out,
                                        struct sora_error *err);

struct adapter_plan {
    struct safetensors *file; // or
    struct gguf *gguf;
    const struct safetensors_tensor *tensors; // of either, shapes in HF's order
    int32_t tensor_count;
    adapter_name_parser *parse_name;
    struct arena arena; // tensors that were computed from the file's
    struct adapter_config config;
    struct adapter_pair *pairs; // [ADAPTER_MODULE_COUNT_MAX], layer x SORA_PROJ_COUNT + proj
    int32_t layer_count;        // of the base, of the base record, or the last in the file
    int32_t pair_count;         // present ones
    bool is_ours;               // format "sora-adapter"
    const char *config_json, *base_json, *training_json; // base and training may be NULL
};

// Reads and checks. config_json: NULL, or the config of a PEFT folder, which then counts instead
// of the file's. On failure nothing is left to deinit.
SORA_CHECKED sora_status adapter_plan_read(const void *bytes, size_t byte_count,
                                           const char *config_json, const struct sora_base *base,
                                           struct adapter_plan *plan, struct sora_error *err);
// Its parts, for the readers: an empty plan; tensors, parse_name and config of a file that has been
// read sorted into pairs and checked; a tensor of the shape of `like` (two dimensions) to be filled
// at *data, NULL with SORA_LIMIT in *err.
void adapter_plan_init(struct adapter_plan *plan);
SORA_CHECKED sora_status adapter_plan_bind(struct adapter_plan *plan, const struct sora_base *base,
                                           struct sora_error *err);
struct safetensors_tensor *adapter_plan_make(struct adapter_plan *plan,
                                             const struct safetensors_tensor *like,
                                             enum sora_dtype dtype, void **data,
                                             struct sora_error *err);

// Where the base's rows are that a llama.cpp adapter's q and k rows belong to.
enum adapter_rows {
    ADAPTER_ROWS_HF,  // brought into HF's order
    ADAPTER_ROWS_KEPT // as in the file: for looking at, not for computing
};
// adapter_gguf.c: the same for a llama.cpp adapter.
SORA_CHECKED sora_status adapter_plan_read_gguf(const void *bytes, size_t byte_count,
                                                const struct sora_base *base,
                                                enum adapter_rows rows, struct adapter_plan *plan,
                                                struct sora_error *err);
void adapter_plan_deinit(struct adapter_plan *plan);
// The "training" record: any JSON object of a sane size.
SORA_CHECKED sora_status adapter_training_record_check(const char *json, struct sora_error *err);

// adapter_validate.c: the checks.
// Sorts the tensors into plan->pairs, by name; every A has its B, nothing comes twice.
SORA_CHECKED sora_status adapter_validate_names(struct adapter_plan *plan, struct sora_error *err);
// Shapes, types, ranks against the config, widths against the base (or each other), finite values.
SORA_CHECKED sora_status adapter_validate_tensors(struct adapter_plan *plan,
                                                  const struct sora_base *base,
                                                  struct sora_error *err);

// adapter_adalora.c: E of every pair into its B, as PEFT multiplies; ranks that E cuts away go.
SORA_CHECKED sora_status adapter_adalora_fold(struct adapter_plan *plan, struct sora_error *err);

// adapter_base_record.c: the "base" record.
// Checks it, against `base` when that is given; its layer count into *layer_count.
SORA_CHECKED sora_status adapter_base_record_check(const char *json, const struct sora_base *base,
                                                   int32_t *layer_count, struct sora_error *err);
// Appends it. with_weight_type: whether the adapter was trained on this very file's type.
void adapter_base_record_print(struct buf *buf, const struct sora_base *base,
                               bool with_weight_type);

// adapter_encode.c: a plan's tensors as a file of ours, or with `peft`, as PEFT's own.
SORA_CHECKED sora_status adapter_encode_plan(const struct adapter_plan *plan,
                                             const struct sora_base *base, bool peft,
                                             uint8_t **bytes, size_t *byte_count,
                                             struct sora_error *err);

const char *adapter_dtype_name(enum sora_dtype dtype); // "F32", "F16", "BF16"
size_t adapter_dtype_bytes(enum sora_dtype dtype);

#endif

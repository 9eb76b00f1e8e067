// SPDX-License-Identifier: Apache-2.0
// A base weight matrix W [d_out, d_in] as the kernels want it: quantized blocks kept as they are,
// 16 output rows interleaved (a panel), so that one vector register holds one k of 16 outputs.
// d_out is padded to whole panels with zero rows. Immutable once packed; the model owns it.
#ifndef KERNEL_WEIGHT_H
#define KERNEL_WEIGHT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/quant.h"
#include "sora/status.h"

#define WEIGHT_PANEL_ROWS 16

struct weight {
    enum weight_type type;
    int32_t d_out, d_in;
    void *panels; // packed data, 64-byte aligned
    size_t bytes;
};

// A weight of a shape, and its bytes; the caller gives it panels of as many, zeroed and 64-byte
// aligned, and keeps them.
SORA_CHECKED sora_status weight_shape(struct weight *weight, enum weight_type type, int32_t d_out,
                                      int32_t d_in, struct sora_error *err);
// The same with panels of its own, for weight_deinit; SORA_NO_MEMORY.
SORA_CHECKED sora_status weight_init(struct weight *weight, enum weight_type type, int32_t d_out,
                                     int32_t d_in, struct sora_error *err);
void weight_deinit(struct weight *weight);
// Packs one panel from 16 source rows in GGML's (or the HF file's) layout; NULL rows are zeros.
// Different panels may be packed by different threads.
void weight_pack_panel(struct weight *weight, int32_t panel,
                       const void *const rows[WEIGHT_PANEL_ROWS]);
int32_t weight_panel_count(const struct weight *weight);

// Row `row` of W as f32, out [d_in]: the embedding lookup.
void weight_row_to_f32(const struct weight *weight, int32_t row, float *out);

#endif

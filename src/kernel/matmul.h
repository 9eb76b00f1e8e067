// SPDX-License-Identifier: Apache-2.0
// y = W x for a batch of rows, W packed (weight.h). Every output is one chain of fused
// multiply-adds over k = 0 .. d_in-1 into one f32 accumulator that starts at zero: the same bits
// for any number of rows, any split over threads, any tile, and for the portable, AVX2 and AVX-512
// kernels alike.
#ifndef KERNEL_MATMUL_H
#define KERNEL_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "base/pool.h"
#include "kernel/weight.h"

// Floats of scratch that matmul needs for this weight on this many threads; the caller keeps one
// buffer as large as its largest weight asks.
size_t matmul_scratch_count(int32_t d_in, int32_t threads);

// x [m, d_in], y [m, d_out], both row-major and dense; y is overwritten, x and y do not overlap.
void matmul(struct pool *pool, const struct weight *weight, const float *x, int32_t m, float *y,
            float *scratch);
// The reference: plain loops over weight_row_to_f32 and fmaf. scratch [d_in].
void matmul_ref(const struct weight *weight, const float *x, int32_t m, float *y, float *scratch);

#endif

// SPDX-License-Identifier: Apache-2.0
// y = W x with x as integers (row_quant.h) and W as it is stored, in 4 or 8 bits: what compute mode
// int8 runs. Per output, one chain over blocks of 32: the block's products are summed as integers,
// exactly, then y = fma(sum, d * scale, y), or for nibbles, taken without their sign,
// y = fma(sum * scale, d, y) and y = fma(m, scale * sum(q), y) with m the weight's minimum (-8 d
// for Q4_0); after the last block y is multiplied by the row's scale, then each spike of the row,
// y = fma(w, spike, y).
// The same bits for any number of rows, any split, and on every machine. Called through matmul.h.
#ifndef KERNEL_MATMUL_INT8_H
#define KERNEL_MATMUL_INT8_H

#include <stdbool.h>

#include "kernel/row_quant.h"
#include "kernel/weight.h"

// Whether int8 has a kernel for it: quantized types. Others are computed in f32.
bool matmul_int8_takes(const struct weight *weight);
// The form of x that its kernel reads: ROW_QUANT_NARROW for weights of 4 bits; for 8 bits
// ROW_QUANT_WIDE, or with `coarse` ROW_QUANT_PAIRS, 1.5 times as fast; 0 when there is none.
unsigned matmul_int8_form(const struct weight *weight, bool coarse);
// The reference: plain loops. y [m, d_out] is overwritten. scratch [d_in].
void matmul_int8_ref(const struct weight *weight, const struct row_quant *quant, float *y,
                     float *scratch);

#endif

// SPDX-License-Identifier: Apache-2.0
// Columns of a packed base matrix as tiles of f32, for products with its transpose (dx = dy W).
#ifndef KERNEL_WEIGHT_TILE_H
#define KERNEL_WEIGHT_TILE_H

#include "kernel/weight.h"

#define WEIGHT_TILE_COLUMNS 32
// Columns [column_first, column_first + 32) of rows [row_first, row_first + row_count), in two
// tiles (tile_product.h): out [2][row_count][16], zeros beyond the last column. column_first is a
// multiple of 32, row_first of WEIGHT_PANEL_ROWS.
void weight_tile_unpack(const struct weight *weight, int32_t column_first, int32_t row_first,
                        int32_t row_count, float *out);

#endif

// SPDX-License-Identifier: Apache-2.0
// tile_product by instruction set: what its files share, and how a test runs a chosen one. Callers
// use tile_product.h. Private to src/kernel and tests.
#ifndef KERNEL_TILE_DISPATCH_H
#define KERNEL_TILE_DISPATCH_H

#include "base/cpu.h"
#include "kernel/tile_product.h"

typedef void tile_product_fn(const struct tile_product *product);
tile_product_fn tile_product_portable, tile_product_avx2, tile_product_avx512;
typedef void tile_transpose_fn(const float *from, size_t from_stride, int32_t rows, int32_t columns,
                               float *to, size_t to_stride);
tile_transpose_fn tile_transpose_portable, tile_transpose_avx2;

#endif

// SPDX-License-Identifier: Apache-2.0
// tile_product for AVX-512. Called through tile_product.c only, on machines that have it.
#define LANES_AVX512
#define TILE_SUFFIX avx512
#include "kernel/tile_product_body.h"

// SPDX-License-Identifier: Apache-2.0
// tile_product and tile_transpose for AVX2 with FMA. Called through tile_product.c only, on
// machines that have them.
#define TILE_SUFFIX avx2
#include "kernel/tile_product_body.h"

// Eight rows of eight, the columns as rows.
LANES_FN void transpose_8x8(const float *from, size_t from_stride, float *to, size_t to_stride)
{
    __m256 pairs[8], fours[8];
    LANES_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        const __m256 even = _mm256_loadu_ps(from + (size_t)(2 * i) * from_stride);
        const __m256 odd = _mm256_loadu_ps(from + (size_t)(2 * i + 1) * from_stride);
        pairs[2 * i] = _mm256_unpacklo_ps(even, odd);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(even, odd);
    }
    LANES_UNROLL(2)
    for (int i = 0; i < 8; i += 4) {
        fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
        fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
        fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
        fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    LANES_UNROLL(4)
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + (size_t)i * to_stride,
                         _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_storeu_ps(to + (size_t)(i + 4) * to_stride,
                         _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

void tile_transpose_avx2(const float *from, size_t from_stride, int32_t rows, int32_t columns,
                         float *to, size_t to_stride)
{
    const int32_t rows_whole = rows / 8 * 8, columns_whole = columns / 8 * 8;
    for (int32_t r = 0; r < rows_whole; r += 8)
        for (int32_t c = 0; c < columns_whole; c += 8)
            transpose_8x8(from + (size_t)r * from_stride + c, from_stride,
                          to + (size_t)c * to_stride + r, to_stride);
    tile_transpose_portable(from + columns_whole, from_stride, rows_whole, columns - columns_whole,
                            to + (size_t)columns_whole * to_stride, to_stride);
    tile_transpose_portable(from + (size_t)rows_whole * from_stride, from_stride, rows - rows_whole,
                            columns, to + rows_whole, to_stride);
}

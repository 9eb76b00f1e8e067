// SPDX-License-Identifier: Apache-2.0
// The product that training is made of: rows of A times a narrow, packed B, as many rows at a time
// as registers hold. Callers cut their matrices into pieces of 16 columns and, along k, of a few
// hundred, so that B stays in the first cache and is packed, or unpacked from the base's weights,
// where it is used. Pure; any thread.
// An output is one chain of fused multiply-adds over k in order, so the rows and columns that share
// a call change no bit of it (on a machine without AVX2 sgemm computes it, and small differences
// between machines are allowed here as in sgemm).
#ifndef KERNEL_TILE_PRODUCT_H
#define KERNEL_TILE_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TILE_COLUMNS 16

static inline int32_t tile_smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

// How many pieces of `each` cover `total`.
static inline int32_t tile_pieces(int32_t total, int32_t each)
{
    return (total + each - 1) / each;
}

// c[i, j] (+)= sum_k a[i, k] b[k, j]. Strides are floats from one row to the next.
struct tile_product {
    const float *a; // [rows, k_count]
    size_t a_stride;
    const float *b; // [k_count, 16]: all 16 are read, whatever `columns` is
    size_t b_stride;
    float *c; // [rows, columns]
    size_t c_stride;
    int32_t rows, columns; // columns 1 .. 16
    int32_t k_count;
    bool add; // c grows; else it is overwritten
};
void tile_product(const struct tile_product *product);
void tile_product_ref(const struct tile_product *product); // plain loops in double

// The same for matrices of any width and depth: c (+)= a b, where b is packed on the way, 16
// columns and TILE_DEPTH of k at a time.
#define TILE_DEPTH 256
struct tile_matrices {
    const float *a; // [rows, k_count]
    size_t a_stride;
    const float *b; // [k_count, columns], or its transpose
    size_t b_stride;
    bool b_transposed;
    float *c; // [rows, columns]
    size_t c_stride;
    int32_t rows, columns, k_count;
    bool add;
};
void tile_multiply(const struct tile_matrices *matrices);

// to[c, r] = from[r, c].
void tile_transpose(const float *from, size_t from_stride, int32_t rows, int32_t columns, float *to,
                    size_t to_stride);
// b [k_count, 16] for tile_product, zeros beyond `columns`: of a matrix [k_count, columns], or of
// its transpose [columns, k_count].
void tile_pack(const float *from, size_t stride, int32_t k_count, int32_t columns, float *b);
void tile_pack_transposed(const float *from, size_t stride, int32_t k_count, int32_t columns,
                          float *b);

#endif

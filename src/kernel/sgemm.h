// SPDX-License-Identifier: Apache-2.0
// The one door to OpenBLAS: row-major single-precision matrix products for training. Stateless
// after the first call; any thread may call, and OpenBLAS itself runs single-threaded inside, so
// that the split of the work (and with it every result) is decided by the caller alone.
// OpenBLAS picks a kernel by CPU model and has been wrong on some. The first use compares it with
// a plain loop on a few shapes; if it disagrees, the plain loop is used instead and
// sgemm_uses_blas() is false, for the caller to say so.
#ifndef KERNEL_SGEMM_H
#define KERNEL_SGEMM_H

#include <stdbool.h>
#include <stdint.h>

enum sgemm_op { SGEMM_PLAIN, SGEMM_TRANSPOSED };

// C = alpha op(A) op(B) + beta C, op(A) [m, k], op(B) [k, n], C [m, n]; ld*: floats from one stored
// row to the next. beta 0 ignores what C held, NaN included. C overlaps neither A nor B.
typedef void sgemm_function(enum sgemm_op op_a, enum sgemm_op op_b, int32_t m, int32_t n, int32_t k,
                            float alpha, const float *a, int32_t lda, const float *b, int32_t ldb,
                            float beta, float *c, int32_t ldc);
sgemm_function sgemm;
sgemm_function sgemm_ref; // blocked plain loops

// Whether a product function agrees with plain sums on shapes that reach the edges of its tiles.
bool sgemm_check(sgemm_function *function);
// Runs the check once; false: sgemm is sgemm_ref on this machine.
bool sgemm_uses_blas(void);

#endif

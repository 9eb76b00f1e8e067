// SPDX-License-Identifier: Apache-2.0
// RMSNorm: out = x / sqrt(mean(x^2) + eps) * weight, per row of d values (Zhang and Sennrich,
// arXiv 1910.07467). The sum runs in a fixed order, so rows are independent of each other.
#ifndef KERNEL_NORM_H
#define KERNEL_NORM_H

#include <stdint.h>

// x [m, d], weight [d], out [m, d]; out may be x.
void rmsnorm(const float *x, const float *weight, float eps, int32_t m, int32_t d, float *out);
void rmsnorm_ref(const float *x, const float *weight, float eps, int32_t m, int32_t d, float *out);
// dx += d(out)/d(x)^T dout for the forward line above; weight is frozen. x, dout, dx [m, d].
void rmsnorm_backward(const float *x, const float *weight, float eps, const float *dout, int32_t m,
                      int32_t d, float *dx);

#endif

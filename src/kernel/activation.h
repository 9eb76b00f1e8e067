// SPDX-License-Identifier: Apache-2.0
// SwiGLU's elementwise part: out = silu(gate) * up, silu(z) = z / (1 + exp(-z)) (Shazeer, arXiv
// 2002.05202).
#ifndef KERNEL_ACTIVATION_H
#define KERNEL_ACTIVATION_H

#include <stddef.h>

// All [count]; out may be gate. Elementwise: a value's result does not depend on its place.
void swiglu(const float *gate, const float *up, size_t count, float *out);
void swiglu_ref(const float *gate, const float *up, size_t count, float *out);
// dgate and dup are overwritten; they may be gate and up themselves.
void swiglu_backward(const float *gate, const float *up, const float *dout, size_t count,
                     float *dgate, float *dup);

#endif

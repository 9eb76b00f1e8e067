// SPDX-License-Identifier: Apache-2.0
// SwiGLU: dispatch, the portable body and the reference. Pure functions; any thread.
#include "kernel/activation.h"

#define ACTIVATION_SUFFIX portable
#include "kernel/activation_body.h"

void swiglu(const float *gate, const float *up, size_t count, float *out)
{
    (cpu_isa() == CPU_PORTABLE ? swiglu_portable : swiglu_avx2)(gate, up, count, out);
}

void swiglu_backward(const float *gate, const float *up, const float *dout, size_t count,
                     float *dgate, float *dup)
{
    (cpu_isa() == CPU_PORTABLE ? swiglu_backward_portable
                               : swiglu_backward_avx2)(gate, up, dout, count, dgate, dup);
}

void swiglu_ref(const float *gate, const float *up, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double z = gate[i];
        out[i] = (float)(z / (1 + exp(-z)) * (double)up[i]);
    }
}

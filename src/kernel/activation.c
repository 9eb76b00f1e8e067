// SPDX-License-Identifier: Apache-2.0
// SwiGLU: dispatch, the portable body and the reference. Pure functions; any thread.
#include "kernel/activation.h"

#define ACTIVATION_SUFFIX portable
#include "kernel/activation_body.h"

static const struct {
    swiglu_fn *swiglu;
    swiglu_backward_fn *swiglu_backward;
    exp_fn *exp;
} kernels[] = {
    {swiglu_portable, swiglu_backward_portable, exp_portable},
    {swiglu_avx2, swiglu_backward_avx2, exp_avx2},
    {swiglu_avx512, swiglu_backward_avx512, exp_avx512},
    {swiglu_avx512, swiglu_backward_avx512, exp_avx512},
};

void swiglu(const float *gate, const float *up, size_t count, float *out)
{
    kernels[cpu_isa()].swiglu(gate, up, count, out);
}

void swiglu_backward(const float *gate, const float *up, const float *dout, size_t count,
                     float *dgate, float *dup)
{
    kernels[cpu_isa()].swiglu_backward(gate, up, dout, count, dgate, dup);
}

exp_fn *exp_on(enum cpu_isa isa)
{
    return kernels[isa].exp;
}

void swiglu_ref(const float *gate, const float *up, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double z = gate[i];
        out[i] = (float)(z / (1 + exp(-z)) * (double)up[i]);
    }
}

// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding in Hugging Face's layout: the pair of element i of a head is
// i + head_dim/2 (Su et al., arXiv 2104.09864). The table is made once per model.
#ifndef KERNEL_ROPE_H
#define KERNEL_ROPE_H

#include <stdint.h>

// Frequencies inv_freq[head_dim/2]; scaling as Llama 3 when factor > 0.
struct rope_scaling {
    float factor; // 0: no scaling
    float low_freq_factor, high_freq_factor;
    float original_context;
};
void rope_frequencies(double theta, int32_t head_dim, const struct rope_scaling *scaling,
                      float *inv_freq);
// table [positions][head_dim]: cos of head_dim/2 angles, then their sines. Computed in double.
void rope_table(const float *inv_freq, int32_t head_dim, int32_t positions, float *table);

// Rotates x [m, head_count, head_dim] in place; positions [m].
void rope_apply(float *x, int32_t m, int32_t head_count, int32_t head_dim, const float *table,
                const int32_t *positions);
// The inverse rotation of the gradient, in place.
void rope_backward(float *dx, int32_t m, int32_t head_count, int32_t head_dim, const float *table,
                   const int32_t *positions);

#endif

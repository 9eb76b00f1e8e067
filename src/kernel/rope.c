// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: frequencies, table, rotation and its inverse. Pure functions; any
// thread. Plain C that compilers vectorize; each element stands alone, so no order matters.
#include "kernel/rope.h"

#include <math.h>
#include <stddef.h>

// Llama 3.1's stretching of the context: long wavelengths by `factor`, short ones not at all,
// smoothly in between (transformers, modeling_rope_utils.py, llama3).
static double scale_frequency(double frequency, const struct rope_scaling *scaling)
{
    const double context = (double)scaling->original_context;
    const double low = (double)scaling->low_freq_factor;
    const double high = (double)scaling->high_freq_factor;
    const double factor = (double)scaling->factor;
    const double wavelength = 2 * M_PI / frequency;
    if (wavelength < context / high)
        return frequency;
    if (wavelength > context / low)
        return frequency / factor;
    double smooth = (context / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
}

void rope_frequencies(double theta, int32_t head_dim, const struct rope_scaling *scaling,
                      float *inv_freq)
{
    for (int32_t i = 0; i < head_dim / 2; i++) {
        double frequency = pow(theta, -2.0 * i / head_dim);
        if (scaling != NULL && scaling->factor > 0)
            frequency = scale_frequency(frequency, scaling);
        inv_freq[i] = (float)frequency;
    }
}

void rope_table(const float *inv_freq, int32_t head_dim, int32_t positions, float *table)
{
    const int32_t half = head_dim / 2;
    for (int32_t p = 0; p < positions; p++, table += head_dim)
        for (int32_t i = 0; i < half; i++) {
            double angle = (double)p * (double)inv_freq[i];
            table[i] = (float)cos(angle);
            table[half + i] = (float)sin(angle);
        }
}

// Turns each pair by its angle, or back by it (sign -1).
static void rotate(float *x, int32_t m, int32_t head_count, int32_t head_dim, const float *table,
                   const int32_t *positions, float sign)
{
    const int32_t half = head_dim / 2;
    for (int32_t row = 0; row < m; row++) {
        const float *cosines = table + (size_t)positions[row] * (size_t)head_dim;
        const float *sines = cosines + half;
        for (int32_t h = 0; h < head_count; h++, x += head_dim) {
            float *low = x, *high = x + half;
            for (int32_t i = 0; i < half; i++) {
                float a = low[i], b = high[i], s = sign * sines[i];
                low[i] = a * cosines[i] - b * s;
                high[i] = b * cosines[i] + a * s;
            }
        }
    }
}

void rope_apply(float *x, int32_t m, int32_t head_count, int32_t head_dim, const float *table,
                const int32_t *positions)
{
    rotate(x, m, head_count, head_dim, table, positions, 1.0f);
}

void rope_backward(float *dx, int32_t m, int32_t head_count, int32_t head_dim, const float *table,
                   const int32_t *positions)
{
    rotate(dx, m, head_count, head_dim, table, positions, -1.0f);
}

// SPDX-License-Identifier: Apache-2.0
// RMSNorm, forward and backward. Plain C that compilers vectorize: sums run in 8 lanes of plain
// multiplies and adds (lane l takes i = l, l + 8, ...), so every build gives the same bits. Pure
// functions; any thread.
#include "kernel/norm.h"

#include <math.h>
#include <stddef.h>

#define SUM_LANES 8

// Sum of a[i] * b[i] * c[i].
static float sum_products(const float *a, const float *b, const float *c, int32_t d)
{
    float lanes[SUM_LANES] = {0};
    int32_t i = 0;
    for (; i + SUM_LANES <= d; i += SUM_LANES)
        for (int lane = 0; lane < SUM_LANES; lane++)
            lanes[lane] += a[i + lane] * b[i + lane] * c[i + lane];
    for (; i < d; i++)
        lanes[i % SUM_LANES] += a[i] * b[i] * c[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

static float sum_squares(const float *x, int32_t d)
{
    float lanes[SUM_LANES] = {0};
    int32_t i = 0;
    for (; i + SUM_LANES <= d; i += SUM_LANES)
        for (int lane = 0; lane < SUM_LANES; lane++)
            lanes[lane] += x[i + lane] * x[i + lane];
    for (; i < d; i++)
        lanes[i % SUM_LANES] += x[i] * x[i];
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

void rmsnorm(const float *x, const float *weight, float eps, int32_t m, int32_t d, float *out)
{
    for (int32_t row = 0; row < m; row++, x += d, out += d) {
        float scale = 1.0f / sqrtf(sum_squares(x, d) / (float)d + eps);
        for (int32_t i = 0; i < d; i++)
            out[i] = x[i] * scale * weight[i];
    }
}

void rmsnorm_ref(const float *x, const float *weight, float eps, int32_t m, int32_t d, float *out)
{
    for (int32_t row = 0; row < m; row++, x += d, out += d) {
        double sum = 0;
        for (int32_t i = 0; i < d; i++)
            sum += (double)x[i] * (double)x[i];
        double scale = 1 / sqrt(sum / d + (double)eps);
        for (int32_t i = 0; i < d; i++)
            out[i] = (float)((double)x[i] * scale * (double)weight[i]);
    }
}

// With s = 1/sqrt(mean(x^2) + eps): d(out_j)/d(x_i) = s w_j (j == i) - s^3 w_j x_j x_i / d.
void rmsnorm_backward(const float *x, const float *weight, float eps, const float *dout, int32_t m,
                      int32_t d, float *dx)
{
    for (int32_t row = 0; row < m; row++, x += d, dout += d, dx += d) {
        float scale = 1.0f / sqrtf(sum_squares(x, d) / (float)d + eps);
        float pull = scale * scale * scale * sum_products(dout, weight, x, d) / (float)d;
        for (int32_t i = 0; i < d; i++)
            dx[i] += dout[i] * weight[i] * scale - pull * x[i];
    }
}

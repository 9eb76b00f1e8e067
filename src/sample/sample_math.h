// SPDX-License-Identifier: Apache-2.0
// The arithmetic of sampling as plain f32 operations, which compilers turn into vector code and
// which give the same bits on every machine. Pure; any thread.
#ifndef SAMPLE_MATH_H
#define SAMPLE_MATH_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// A logit that compares and subtracts safely: NaN counts as -inf, +inf as the largest number.
static inline float sample_tame(float logit)
{
    if (!(logit >= -FLT_MAX))
        return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

// The largest of values without NaN; -inf of none. Lanes, because the order does not matter here
// and the compiler may not assume so.
static inline float sample_largest(const float *values, int32_t count)
{
    float lanes[8];
    for (int lane = 0; lane < 8; lane++)
        lanes[lane] = -INFINITY;
    int32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int lane = 0; lane < 8; lane++)
            lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
    for (; i < count; i++)
        lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
    for (int width = 4; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++)
            lanes[lane] = lanes[lane + width] > lanes[lane] ? lanes[lane + width] : lanes[lane];
    return lanes[0];
}

// The next number above one that is >= 0 and finite.
static inline float sample_next(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits++;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// value or +0, by a mask: a choice of floats would stop the compiler from using vectors, since the
// value not chosen might trap.
static inline float sample_keep(float value, bool keep)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits &= 0u - (uint32_t)keep;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

// e^x. Relative error under 3e-7 from -87 on; 0 below. x <= 0, may be -inf, no NaN.
static inline float sample_exp(float x)
{
    // e^x = 2^n * e^r, |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite). The polynomial has the
    // least relative error of its degree (1.1e-7), with the first two terms given.
    // Clamped at -87 by the bits, which order numbers <= 0 backwards; -0 and 0 stay.
    const uint32_t lowest = 0xc2ae0000u;
    uint32_t given, bits, power;
    memcpy(&given, &x, sizeof given);
    bits = given < lowest ? given : lowest;
    float clamped;
    memcpy(&clamped, &bits, sizeof clamped);
    float shifted = clamped * 1.44269504f + 12582912.0f; // 1.5 * 2^23: rounds to an integer
    float n = shifted - 12582912.0f;
    float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 0.00831252057f;
    p = p * r + 0.0418901592f;
    p = p * r + 0.166671142f;
    p = p * r + 0.499992311f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    memcpy(&power, &shifted, sizeof power); // its last bits are n, which goes to the exponent
    uint32_t keep = 0u - (uint32_t)(given == bits);
    memcpy(&bits, &p, sizeof bits);
    bits = (bits + (power << 23)) & keep;
    memcpy(&p, &bits, sizeof p);
    return p;
}

#endif

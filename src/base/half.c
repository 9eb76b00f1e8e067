// SPDX-License-Identifier: Apache-2.0
// f16 and bf16 by bit arithmetic, the same on every machine. Pure; any thread.
#include "base/half.h"

#include <string.h>

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float half_from_bf16(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

float half_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = bits >> 10 & 0x1Fu;
    uint32_t mantissa = bits & 0x3FFu;
    if (exponent == 0x1F)
        return float_of(sign | 0x7F800000u | mantissa << 13);
    if (exponent > 0)
        return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    // Zero and subnormals: mantissa x 2^-24, which is exact in f32.
    float value = (float)mantissa * 0x1p-24f;
    return float_of(sign | bits_of(value));
}

uint16_t half_to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40u); // NaN stays NaN even if its payload is cut
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// value >> shift, rounded to nearest even; 0 < shift < 32.
static uint32_t shift_round(uint32_t value, uint32_t shift)
{
    uint32_t half = 1u << (shift - 1);
    uint32_t rest = value & ((half << 1) - 1);
    uint32_t result = value >> shift;
    if (rest > half || (rest == half && (result & 1u)))
        ++result;
    return result;
}

uint16_t half_to_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) // NaN
        return (uint16_t)(sign | 0x7E00u | (magnitude >> 13 & 0x3FFu));
    if (magnitude >= 0x47800000u) // 65536 and above, infinity
        return (uint16_t)(sign | 0x7C00u);
    if (magnitude >= 0x38800000u) // 2^-14: normal; a carry may run into the exponent or infinity
        return (uint16_t)(sign | shift_round(magnitude - 0x38000000u, 13));
    if (magnitude < 0x33000000u) // below 2^-25: rounds to zero
        return (uint16_t)sign;
    uint32_t exponent = magnitude >> 23;
    uint32_t mantissa = (magnitude & 0x7FFFFFu) | 0x800000u;
    return (uint16_t)(sign | shift_round(mantissa, 126 - exponent));
}

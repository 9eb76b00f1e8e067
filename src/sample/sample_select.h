// SPDX-License-Identifier: Apache-2.0
// Selection without sorting, over keys that order tokens by weight and then by id. Pure functions
// on the caller's memory, deterministic; expected time is linear.
#ifndef SAMPLE_SELECT_H
#define SAMPLE_SELECT_H

#include <stdint.h>
#include <string.h>

// A key of a weight >= 0 and a token: a larger key is a larger weight, or an equal weight and a
// smaller id.
static inline uint64_t select_key(float weight, int32_t token)
{
    uint32_t bits;
    memcpy(&bits, &weight, sizeof bits); // floats >= 0 order as their bits
    return (uint64_t)bits << 32 | (0xffffffffu - (uint32_t)token);
}

static inline float select_weight(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    float weight;
    memcpy(&weight, &bits, sizeof weight);
    return weight;
}

static inline int32_t select_token(uint64_t key)
{
    return (int32_t)(0xffffffffu - (uint32_t)key);
}

// Moves the `wanted` largest keys to the front, in no particular order. 0 <= wanted <= count.
void select_largest(uint64_t *keys, int32_t count, int32_t wanted);

// Moves the fewest largest keys whose weights sum to at least `mass` to the front; returns how
// many (at least 1, count > 0).
int32_t select_mass(uint64_t *keys, int32_t count, double mass);

// The wanted-th largest of values (1 <= wanted <= count); values are reordered. No NaN.
float select_nth_value(float *values, int32_t count, int32_t wanted);

#endif

// SPDX-License-Identifier: Apache-2.0
// xoshiro256** 1.0 and splitmix64 by David Blackman and Sebastiano Vigna (public domain,
// https://prng.di.unimi.it). One owner at a time.
#include "base/rng.h"

#include <errno.h>
#include <math.h>
#include <sys/random.h>

#include "base/assert.h"

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

void rng_seed(struct rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; ++i)
        rng->state[i] = splitmix64(&seed);
}

uint64_t rng_u64(struct rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

double rng_uniform(struct rng *rng)
{
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    ASSERT(bound > 0);
    // The lowest 2^64 mod bound values would be hit once too often.
    uint64_t skip = (0 - bound) % bound;
    for (;;) {
        uint64_t value = rng_u64(rng);
        if (value >= skip)
            return value % bound;
    }
}

double rng_normal(struct rng *rng)
{
    const double two_pi = 6.283185307179586476925286766559;
    double u = 1.0 - rng_uniform(rng); // (0, 1]: the logarithm is finite
    double v = rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(two_pi * v);
}

void rng_shuffle(struct rng *rng, int32_t *items, int32_t count)
{
    for (int32_t i = count - 1; i > 0; --i) {
        int32_t j = (int32_t)rng_below(rng, (uint64_t)i + 1);
        int32_t item = items[i];
        items[i] = items[j];
        items[j] = item;
    }
}

void rng_system(void *out, uint32_t bytes)
{
    uint8_t *at = out;
    while (bytes > 0) {
        ssize_t got = getrandom(at, bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        ASSERT(got > 0); // without ids that cannot be guessed nothing may go on
        at += got;
        bytes -= (uint32_t)got;
    }
}

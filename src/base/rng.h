// SPDX-License-Identifier: Apache-2.0
// Counter-free pseudo-random numbers: xoshiro256** seeded through splitmix64. Same seed, same
// numbers on every machine. One owner at a time.
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state[4];
};

void rng_seed(struct rng *rng, uint64_t seed);
uint64_t rng_u64(struct rng *rng);
double rng_uniform(struct rng *rng);                 // [0, 1), 53 bits
uint64_t rng_below(struct rng *rng, uint64_t bound); // unbiased, bound > 0
double rng_normal(struct rng *rng);                  // mean 0, variance 1 (Box-Muller, no cache)
void rng_shuffle(struct rng *rng, int32_t *items, int32_t count);
// Random bytes from the operating system, for ids.
void rng_system(void *out, uint32_t bytes);

#endif

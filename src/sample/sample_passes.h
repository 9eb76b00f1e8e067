// SPDX-License-Identifier: Apache-2.0
// The passes of sampling over a whole vocabulary, for the instruction set of this machine: the same
// bits on every machine. Pure functions; any thread.
#ifndef SAMPLE_PASSES_H
#define SAMPLE_PASSES_H

#include <stdint.h>

#define SAMPLE_BLOCK_TOKENS 32 // tokens that share a maximum

static inline int32_t sample_block_count(int32_t count)
{
    return (count + SAMPLE_BLOCK_TOKENS - 1) / SAMPLE_BLOCK_TOKENS;
}

// work[i] = logits[i] as a number that compares and subtracts safely (sample_tame), and the largest
// of each block into maxima [blocks].
typedef void sample_tame_fn(const float *logits, int32_t count, float *work, float *maxima);
// work[i] = e^((work[i] - best) / temperature).
typedef void sample_weights_fn(float *work, int32_t count, float best, float temperature);
// The sum of the values that are at least `least`: value i in lane i mod 16, the lanes' sums in
// one order.
typedef double sample_sum_fn(const float *values, int32_t count, float least);

// The keys (sample_select.h) of the values that are at least `cut`, in the order of their tokens;
// maxima are those of the blocks. Returns how many.
typedef int32_t sample_collect_fn(const float *values, const float *maxima, int32_t count,
                                  float cut, uint64_t *keys);

struct sample_passes {
    sample_tame_fn *tame;
    sample_weights_fn *weights;
    sample_sum_fn *sum;
    sample_collect_fn *collect;
};

const struct sample_passes *sample_passes(void);
// Of each instruction set, for tests.
extern const struct sample_passes sample_passes_portable, sample_passes_avx2, sample_passes_avx512;

#endif

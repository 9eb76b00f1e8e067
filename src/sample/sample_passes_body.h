// SPDX-License-Identifier: Apache-2.0
// The bodies of sample_passes, plain loops that the compiler turns into vectors; compiled once per
// instruction set by sample_passes.c and sample_passes_avx2.c, which define SAMPLE_PASSES and
//   tame_block(logits, work)        tame for a block; returns its largest
//   reach_bits(values, cut)         bit i: values[i] of a block is at least cut
#ifndef SAMPLE_PASSES_BODY_H
#define SAMPLE_PASSES_BODY_H

#include "sample/sample_math.h"
#include "sample/sample_passes.h"
#include "sample/sample_select.h"

static void tame(const float *logits, int32_t count, float *work, float *maxima)
{
    int32_t first = 0;
    for (; first + SAMPLE_BLOCK_TOKENS <= count; first += SAMPLE_BLOCK_TOKENS)
        *maxima++ = tame_block(logits + first, work + first);
    if (first == count)
        return;
    for (int32_t i = first; i < count; i++)
        work[i] = sample_tame(logits[i]);
    *maxima = sample_largest(work + first, count - first);
}

static void weights(float *work, int32_t count, float best, float temperature)
{
    // A product instead of a quotient: a third of the time. Of a subnormal temperature the inverse
    // is no number.
    const float inverse = temperature < 1 / FLT_MAX ? FLT_MAX : 1 / temperature;
    for (int32_t i = 0; i < count; i++)
        work[i] = sample_exp((work[i] - best) * inverse);
}

static double sum(const float *values, int32_t count, float least)
{
    double lanes[16] = {0};
    int32_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; lane++)
            lanes[lane] += (double)sample_keep(values[i + lane], values[i + lane] >= least);
    for (; i < count; i++)
        lanes[i % 16] += (double)sample_keep(values[i], values[i] >= least);
    for (int width = 8; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++)
            lanes[lane] += lanes[lane + width];
    return lanes[0];
}

// Blocks are looked at whole; only hits are touched one by one.
static int32_t collect(const float *values, const float *maxima, int32_t count, float cut,
                       uint64_t *keys)
{
    int32_t found = 0, first = 0;
    for (; first + SAMPLE_BLOCK_TOKENS <= count; first += SAMPLE_BLOCK_TOKENS) {
        if (maxima[first / SAMPLE_BLOCK_TOKENS] < cut)
            continue;
        uint32_t bits = reach_bits(values + first, cut);
        for (; bits != 0; bits &= bits - 1) {
            const int32_t i = first + __builtin_ctz(bits);
            keys[found++] = select_key(values[i], i);
        }
    }
    for (int32_t i = first; i < count && maxima[first / SAMPLE_BLOCK_TOKENS] >= cut; i++)
        if (values[i] >= cut)
            keys[found++] = select_key(values[i], i);
    return found;
}

const struct sample_passes SAMPLE_PASSES = {tame, weights, sum, collect};

#endif

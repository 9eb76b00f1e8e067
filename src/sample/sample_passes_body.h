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

// Four blocks of lanes are added in f32 first: their error is far below that of a weight, and f64
// takes twice the time.
static double sum(const float *values, int32_t count, float least)
{
    enum { LANES = 8 };
    double lanes[LANES] = {0};
    int32_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            float four[4];
            for (int part = 0; part < 4; part++) {
                const float value = values[i + part * LANES + lane];
                four[part] = sample_keep(value, value >= least);
            }
            lanes[lane] += (double)((four[0] + four[1]) + (four[2] + four[3]));
        }
    }
    for (; i < count; i++)
        lanes[i % LANES] += (double)sample_keep(values[i], values[i] >= least);
    for (int width = LANES / 2; width > 0; width /= 2)
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

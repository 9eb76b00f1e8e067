// SPDX-License-Identifier: Apache-2.0
// The bodies of sample_passes, plain loops that the compiler turns into vectors; compiled once per
// instruction set by sample_passes.c and sample_passes_avx2.c, which define SAMPLE_PASSES.
#ifndef SAMPLE_PASSES_BODY_H
#define SAMPLE_PASSES_BODY_H

#include "sample/sample_math.h"
#include "sample/sample_passes.h"

static void tame(const float *logits, int32_t count, float *work)
{
    for (int32_t i = 0; i < count; i++)
        work[i] = sample_tame(logits[i]);
}

static float maxima(const float *work, int32_t count, float *out)
{
    for (int32_t first = 0; first < count; first += SAMPLE_BLOCK_TOKENS) {
        int32_t left = count - first;
        *out++ =
            sample_largest(work + first, left < SAMPLE_BLOCK_TOKENS ? left : SAMPLE_BLOCK_TOKENS);
    }
    return sample_largest(out - sample_block_count(count), sample_block_count(count));
}

static void weights(float *work, int32_t count, float best, float temperature)
{
    for (int32_t i = 0; i < count; i++)
        work[i] = sample_exp((work[i] - best) / temperature);
}

static void sums(const float *values, int32_t count, float least, double lanes[4])
{
    double own[4] = {lanes[0], lanes[1], lanes[2], lanes[3]};
    int32_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int lane = 0; lane < 4; lane++)
            own[lane] += (double)sample_keep(values[i + lane], values[i + lane] >= least);
    for (; i < count; i++)
        own[i & 3] += (double)sample_keep(values[i], values[i] >= least);
    for (int lane = 0; lane < 4; lane++)
        lanes[lane] = own[lane];
}

const struct sample_passes SAMPLE_PASSES = {tame, maxima, weights, sums};

#endif

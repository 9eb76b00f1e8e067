// SPDX-License-Identifier: Apache-2.0
// The bodies of sample_passes, plain loops that the compiler turns into vectors; compiled once per
// instruction set by sample_passes.c and sample_passes_avx2.c, which define SAMPLE_PASSES.
#ifndef SAMPLE_PASSES_BODY_H
#define SAMPLE_PASSES_BODY_H

#include "sample/sample_math.h"
#include "sample/sample_passes.h"
#include "sample/sample_select.h"

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

// As many lanes as keep the adders busy.
static float mass(const float *values, int32_t count, float least)
{
    float own[32] = {0}, sum = 0;
    int32_t i = 0;
    for (; i + 32 <= count; i += 32)
        for (int lane = 0; lane < 32; lane++)
            own[lane] += sample_keep(values[i + lane], values[i + lane] >= least);
    for (; i < count; i++)
        own[0] += sample_keep(values[i], values[i] >= least);
    for (int lane = 0; lane < 32; lane++)
        sum += own[lane];
    return sum;
}

static void masses(const float *values, int32_t count, const float least[SAMPLE_LEVELS],
                   float out[SAMPLE_LEVELS])
{
    for (int level = 0; level < SAMPLE_LEVELS; level++)
        out[level] = mass(values, count, least[level]);
}

static int32_t collect_few(const float *values, int32_t first, int32_t count, float cut,
                           float upper, uint64_t *keys)
{
    int32_t found = 0;
    for (int32_t i = first; i < first + count; i++) {
        keys[found] = select_key(values[i], i);
        found += values[i] >= cut && values[i] < upper;
    }
    return found;
}

// Groups without a hit are passed over whole.
static int32_t collect(const float *values, const float *maxima, int32_t count, float cut,
                       float upper, uint64_t *keys)
{
    enum { GROUP = 16 };
    int32_t found = 0, i = 0;
    for (; i + GROUP <= count; i += GROUP) {
        if (maxima[i / SAMPLE_BLOCK_TOKENS] < cut)
            continue;
        int32_t hits = 0;
        for (int lane = 0; lane < GROUP; lane++)
            hits += (int32_t)(values[i + lane] >= cut) & (int32_t)(values[i + lane] < upper);
        if (hits > 0)
            found += collect_few(values, i, GROUP, cut, upper, keys + found);
    }
    if (i < count && maxima[i / SAMPLE_BLOCK_TOKENS] >= cut)
        found += collect_few(values, i, count - i, cut, upper, keys + found);
    return found;
}

const struct sample_passes SAMPLE_PASSES = {tame, maxima, weights, sums, masses, collect};

#endif

// SPDX-License-Identifier: Apache-2.0
// See sample_passes.h. The choice, and the bodies for any machine.
#include <stdint.h>

#include "sample/sample_math.h"
#include "sample/sample_passes.h"

static float tame_block(const float logits[SAMPLE_BLOCK_TOKENS], float work[SAMPLE_BLOCK_TOKENS])
{
    for (int i = 0; i < SAMPLE_BLOCK_TOKENS; i++)
        work[i] = sample_tame(logits[i]);
    return sample_largest(work, SAMPLE_BLOCK_TOKENS);
}

static uint32_t reach_bits(const float values[SAMPLE_BLOCK_TOKENS], float cut)
{
    uint32_t bits = 0;
    for (uint32_t i = 0; i < SAMPLE_BLOCK_TOKENS; i++)
        bits |= (uint32_t)(values[i] >= cut) << i;
    return bits;
}

#define SAMPLE_PASSES sample_passes_portable
#include "sample/sample_passes_body.h"

#include "base/cpu.h"

const struct sample_passes *sample_passes(void)
{
    static const struct sample_passes *const by_isa[] = {
        &sample_passes_portable, &sample_passes_avx2, &sample_passes_avx512, &sample_passes_avx512};
    return by_isa[cpu_isa()];
}

// SPDX-License-Identifier: Apache-2.0
// Soft thresholding, see proximal.h.
#include "train/proximal.h"

#include <math.h>

static float shrink_paper(float gate, float xi)
{
    const float rest = fabsf(gate) - xi;
    return rest > 0.0f ? copysignf(rest, gate) : 0.0f;
}

static float shrink_reference(float gate, float xi)
{
    if (gate > xi)
        gate -= xi;
    if (gate < -xi)
        gate += xi;
    return fabsf(gate) < xi ? 0.0f : gate;
}

void proximal_step(float *gates, int64_t count, double xi, enum sora_threshold threshold)
{
    for (int64_t i = 0; i < count; i++)
        gates[i] = threshold == SORA_THRESHOLD_PAPER ? shrink_paper(gates[i], (float)xi)
                                                     : shrink_reference(gates[i], (float)xi);
}

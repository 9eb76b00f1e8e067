// SPDX-License-Identifier: Apache-2.0
// The proximal step on the gates: soft thresholding, which makes them exactly zero (SoRA, arXiv
// 2311.11696, equation 8). Pure.
#ifndef TRAIN_PROXIMAL_H
#define TRAIN_PROXIMAL_H

#include <stdint.h>

#include "sora/train.h"

// SORA_THRESHOLD_PAPER: g <- sign(g) max(|g| - xi, 0).
// SORA_THRESHOLD_REFERENCE, the authors' program: three passes in place, g > xi: g -= xi; then
// g < -xi: g += xi; then |g| < xi: g = 0. The third also takes what the first two left below xi,
// so that all gates up to 2 xi fall to zero.
void proximal_step(float *gates, int64_t count, double xi, enum sora_threshold threshold);

#endif

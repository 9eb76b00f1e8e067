// SPDX-License-Identifier: Apache-2.0
// Rates of the machine itself: what sgemm computes and what memory gives. Each is the best of a
// few runs, since noise only slows. One caller at a time per pool.
#ifndef KERNEL_PROBE_H
#define KERNEL_PROBE_H

#include "base/pool.h"
#include "sora/status.h"

// 10^9 floating-point operations a second of a square product, rows split over the pool.
SORA_CHECKED sora_status probe_sgemm(struct pool *pool, double *gflops, struct sora_error *err);
// 10^9 bytes a second, all threads reading a share each of a buffer that no cache holds.
SORA_CHECKED sora_status probe_stream(struct pool *pool, double *gbps, struct sora_error *err);

#endif

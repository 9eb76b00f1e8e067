// SPDX-License-Identifier: Apache-2.0
// Rates of the machine itself: what sgemm computes and what memory gives, one short run at a time,
// so that they can be taken beside what is measured. One caller at a time; owns its threads.
#ifndef KERNEL_PROBE_H
#define KERNEL_PROBE_H

#include "base/pool.h"
#include "sora/status.h"

struct probe;

// threads: as many as take part. Holds 540 MB.
SORA_CHECKED sora_status probe_create(int32_t threads, struct probe **probe,
                                      struct sora_error *err);
void probe_destroy(struct probe *probe); // accepts NULL
// 10^9 floating-point operations a second of one square product, its rows split over the threads.
double probe_sgemm(struct probe *probe);
// 10^9 bytes a second, all threads reading a share each of a buffer that no cache holds.
double probe_stream(struct probe *probe);

#endif

// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured: the two rates that bound every figure of an
// inference server. Rates of shared machines change from second to second: take them beside what
// is measured, and medians of both. One caller at a time.
#ifndef SORA_MACHINE_H
#define SORA_MACHINE_H

#include <stdint.h>

#include "sora/status.h"

typedef struct sora_machine sora_machine;

// threads 0: all processors. Holds half a gigabyte until it is closed.
SORA_CHECKED sora_status sora_machine_open(int32_t threads, sora_machine **machine,
                                           struct sora_error *err);
void sora_machine_close(sora_machine *machine); // accepts NULL

// Each takes some tens of milliseconds.
double sora_machine_sgemm_gflops(sora_machine *machine); // OpenBLAS, a large product
double sora_machine_stream_gbps(sora_machine *machine);  // 10^9 bytes a second read from memory

const char *sora_machine_cpu(void); // the processor's name
const char *sora_machine_isa(void); // the instruction set that the kernels use: "avx2", ...

#endif

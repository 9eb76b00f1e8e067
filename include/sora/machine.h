// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured: the two rates that bound every figure of an
// inference server. Stateless; one caller at a time.
#ifndef SORA_MACHINE_H
#define SORA_MACHINE_H

#include <stdint.h>

#include "sora/status.h"

struct sora_machine {
    const char *cpu;     // the processor's name
    const char *isa;     // the instruction set that the kernels use: "avx2", ...
    double sgemm_gflops; // OpenBLAS, a large product split over the threads
    double stream_gbps;  // 10^9 bytes a second, read by all threads from memory
};

// Takes about a second. threads 0: all processors.
SORA_CHECKED sora_status sora_machine_measure(int32_t threads, struct sora_machine *machine,
                                              struct sora_error *err);

#endif

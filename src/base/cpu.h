// SPDX-License-Identifier: Apache-2.0
// What this machine can do, found once. SORA_ISA=portable|avx2|avx512|vnni in the environment caps
// it, for tests and for comparing.
#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stdint.h>

// Each includes those before it. AVX2 includes FMA and F16C; VNNI is that of AVX-512.
enum cpu_isa { CPU_PORTABLE, CPU_AVX2, CPU_AVX512, CPU_VNNI };

enum cpu_isa cpu_isa(void); // the best usable one
const char *cpu_isa_name(enum cpu_isa isa);
int32_t cpu_count(void); // processors this process may run on
const char *cpu_model_name(void);

#endif

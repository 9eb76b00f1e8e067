// SPDX-License-Identifier: Apache-2.0
// See sample_passes.h. The choice, and the bodies for any machine.
#define SAMPLE_PASSES sample_passes_portable
#include "sample/sample_passes_body.h"

#include "base/cpu.h"

const struct sample_passes *sample_passes(void)
{
    return cpu_isa() == CPU_PORTABLE ? &sample_passes_portable : &sample_passes_avx2;
}

// SPDX-License-Identifier: Apache-2.0
// See sora/machine.h.
#include "sora/machine.h"

#include <stddef.h>

#include "base/cpu.h"
#include "base/pool.h"
#include "kernel/probe.h"

sora_status sora_machine_measure(int32_t threads, struct sora_machine *machine,
                                 struct sora_error *err)
{
    struct pool *pool = NULL;
    sora_status status = pool_create(threads > 0 ? threads : cpu_count(), &pool, err);
    if (status != SORA_OK)
        return status;
    *machine = (struct sora_machine){.cpu = cpu_model_name(), .isa = cpu_isa_name(cpu_isa())};
    status = probe_sgemm(pool, &machine->sgemm_gflops, err);
    if (status == SORA_OK)
        status = probe_stream(pool, &machine->stream_gbps, err);
    pool_destroy(pool);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// See sora/machine.h.
#include "sora/machine.h"

#include <stdlib.h>

#include "base/cpu.h"
#include "kernel/probe.h"

struct sora_machine {
    struct probe *probe;
};

sora_status sora_machine_open(int32_t threads, sora_machine **machine, struct sora_error *err)
{
    struct sora_machine *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the probe of the machine");
    sora_status status = probe_create(threads > 0 ? threads : cpu_count(), &made->probe, err);
    if (status == SORA_OK)
        *machine = made;
    else
        free(made);
    return status;
}

void sora_machine_close(sora_machine *machine)
{
    if (machine == NULL)
        return;
    probe_destroy(machine->probe);
    free(machine);
}

double sora_machine_sgemm_gflops(sora_machine *machine)
{
    return probe_sgemm(machine->probe);
}

double sora_machine_stream_gbps(sora_machine *machine)
{
    return probe_stream(machine->probe);
}

const char *sora_machine_cpu(void)
{
    return cpu_model_name();
}

const char *sora_machine_isa(void)
{
    return cpu_isa_name(cpu_isa());
}

// SPDX-License-Identifier: Apache-2.0
// Features of this machine, detected once. Any thread.
#include "base/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static pthread_once_t isa_once = PTHREAD_ONCE_INIT;
static pthread_once_t name_once = PTHREAD_ONCE_INIT;
static enum cpu_isa isa_found;
static char model_name[128];

const char *cpu_isa_name(enum cpu_isa isa)
{
    static const char *const names[] = {"portable", "avx2", "avx512", "vnni"};
    return names[isa];
}

#if defined(__x86_64__)
// Clang 14 has no name for it in __builtin_cpu_supports.
static bool has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#endif

static enum cpu_isa detect(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c() ||
        !__builtin_cpu_supports("bmi2"))
        return CPU_PORTABLE;
#if defined(SORA_EMULATE_AVX512)
    return CPU_VNNI;
#endif
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return CPU_AVX2;
    return __builtin_cpu_supports("avx512vnni") ? CPU_VNNI : CPU_AVX512;
#else
    return CPU_PORTABLE;
#endif
}

static void find_isa(void)
{
    isa_found = detect();
    const char *cap = getenv("SORA_ISA");
    if (cap == NULL || cap[0] == 0)
        return;
    for (int isa = CPU_PORTABLE; isa <= CPU_VNNI; ++isa) {
        if (strcmp(cap, cpu_isa_name((enum cpu_isa)isa)) != 0)
            continue;
        if ((int)isa_found > isa)
            isa_found = (enum cpu_isa)isa;
        return;
    }
    char quoted[LOG_QUOTE_BYTES];
    log_warn("cpu", "bad_isa_cap", "SORA_ISA=%s known=portable,avx2,avx512,vnni",
             log_quote(quoted, cap));
}

enum cpu_isa cpu_isa(void)
{
    pthread_once(&isa_once, find_isa);
    return isa_found;
}

int32_t cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (int32_t)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); // more processors than a cpu_set_t holds
    return online > 0 ? (int32_t)online : 1;
}

static void find_model_name(void)
{
    char line[256];
    snprintf(model_name, sizeof model_name, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (file == NULL)
        return;
    while (fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (colon == NULL || strncmp(line, "model name", 10) != 0)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(model_name, sizeof model_name, "%.*s", (int)sizeof model_name - 1, colon);
        break;
    }
    fclose(file);
}

const char *cpu_model_name(void)
{
    pthread_once(&name_once, find_model_name);
    return model_name;
}

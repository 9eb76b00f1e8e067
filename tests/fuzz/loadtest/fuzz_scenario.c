// SPDX-License-Identifier: Apache-2.0
// Scenario files, traces, lists of models and cards: foreign text that the load test reads. A
// scenario that is accepted must pass its check or be refused by it. One thread.
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "loadtest/discover.h"
#include "loadtest/made_adapter.h"
#include "loadtest/plan_trace.h"
#include "loadtest/scenario.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_scenario(const char *text, size_t bytes)
{
    struct scenario scenario;
    struct sora_error err;
    if (scenario_init(&scenario, &err) != SORA_OK)
        return;
    if (scenario_parse(&scenario, "fuzz", text, bytes, &err) == SORA_OK)
        (void)!scenario_check(&scenario, &err);
    scenario_deinit(&scenario);
}

static void read_trace(const char *text, size_t bytes)
{
    struct trace trace;
    struct sora_error err;
    if (trace_parse(text, bytes, &trace, &err) != SORA_OK)
        return;
    for (int32_t i = 0; i < trace.count; i++) {
        ASSERT(trace.lines[i].prompt_tokens > 0 && trace.lines[i].output_tokens > 0);
        ASSERT(i == 0 || trace.lines[i].at_us >= trace.lines[i - 1].at_us);
    }
    trace_deinit(&trace);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct discovered found;
    struct made_base base;
    struct sora_error err;
    read_scenario(text, size);
    read_trace(text, size);
    if (discover_parse(text, size, &found, &err) == SORA_OK)
        discovered_deinit(&found);
    if (made_base_from_card(text, size, &base, &err) == SORA_OK)
        made_base_deinit(&base);
    if (made_base_from_file(data, size, &base, &err) == SORA_OK)
        made_base_deinit(&base);
    return 0;
}

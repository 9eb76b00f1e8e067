// SPDX-License-Identifier: Apache-2.0
// Any text as an adapter_config.json: what is accepted must print and read back to the same ranks
// and alphas. One thread.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_config.h"
#include "adapters/adapter_names.h"
#include "base/assert.h"

#define MODULE_COUNT 14

// Prints the config as our files carry it, for the modules whose patterns could be matched.
static void check_print(const struct adapter_config *config)
{
    struct adapter_config_module modules[MODULE_COUNT];
    struct adapter_config_source source = {.base_name = config->base_name,
                                           .r = config->r,
                                           .lora_alpha = config->lora_alpha,
                                           .use_rslora = config->use_rslora,
                                           .modules = modules};
    struct adapter_config again;
    struct sora_error err;
    struct buf buf;
    char name[SORA_TENSOR_NAME_BYTES_MAX + 1];
    for (int32_t i = 0; i < MODULE_COUNT; i++) {
        struct adapter_config_module *module = &modules[source.module_count];
        module->layer = i;
        module->proj = (enum sora_proj)(i % SORA_PROJ_COUNT);
        adapter_module_name(module->layer, module->proj, name);
        if (adapter_config_rank(config, name, &module->rank, &err) == SORA_OK &&
            adapter_config_alpha(config, name, &module->alpha, &err) == SORA_OK)
            source.module_count++;
    }
    buf_init(&buf, 1 << 20);
    adapter_config_print(&buf, &source);
    if (buf_status(&buf, &err) == SORA_OK) {
        ASSERT(adapter_config_parse(buf.data, buf.bytes, &again, &err) == SORA_OK);
        ASSERT(again.r == config->r && again.lora_alpha == config->lora_alpha);
        for (int32_t i = 0; i < source.module_count; i++) {
            int32_t rank;
            double alpha;
            adapter_module_name(modules[i].layer, modules[i].proj, name);
            ASSERT(adapter_config_rank(&again, name, &rank, &err) == SORA_OK);
            ASSERT(adapter_config_alpha(&again, name, &alpha, &err) == SORA_OK);
            ASSERT(rank == modules[i].rank && alpha == modules[i].alpha);
        }
        adapter_config_deinit(&again);
    }
    buf_deinit(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct adapter_config config;
    struct sora_error err;
    // Of just that size: a sanitizer sees a read beyond it.
    char *text = malloc(size ? size : 1);
    ASSERT(text);
    if (size)
        memcpy(text, data, size);
    if (adapter_config_parse(text, size, &config, &err) == SORA_OK) {
        check_print(&config);
        adapter_config_deinit(&config);
    }
    free(text);
    return 0;
}

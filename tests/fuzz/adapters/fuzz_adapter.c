// SPDX-License-Identifier: Apache-2.0
// Any bytes as an adapter file: parsed with and without a base, and what is accepted must survive
// an import and compute the same. One thread.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "sora/adapter.h"

static const struct sora_base base = {
    .architecture = "llama",
    .layer_count = 3,
    .hidden = 16,
    .intermediate = 24,
    .head_count = 4,
    .kv_head_count = 2,
    .head_dim = 4,
    .vocab_size = 50,
    .d_in = {16, 16, 16, 16, 16, 16, 24},
    .d_out = {16, 8, 8, 16, 24, 24, 16},
    .fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    .weight_type = "Q4_1",
};

static void check_import(const uint8_t *data, size_t size, const sora_adapter *adapter)
{
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    struct sora_error err;
    uint8_t *ours;
    size_t our_bytes;
    sora_adapter *again;
    sora_status status =
        sora_adapter_from_peft(info->config_json, data, size, &base, &ours, &our_bytes, &err);
    if (status == SORA_LIMIT)
        return; // the base's name alone fills the config of ours
    ASSERT(status == SORA_OK);
    ASSERT(sora_adapter_parse(ours, our_bytes, &base, &again, &err) == SORA_OK);
    const struct sora_adapter_info *found = sora_adapter_get_info(again);
    ASSERT(found->module_count == info->module_count && found->parameters == info->parameters);
    for (int32_t i = 0; i < info->module_count; i++)
        ASSERT(found->modules[i].rank == info->modules[i].rank &&
               found->modules[i].scale == info->modules[i].scale);
    sora_adapter_destroy(again);
    free(ours);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_error err;
    sora_adapter *adapter = NULL;
    if (sora_adapter_parse(data, size, &base, &adapter, &err) == SORA_OK) {
        check_import(data, size, adapter);
        sora_adapter_destroy(adapter);
    }
    if (sora_adapter_parse(data, size, NULL, &adapter, &err) == SORA_OK)
        sora_adapter_destroy(adapter);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Any config beside any tensors, as PEFT's pair: the config's text, a zero byte, the weights. What
// is accepted, AdaLoRA's above all, must be a file of ours. One thread.
#include <math.h>
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

static void check_pair(const char *config, const uint8_t *weights, size_t weights_bytes)
{
    struct sora_error err;
    uint8_t *ours = NULL;
    size_t our_bytes = 0;
    sora_adapter *adapter = NULL;
    sora_status status =
        sora_adapter_from_peft(config, weights, weights_bytes, &base, &ours, &our_bytes, &err);
    if (status != SORA_OK)
        return;
    ASSERT(sora_adapter_parse(ours, our_bytes, &base, &adapter, &err) == SORA_OK);
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    for (int32_t i = 0; i < info->module_count; i++)
        ASSERT(info->modules[i].rank > 0 && isfinite(info->modules[i].scale));
    sora_adapter_destroy(adapter);
    free(ours);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    if (end != NULL)
        check_pair((const char *)data, end + 1, size - (size_t)(end + 1 - data));
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Any bytes as a llama.cpp adapter: with and without a base, and for looking at. What is accepted
// must be a file of ours, and must go out as GGUF and come back with the same ranks and effect.
// One thread.
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

// Ours goes out as GGUF and comes back: the same ranks. A scale that overflows B is refused.
static void check_round(const uint8_t *ours, size_t our_bytes)
{
    struct sora_error err;
    uint8_t *gguf, *back;
    size_t gguf_bytes, back_bytes;
    sora_adapter *first, *second;
    if (sora_adapter_to_gguf(ours, our_bytes, &base, &gguf, &gguf_bytes, &err) != SORA_OK)
        return;
    ASSERT(sora_adapter_from_gguf(gguf, gguf_bytes, &base, &back, &back_bytes, &err) == SORA_OK);
    ASSERT(sora_adapter_parse(ours, our_bytes, &base, &first, &err) == SORA_OK);
    ASSERT(sora_adapter_parse(back, back_bytes, &base, &second, &err) == SORA_OK);
    const struct sora_adapter_info *x = sora_adapter_get_info(first);
    const struct sora_adapter_info *y = sora_adapter_get_info(second);
    ASSERT(x->module_count == y->module_count && x->parameters == y->parameters);
    for (int32_t i = 0; i < x->module_count; i++) {
        ASSERT(x->modules[i].rank == y->modules[i].rank);
        ASSERT(x->modules[i].scale == y->modules[i].scale || y->modules[i].scale == 1.0f);
    }
    sora_adapter_destroy(first);
    sora_adapter_destroy(second);
    free(gguf);
    free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sora_error err;
    uint8_t *ours = NULL;
    size_t our_bytes = 0;
    sora_adapter *adapter = NULL;
    if (sora_adapter_from_gguf(data, size, &base, &ours, &our_bytes, &err) == SORA_OK) {
        check_round(ours, our_bytes);
        free(ours);
        // What fits a base can be looked at without one.
        ASSERT(sora_adapter_look_at_gguf(data, size, &adapter, &err) == SORA_OK);
        sora_adapter_destroy(adapter);
    } else if (sora_adapter_look_at_gguf(data, size, &adapter, &err) == SORA_OK) {
        sora_adapter_destroy(adapter);
    }
    if (sora_adapter_from_gguf(data, size, NULL, &ours, &our_bytes, &err) == SORA_OK)
        free(ours);
    return 0;
}

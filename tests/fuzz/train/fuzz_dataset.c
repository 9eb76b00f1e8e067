// SPDX-License-Identifier: Apache-2.0
// Arbitrary bytes as a data file of token ids. What is accepted must keep its promises.
#include <stddef.h>
#include <stdint.h>

#include "base/assert.h"
#include "train/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const uint8_t *data, size_t size, bool cut)
{
    const struct dataset_rules rules = {.vocab_size = 1000, .example_tokens_max = 64, .cut = cut};
    struct dataset dataset;
    struct sora_error err;
    if (dataset_parse("fuzz", (const char *)data, size, &rules, &dataset, &err) != SORA_OK)
        return;
    ASSERT(dataset.example_count > 0);
    for (int32_t i = 0; i < dataset.example_count; i++) {
        const struct dataset_example *example = &dataset.examples[i];
        int32_t scored = 0;
        ASSERT(example->token_count >= 2 && example->token_count <= 64);
        ASSERT(example->first + example->token_count <= dataset.token_count);
        ASSERT(!dataset.scored[example->first]);
        for (int32_t t = 0; t < example->token_count; t++) {
            ASSERT(dataset.tokens[example->first + t] >= 0);
            ASSERT(dataset.tokens[example->first + t] < 1000);
            scored += dataset.scored[example->first + t];
        }
        ASSERT(scored == example->scored_count && scored > 0);
    }
    dataset_close(&dataset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse(data, size, false);
    parse(data, size, true);
    return 0;
}

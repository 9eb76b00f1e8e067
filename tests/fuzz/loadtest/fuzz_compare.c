// SPDX-License-Identifier: Apache-2.0
// Fuzz target of compare_parse: what is accepted must be shown as a table and as a page.
#include "base/assert.h"
#include "loadtest/compare.h"
#include "sora/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct compare_run run;
    struct sora_error err = {0};
    if (compare_parse((const char *)data, size, "fuzz.json", &run, &err) != SORA_OK) {
        ASSERT(err.text[0] != 0);
        return 0;
    }
    struct buf text;
    buf_init(&text, SORA_JSON_BYTES_MAX);
    compare_table(&text, &run, 1);
    compare_html(&text, &run, 1);
    ASSERT(buf_status(&text, &err) == SORA_OK);
    buf_deinit(&text);
    compare_run_deinit(&run);
    return 0;
}

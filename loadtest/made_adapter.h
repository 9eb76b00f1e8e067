// SPDX-License-Identifier: Apache-2.0
// Adapter files for load: valid, of random ranks and small random values, for a base known from the
// card (or the file) of an adapter of it. Pure; any thread.
#ifndef LOADTEST_MADE_ADAPTER_H
#define LOADTEST_MADE_ADAPTER_H

#include <stddef.h>
#include <stdint.h>

#include "loadtest/plan_length.h"
#include "sora/status.h"

struct made_base {
    char *json; // the record of the base, as an adapter file holds it
    int32_t layers, hidden, intermediate, heads, kv_heads, head_dim;
};

// From the JSON text of a base record. SORA_MALFORMED names what is missing.
SORA_CHECKED sora_status made_base_parse(const char *json, size_t bytes, struct made_base *base,
                                         struct sora_error *err);
// From GET /v1/adapters/{name}.
SORA_CHECKED sora_status made_base_from_card(const char *json, size_t bytes, struct made_base *base,
                                             struct sora_error *err);
// From the bytes of an adapter file.
SORA_CHECKED sora_status made_base_from_file(const void *file, size_t bytes, struct made_base *base,
                                             struct sora_error *err);
void made_base_deinit(struct made_base *base);

// bf16, the same bytes for the same seed. A file in which every rank came out 0 gets one of rank 1.
// *bytes is malloc'ed.
SORA_CHECKED sora_status made_adapter_encode(const struct made_base *base,
                                             const struct length *ranks, uint64_t seed,
                                             uint8_t **bytes, size_t *byte_count,
                                             struct sora_error *err);
// Changes a few values of the last tensor so that the file becomes another of the same shape.
void made_adapter_vary(uint8_t *bytes, size_t byte_count, uint64_t seed);

#endif

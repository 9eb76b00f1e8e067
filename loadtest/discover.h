// SPDX-License-Identifier: Apache-2.0
// Which models a server has: GET /v1/models, and llama-server's GET /lora-adapters. Answers are
// untrusted input.
#ifndef LOADTEST_DISCOVER_H
#define LOADTEST_DISCOVER_H

#include "base/buf.h"
#include "loadtest/client_http.h"
#include "sora/status.h"

struct discovered {
    char *base;     // the first model without a parent, NULL: none
    char *adapters; // names with commas; NULL: none
};

// {"data":[{"id","parent"},...]}: with a parent it is an adapter. Without any parent in the list
// the first is the base and there is no adapter. SORA_MALFORMED otherwise.
SORA_CHECKED sora_status discover_parse(const char *json, size_t bytes, struct discovered *found,
                                        struct sora_error *err);
// [{"id":0,"path":...},...] becomes names "lora-0", "lora-1", ... in the order of the ids.
SORA_CHECKED sora_status discover_parse_lora(const char *json, size_t bytes,
                                             struct discovered *found, struct sora_error *err);
SORA_CHECKED sora_status discover_models(struct client_http *http, enum client_selector selector,
                                         struct discovered *found, struct sora_error *err);
void discovered_deinit(struct discovered *found);

#endif

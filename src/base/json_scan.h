// SPDX-License-Identifier: Apache-2.0
// A strict walk over JSON text before cJSON sees it (internal to json.c): RFC 8259 grammar with
// bounds on depth and on the number of values, exact about the byte that is wrong. Pure.
#ifndef BASE_JSON_SCAN_H
#define BASE_JSON_SCAN_H

#include <stddef.h>

#include "sora/status.h"

SORA_CHECKED sora_status json_scan(const char *text, size_t bytes, size_t values_max,
                                   struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// cJSON behind the project's limits and errors. The tree is plain cJSON; these are the accessors
// that say what is wrong with a foreign document.
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

// Parses exactly one value of RFC 8259; trailing bytes, depth over SORA_JSON_DEPTH_MAX, control
// bytes, invalid UTF-8, lone surrogates and \u0000 are SORA_MALFORMED with the byte; duplicate keys
// of one object are SORA_MALFORMED with the key; more than SORA_JSON_BYTES_MAX bytes or
// SORA_JSON_VALUES_MAX values are SORA_LIMIT. *tree is freed with cJSON_Delete.
SORA_CHECKED sora_status json_parse(const char *text, size_t bytes, cJSON **tree,
                                    struct sora_error *err);
// The same with the caller's bound on values (every value of the tree counts, containers too) and
// none on bytes: a value takes two bytes of text but 64 and more of memory.
SORA_CHECKED sora_status json_parse_within(const char *text, size_t bytes, size_t values_max,
                                           cJSON **tree, struct sora_error *err);

// Optional fields: absent or null leaves *out alone and succeeds; a wrong type or a value outside
// [min, max] is SORA_MALFORMED naming the field, the value and the range.
SORA_CHECKED sora_status json_get_int(const cJSON *object, const char *name, int64_t min,
                                      int64_t max, int64_t *out, struct sora_error *err);
SORA_CHECKED sora_status json_get_number(const cJSON *object, const char *name, double min,
                                         double max, double *out, struct sora_error *err);
SORA_CHECKED sora_status json_get_bool(const cJSON *object, const char *name, bool *out,
                                       struct sora_error *err);
// The string stays in the tree.
SORA_CHECKED sora_status json_get_string(const cJSON *object, const char *name, const char **out,
                                         struct sora_error *err);
// True when the member exists and is not null.
bool json_has(const cJSON *object, const char *name);

#endif

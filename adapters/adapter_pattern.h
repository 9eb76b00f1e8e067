// SPDX-License-Identifier: Apache-2.0
// PEFT's rank_pattern and alpha_pattern: an ordered list of regular expressions with a number
// each. The keys come from strangers, so matching is bounded. One thread at a time.
#ifndef ADAPTERS_ADAPTER_PATTERN_H
#define ADAPTERS_ADAPTER_PATTERN_H

#include <stdbool.h>

#include "adapters/adapter_config.h"
#include "base/json.h"

#define ADAPTER_ALPHA_MAX 1e30              // far above any use; keeps every product finite
#define ADAPTER_CONFIG_BYTES_MAX (4u << 20) // 1,792 modules x 3 lists x 50 bytes is 270 KB
#define ADAPTER_PATTERN_COUNT_MAX 4096      // 256 layers x 7 projections is 1,792
// True regular expressions, not plain names: a handful is usual. With the limit on the steps of
// one match, the worst file costs a few seconds of one HTTP worker.
#define ADAPTER_REGEX_COUNT_MAX 64
#define ADAPTER_REGEX_STEPS_MAX 5000

// Reads the member `field` of the config: values are numbers in [min, max], whole ones when
// `whole`. Absent or null: empty.
SORA_CHECKED sora_status adapter_patterns_read(const cJSON *tree, const char *field, double min,
                                               double max, bool whole,
                                               struct adapter_patterns *patterns,
                                               struct sora_error *err);
// AdaLoRA's member `field`: "MODULE.lora_E": [true, false, ...], one for each of init_r ranks. The
// value of a module is how many are true.
SORA_CHECKED sora_status adapter_masks_read(const cJSON *tree, const char *field, int32_t init_r,
                                            struct adapter_patterns *patterns,
                                            struct sora_error *err);
void adapter_patterns_deinit(struct adapter_patterns *patterns);
// The value of the first key that matches; *value is left alone when none does.
SORA_CHECKED sora_status adapter_patterns_find(const struct adapter_patterns *patterns,
                                               const char *module, double *value,
                                               struct sora_error *err);

#endif

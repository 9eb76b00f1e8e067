// SPDX-License-Identifier: Apache-2.0
// PEFT's adapter_config.json: what it says about rank and scale of a module, with PEFT's own
// semantics, and the config text that our files carry. Owner: whoever reads or writes one adapter;
// one thread at a time.
#ifndef ADAPTERS_ADAPTER_CONFIG_H
#define ADAPTERS_ADAPTER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "sora/lora.h"
#include "sora/status.h"

struct adapter_pattern; // one key of rank_pattern or alpha_pattern, in the file's order

struct adapter_patterns {
    struct adapter_pattern *items;
    int32_t count;
};

struct adapter_config {
    bool is_adalora;
    int32_t r; // AdaLoRA's init_r
    double lora_alpha;
    bool use_rslora;
    char *base_name; // base_model_name_or_path, or NULL
    struct adapter_patterns ranks, alphas;
    bool *layers; // [SORA_LAYER_COUNT_MAX] layers_to_transform, or NULL: all
};

// Refuses by name what PEFT's LoRA has and this does not (SORA_UNSUPPORTED), and what is neither a
// LoRA nor an AdaLoRA config (SORA_MALFORMED). On failure nothing is left to deinit.
SORA_CHECKED sora_status adapter_config_parse(const char *text, size_t bytes,
                                              struct adapter_config *config,
                                              struct sora_error *err);
void adapter_config_deinit(struct adapter_config *config);

// Rank and alpha of a module, e.g. "model.layers.3.self_attn.q_proj": the first key that matches
// as a regular expression at the end of the name, at its beginning or after a dot; else r and
// lora_alpha. An AdaLoRA module may have rank 0.
SORA_CHECKED sora_status adapter_config_rank(const struct adapter_config *config,
                                             const char *module, int32_t *rank,
                                             struct sora_error *err);
SORA_CHECKED sora_status adapter_config_alpha(const struct adapter_config *config,
                                              const char *module, double *alpha,
                                              struct sora_error *err);
// What PEFT's AdaLoRA multiplies a module by; there is one rank of r left where ranks were pruned,
// and r, not what is left, divides (peft.tuners.adalora.model.resize_modules_by_rank_pattern).
double adapter_config_adalora_scale(const struct adapter_config *config, int32_t rank);
// alpha / rank, or alpha / sqrt(rank), in double as PEFT does.
double adapter_config_scale(bool use_rslora, double alpha, int32_t rank);
// An alpha whose alpha / rank is `scale`: to the last bit of double where there is one, and of
// float always.
double adapter_config_alpha_for(double scale, int32_t rank);

struct adapter_config_module {
    int32_t layer;
    enum sora_proj proj;
    int32_t rank; // > 0
    double alpha;
};
struct adapter_config_source {
    const char *base_name; // may be NULL
    int32_t r;
    double lora_alpha;
    bool use_rslora;
    const struct adapter_config_module *modules;
    int32_t module_count;
};
// Appends the JSON text; errors are the buffer's.
void adapter_config_print(struct buf *buf, const struct adapter_config_source *source);

#endif

// SPDX-License-Identifier: Apache-2.0
// Reads and writes PEFT's adapter_config.json. Owner: whoever reads or writes one adapter; one
// thread at a time. Semantics are those of peft.utils.other.get_pattern_key and
// peft.tuners.lora.layer.LoraLayer.update_layer.
#include "adapters/adapter_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/adapter_names.h"
#include "adapters/adapter_pattern.h"
#include "base/json.h"
#include "sora/limits.h"

// Switches of PEFT that change what is computed, and are not implemented here. Absent, null,
// false, and an empty list or object mean "off".
static const struct {
    const char *key, *what;
} refused_keys[] = {
    {"use_dora", "DoRA"},
    {"use_qalora", "QALoRA"},
    {"use_bdlora", "BD-LoRA"},
    {"lora_bias", "a bias in lora_B"},
    {"fan_in_fan_out", "transposed weights"},
    {"modules_to_save", "fully trained modules"},
    {"trainable_token_indices", "trained token embeddings"},
    {"layer_replication", "replicated layers"},
    {"target_parameters", "adapted bare parameters"},
    {"alora_invocation_tokens", "activated LoRA"},
    {"arrow_config", "Arrow routing"},
    {"kasa_config", "KaSA"},
    {"monteclora_config", "MonteCLoRA"},
    {"megatron_config", "Megatron parallel layers"},
};

static bool is_off(const cJSON *item)
{
    if (!item || cJSON_IsNull(item) || cJSON_IsFalse(item))
        return true;
    return (cJSON_IsArray(item) || cJSON_IsObject(item)) && !item->child;
}

static sora_status check_type(const cJSON *tree, struct adapter_config *config,
                              struct sora_error *err)
{
    const char *peft_type = "LORA", *bias = "none";
    sora_status status = json_get_string(tree, "peft_type", &peft_type, err);
    if (status == SORA_OK)
        status = json_get_string(tree, "bias", &bias, err);
    if (status != SORA_OK)
        return status;
    config->is_adalora = strcmp(peft_type, "ADALORA") == 0;
    if (!config->is_adalora && strcmp(peft_type, "LORA") != 0)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "peft_type \"%s\" is not supported: expected \"LORA\" or \"ADALORA\"",
                         peft_type);
    if (strcmp(bias, "none") != 0)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "bias \"%s\" (trained biases) is not supported: expected \"none\"", bias);
    return SORA_OK;
}

// Some initialisations also change the base weights, when training begins and again whenever PEFT
// loads the adapter; on the unchanged base such an adapter would compute something else.
static sora_status check_init(const cJSON *tree, struct sora_error *err)
{
    static const char *const plain[] = {"gaussian", "eva", "orthogonal"};
    const cJSON *init = cJSON_GetObjectItemCaseSensitive(tree, "init_lora_weights");
    if (!init || cJSON_IsNull(init) || cJSON_IsBool(init))
        return SORA_OK;
    if (!cJSON_IsString(init))
        return sora_fail(err, SORA_MALFORMED, "init_lora_weights is neither a bool nor a string");
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (strcmp(init->valuestring, plain[i]) == 0)
            return SORA_OK;
    }
    return sora_fail(err, SORA_UNSUPPORTED,
                     "init_lora_weights \"%s\" changes the base weights, or is unknown: convert "
                     "the adapter to plain LoRA first (PEFT's "
                     "path_initial_model_for_weight_conversion)",
                     init->valuestring);
}

static sora_status check_features(const cJSON *tree, struct sora_error *err)
{
    for (size_t i = 0; i < sizeof refused_keys / sizeof refused_keys[0]; i++) {
        if (!is_off(cJSON_GetObjectItemCaseSensitive(tree, refused_keys[i].key)))
            return sora_fail(err, SORA_UNSUPPORTED, "%s (%s) is not supported", refused_keys[i].key,
                             refused_keys[i].what);
    }
    return check_init(tree, err);
}

static sora_status read_numbers(const cJSON *tree, struct adapter_config *config,
                                struct sora_error *err)
{
    const char *const needed[] = {config->is_adalora ? "init_r" : "r", "lora_alpha"};
    for (int i = 0; i < 2; i++) {
        if (!json_has(tree, needed[i]))
            return sora_fail(err, SORA_MALFORMED, "no \"%s\": the scale of the adapter is unknown",
                             needed[i]);
    }
    int64_t r = 0;
    sora_status status = json_get_int(tree, needed[0], 1, SORA_WIDTH_MAX, &r, err);
    config->r = (int32_t)r;
    if (status == SORA_OK)
        status = json_get_number(tree, "lora_alpha", -ADAPTER_ALPHA_MAX, ADAPTER_ALPHA_MAX,
                                 &config->lora_alpha, err);
    if (status == SORA_OK)
        status = json_get_bool(tree, "use_rslora", &config->use_rslora, err);
    return status;
}

static sora_status read_layer(const cJSON *item, bool *layers, struct sora_error *err)
{
    double layer = cJSON_IsNumber(item) ? item->valuedouble : -1.0;
    if (!(layer >= 0 && layer < SORA_LAYER_COUNT_MAX) || layer != floor(layer))
        return sora_fail(err, SORA_MALFORMED,
                         "layers_to_transform: expected whole numbers in [0, %d]",
                         SORA_LAYER_COUNT_MAX - 1);
    layers[(int32_t)layer] = true;
    return SORA_OK;
}

// The layers that are adapted, one number or a list. PEFT loads nothing into the others.
static sora_status read_layers(const cJSON *tree, struct adapter_config *config,
                               struct sora_error *err)
{
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(tree, "layers_pattern");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(tree, "layers_to_transform"), *item;
    const cJSON *word = cJSON_IsArray(pattern) ? pattern->child : pattern;
    bool several = cJSON_IsArray(pattern) && cJSON_GetArraySize(pattern) > 1;
    bool plain = !word || cJSON_IsNull(word) ||
                 (cJSON_IsString(word) && !several &&
                  (!*word->valuestring || strcmp(word->valuestring, "layers") == 0));
    if (!plain)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "layers_pattern is not supported: expected \"layers\" or none");
    if (!json_has(tree, "layers_to_transform"))
        return SORA_OK;
    config->layers = calloc(SORA_LAYER_COUNT_MAX, sizeof *config->layers);
    if (!config->layers)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for layers_to_transform");
    if (!cJSON_IsArray(list))
        return read_layer(list, config->layers, err);
    sora_status status = SORA_OK;
    cJSON_ArrayForEach(item, list)
    {
        if (status == SORA_OK)
            status = read_layer(item, config->layers, err);
    }
    return status;
}

// PEFT's AdaLoRA reads neither alpha_pattern nor use_rslora; whoever set them meant something else.
static sora_status read_adalora(const cJSON *tree, struct adapter_config *config,
                                struct sora_error *err)
{
    if (!is_off(cJSON_GetObjectItemCaseSensitive(tree, "alpha_pattern")) || config->use_rslora)
        return sora_fail(err, SORA_UNSUPPORTED, "%s with peft_type \"ADALORA\" is not supported",
                         config->use_rslora ? "use_rslora" : "alpha_pattern");
    return adapter_masks_read(tree, "rank_pattern", config->r, &config->ranks, err);
}

static sora_status read_patterns(const cJSON *tree, struct adapter_config *config,
                                 struct sora_error *err)
{
    if (config->is_adalora)
        return read_adalora(tree, config, err);
    sora_status status =
        adapter_patterns_read(tree, "rank_pattern", 1, SORA_WIDTH_MAX, true, &config->ranks, err);
    if (status == SORA_OK)
        status = adapter_patterns_read(tree, "alpha_pattern", -ADAPTER_ALPHA_MAX, ADAPTER_ALPHA_MAX,
                                       false, &config->alphas, err);
    return status;
}

static sora_status read_tree(const cJSON *tree, struct adapter_config *config,
                             struct sora_error *err)
{
    if (!cJSON_IsObject(tree))
        return sora_fail(err, SORA_MALFORMED, "not a JSON object");
    sora_status status = check_type(tree, config, err);
    if (status == SORA_OK)
        status = check_features(tree, err);
    if (status == SORA_OK)
        status = read_numbers(tree, config, err);
    if (status == SORA_OK)
        status = read_layers(tree, config, err);
    if (status == SORA_OK)
        status = read_patterns(tree, config, err);
    const char *base_name = NULL;
    if (status == SORA_OK)
        status = json_get_string(tree, "base_model_name_or_path", &base_name, err);
    if (status == SORA_OK && base_name) {
        config->base_name = strdup(base_name);
        if (!config->base_name)
            status = sora_fail(err, SORA_NO_MEMORY, "no memory for the base's name");
    }
    return status;
}

sora_status adapter_config_parse(const char *text, size_t bytes, struct adapter_config *config,
                                 struct sora_error *err)
{
    cJSON *tree = NULL;
    memset(config, 0, sizeof *config);
    sora_status status;
    if (bytes > ADAPTER_CONFIG_BYTES_MAX)
        status = sora_fail(err, SORA_LIMIT, "%zu bytes exceed the limit of %u", bytes,
                           (unsigned)ADAPTER_CONFIG_BYTES_MAX);
    else
        status = json_parse(text, bytes, &tree, err);
    if (status == SORA_OK)
        status = read_tree(tree, config, err);
    cJSON_Delete(tree);
    if (status != SORA_OK) {
        adapter_config_deinit(config);
        return sora_fail_within(err, status, "adapter_config");
    }
    return SORA_OK;
}

void adapter_config_deinit(struct adapter_config *config)
{
    adapter_patterns_deinit(&config->ranks);
    adapter_patterns_deinit(&config->alphas);
    free(config->base_name);
    free(config->layers);
    config->base_name = NULL;
    config->layers = NULL;
}

sora_status adapter_config_rank(const struct adapter_config *config, const char *module,
                                int32_t *rank, struct sora_error *err)
{
    double value = config->r;
    sora_status status = adapter_patterns_find(&config->ranks, module, &value, err);
    *rank = (int32_t)value;
    return status == SORA_OK ? status : sora_fail_within(err, status, "rank_pattern");
}

sora_status adapter_config_alpha(const struct adapter_config *config, const char *module,
                                 double *alpha, struct sora_error *err)
{
    *alpha = config->lora_alpha;
    sora_status status = adapter_patterns_find(&config->alphas, module, alpha, err);
    return status == SORA_OK ? status : sora_fail_within(err, status, "alpha_pattern");
}

double adapter_config_adalora_scale(const struct adapter_config *config, int32_t rank)
{
    double scaling = config->lora_alpha > 0 ? config->lora_alpha : rank;
    float ranknum = (float)config->r + 1e-5f; // a tensor of PEFT's, so f32
    return scaling / (double)ranknum;
}

double adapter_config_scale(bool use_rslora, double alpha, int32_t rank)
{
    return use_rslora ? alpha / sqrt((double)rank) : alpha / (double)rank;
}

double adapter_config_alpha_for(double scale, int32_t rank)
{
    double alpha = scale * rank;
    const double near[] = {alpha, nextafter(alpha, -INFINITY), nextafter(alpha, INFINITY)};
    for (int i = 0; i < 3; i++) {
        if (near[i] / rank == scale)
            return near[i];
    }
    for (int i = 0; i < 3; i++) {
        if ((float)(near[i] / rank) == (float)scale)
            return near[i];
    }
    return alpha;
}

// The shortest decimal that reads back as the same double.
static void print_number(struct buf *buf, double value)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_text(buf, text);
}

// One member for each module: "key":rank, "key":alpha, or, for a list, "key" alone.
static void print_modules(struct buf *buf, const struct adapter_config_source *source, char what)
{
    char module[SORA_TENSOR_NAME_BYTES_MAX + 1];
    for (int32_t i = 0; i < source->module_count; i++) {
        const struct adapter_config_module *m = &source->modules[i];
        adapter_module_name(m->layer, m->proj, module);
        buf_printf(buf, "%s\"%s\"", i ? "," : "", module);
        if (what == 'r')
            buf_printf(buf, ":%d", (int)m->rank);
        if (what == 'a') {
            buf_text(buf, ":");
            print_number(buf, m->alpha);
        }
    }
}

void adapter_config_print(struct buf *buf, const struct adapter_config_source *source)
{
    buf_text(buf,
             "{\"peft_type\":\"LORA\",\"task_type\":\"CAUSAL_LM\",\"base_model_name_or_path\":");
    if (source->base_name)
        buf_json_string(buf, source->base_name, strlen(source->base_name));
    else
        buf_text(buf, "null");
    buf_printf(buf, ",\"r\":%d,\"lora_alpha\":", (int)source->r);
    print_number(buf, source->lora_alpha);
    buf_text(buf, ",\"lora_dropout\":0.0,\"bias\":\"none\",\"target_modules\":[");
    print_modules(buf, source, 't');
    buf_text(buf, "],\"rank_pattern\":{");
    print_modules(buf, source, 'r');
    buf_text(buf, "},\"alpha_pattern\":{");
    print_modules(buf, source, 'a');
    buf_printf(buf,
               "},\"use_rslora\":%s,\"use_dora\":false,\"fan_in_fan_out\":false,"
               "\"inference_mode\":true,\"modules_to_save\":null,\"init_lora_weights\":true}",
               source->use_rslora ? "true" : "false");
}

// SPDX-License-Identifier: Apache-2.0
// PEFT adapters in, PEFT adapters out: the same numbers and the same scales. One thread.
#include "adapter_fixture.h"

#include <math.h>

#include "adapters/adapter_config.h"
#include "base/file.h"
#include "base/json.h"
#include "base/safetensors.h"

static char *path_of(const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    assert_non_null(path);
    return path;
}

// The number under a full module name, or under `otherwise` of the config.
static double number_of(const cJSON *config, const char *pattern, const char *otherwise,
                        const char *module)
{
    const cJSON *item =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItem(config, pattern), module);
    return (item ? item : cJSON_GetObjectItem(config, otherwise))->valuedouble;
}

static void check_module(const struct safetensors *file, const cJSON *config,
                         const struct sora_base *base, const sora_adapter *adapter,
                         const struct sora_adapter_module *module)
{
    char name[160], key[80];
    struct sora_error err = {SORA_OK, ""};
    snprintf(key, sizeof key, "model.layers.%d.%s", module->layer, sora_proj_path(module->proj));
    double rank = number_of(config, "rank_pattern", "r", key);
    double alpha = number_of(config, "alpha_pattern", "lora_alpha", key);
    bool rslora = cJSON_IsTrue(cJSON_GetObjectItem(config, "use_rslora"));
    assert_true(module->rank == rank && module->alpha == alpha);
    assert_true(module->scale == (float)(rslora ? alpha / sqrt(rank) : alpha / rank));

    const struct sora_lora_module *packed =
        &sora_adapter_get_lora(adapter)->modules[module->layer * SORA_PROJ_COUNT + module->proj];
    int32_t d_in = base->d_in[module->proj], d_out = base->d_out[module->proj];
    snprintf(name, sizeof name, "base_model.model.%s.lora_A.weight", key);
    const struct safetensors_tensor *a = safetensors_find(file, name);
    assert_non_null(a);
    assert_int_equal(a->bytes, (size_t)module->rank * (size_t)d_in * 4);
    assert_memory_equal(packed->a, a->data, a->bytes);
    snprintf(name, sizeof name, "base_model.model.%s.lora_B.weight", key);
    const struct safetensors_tensor *b = safetensors_find(file, name);
    assert_non_null(b);
    float *values = malloc(b->bytes);
    assert_non_null(values);
    assert_ok(safetensors_to_f32(b, values, &err));
    for (int32_t k = 0; k < module->rank; k++)
        for (int32_t o = 0; o < d_out; o++)
            assert_true(((const float *)packed->bt)[k * d_out + o] == values[o * module->rank + k]);
    free(values);
}

static void check_golden(const char *name)
{
    struct sora_base base = fixture_smollm();
    struct sora_error err = {SORA_OK, ""};
    char *folder = path_of(GOLDEN_DIR "/adapters", name), *text;
    char *config_path = path_of(folder, "adapter_config.json");
    char *weights_path = path_of(folder, "adapter_model.safetensors");
    size_t text_bytes, byte_count;
    uint8_t *bytes;
    struct file_map map;
    cJSON *config = NULL;
    struct safetensors *file = NULL;
    sora_adapter *adapter = NULL;
    assert_ok(sora_adapter_import(folder, &base, &bytes, &byte_count, &err));
    assert_ok(sora_adapter_parse(bytes, byte_count, &base, &adapter, &err));
    assert_ok(file_read(config_path, 1 << 20, &text, &text_bytes, &err));
    assert_ok(json_parse(text, text_bytes, &config, &err));
    assert_ok(file_map_open(weights_path, &map, &err));
    assert_ok(safetensors_parse(map.data, map.bytes, &file, &err));
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    assert_int_equal(2 * info->module_count, safetensors_count(file));
    assert_true(info->module_count > 0);
    for (int32_t i = 0; i < info->module_count; i++)
        check_module(file, config, &base, adapter, &info->modules[i]);
    safetensors_destroy(file);
    file_map_close(&map);
    cJSON_Delete(config);
    sora_adapter_destroy(adapter);
    free(text);
    free(bytes);
    free(folder);
    free(config_path);
    free(weights_path);
}

static const char *const golden[] = {"uniform-r4-qv", "rslora-r8-attn", "ragged", "ragged-alpha"};

static void peft_adapters_are_imported_with_every_number_and_scale(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++)
        check_golden(golden[i]);
}

static void export_and_import_again_give_the_same_bytes(void **state)
{
    (void)state;
    struct sora_base base = fixture_smollm();
    struct sora_error err = {SORA_OK, ""};
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        char *source = path_of(GOLDEN_DIR "/adapters", golden[i]), *folder = fixture_folder();
        char *target = path_of(folder, "deep/peft");
        uint8_t *first, *second;
        size_t first_bytes, second_bytes;
        assert_ok(sora_adapter_import(source, &base, &first, &first_bytes, &err));
        assert_ok(sora_adapter_export_peft(first, first_bytes, target, &err));
        assert_ok(sora_adapter_import(target, &base, &second, &second_bytes, &err));
        assert_int_equal(first_bytes, second_bytes);
        assert_memory_equal(first, second, first_bytes);
        free(first);
        free(second);
        free(source);
        free(target);
        fixture_folder_remove(folder);
    }
}

static void our_file_comes_back_from_import_unchanged(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes, *again;
    size_t byte_count, again_bytes;
    sora_adapter *adapter = NULL;
    char *folder = fixture_folder(), *path = path_of(folder, "a.safetensors");
    fixture_file(&base, 4, &bytes, &byte_count);
    assert_ok(file_write_atomic(path, bytes, byte_count, &err));
    assert_ok(sora_adapter_import(path, &base, &again, &again_bytes, &err));
    assert_int_equal(again_bytes, byte_count);
    assert_memory_equal(again, bytes, byte_count);
    assert_ok(sora_adapter_open(path, &base, &adapter, &err));
    assert_int_equal(sora_adapter_get_info(adapter)->bytes, byte_count);
    sora_adapter_destroy(adapter);
    free(bytes);
    free(again);
    free(path);
    fixture_folder_remove(folder);
}

// A rank 1 adapter of k_proj in layer 1, under names of one's choice.
static void write_peft(const char *a_name, const char *b_name, const char *config, uint8_t **bytes,
                       size_t *byte_count)
{
    static float values[64];
    struct sora_error err = {SORA_OK, ""};
    const struct safetensors_meta meta[] = {{"format", "pt"}, {"adapter_config", config}};
    const struct safetensors_tensor tensors[] = {
        {a_name, "F32", 2, {1, 16}, (const uint8_t *)values, 64},
        {b_name, "F32", 2, {8, 1}, (const uint8_t *)values, 32},
    };
    for (int i = 0; i < 64; i++)
        values[i] = (float)i;
    assert_ok(safetensors_encode(meta, config ? 2 : 1, tensors, 2, bytes, byte_count, &err));
}

#define MODULE "layers.1.self_attn.k_proj"
#define A_NAME "base_model.model.model." MODULE ".lora_A.weight"
#define B_NAME "base_model.model.model." MODULE ".lora_B.weight"

static void names_without_the_inner_model_and_with_default_are_taken(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {A_NAME, B_NAME},
        {"base_model.model." MODULE ".lora_A.weight", "base_model.model." MODULE ".lora_B.weight"},
        {"base_model.model.model." MODULE ".lora_A.default.weight",
         "base_model.model.model." MODULE ".lora_B.default.weight"},
    };
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    for (int i = 0; i < 3; i++) {
        uint8_t *bytes, *ours;
        size_t byte_count, our_bytes;
        sora_adapter *plain = NULL, *imported = NULL;
        const char *config = "{\"peft_type\":\"LORA\",\"r\":1,\"lora_alpha\":0.1}";
        write_peft(names[i][0], names[i][1], config, &bytes, &byte_count);
        assert_ok(sora_adapter_parse(bytes, byte_count, &base, &plain, &err));
        assert_ok(
            sora_adapter_from_peft(config, bytes, byte_count, &base, &ours, &our_bytes, &err));
        assert_ok(sora_adapter_parse(ours, our_bytes, &base, &imported, &err));
        assert_true(fixture_same_lora(&base, plain, imported));
        const struct sora_adapter_info *info = sora_adapter_get_info(imported);
        assert_int_equal(info->module_count, 1);
        assert_int_equal(info->modules[0].layer, 1);
        assert_int_equal(info->modules[0].proj, SORA_PROJ_K);
        assert_true(info->modules[0].scale == 0.1f);
        assert_non_null(info->base_json);
        assert_null(sora_adapter_get_info(plain)->base_json);
        sora_adapter_destroy(plain);
        sora_adapter_destroy(imported);
        free(bytes);
        free(ours);
    }
}

static void weights_without_a_config_say_how_to_send_one(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes;
    size_t byte_count;
    sora_adapter *adapter = NULL;
    write_peft(A_NAME, B_NAME, NULL, &bytes, &byte_count);
    assert_refused(sora_adapter_parse(bytes, byte_count, &base, &adapter, &err), SORA_MALFORMED,
                   "config + weights");
    free(bytes);
}

static void what_peft_has_and_this_does_not_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *config;
        sora_status status;
        const char *part;
    } cases[] = {
        {"\"use_dora\":true", SORA_UNSUPPORTED, "use_dora"},
        {"\"use_qalora\":true", SORA_UNSUPPORTED, "use_qalora"},
        {"\"use_bdlora\":{\"nblocks\":2}", SORA_UNSUPPORTED, "use_bdlora"},
        {"\"lora_bias\":true", SORA_UNSUPPORTED, "lora_bias"},
        {"\"fan_in_fan_out\":true", SORA_UNSUPPORTED, "fan_in_fan_out"},
        {"\"modules_to_save\":[\"lm_head\"]", SORA_UNSUPPORTED, "modules_to_save"},
        {"\"trainable_token_indices\":[1]", SORA_UNSUPPORTED, "trainable_token_indices"},
        {"\"layer_replication\":[[0,2]]", SORA_UNSUPPORTED, "layer_replication"},
        {"\"target_parameters\":[\"x\"]", SORA_UNSUPPORTED, "target_parameters"},
        {"\"alora_invocation_tokens\":[5]", SORA_UNSUPPORTED, "alora_invocation_tokens"},
        {"\"arrow_config\":{\"top_k\":3}", SORA_UNSUPPORTED, "arrow_config"},
        {"\"kasa_config\":{\"beta\":1}", SORA_UNSUPPORTED, "kasa_config"},
        {"\"monteclora_config\":{\"n\":1}", SORA_UNSUPPORTED, "monteclora_config"},
        {"\"bias\":\"all\"", SORA_UNSUPPORTED, "bias \"all\""},
        {"\"bias\":\"lora_only\"", SORA_UNSUPPORTED, "lora_only"},
        {"\"peft_type\":\"ADALORA\"", SORA_MALFORMED, "init_r"},
        {"\"layers_pattern\":\"blocks\"", SORA_UNSUPPORTED, "layers_pattern"},
        {"\"layers_to_transform\":[0,2]", SORA_MISMATCH, "layers_to_transform"},
        {"\"layers_to_transform\":0", SORA_MISMATCH, "layers_to_transform"},
        {"\"layers_to_transform\":\"all\"", SORA_MALFORMED, "layers_to_transform"},
        {"\"layers_to_transform\":[0.5]", SORA_MALFORMED, "layers_to_transform"},
        {"\"peft_type\":\"IA3\"", SORA_UNSUPPORTED, "IA3"},
        {"\"peft_type\":\"LOHA\"", SORA_UNSUPPORTED, "LOHA"},
        {"\"peft_type\":7", SORA_MALFORMED, "peft_type"},
        {"\"init_lora_weights\":\"pissa_niter_4\"", SORA_UNSUPPORTED, "pissa_niter_4"},
        {"\"init_lora_weights\":\"olora\"", SORA_UNSUPPORTED, "olora"},
        {"\"rank_pattern\":[]", SORA_MALFORMED, "rank_pattern"},
        {"\"rank_pattern\":{\"k_proj\":\"1\"}", SORA_MALFORMED, "k_proj"},
        {"\"rank_pattern\":{\"k_proj\":0}", SORA_MALFORMED, "k_proj"},
        {"\"rank_pattern\":{\"k_proj\":2}", SORA_MISMATCH, "expected shape [2, 16]"},
        {"\"rank_pattern\":{\"k_(proj\":2}", SORA_MALFORMED, "not a regular expression"},
        {"\"alpha_pattern\":{\"k_proj\":null}", SORA_MALFORMED, "k_proj"},
        {"\"alpha_pattern\":{\"(([a-z0-9_.])+)+q.proj\":1}", SORA_LIMIT, "steps"},
        {"\"use_rslora\":\"yes\"", SORA_MALFORMED, "use_rslora"},
        {"\"r\":1", SORA_MALFORMED, "duplicate"},
    };
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes, *ours = NULL;
    size_t byte_count, our_bytes;
    write_peft(A_NAME, B_NAME, NULL, &bytes, &byte_count);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char config[512];
        snprintf(config, sizeof config, "{\"r\":1,\"lora_alpha\":2,%s}", cases[i].config);
        assert_refused(
            sora_adapter_from_peft(config, bytes, byte_count, &base, &ours, &our_bytes, &err),
            cases[i].status, cases[i].part);
        assert_null(ours);
    }
    free(bytes);
}

static void switches_that_are_off_are_taken(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    const char *config =
        "{\"r\":1,\"lora_alpha\":2,\"use_dora\":false,\"modules_to_save\":null,"
        "\"lora_bias\":false,\"loftq_config\":{},\"layer_replication\":null,\"bias\":\"none\","
        "\"trainable_token_indices\":[],\"layers_to_transform\":[1],\"layers_pattern\":\"layers\","
        "\"kasa_config\":null,\"init_lora_weights\":\"gaussian\","
        "\"lora_dropout\":0.1,\"some_future_key\":3,\"task_type\":null}";
    uint8_t *bytes, *ours = NULL;
    size_t byte_count, our_bytes;
    write_peft(A_NAME, B_NAME, NULL, &bytes, &byte_count);
    assert_ok(sora_adapter_from_peft(config, bytes, byte_count, &base, &ours, &our_bytes, &err));
    free(ours);
    free(bytes);
}

static void patterns_match_as_peft_matches_them(void **state)
{
    (void)state;
    static const struct {
        const char *pattern; // of alpha_pattern
        const char *module;
        double alpha;
    } cases[] = {
        {"{\"q_proj\":3}", "model.layers.0.self_attn.q_proj", 3},
        {"{\"q_proj\":3}", "model.layers.0.self_attn.k_proj", 1},
        {"{\"_proj\":3}", "model.layers.0.self_attn.q_proj", 1},
        {"{\"roj\":3}", "model.layers.0.self_attn.q_proj", 1},
        {"{\"self_attn.q_proj\":3}", "model.layers.0.self_attn.q_proj", 3},
        {"{\"layers.1.self_attn.q_proj\":3}", "model.layers.11.self_attn.q_proj", 1},
        {"{\"1.self_attn.q_proj\":3}", "model.layers.11.self_attn.q_proj", 1},
        {"{\"1.self_attn.q_proj\":3}", "model.layers.1.self_attn.q_proj", 3},
        {"{\"model.layers.1.self_attn.q_proj\":3}", "model.layers.1.self_attn.q_proj", 3},
        {"{\"^model.layers.1.self_attn.q_proj\":3}", "model.layers.1.self_attn.q_proj", 3},
        {"{\"^layers.1.self_attn.q_proj\":3}", "model.layers.1.self_attn.q_proj", 1},
        {"{\"^layers.1.self_attn.q_proj\":3}", "layers.1.self_attn.q_proj", 3},
        {"{\"self_attn\":3}", "model.layers.1.self_attn.q_proj", 1},
        // A dot in a key is any character, as in every regular expression.
        {"{\"self.attn.q.proj\":3}", "model.layers.1.self_attn.q_proj", 3},
        {"{\"model.layers.1..self_attn.q_proj\":3}", "model.layers.11.self_attn.q_proj", 3},
        // The first key that matches counts.
        {"{\"q_proj\":3,\"model.layers.1.self_attn.q_proj\":4}", "model.layers.1.self_attn.q_proj",
         3},
        {"{\"model.layers.1.self_attn.q_proj\":4,\"q_proj\":3}", "model.layers.1.self_attn.q_proj",
         4},
        {"{\".*\":5}", "model.layers.1.mlp.up_proj", 5},
        {"{\"layers\\\\.(0|1)\\\\.mlp\\\\..*\":6}", "model.layers.1.mlp.up_proj", 6},
        {"{\"layers\\\\.(0|1)\\\\.mlp\\\\..*\":6}", "model.layers.2.mlp.up_proj", 1},
        {"{\"(q|v)_proj\":7}", "model.layers.2.self_attn.v_proj", 7},
        {"{\"[qv]_proj\":7}", "model.layers.2.self_attn.k_proj", 1},
        {"{\"^model\\\\.layers\\\\.\\\\d+\\\\.mlp.up_proj\":8}", "model.layers.2.mlp.up_proj", 8},
        {"{\"(?P<x>up|down)_proj\":9}", "model.layers.2.mlp.up_proj", 9},
        {"{\"\":9}", "model.layers.2.mlp.up_proj", 1},
        {"{\"up_proj\":-2.5}", "model.layers.2.mlp.up_proj", -2.5},
        {"{}", "model.layers.2.mlp.up_proj", 1},
        {"null", "model.layers.2.mlp.up_proj", 1},
    };
    struct sora_error err = {SORA_OK, ""};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        struct adapter_config config;
        double alpha;
        snprintf(text, sizeof text, "{\"r\":8,\"lora_alpha\":1,\"alpha_pattern\":%s}",
                 cases[i].pattern);
        assert_ok(adapter_config_parse(text, strlen(text), &config, &err));
        assert_ok(adapter_config_alpha(&config, cases[i].module, &alpha, &err));
        if (alpha != cases[i].alpha)
            fail_msg("%s on %s: expected %g, found %g", cases[i].pattern, cases[i].module,
                     cases[i].alpha, alpha);
        adapter_config_deinit(&config);
    }
}

static void scales_are_those_that_peft_computes(void **state)
{
    (void)state;
    assert_true(adapter_config_scale(false, 16, 8) == 2.0);
    assert_true(adapter_config_scale(true, 16, 8) == 16 / sqrt(8.0));
    assert_true(adapter_config_scale(false, 1, 3) == 1.0 / 3.0);
    for (int rank = 1; rank <= 64; rank++) {
        for (int i = 1; i < 500; i++) {
            double scale = i / 7.0;
            double alpha = adapter_config_alpha_for(scale, rank);
            assert_true((float)(alpha / rank) == (float)scale);
        }
    }
}

static void folders_that_are_no_adapter_are_refused_with_the_path(void **state)
{
    (void)state;
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes = NULL;
    size_t byte_count;
    sora_adapter *adapter = NULL;
    char *folder = fixture_folder(), *pickle = path_of(folder, "adapter_model.bin");
    char *config = path_of(folder, "adapter_config.json");
    assert_refused(sora_adapter_import("/nowhere/at/all", NULL, &bytes, &byte_count, &err),
                   SORA_NOT_FOUND, "/nowhere/at/all");
    assert_refused(sora_adapter_open("/nowhere/at/all", NULL, &adapter, &err), SORA_NOT_FOUND,
                   "/nowhere/at/all");
    assert_refused(sora_adapter_import(folder, NULL, &bytes, &byte_count, &err), SORA_NOT_FOUND,
                   "adapter_config.json");
    assert_ok(file_write_atomic(config, "{\"r\":1,\"lora_alpha\":1}", 22, &err));
    assert_refused(sora_adapter_import(folder, NULL, &bytes, &byte_count, &err), SORA_NOT_FOUND,
                   "adapter_model.safetensors");
    assert_ok(file_write_atomic(pickle, "x", 1, &err));
    assert_refused(sora_adapter_import(folder, NULL, &bytes, &byte_count, &err), SORA_UNSUPPORTED,
                   "pickle");
    free(pickle);
    free(config);
    fixture_folder_remove(folder);
}

static void a_golden_adapter_does_not_fit_another_base(void **state)
{
    (void)state;
    struct sora_base base = fixture_smollm();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes = NULL;
    size_t byte_count;
    const char *folder = GOLDEN_DIR "/adapters/ragged";
    base.layer_count = 29;
    assert_refused(sora_adapter_import(folder, &base, &bytes, &byte_count, &err), SORA_MISMATCH,
                   "expected a layer below 29, found 29");
    base = fixture_smollm();
    base.d_in[SORA_PROJ_GATE] = 512;
    assert_refused(sora_adapter_import(folder, &base, &bytes, &byte_count, &err), SORA_MISMATCH,
                   "512]");
    assert_null(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peft_adapters_are_imported_with_every_number_and_scale),
        cmocka_unit_test(export_and_import_again_give_the_same_bytes),
        cmocka_unit_test(our_file_comes_back_from_import_unchanged),
        cmocka_unit_test(names_without_the_inner_model_and_with_default_are_taken),
        cmocka_unit_test(weights_without_a_config_say_how_to_send_one),
        cmocka_unit_test(what_peft_has_and_this_does_not_is_refused_by_name),
        cmocka_unit_test(switches_that_are_off_are_taken),
        cmocka_unit_test(patterns_match_as_peft_matches_them),
        cmocka_unit_test(scales_are_those_that_peft_computes),
        cmocka_unit_test(folders_that_are_no_adapter_are_refused_with_the_path),
        cmocka_unit_test(a_golden_adapter_does_not_fit_another_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

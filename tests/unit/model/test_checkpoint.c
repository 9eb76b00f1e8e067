// SPDX-License-Identifier: Apache-2.0
// Model folders and files that are damaged or ask for what is not computed here: each is refused
// with a text that names the thing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/safetensors.h"
#include "sora/engine.h"
#include "sora/limits.h"

#define LLAMA GOLDEN_DIR "/tiny/llama"
#define TENSORS_MAX 64

static char folder[] = "/tmp/sora-test-XXXXXX";

static void write_text(const char *name, const void *data, size_t bytes)
{
    struct sora_error err = {0};
    char *path = file_join(folder, name);
    assert_int_equal(file_write_atomic(path, data, bytes, &err), SORA_OK);
    free(path);
}

static char *read_whole(const char *path, size_t *bytes)
{
    char *data = NULL;
    struct sora_error err = {0};
    assert_int_equal(file_read(path, (size_t)64 << 20, &data, bytes, &err), SORA_OK);
    return data;
}

// Opens the folder and expects a failure whose text has `word` in it.
static void expect_refused(const char *path, const char *word)
{
    sora_model *model = NULL;
    struct sora_error err = {0};
    sora_status status = sora_model_open(path, &model, &err);
    sora_model_close(model);
    if (status == SORA_OK || strstr(err.text, word) == NULL)
        fail_msg("wanted a refusal that says \"%s\", got %s \"%s\"", word, sora_status_name(status),
                 err.text);
}

static void copy_weights(void)
{
    size_t bytes = 0;
    char *data = read_whole(LLAMA "/model.safetensors", &bytes);
    write_text("model.safetensors", data, bytes);
    free(data);
}

static void each_bad_setting_of_config_json_is_named(void **state)
{
    (void)state;
    const struct {
        const char *key, *json, *word;
    } rows[] = {
        {"num_hidden_layers", NULL, "num_hidden_layers"},
        {"num_hidden_layers", "\"3\"", "num_hidden_layers"},
        {"num_hidden_layers", "100000", "layer count"},
        {"num_hidden_layers", "4", "layer 3"},
        {"num_hidden_layers", "2", "layers.2"},
        {"hidden_size", "0", "hidden"},
        {"hidden_size", "128", "embed_tokens"},
        {"intermediate_size", "161", "gate_proj"},
        {"num_key_value_heads", "3", "kv heads"},
        {"head_dim", "15", "head_dim"},
        {"vocab_size", "319", "embed_tokens"},
        {"model_type", "\"bert\"", "bert"},
        {"model_type", "7", "model_type"},
        {"hidden_act", "\"gelu\"", "gelu"},
        {"rms_norm_eps", "-1", "rms_norm_eps"},
        {"rope_parameters", "{\"rope_type\":\"yarn\"}", "yarn"},
        {"rope_parameters", "{\"rope_type\":\"llama3\",\"factor\":8}", "llama3"},
        {"rope_parameters", "{\"partial_rotary_factor\":0.5}", "partial_rotary_factor"},
        {"use_sliding_window", "true", "sliding"},
    };
    size_t bytes = 0;
    char *original = read_whole(LLAMA "/config.json", &bytes);
    copy_weights();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cJSON *config = cJSON_Parse(original);
        cJSON_DeleteItemFromObject(config, rows[i].key);
        if (rows[i].json != NULL)
            cJSON_AddItemToObject(config, rows[i].key, cJSON_Parse(rows[i].json));
        char *text = cJSON_PrintUnformatted(config);
        write_text("config.json", text, strlen(text));
        expect_refused(folder, rows[i].word);
        cJSON_free(text);
        cJSON_Delete(config);
    }
    write_text("config.json", "{\"model_type\": ", 15);
    expect_refused(folder, "config.json: JSON");
    write_text("config.json", original, bytes);
    sora_model *model = NULL; // and unharmed it opens
    struct sora_error err = {0};
    assert_int_equal(sora_model_open(folder, &model, &err), SORA_OK);
    sora_model_close(model);
    free(original);
}

// Writes the weights again with one tensor left out, renamed or reshaped.
static void write_weights_with(const char *name, const char *new_name, bool flat)
{
    size_t bytes = 0, out_bytes = 0;
    char *data = read_whole(LLAMA "/model.safetensors", &bytes);
    struct safetensors *file = NULL;
    struct sora_error err = {0};
    assert_int_equal(safetensors_parse(data, bytes, &file, &err), SORA_OK);
    struct safetensors_tensor tensors[TENSORS_MAX];
    int32_t count = 0;
    for (int32_t i = 0; i < safetensors_count(file); i++) {
        struct safetensors_tensor tensor = *safetensors_at(file, i);
        if (strcmp(tensor.name, name) == 0 && new_name == NULL && !flat)
            continue;
        if (strcmp(tensor.name, name) == 0 && new_name != NULL)
            tensor.name = new_name;
        if (strcmp(tensor.name, name) == 0 && flat) {
            tensor.shape[0] *= tensor.shape[1];
            tensor.rank = 1;
        }
        tensors[count++] = tensor;
    }
    uint8_t *out = NULL;
    assert_int_equal(safetensors_encode(NULL, 0, tensors, count, &out, &out_bytes, &err), SORA_OK);
    write_text("model.safetensors", out, out_bytes);
    free(out);
    safetensors_destroy(file);
    free(data);
}

static void each_bad_tensor_is_named(void **state)
{
    (void)state;
    size_t bytes = 0;
    char *config = read_whole(LLAMA "/config.json", &bytes);
    write_text("config.json", config, bytes);
    write_weights_with("model.layers.1.mlp.up_proj.weight", NULL, false);
    expect_refused(folder, "layer 1: the up_proj tensor is missing");
    write_weights_with("model.norm.weight", "model.extra.weight", false);
    expect_refused(folder, "output norm");
    write_weights_with("model.layers.0.self_attn.k_proj.weight", NULL, true);
    expect_refused(folder, "model.layers.0.self_attn.k_proj.weight: shape [1, 2048]");

    copy_weights();
    char *path = file_join(folder, "more.safetensors");
    static const uint8_t value[4] = {0};
    struct safetensors_tensor extra = {.name = "model.layers.0.self_attn.q_proj.lora_magnitude",
                                       .dtype = "F32",
                                       .rank = 1,
                                       .shape = {1},
                                       .data = value,
                                       .bytes = sizeof value};
    uint8_t *out = NULL;
    size_t out_bytes = 0;
    struct sora_error err = {0};
    assert_int_equal(safetensors_encode(NULL, 0, &extra, 1, &out, &out_bytes, &err), SORA_OK);
    write_text("more.safetensors", out, out_bytes);
    expect_refused(folder, "lora_magnitude");
    unlink(path);
    free(path);
    free(out);
    free(config);
}

static void a_truncated_or_missing_model_is_refused_with_its_path(void **state)
{
    (void)state;
    size_t bytes = 0;
    char *data = read_whole(LLAMA "/model.safetensors", &bytes);
    for (size_t cut = 0; cut < bytes; cut += bytes / 7 + 1) {
        write_text("model.safetensors", data, cut);
        expect_refused(folder, "model.safetensors");
    }
    free(data);
    expect_refused("/nonexistent/model.gguf", "/nonexistent/model.gguf");
    char *path = file_join(folder, "config.json");
    expect_refused(path, "config.json"); // a file that is no GGUF
    free(path);
}

// A GGUF of any kind cut at many places must be refused, never read beyond its end.
static void a_truncated_gguf_is_refused(void **state)
{
    (void)state;
    const char *model = getenv("SORA_TEST_MODEL");
    if (model == NULL) {
        printf("SKIPPED a_truncated_gguf_is_refused: SORA_TEST_MODEL is not set\n");
        skip();
    }
    struct file_map map;
    struct sora_error err = {0};
    assert_int_equal(file_map_open(model, &map, &err), SORA_OK);
    char *path = file_join(folder, "cut.gguf");
    const size_t cuts[] = {0, 3, 20, 1000, 100000, 1700000, 3000000};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        assert_true(cuts[i] < map.bytes);
        write_text("cut.gguf", map.data, cuts[i]);
        expect_refused(path, "cut.gguf");
    }
    unlink(path);
    free(path);
    file_map_close(&map);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
    (void)state;
    const char *const names[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        char *path = file_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_bad_setting_of_config_json_is_named),
        cmocka_unit_test(each_bad_tensor_is_named),
        cmocka_unit_test(a_truncated_or_missing_model_is_refused_with_its_path),
        cmocka_unit_test(a_truncated_gguf_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

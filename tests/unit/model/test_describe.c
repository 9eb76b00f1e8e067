// SPDX-License-Identifier: Apache-2.0
// sora_model_describe on Hugging Face folders, on the default GGUF model and on what is neither.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "sora/engine.h"

static cJSON *describe(const char *path)
{
    struct sora_error err = {0};
    char *text = NULL;
    cJSON *tree = NULL;
    if (sora_model_describe(path, &text, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_int_equal(json_parse(text, strlen(text), &tree, &err), SORA_OK);
    free(text);
    return tree;
}

static void check_number(const cJSON *tree, const char *key, double expected)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, key);
    if (!cJSON_IsNumber(item) || item->valuedouble != expected)
        fail_msg("%s: expected %g, found %g", key, expected,
                 cJSON_IsNumber(item) ? item->valuedouble : -1.0);
}

static void check_text(const cJSON *tree, const char *key, const char *expected)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(tree, key);
    assert_true(cJSON_IsString(item));
    assert_string_equal(item->valuestring, expected);
}

static const cJSON *find_tensor(const cJSON *tree, const char *name)
{
    const cJSON *tensor;
    cJSON_ArrayForEach(tensor, cJSON_GetObjectItemCaseSensitive(tree, "tensors"))
    {
        if (strcmp(cJSON_GetObjectItem(tensor, "name")->valuestring, name) == 0)
            return tensor;
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void check_shape(const cJSON *tensor, double rows, double cols)
{
    const cJSON *shape = cJSON_GetObjectItem(tensor, "shape");
    assert_int_equal(cJSON_GetArraySize(shape), 2);
    assert_true(cJSON_GetArrayItem(shape, 0)->valuedouble == rows);
    assert_true(cJSON_GetArrayItem(shape, 1)->valuedouble == cols);
}

static void a_huggingface_folder_is_described(void **state)
{
    (void)state;
    cJSON *tree = describe(GOLDEN_DIR "/tiny/llama");
    check_text(tree, "format", "huggingface");
    check_text(tree, "architecture", "llama");
    check_number(tree, "layers", 3);
    check_number(tree, "hidden", 64);
    check_number(tree, "intermediate", 160);
    check_number(tree, "heads", 4);
    check_number(tree, "kv_heads", 2);
    check_number(tree, "vocab_size", 320);
    check_number(tree, "context_length", 256);
    check_number(tree, "rope_theta", 10000);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(tree, "tied_output")));
    const cJSON *tensor = find_tensor(tree, "model.layers.2.mlp.down_proj.weight");
    check_text(tensor, "type", "F32");
    check_shape(tensor, 64, 160);
    cJSON_Delete(tree);
}

static void a_model_that_cannot_be_run_is_described_too(void **state)
{
    (void)state;
    cJSON *tree = describe(GOLDEN_DIR "/tiny/gemma3");
    const cJSON *type = cJSON_GetObjectItem(tree, "architecture");
    assert_true(cJSON_IsString(type));
    assert_non_null(strstr(type->valuestring, "gemma3"));
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "tensors")) > 0);
    cJSON_Delete(tree);
}

static void the_default_gguf_is_described(void **state)
{
    (void)state;
    const char *path = getenv("SORA_TEST_MODEL");
    if (path == NULL) {
        printf("SKIPPED the_default_gguf_is_described: SORA_TEST_MODEL is not set\n");
        skip();
    }
    cJSON *tree = describe(path);
    check_text(tree, "format", "gguf");
    check_text(tree, "architecture", "llama");
    check_number(tree, "layers", 30);
    check_number(tree, "hidden", 576);
    check_number(tree, "context_length", 8192);
    check_number(tree, "vocab_size", 49152);
    check_number(tree, "parameters", 134515008);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "tensors")), 272);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(tree, "tied_output")));
    const cJSON *tensor = find_tensor(tree, "blk.0.ffn_down.weight");
    check_text(tensor, "type", "Q4_1");
    check_shape(tensor, 576, 1536); // [d_out, d_in], as Hugging Face has it
    cJSON_Delete(tree);
}

static void check_refused(const char *path, const char *text)
{
    struct sora_error err = {0};
    char *json = NULL;
    assert_int_not_equal(sora_model_describe(path, &json, &err), SORA_OK);
    assert_null(json);
    if (strstr(err.text, text) == NULL)
        fail_msg("expected \"%s\" in \"%s\"", text, err.text);
}

static void what_is_no_model_is_refused_by_name(void **state)
{
    (void)state;
    check_refused("/nonexistent/model.gguf", "/nonexistent/model.gguf");
    check_refused(GOLDEN_DIR, "config.json"); // a folder without one
    check_refused(GOLDEN_DIR "/tiny/llama/config.json", "config.json");
}

static void write_file(const char *folder, const char *name, const void *data, size_t bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static void a_broken_folder_is_refused_with_the_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_describe.XXXXXX";
    assert_non_null(mkdtemp(folder));
    write_file(folder, "config.json", "{\"model_type\":", 14);
    check_refused(folder, "config.json");
    write_file(folder, "config.json", "[1]", 3);
    check_refused(folder, "not a JSON object");
    write_file(folder, "config.json", "{\"num_hidden_layers\":\"two\"}", 27);
    check_refused(folder, "no *.safetensors");
    write_file(folder, "model.safetensors", "\x40\0\0\0\0\0\0\0{\"a\":", 13);
    check_refused(folder, "model.safetensors");
    const char header[] = "\x08\0\0\0\0\0\0\0{}      ";
    write_file(folder, "model.safetensors", header, 16);
    cJSON *tree = describe(folder); // strange, but nothing in it lies
    check_number(tree, "parameters", 0);
    assert_null(cJSON_GetObjectItem(tree, "layers"));
    cJSON_Delete(tree);
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_huggingface_folder_is_described),
        cmocka_unit_test(a_model_that_cannot_be_run_is_described_too),
        cmocka_unit_test(the_default_gguf_is_described),
        cmocka_unit_test(what_is_no_model_is_refused_by_name),
        cmocka_unit_test(a_broken_folder_is_refused_with_the_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

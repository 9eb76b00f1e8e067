// SPDX-License-Identifier: Apache-2.0
// Made adapter files, and the order and bookkeeping of changes beside the load.
#include "load_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/half.h"
#include "base/safetensors.h"
#include "loadtest/churn.h"
#include "loadtest/made_adapter.h"
#include "temp_folder.h"

#define BASE                                                                      \
    "{\"architecture\":\"llama\",\"layers\":3,\"hidden\":16,\"intermediate\":24," \
    "\"heads\":4,\"kv_heads\":2,\"head_dim\":4,\"vocab_size\":100,\"fingerprint\":\"f\"}"

static void make(uint64_t seed, const char *ranks, uint8_t **bytes, size_t *byte_count)
{
    struct made_base base;
    struct length length;
    struct sora_error err = {.text = ""};
    assert_int_equal(made_base_parse(BASE, strlen(BASE), &base, &err), SORA_OK);
    assert_int_equal(length_parse(ranks, 0, 64, &length, &err), SORA_OK);
    if (made_adapter_encode(&base, &length, seed, bytes, byte_count, &err) != SORA_OK)
        fail_msg("%s", err.text);
    made_base_deinit(&base);
}

static void a_made_file_has_the_shapes_of_its_base(void **state)
{
    (void)state;
    static const struct {
        const char *module;
        int64_t d_in, d_out;
    } shapes[] = {{"self_attn.q_proj", 16, 16}, {"self_attn.k_proj", 16, 8},
                  {"self_attn.v_proj", 16, 8},  {"self_attn.o_proj", 16, 16},
                  {"mlp.gate_proj", 16, 24},    {"mlp.up_proj", 16, 24},
                  {"mlp.down_proj", 24, 16}};
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    struct safetensors *file = NULL;
    struct sora_error err;
    make(5, "3", &bytes, &byte_count);
    assert_int_equal(safetensors_parse(bytes, byte_count, &file, &err), SORA_OK);
    assert_int_equal(safetensors_count(file), 3 * 7 * 2);
    assert_string_equal(safetensors_metadata(file, "format"), "sora-adapter");
    assert_non_null(
        strstr(safetensors_metadata(file, "adapter_config"), "\"model.layers.2.mlp.up_proj\":6"));
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        char name[128];
        snprintf(name, sizeof name, "base_model.model.model.layers.1.%s.lora_A.weight",
                 shapes[i].module);
        const struct safetensors_tensor *a = safetensors_find(file, name);
        snprintf(name, sizeof name, "base_model.model.model.layers.1.%s.lora_B.weight",
                 shapes[i].module);
        const struct safetensors_tensor *b = safetensors_find(file, name);
        assert_true(a != NULL && b != NULL);
        assert_true(a->shape[0] == 3 && a->shape[1] == shapes[i].d_in);
        assert_true(b->shape[0] == shapes[i].d_out && b->shape[1] == 3);
    }
    safetensors_destroy(file);
    free(bytes);
}

static void made_values_are_small_and_differ_by_seed(void **state)
{
    (void)state;
    uint8_t *one = NULL, *same = NULL, *other = NULL;
    size_t one_bytes = 0, same_bytes = 0, other_bytes = 0;
    struct safetensors *file = NULL;
    struct sora_error err;
    make(5, "uniform:0:6", &one, &one_bytes);
    make(5, "uniform:0:6", &same, &same_bytes);
    make(6, "uniform:0:6", &other, &other_bytes);
    assert_int_equal(one_bytes, same_bytes);
    assert_memory_equal(one, same, one_bytes);
    assert_true(one_bytes != other_bytes || memcmp(one, other, one_bytes) != 0);
    made_adapter_vary(same, same_bytes, 9);
    assert_memory_not_equal(one, same, one_bytes);
    assert_int_equal(safetensors_parse(same, same_bytes, &file, &err), SORA_OK);
    for (int32_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        for (size_t j = 0; j < tensor->bytes; j += 2) {
            float value = half_from_bf16((uint16_t)(tensor->data[j] | tensor->data[j + 1] << 8));
            assert_true(value > -0.04F && value < 0.04F && value != 0);
        }
    }
    safetensors_destroy(file);
    free(one);
    free(same);
    free(other);
}

static void a_file_of_all_zero_ranks_gets_one(void **state)
{
    (void)state;
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    struct safetensors *file = NULL;
    struct made_base base;
    struct sora_error err;
    make(5, "0", &bytes, &byte_count);
    assert_int_equal(safetensors_parse(bytes, byte_count, &file, &err), SORA_OK);
    assert_int_equal(safetensors_count(file), 2);
    safetensors_destroy(file);
    // And the record of the base can be taken from it again.
    assert_int_equal(made_base_from_file(bytes, byte_count, &base, &err), SORA_OK);
    assert_string_equal(base.json, BASE);
    made_base_deinit(&base);
    free(bytes);
}

static void a_card_without_a_base_is_refused(void **state)
{
    (void)state;
    static const char *const cards[] = {"",
                                        "{}",
                                        "{\"base\":null}",
                                        "{\"base\":{\"layers\":3}}",
                                        "{\"base\":{\"layers\":1e9}}",
                                        "{\"base\":[]}",
                                        "[]"};
    for (size_t i = 0; i < sizeof cards / sizeof cards[0]; i++) {
        struct made_base base;
        struct sora_error err = {.text = ""};
        assert_int_not_equal(made_base_from_card(cards[i], strlen(cards[i]), &base, &err), SORA_OK);
        made_base_deinit(&base);
    }
}

#define CHURN "{\"rate\": 1, \"duration\": 10, \"churn_rate\": 20, \"churn_mix\": \"2:1:1\"}"

static void changes_come_in_order_one_at_a_time(void **state)
{
    (void)state;
    struct load_fixture load;
    struct made_base base;
    struct churn *churn = NULL;
    struct sora_error err;
    struct churn_counts counts;
    load_fixture_init(&load, CHURN, "a", NULL);
    assert_int_equal(made_base_parse(BASE, strlen(BASE), &base, &err), SORA_OK);
    assert_int_equal(churn_create(&load.plan, &base, NULL, &churn, &err), SORA_OK);
    for (int32_t i = 0; i < load.plan.churn_count; i++) {
        const struct plan_churn *op = &load.plan.churn[i];
        struct churn_call call;
        char path[64];
        assert_int_equal(churn_due_us(churn), op->at_us);
        churn_take(churn, op->at_us, &call);
        assert_true(churn_is_busy(churn));
        assert_true(churn_due_us(churn) == INT64_MAX);
        snprintf(path, sizeof path, "/v1/adapters/loadtest-churn-%d", (int)op->name);
        assert_string_equal(call.path, path);
        assert_string_equal(call.method, op->kind == CHURN_DELETE ? "DELETE" : "PUT");
        assert_int_equal(call.body != NULL, op->kind != CHURN_DELETE);
        churn_answer(churn, op->at_us + 1000, i % 10 == 9 ? 507 : 200, "full", NULL);
    }
    assert_true(churn_due_us(churn) == INT64_MAX);
    churn_get_counts(churn, &counts);
    assert_int_equal(counts.done[0] + counts.done[1] + counts.done[2] + counts.failed,
                     load.plan.churn_count);
    assert_int_equal(counts.failed, load.plan.churn_count / 10);
    assert_int_equal(counts.mean_us, 1000);
    assert_non_null(strstr(counts.first_failure, "HTTP 507: full"));
    churn_destroy(churn);
    made_base_deinit(&base);
    load_fixture_deinit(&load);
}

static void what_is_left_over_is_known(void **state)
{
    (void)state;
    struct load_fixture load;
    struct made_base base;
    struct churn *churn = NULL;
    struct sora_error err;
    char name[64];
    int32_t lives = 0, left = 0;
    load_fixture_init(&load, CHURN, "a", NULL);
    assert_int_equal(made_base_parse(BASE, strlen(BASE), &base, &err), SORA_OK);
    assert_int_equal(churn_create(&load.plan, &base, NULL, &churn, &err), SORA_OK);
    for (int32_t i = 0; i < load.plan.churn_count; i++) {
        struct churn_call call;
        churn_take(churn, 0, &call);
        churn_answer(churn, 0, 200, "", NULL);
        lives += load.plan.churn[i].kind == CHURN_UPLOAD;
        lives -= load.plan.churn[i].kind == CHURN_DELETE;
    }
    while (churn_leftover(churn, left, name, sizeof name))
        left++;
    assert_int_equal(left, lives);
    churn_destroy(churn);
    made_base_deinit(&base);
    load_fixture_deinit(&load);
}

static void a_folder_of_files_is_used_in_turn(void **state)
{
    (void)state;
    struct load_fixture load;
    struct churn *churn = NULL;
    struct sora_error err = {.text = ""};
    struct churn_call call;
    char *folder = temp_folder_create(), *one = file_join(folder, "b.safetensors"),
         *two = file_join(folder, "a.safetensors"), *other = file_join(folder, "c.txt");
    load_fixture_init(&load, "{\"duration\": 9, \"churn_rate\": 9, \"churn_mix\": \"1:0:0\"}", "a",
                      NULL);
    assert_int_equal(churn_create(&load.plan, NULL, folder, &churn, &err), SORA_NOT_FOUND);
    assert_int_equal(file_write_atomic(one, "one", 3, &err), SORA_OK);
    assert_int_equal(file_write_atomic(two, "other", 5, &err), SORA_OK);
    assert_int_equal(file_write_atomic(other, "x", 1, &err), SORA_OK);
    assert_int_equal(churn_create(&load.plan, NULL, folder, &churn, &err), SORA_OK);
    for (int i = 0; i < 4; i++) {
        churn_take(churn, 0, &call);
        assert_int_equal(call.body_bytes, i % 2 == 0 ? 5 : 3);
        churn_answer(churn, 0, 201, "", NULL);
    }
    churn_destroy(churn);
    load_fixture_deinit(&load);
    free(one);
    free(two);
    free(other);
    temp_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_made_file_has_the_shapes_of_its_base),
        cmocka_unit_test(made_values_are_small_and_differ_by_seed),
        cmocka_unit_test(a_file_of_all_zero_ranks_gets_one),
        cmocka_unit_test(a_card_without_a_base_is_refused),
        cmocka_unit_test(changes_come_in_order_one_at_a_time),
        cmocka_unit_test(what_is_left_over_is_known),
        cmocka_unit_test(a_folder_of_files_is_used_in_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

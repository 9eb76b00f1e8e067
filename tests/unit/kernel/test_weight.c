// SPDX-License-Identifier: Apache-2.0
// Weight types and packing: GGML's values to the bit, and panels that give back what went in.
#include "weight_fixture.h"

#include <cjson/cJSON.h>

#include "base/file.h"
#include "kernel/panel.h"

static cJSON *golden_tree(void)
{
    struct sora_error err;
    char *text = NULL;
    size_t bytes = 0;
    assert_int_equal(file_read(GOLDEN_DIR "/quant.json", 16u << 20, &text, &bytes, &err), SORA_OK);
    cJSON *tree = cJSON_ParseWithLength(text, bytes);
    free(text);
    assert_non_null(tree);
    return tree;
}

static uint8_t *hex_bytes(const char *hex)
{
    size_t count = strlen(hex) / 2;
    uint8_t *bytes = malloc(count + 1);
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) {
        unsigned int value;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &value), 1);
        bytes[i] = (uint8_t)value;
    }
    return bytes;
}

// Values of one golden entry that differ from what quant_row_to_f32 makes of its bytes, as
// numbers (the file does not tell -0 from 0).
static int golden_differences(const cJSON *entry, enum weight_type type, int flip_byte)
{
    const cJSON *values = cJSON_GetObjectItem(entry, "values");
    const int32_t count = cJSON_GetArraySize(values);
    uint8_t *bytes = hex_bytes(cJSON_GetObjectItem(entry, "hex")->valuestring);
    if (flip_byte >= 0)
        bytes[flip_byte] ^= 0x10;
    float *found = floats((size_t)count);
    quant_row_to_f32(type, bytes, count, found);
    int differences = 0, i = 0;
    const cJSON *value;
    cJSON_ArrayForEach(value, values) differences += (float)value->valuedouble != found[i++];
    free(found);
    free(bytes);
    return differences;
}

static void every_type_gives_ggmls_values(void **state)
{
    (void)state;
    cJSON *tree = golden_tree();
    int checked = 0;
    for (size_t t = 0; t < WEIGHT_TYPE_COUNT; t++) {
        const char *name = weight_type_name((int32_t)weight_types[t]);
        const cJSON *entry = cJSON_GetObjectItem(tree, name);
        if (entry == NULL)
            continue; // F32 has no golden blocks
        checked++;
        assert_int_equal(cJSON_GetObjectItem(entry, "block_bytes")->valueint,
                         weight_type_block_bytes(weight_types[t]));
        assert_int_equal(cJSON_GetObjectItem(entry, "block_values")->valueint,
                         weight_type_block_values(weight_types[t]));
        assert_int_equal(golden_differences(entry, weight_types[t], -1), 0);
    }
    assert_int_equal(checked, 5);
    cJSON_Delete(tree);
}

static void a_flipped_bit_is_noticed(void **state)
{
    (void)state;
    cJSON *tree = golden_tree();
    assert_int_equal(golden_differences(cJSON_GetObjectItem(tree, "Q4_0"), WEIGHT_Q4_0, 5), 1);
    assert_int_equal(golden_differences(cJSON_GetObjectItem(tree, "Q8_0"), WEIGHT_Q8_0, 5), 1);
    assert_true(golden_differences(cJSON_GetObjectItem(tree, "Q4_1"), WEIGHT_Q4_1, 2) >= 30);
    cJSON_Delete(tree);
}

static void types_are_known_by_ggmls_numbers(void **state)
{
    (void)state;
    assert_string_equal(weight_type_name(3), "Q4_1");
    assert_string_equal(weight_type_name(30), "BF16");
    assert_null(weight_type_name(12)); // Q4_K
    assert_false(weight_type_known(-1));
    assert_false(weight_type_known(4));
    assert_true(weight_type_known(8));
}

static void a_row_that_is_no_whole_number_of_blocks_has_no_size(void **state)
{
    (void)state;
    assert_int_equal(weight_type_row_bytes(WEIGHT_Q4_1, 64), 40);
    assert_int_equal(weight_type_row_bytes(WEIGHT_Q4_1, 63), 0);
    assert_int_equal(weight_type_row_bytes(WEIGHT_F16, 63), 126);
    assert_int_equal(weight_type_row_bytes(WEIGHT_F32, 0), 0);
    assert_int_equal(weight_type_row_bytes(WEIGHT_F32, -4), 0);
}

static void impossible_shapes_are_refused_with_a_reason(void **state)
{
    (void)state;
    struct weight weight;
    struct sora_error err;
    assert_int_equal(weight_init(&weight, WEIGHT_Q8_0, 4, 48, &err), SORA_MISMATCH);
    assert_non_null(strstr(err.text, "48"));
    assert_non_null(strstr(err.text, "Q8_0"));
    assert_int_equal(weight_init(&weight, WEIGHT_F32, 0, 48, &err), SORA_MISMATCH);
    assert_int_equal(weight_init(&weight, WEIGHT_F32, 4, -1, &err), SORA_MISMATCH);
}

static void packed_rows_come_back_to_the_bit(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    const int32_t d_in = 96, d_outs[] = {1, 15, 16, 17, 50};
    for (size_t t = 0; t < WEIGHT_TYPE_COUNT; t++)
        for (size_t s = 0; s < sizeof d_outs / sizeof d_outs[0]; s++) {
            struct weight weight;
            struct sora_error err;
            const int32_t d_out = d_outs[s];
            assert_int_equal(weight_init(&weight, weight_types[t], d_out, d_in, &err), SORA_OK);
            uint8_t *rows = random_rows(&rng, weight_types[t], d_out, d_in);
            pack_rows(&weight, rows);
            float expected[96], found[96];
            for (int32_t row = 0; row < d_out; row++) {
                quant_row_to_f32(weight_types[t],
                                 rows + (size_t)row * weight_type_row_bytes(weight_types[t], d_in),
                                 d_in, expected);
                weight_row_to_f32(&weight, row, found);
                assert_int_equal(bits_differ(expected, found, 96), -1);
            }
            free(rows);
            weight_deinit(&weight);
        }
}

static void missing_rows_are_zeros(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 3);
    for (size_t t = 0; t < WEIGHT_TYPE_COUNT; t++) {
        struct weight weight = random_weight(&rng, weight_types[t], 16, 64);
        const void *const none[WEIGHT_PANEL_ROWS] = {0};
        weight_pack_panel(&weight, 0, none);
        float row[64];
        weight_row_to_f32(&weight, 5, row);
        for (int k = 0; k < 64; k++)
            assert_true(row[k] == 0);
        weight_deinit(&weight);
    }
}

static void check_unpack(panel_unpack_fn *unpack)
{
    struct rng rng;
    rng_seed(&rng, 4);
    for (size_t t = 0; t < WEIGHT_TYPE_COUNT; t++) {
        struct weight weight = random_weight(&rng, weight_types[t], 32, 128);
        float found[96 * 16], row[128];
        unpack(&weight, 1, 32, 96, found);
        for (int32_t lane = 0; lane < 16; lane++) {
            weight_row_to_f32(&weight, 16 + lane, row);
            for (int32_t k = 0; k < 96; k++)
                assert_int_equal(bits_differ(&row[32 + k], &found[k * 16 + lane], 1), -1);
        }
        weight_deinit(&weight);
    }
}

static void portable_unpacking_equals_the_rows(void **state)
{
    (void)state;
    check_unpack(panel_unpack_portable);
}

static void avx2_unpacking_equals_the_rows(void **state)
{
    (void)state;
    need_isa(CPU_AVX2, __func__);
    check_unpack(panel_unpack_avx2);
}

static void avx512_unpacking_equals_the_rows(void **state)
{
    (void)state;
    need_isa(CPU_AVX512, __func__);
    check_unpack(panel_unpack_avx512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_comparers_see_a_difference),
        cmocka_unit_test(every_type_gives_ggmls_values),
        cmocka_unit_test(a_flipped_bit_is_noticed),
        cmocka_unit_test(types_are_known_by_ggmls_numbers),
        cmocka_unit_test(a_row_that_is_no_whole_number_of_blocks_has_no_size),
        cmocka_unit_test(impossible_shapes_are_refused_with_a_reason),
        cmocka_unit_test(packed_rows_come_back_to_the_bit),
        cmocka_unit_test(missing_rows_are_zeros),
        cmocka_unit_test(portable_unpacking_equals_the_rows),
        cmocka_unit_test(avx2_unpacking_equals_the_rows),
        cmocka_unit_test(avx512_unpacking_equals_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The adapter file: what encode writes, parse reads back exactly. One thread.
#include "adapter_fixture.h"

#include <math.h>
#include <stdlib.h>

#include "adapters/adapter_load.h"
#include "base/half.h"
#include "base/json.h"
#include "base/safetensors.h"

static sora_adapter *parse(const uint8_t *bytes, size_t byte_count, const struct sora_base *base)
{
    struct sora_error err = {SORA_OK, ""};
    sora_adapter *adapter = NULL;
    assert_ok(sora_adapter_parse(bytes, byte_count, base, &adapter, &err));
    return adapter;
}

static void what_was_encoded_is_parsed_back_exactly(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct fixture_pairs *pairs = fixture_pairs_make(&base, 7);
    uint8_t *bytes;
    size_t byte_count;
    int64_t parameters = 0;
    double rank_sum = 0;
    fixture_file_of(&base, pairs, SORA_F32, &bytes, &byte_count);
    sora_adapter *adapter = parse(bytes, byte_count, &base);
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    const struct sora_lora *lora = sora_adapter_get_lora(adapter);
    assert_int_equal(lora->layer_count, 3);
    for (int32_t i = 0; i < pairs->count; i++) {
        const struct sora_adapter_tensor_pair *pair = &pairs->items[i];
        const struct sora_lora_module *module = &lora->modules[i];
        int32_t d_in = base.d_in[pair->proj], d_out = base.d_out[pair->proj];
        assert_int_equal(module->rank, pair->rank);
        parameters += (int64_t)pair->rank * (d_in + d_out);
        rank_sum += pair->rank;
        if (pair->rank == 0) {
            assert_null(module->a);
            assert_null(module->bt);
            continue;
        }
        assert_true(module->scale == (float)pair->scale);
        assert_int_equal((uintptr_t)module->a % 64, 0);
        assert_int_equal((uintptr_t)module->bt % 64, 0);
        assert_memory_equal(module->a, pair->a, (size_t)pair->rank * (size_t)d_in * 4);
        for (int32_t k = 0; k < pair->rank; k++)
            for (int32_t o = 0; o < d_out; o++)
                assert_true(((const float *)module->bt)[k * d_out + o] ==
                            pair->b[o * pair->rank + k]);
    }
    assert_int_equal(info->parameters, parameters);
    assert_true(fabs(info->rank_mean - rank_sum / 21) < 1e-12);
    assert_int_equal(info->r_max, 8);
    assert_int_equal(info->bytes, byte_count);
    assert_non_null(info->base_json);
    assert_string_equal(info->training_json, "{\"method\":\"sora\",\"seed\":1}");
    sora_adapter_destroy(adapter);
    free(bytes);
    fixture_pairs_free(pairs);
}

static void the_order_of_the_source_does_not_change_the_bytes(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct fixture_pairs *pairs = fixture_pairs_make(&base, 3);
    uint8_t *one, *two;
    size_t one_bytes, two_bytes;
    fixture_file_of(&base, pairs, SORA_BF16, &one, &one_bytes);
    for (int32_t i = 0; i < pairs->count / 2; i++) {
        struct sora_adapter_tensor_pair swap = pairs->items[i];
        pairs->items[i] = pairs->items[pairs->count - 1 - i];
        pairs->items[pairs->count - 1 - i] = swap;
    }
    fixture_file_of(&base, pairs, SORA_BF16, &two, &two_bytes);
    assert_int_equal(one_bytes, two_bytes);
    assert_memory_equal(one, two, one_bytes);
    free(one);
    free(two);
    fixture_pairs_free(pairs);
}

static void half_types_are_kept_as_they_are_in_the_file(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct fixture_pairs *pairs = fixture_pairs_make(&base, 11);
    for (int d = SORA_F16; d <= SORA_BF16; d++) {
        uint8_t *bytes;
        size_t byte_count;
        fixture_file_of(&base, pairs, (enum sora_dtype)d, &bytes, &byte_count);
        sora_adapter *adapter = parse(bytes, byte_count, &base);
        const struct sora_lora_module *module = &sora_adapter_get_lora(adapter)->modules[0];
        assert_int_equal(module->dtype, d);
        for (int i = 0; i < module->rank * base.d_in[0]; i++) {
            uint16_t found = ((const uint16_t *)module->a)[i];
            float value = pairs->items[0].a[i];
            assert_int_equal(found, d == SORA_F16 ? half_to_f16(value) : half_to_bf16(value));
        }
        for (int i = 0; i < module->rank * base.d_out[0]; i++) {
            float value = pairs->items[0].b[i];
            int at = i % module->rank * base.d_out[0] + i / module->rank;
            assert_int_equal(((const uint16_t *)module->bt)[at],
                             d == SORA_F16 ? half_to_f16(value) : half_to_bf16(value));
        }
        sora_adapter_destroy(adapter);
        free(bytes);
    }
    fixture_pairs_free(pairs);
}

static void an_adapter_without_modules_is_valid_and_costs_no_tensors(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct fixture_pairs *pairs = fixture_pairs_make(&base, 1);
    for (int32_t i = 0; i < pairs->count; i++)
        pairs->items[i].rank = 0;
    uint8_t *bytes;
    size_t byte_count;
    fixture_file_of(&base, pairs, SORA_F32, &bytes, &byte_count);
    const struct sora_base *bases[] = {&base, NULL};
    for (int i = 0; i < 2; i++) {
        sora_adapter *adapter = parse(bytes, byte_count, bases[i]);
        const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
        assert_int_equal(info->module_count, 0);
        assert_int_equal(info->parameters, 0);
        assert_int_equal(info->layer_count, 3);
        assert_non_null(strstr(info->config_json, "\"target_modules\":[]"));
        sora_adapter_destroy(adapter);
    }
    free(bytes);
    fixture_pairs_free(pairs);
}

static void packed_memory_follows_the_ranks(void **state)
{
    (void)state;
    struct sora_base base = fixture_smollm();
    struct fixture_pairs *pairs = fixture_pairs_make(&base, 5);
    uint8_t *bytes;
    size_t byte_count;
    fixture_file_of(&base, pairs, SORA_F32, &bytes, &byte_count);
    sora_adapter *adapter = parse(bytes, byte_count, &base);
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    size_t table = 30 * 7 * sizeof(struct sora_lora_module) + 64;
    size_t most = (size_t)info->parameters * 4 + table + (size_t)info->module_count * 2 * 64;
    assert_true(info->packed_bytes >= (size_t)info->parameters * 4);
    assert_true(info->packed_bytes <= most);
    sora_adapter_destroy(adapter);
    free(bytes);
    fixture_pairs_free(pairs);
}

static void the_comparer_sees_one_changed_bit_and_one_changed_scale(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct fixture_pairs *pairs = fixture_pairs_make(&base, 9);
    uint8_t *bytes[3];
    size_t byte_counts[3];
    sora_adapter *adapters[3];
    fixture_file_of(&base, pairs, SORA_F32, &bytes[0], &byte_counts[0]);
    pairs->items[0].scale = nextafterf((float)pairs->items[0].scale, 2.0f);
    fixture_file_of(&base, pairs, SORA_F32, &bytes[1], &byte_counts[1]);
    bytes[2] = malloc(byte_counts[0]);
    assert_non_null(bytes[2]);
    memcpy(bytes[2], bytes[0], byte_counts[0]);
    byte_counts[2] = byte_counts[0];
    bytes[2][byte_counts[2] - 4] ^= 1;
    for (int i = 0; i < 3; i++)
        adapters[i] = parse(bytes[i], byte_counts[i], &base);
    assert_true(fixture_same_lora(&base, adapters[0], adapters[0]));
    assert_false(fixture_same_lora(&base, adapters[0], adapters[1]));
    assert_false(fixture_same_lora(&base, adapters[0], adapters[2]));
    assert_string_not_equal(sora_adapter_get_info(adapters[0])->digest,
                            sora_adapter_get_info(adapters[2])->digest);
    for (int i = 0; i < 3; i++) {
        sora_adapter_destroy(adapters[i]);
        free(bytes[i]);
    }
    fixture_pairs_free(pairs);
}

// Awkward scales and ranks: the file's alpha / rank must give the very same f32.
static void every_scale_survives_the_way_through_the_file(void **state)
{
    (void)state;
    struct sora_base base = fixture_smollm();
    struct rng rng;
    rng_seed(&rng, 99);
    for (int round = 0; round < 40; round++) {
        struct fixture_pairs *pairs = fixture_pairs_make(&base, (uint64_t)round);
        uint8_t *bytes;
        size_t byte_count;
        for (int32_t i = 0; i < pairs->count; i++)
            pairs->items[i].scale =
                (rng_uniform(&rng) - 0.5) * exp2((double)rng_below(&rng, 40) - 20);
        fixture_file_of(&base, pairs, SORA_BF16, &bytes, &byte_count);
        sora_adapter *adapter = parse(bytes, byte_count, &base);
        const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
        for (int32_t i = 0; i < info->module_count; i++) {
            const struct sora_adapter_module *module = &info->modules[i];
            int32_t at = module->layer * SORA_PROJ_COUNT + (int32_t)module->proj;
            assert_true(module->scale == (float)pairs->items[at].scale);
            assert_true((float)(module->alpha / module->rank) == module->scale);
        }
        sora_adapter_destroy(adapter);
        free(bytes);
        fixture_pairs_free(pairs);
    }
}

// Element i of a packed array, and what its row's rounding may be off by.
static float packed_value(enum sora_dtype dtype, const void *values, size_t i)
{
    if (dtype == SORA_F32)
        return ((const float *)values)[i];
    const uint16_t half = ((const uint16_t *)values)[i];
    return dtype == SORA_F16 ? half_from_f16(half) : half_from_bf16(half);
}

// bt of a module in 8 bits as [rank, d_out].
static int8_t *rows_of_columns(const int8_t *bt, size_t rank, size_t d_out)
{
    int8_t *rows = malloc(rank * d_out + 1);
    assert_non_null(rows);
    for (size_t o = 0; o < d_out; o++)
        for (size_t r = 0; r < rank; r++) {
            const size_t tile = o / 32 * 32, width = d_out - tile < 32 ? d_out - tile : 32;
            rows[r * d_out + o] = bt[tile * rank + r * width + o % 32];
        }
    return rows;
}

// Of row r of `width` values: each times the scale that fits all of them best is near the exact
// one. Returns that scale.
static double check_row(enum sora_dtype dtype, const void *exact, const int8_t *rounded, size_t r,
                        size_t width)
{
    double largest = 0.0;
    int32_t most = 0;
    for (size_t i = r * width; i < (r + 1) * width; i++) {
        largest = fmax(largest, fabs((double)packed_value(dtype, exact, i)));
        most = abs(rounded[i]) > most ? abs(rounded[i]) : most;
    }
    const double scale = largest / 127.0;
    assert_int_equal(most, largest > 0.0 ? 127 : 0);
    for (size_t i = r * width; i < (r + 1) * width; i++)
        assert_true(fabs((double)packed_value(dtype, exact, i) - scale * rounded[i]) <=
                    0.501 * scale);
    return scale;
}

static void packed_in_int8_values_are_rounded_by_rank(void **state)
{
    (void)state;
    static const enum sora_dtype dtypes[] = {SORA_F32, SORA_F16, SORA_BF16};
    struct sora_base base = fixture_smollm();
    struct sora_error err = {SORA_OK, ""};
    for (int d = 0; d < 3; d++) {
        base.intermediate = 1536 - 10 * d; // not only whole tiles of columns
        fixture_widths(&base);
        struct fixture_pairs *pairs = fixture_pairs_make(&base, 5);
        uint8_t *bytes;
        size_t byte_count, measured, measured_int8;
        fixture_file_of(&base, pairs, dtypes[d], &bytes, &byte_count);
        sora_adapter *exact = parse(bytes, byte_count, &base);
        sora_adapter *rounded;
        assert_ok(sora_adapter_parse_as(bytes, byte_count, &base, true, &rounded, &err));
        const struct sora_adapter_info *info = sora_adapter_get_info(rounded);
        assert_ok(adapter_measure(bytes, byte_count, &base, false, &measured, &err));
        assert_ok(adapter_measure(bytes, byte_count, &base, true, &measured_int8, &err));
        assert_int_equal(measured, sora_adapter_get_info(exact)->packed_bytes);
        assert_int_equal(measured_int8, info->packed_bytes);
        assert_int_equal(info->int8_bytes, info->packed_bytes);
        assert_int_equal(sora_adapter_get_info(exact)->int8_bytes, info->packed_bytes);
        assert_string_equal(info->digest, sora_adapter_get_info(exact)->digest);
        const struct sora_lora *from = sora_adapter_get_lora(exact);
        const struct sora_lora *to = sora_adapter_get_lora(rounded);
        assert_int_equal(to->layer_count, from->layer_count);
        for (int32_t i = 0; i < to->layer_count * SORA_PROJ_COUNT; i++) {
            const struct sora_lora_module *x = &from->modules[i], *y = &to->modules[i];
            assert_int_equal(y->rank, x->rank);
            assert_true(y->scale == x->scale);
            assert_int_equal((uintptr_t)y->a % 64 + (uintptr_t)y->bt % 64, 0);
            int8_t *bt =
                rows_of_columns(y->bt, (size_t)y->rank, (size_t)base.d_out[i % SORA_PROJ_COUNT]);
            for (int32_t r = 0; r < x->rank; r++) {
                const double a = check_row(x->dtype, x->a, y->a, (size_t)r,
                                           (size_t)base.d_in[i % SORA_PROJ_COUNT]);
                const double b = check_row(x->dtype, x->bt, bt, (size_t)r,
                                           (size_t)base.d_out[i % SORA_PROJ_COUNT]);
                assert_true(fabs(y->scales[r] - a * b) <= 1e-6 * a * b);
            }
            free(bt);
        }
        sora_adapter_destroy(exact);
        sora_adapter_destroy(rounded);
        free(bytes);
        fixture_pairs_free(pairs);
    }
}

static void the_config_in_the_file_is_one_that_peft_takes(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes;
    size_t byte_count;
    cJSON *tree = NULL;
    fixture_file(&base, 21, &bytes, &byte_count);
    sora_adapter *adapter = parse(bytes, byte_count, &base);
    const struct sora_adapter_info *info = sora_adapter_get_info(adapter);
    assert_ok(json_parse(info->config_json, strlen(info->config_json), &tree, &err));
    assert_string_equal(cJSON_GetObjectItem(tree, "peft_type")->valuestring, "LORA");
    assert_string_equal(cJSON_GetObjectItem(tree, "task_type")->valuestring, "CAUSAL_LM");
    assert_string_equal(cJSON_GetObjectItem(tree, "bias")->valuestring, "none");
    assert_int_equal(cJSON_GetObjectItem(tree, "r")->valueint, 8);
    assert_int_equal(cJSON_GetObjectItem(tree, "lora_alpha")->valueint, 16);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(tree, "target_modules")),
                     info->module_count);
    const cJSON *ranks = cJSON_GetObjectItem(tree, "rank_pattern");
    const cJSON *alphas = cJSON_GetObjectItem(tree, "alpha_pattern");
    assert_int_equal(cJSON_GetArraySize(ranks), info->module_count);
    assert_int_equal(cJSON_GetArraySize(alphas), info->module_count);
    for (int32_t i = 0; i < info->module_count; i++) {
        const struct sora_adapter_module *module = &info->modules[i];
        char key[64];
        snprintf(key, sizeof key, "model.layers.%d.%s", module->layer,
                 sora_proj_path(module->proj));
        double rank = cJSON_GetObjectItemCaseSensitive(ranks, key)->valuedouble;
        double alpha = cJSON_GetObjectItemCaseSensitive(alphas, key)->valuedouble;
        assert_true(rank == module->rank);
        assert_true((float)(alpha / rank) == module->scale);
    }
    cJSON_Delete(tree);
    sora_adapter_destroy(adapter);
    free(bytes);
}

static void another_base_is_refused_with_both_values(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    sora_adapter *adapter = NULL;
    uint8_t *bytes;
    size_t byte_count;
    fixture_file(&base, 2, &bytes, &byte_count);
    struct sora_base other = base;
    other.fingerprint[0] = 'f';
    assert_refused(sora_adapter_parse(bytes, byte_count, &other, &adapter, &err), SORA_MISMATCH,
                   FIXTURE_FINGERPRINT);
    other = base;
    other.vocab_size = 51;
    assert_refused(sora_adapter_parse(bytes, byte_count, &other, &adapter, &err), SORA_MISMATCH,
                   "vocab_size 50, this base has 51");
    other = base;
    snprintf(other.architecture, sizeof other.architecture, "qwen3");
    assert_refused(sora_adapter_parse(bytes, byte_count, &other, &adapter, &err), SORA_MISMATCH,
                   "\"llama\", this base is \"qwen3\"");
    // Another quantization of the same model is the same base.
    other = base;
    snprintf(other.weight_type, sizeof other.weight_type, "F16");
    adapter = parse(bytes, byte_count, &other);
    sora_adapter_destroy(adapter);
    free(bytes);
}

static void a_source_that_cannot_be_written_is_refused(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *bytes = NULL;
    size_t byte_count;
    float a[64] = {0}, b[64] = {0}, big[64] = {70000.0f}, nan_values[64] = {[3] = NAN};
    const struct sora_adapter_tensor_pair good = {0, SORA_PROJ_Q, 2, 1.0, a, b};
    struct {
        struct sora_adapter_tensor_pair pair;
        enum sora_dtype dtype;
        int32_t r_max;
        const char *training, *part;
    } cases[] = {
        {{3, SORA_PROJ_Q, 2, 1.0, a, b}, SORA_F32, 8, NULL, "layer 3"},
        {{-1, SORA_PROJ_Q, 2, 1.0, a, b}, SORA_F32, 8, NULL, "layer -1"},
        {{1, SORA_PROJ_K, 9, 1.0, a, b}, SORA_F32, 8, NULL, "rank 9 is not in [0, 8]"},
        {{1, SORA_PROJ_K, 2, INFINITY, a, b}, SORA_F32, 8, NULL, "scale inf"},
        {{1, SORA_PROJ_K, 2, 1e300, a, b}, SORA_F32, 8, NULL, "scale 1e+300"},
        {{1, SORA_PROJ_K, 2, 1.0, nan_values, b}, SORA_F32, 8, NULL, "index 3"},
        {{1, SORA_PROJ_K, 2, 1.0, a, nan_values}, SORA_BF16, 8, NULL, "lora_B"},
        {{1, SORA_PROJ_K, 2, 1.0, big, b}, SORA_F16, 8, NULL, "not finite in F16"},
        {{0, SORA_PROJ_Q, 2, 1.0, a, b}, SORA_F32, 8, NULL, "twice"},
        {{1, SORA_PROJ_K, 2, 1.0, a, b}, SORA_F32, 0, NULL, "r_max 0"},
        {{1, SORA_PROJ_K, 2, 1.0, a, b}, SORA_F32, 8, "[1]", "training record"},
        {{1, SORA_PROJ_K, 2, 1.0, a, b}, SORA_F32, 8, "{", "training record"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sora_adapter_tensor_pair pairs[] = {good, cases[i].pair};
        struct sora_adapter_source source = {.base = &base,
                                             .base_name = "b",
                                             .r_max = cases[i].r_max,
                                             .alpha = 8,
                                             .dtype = cases[i].dtype,
                                             .pairs = pairs,
                                             .pair_count = 2,
                                             .training_json = cases[i].training};
        assert_int_not_equal(sora_adapter_encode(&source, &bytes, &byte_count, &err), SORA_OK);
        assert_null(bytes);
        if (!strstr(err.text, cases[i].part))
            fail_msg("case %zu: expected \"%s\" in: %s", i, cases[i].part, err.text);
    }
}

static void projections_have_names(void **state)
{
    (void)state;
    for (int p = 0; p < SORA_PROJ_COUNT; p++) {
        char shorter[16];
        const char *name = sora_proj_name((enum sora_proj)p);
        assert_int_equal(sora_proj_from_name(name), p);
        snprintf(shorter, sizeof shorter, "%.*s", (int)(strlen(name) - 5), name);
        assert_int_equal(sora_proj_from_name(shorter), p);
    }
    assert_string_equal(sora_proj_path(SORA_PROJ_DOWN), "mlp.down_proj");
    assert_int_equal(sora_proj_from_name("lm_head"), SORA_PROJ_COUNT);
    assert_int_equal(sora_proj_from_name(""), SORA_PROJ_COUNT);
    assert_int_equal(sora_proj_from_name("_proj"), SORA_PROJ_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_encoded_is_parsed_back_exactly),
        cmocka_unit_test(the_order_of_the_source_does_not_change_the_bytes),
        cmocka_unit_test(half_types_are_kept_as_they_are_in_the_file),
        cmocka_unit_test(an_adapter_without_modules_is_valid_and_costs_no_tensors),
        cmocka_unit_test(packed_memory_follows_the_ranks),
        cmocka_unit_test(the_comparer_sees_one_changed_bit_and_one_changed_scale),
        cmocka_unit_test(every_scale_survives_the_way_through_the_file),
        cmocka_unit_test(packed_in_int8_values_are_rounded_by_rank),
        cmocka_unit_test(the_config_in_the_file_is_one_that_peft_takes),
        cmocka_unit_test(another_base_is_refused_with_both_values),
        cmocka_unit_test(a_source_that_cannot_be_written_is_refused),
        cmocka_unit_test(projections_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

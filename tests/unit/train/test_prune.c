// SPDX-License-Identifier: Apache-2.0
// Pruning: the adapter computes what the gated modules compute, zero gates cost nothing, ranks are
// sorted by importance, and the encoded file parses back to the same numbers.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "expect_close.h"
#include "sora/engine.h"
#include "train/prune.h"

enum { RANK = 6 };
static const double scale = 2.0;

static sora_model *model;

static int set_up(void **state)
{
    (void)state;
    struct sora_error err;
    return sora_model_open(GOLDEN_DIR "/tiny/qwen3", &model, &err) == SORA_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    sora_model_close(model);
    return 0;
}

static const struct sora_base *base_of(void)
{
    return &sora_model_get_info(model)->base;
}

// Random parameters; every third gate is zero, and layer 1's k_proj has none left.
static void make_params(struct params *params, bool gated)
{
    bool targets[SORA_PROJ_COUNT];
    struct sora_error err;
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        targets[proj] = proj != SORA_PROJ_UP;
    assert_int_equal(params_init(params, base_of(), targets, RANK, scale, gated, &err), SORA_OK);
    params_randomize(params, base_of(), 11);
    struct rng rng;
    rng_seed(&rng, 12);
    for (int32_t i = 0; i < params->layer_count * SORA_PROJ_COUNT; i++) {
        struct train_module *module = &params->modules[i];
        const int32_t b_count = module->rank * base_of()->d_out[i % SORA_PROJ_COUNT];
        for (int32_t j = 0; j < b_count; j++)
            module->b[j] = (float)rng_normal(&rng);
    }
    for (int64_t i = 0; i < params->gate_count; i += 3)
        params->values[params->matrix_count + i] = 0.0f;
    for (int32_t j = 0; gated && j < RANK; j++)
        params_module(params, 1, SORA_PROJ_K)->g[j] = 0.0f;
}

// y = scale B (g o (A x)) of one module, in double.
static void gated_product(const struct train_module *module, int32_t d_in, int32_t d_out,
                          const float *x, float *y)
{
    for (int32_t o = 0; o < d_out; o++) {
        double sum = 0.0;
        for (int32_t j = 0; j < module->rank; j++) {
            double t = 0.0;
            for (int32_t i = 0; i < d_in; i++)
                t += (double)module->a[j * d_in + i] * (double)x[i];
            sum += (double)module->b[o * module->rank + j] *
                   (module->g != NULL ? (double)module->g[j] : 1.0) * t;
        }
        y[o] = (float)(scale * sum);
    }
}

static void expect_same_product(const struct train_module *module,
                                const struct sora_adapter_tensor_pair *pair)
{
    const int32_t d_in = base_of()->d_in[pair->proj], d_out = base_of()->d_out[pair->proj];
    float x[512], want[512], got[512];
    assert_true(d_in <= 512 && d_out <= 512);
    struct rng rng;
    rng_seed(&rng, 13);
    for (int32_t i = 0; i < d_in; i++)
        x[i] = (float)rng_normal(&rng);
    gated_product(module, d_in, d_out, x, want);
    const struct train_module pruned = {
        .rank = pair->rank, .a = (float *)pair->a, .b = (float *)pair->b};
    gated_product(&pruned, d_in, d_out, x, got);
    expect_close("pruned product", got, want, (size_t)d_out, 1e-5, 1e-5);
}

static void a_pruned_adapter_computes_what_was_trained(void **state)
{
    (void)state;
    struct params params;
    struct prune prune;
    struct sora_error err;
    make_params(&params, true);
    assert_int_equal(prune_init(&prune, &params, base_of(), scale, &err), SORA_OK);
    assert_int_equal(prune.pair_count, base_of()->layer_count * 6 - 1);
    int64_t parameters = 0, kept = 0;
    for (int32_t i = 0; i < prune.pair_count; i++) {
        const struct sora_adapter_tensor_pair *pair = &prune.pairs[i];
        assert_true(pair->rank > 0 && pair->rank < RANK);
        assert_true(pair->scale == scale);
        assert_false(pair->layer == 1 && pair->proj == SORA_PROJ_K);
        expect_same_product(params_module(&params, pair->layer, pair->proj), pair);
        kept += pair->rank;
        parameters += pair->rank * (base_of()->d_in[pair->proj] + base_of()->d_out[pair->proj]);
    }
    assert_int_equal(parameters, prune.parameters);
    assert_int_equal(kept, params_ranks_kept(&params));
    assert_int_equal(prune.parameters_full, params.matrix_count);
    prune_deinit(&prune);
    params_deinit(&params);
}

static double importance(const struct sora_adapter_tensor_pair *pair, int32_t j)
{
    const int32_t d_in = base_of()->d_in[pair->proj], d_out = base_of()->d_out[pair->proj];
    double a = 0.0, b = 0.0;
    for (int32_t i = 0; i < d_in; i++)
        a += (double)pair->a[j * d_in + i] * (double)pair->a[j * d_in + i];
    for (int32_t o = 0; o < d_out; o++)
        b += (double)pair->b[o * pair->rank + j] * (double)pair->b[o * pair->rank + j];
    return sqrt(a) * sqrt(b); // the gate is in b
}

static void the_first_ranks_are_the_most_important(void **state)
{
    (void)state;
    struct params params;
    struct prune prune;
    struct sora_error err;
    make_params(&params, true);
    assert_int_equal(prune_init(&prune, &params, base_of(), scale, &err), SORA_OK);
    for (int32_t i = 0; i < prune.pair_count; i++)
        for (int32_t j = 1; j < prune.pairs[i].rank; j++)
            assert_true(importance(&prune.pairs[i], j - 1) >=
                        importance(&prune.pairs[i], j) * (1.0 - 1e-6));
    prune_deinit(&prune);
    params_deinit(&params);
}

static void a_plain_lora_keeps_every_rank(void **state)
{
    (void)state;
    struct params params;
    struct prune prune;
    struct sora_error err;
    make_params(&params, false);
    assert_int_equal(prune_init(&prune, &params, base_of(), scale, &err), SORA_OK);
    assert_int_equal(prune.pair_count, base_of()->layer_count * 6);
    assert_int_equal(prune.parameters, prune.parameters_full);
    expect_same_product(params_module(&params, 0, SORA_PROJ_Q), &prune.pairs[0]);
    prune_deinit(&prune);
    params_deinit(&params);
}

static sora_adapter *encode_and_parse(const struct prune *prune, enum sora_dtype dtype)
{
    const struct sora_adapter_source source = {.base = base_of(),
                                               .base_name = "tiny",
                                               .r_max = RANK,
                                               .alpha = scale * RANK,
                                               .dtype = dtype,
                                               .pairs = prune->pairs,
                                               .pair_count = prune->pair_count,
                                               .training_json = "{\"method\":\"sora\"}"};
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_adapter *adapter = NULL;
    struct sora_error err;
    if (sora_adapter_encode(&source, &bytes, &byte_count, &err) != SORA_OK ||
        sora_adapter_parse(bytes, byte_count, base_of(), &adapter, &err) != SORA_OK)
        fail_msg("%s", err.text);
    free(bytes);
    return adapter;
}

static void the_encoded_adapter_holds_the_same_numbers(void **state)
{
    (void)state;
    struct params params;
    struct prune prune;
    struct sora_error err;
    make_params(&params, true);
    assert_int_equal(prune_init(&prune, &params, base_of(), scale, &err), SORA_OK);
    sora_adapter *adapter = encode_and_parse(&prune, SORA_F32);
    const struct sora_lora *lora = sora_adapter_get_lora(adapter);
    for (int32_t i = 0; i < prune.pair_count; i++) {
        const struct sora_adapter_tensor_pair *pair = &prune.pairs[i];
        const struct sora_lora_module *module =
            &lora->modules[pair->layer * SORA_PROJ_COUNT + (int32_t)pair->proj];
        assert_int_equal(module->rank, pair->rank);
        assert_true(module->scale == (float)scale);
        assert_int_equal(module->dtype, SORA_F32);
        assert_memory_equal(module->a, pair->a,
                            (size_t)(pair->rank * base_of()->d_in[pair->proj]) * sizeof(float));
        const float *bt = module->bt;
        for (int32_t o = 0; o < base_of()->d_out[pair->proj]; o++)
            assert_true(bt[o] == pair->b[o * pair->rank]);
    }
    assert_int_equal(lora->modules[SORA_PROJ_COUNT + SORA_PROJ_K].rank, 0);
    sora_adapter_destroy(adapter);
    prune_deinit(&prune);
    params_deinit(&params);
}

static void an_adapter_without_a_rank_left_is_a_valid_file(void **state)
{
    (void)state;
    struct params params;
    struct prune prune;
    struct sora_error err;
    make_params(&params, true);
    memset(params.values + params.matrix_count, 0, (size_t)params.gate_count * sizeof(float));
    assert_int_equal(prune_init(&prune, &params, base_of(), scale, &err), SORA_OK);
    assert_int_equal(prune.pair_count, 0);
    sora_adapter *adapter = encode_and_parse(&prune, SORA_BF16);
    assert_int_equal(sora_adapter_get_info(adapter)->parameters, 0);
    sora_adapter_destroy(adapter);
    prune_deinit(&prune);
    params_deinit(&params);
}

static void a_rank_wider_than_the_matrix_is_refused(void **state)
{
    (void)state;
    struct params params;
    struct sora_error err;
    const bool targets[SORA_PROJ_COUNT] = {true};
    const bool none[SORA_PROJ_COUNT] = {false};
    assert_int_equal(params_init(&params, base_of(), targets, 1000, 1.0, true, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "rank 1000 exceeds q_proj's widths"));
    params_deinit(&params);
    assert_int_equal(params_init(&params, base_of(), none, 4, 1.0, true, &err), SORA_MALFORMED);
    params_deinit(&params);
}

static void fresh_parameters_follow_the_paper(void **state)
{
    (void)state;
    struct params params;
    struct sora_error err;
    bool targets[SORA_PROJ_COUNT];
    memset(targets, true, sizeof(targets));
    assert_int_equal(params_init(&params, base_of(), targets, 32, 1.0, true, &err), SORA_OK);
    params_randomize(&params, base_of(), 5);
    const struct train_module *module = params_module(&params, 0, SORA_PROJ_DOWN);
    const int32_t d_in = base_of()->d_in[SORA_PROJ_DOWN];
    const float bound = 1.0f / sqrtf((float)d_in);
    double squares = 0.0, gates = 0.0;
    for (int32_t i = 0; i < 32 * d_in; i++) {
        assert_true(fabsf(module->a[i]) <= bound);
        squares += (double)module->a[i] * (double)module->a[i] / (double)(bound * bound);
    }
    assert_true(fabs(squares / (32.0 * d_in) - 1.0 / 3.0) < 0.02); // uniform: a third
    assert_true(module->b[0] == 0.0f);
    for (int64_t i = 0; i < params.gate_count; i++)
        gates += pow((double)params.values[params.matrix_count + i], 2.0);
    assert_true(fabs(gates / (double)params.gate_count - 1.0) < 0.15);
    params_deinit(&params);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pruned_adapter_computes_what_was_trained),
        cmocka_unit_test(the_first_ranks_are_the_most_important),
        cmocka_unit_test(a_plain_lora_keeps_every_rank),
        cmocka_unit_test(the_encoded_adapter_holds_the_same_numbers),
        cmocka_unit_test(an_adapter_without_a_rank_left_is_a_valid_file),
        cmocka_unit_test(a_rank_wider_than_the_matrix_is_refused),
        cmocka_unit_test(fresh_parameters_follow_the_paper),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

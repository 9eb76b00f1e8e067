// SPDX-License-Identifier: Apache-2.0
// The whole training pass on tiny models of every family: its gradients are slopes of its loss,
// also with biases, sliding windows, tied outputs, partial targets and dropout; a batch is checked
// before it is used.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "model/train_pass.h"

enum { RANK = 4 };

static const int32_t tokens[] = {5,  17, 3,  42, 99, 7,  7,  120, 60, 11, 2,  80, 33, 9,
                                 64, 1,  50, 51, 52, 20, 21, 22,  23, 24, 25, 26, 27, 28};
static const int32_t starts[] = {0, 15, 16, 28};
static const int32_t scored[] = {4, 5, 6, 14, 17, 27};
static const struct train_batch batch = {tokens, 28, starts, 3, scored, 6};

struct bench {
    sora_model *model;
    struct train_pass *pass;
    struct train_module *modules;
    int32_t module_count;
    float *values, *grads;
    size_t count; // A, B, g of all modules
    float dropout;
    bool quantized; // the projections are the test's
};

static size_t module_floats(const struct sora_base *base, int32_t proj)
{
    return RANK * ((size_t)base->d_in[proj] + (size_t)base->d_out[proj] + 1);
}

static void bind(struct bench *bench, const struct sora_base *base,
                 bool (*adapted)(int32_t layer, int32_t proj))
{
    size_t at = 0;
    for (int32_t i = 0; i < bench->module_count; i++) {
        const int32_t proj = i % SORA_PROJ_COUNT;
        if (!adapted(i / SORA_PROJ_COUNT, proj))
            continue;
        struct train_module *m = &bench->modules[i];
        const size_t a = RANK * (size_t)base->d_in[proj], b = RANK * (size_t)base->d_out[proj];
        *m = (struct train_module){.rank = RANK, .scale = 0.7f};
        m->a = bench->values + at;
        m->b = m->a + a;
        m->g = m->b + b;
        m->da = bench->grads + at;
        m->db = m->da + a;
        m->dg = m->db + b;
        at += a + b + RANK;
    }
    bench->count = at;
}

static void open_bench_with(struct bench *bench, const char *model,
                            const struct train_pass_options *given,
                            bool (*adapted)(int32_t layer, int32_t proj))
{
    struct train_pass_options options = *given;
    options.tokens_max = 32;
    options.rank_max = RANK;
    char path[512];
    struct sora_error err;
    memset(bench, 0, sizeof(*bench));
    snprintf(path, sizeof(path), GOLDEN_DIR "/%s", model);
    if (sora_model_open(path, &bench->model, &err) != SORA_OK)
        fail_msg("%s: %s", path, err.text);
    const struct sora_base *base = &sora_model_get_info(bench->model)->base;
    if (train_pass_create(bench->model, &options, &bench->pass, &err) != SORA_OK)
        fail_msg("%s", err.text);
    bench->module_count = base->layer_count * SORA_PROJ_COUNT;
    size_t floats = 0;
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
        floats += module_floats(base, proj) * (size_t)base->layer_count;
    bench->modules = calloc((size_t)bench->module_count, sizeof(*bench->modules));
    bench->values = calloc(2 * floats, sizeof(float));
    assert_non_null(bench->modules);
    assert_non_null(bench->values);
    bench->grads = bench->values + floats;
    bind(bench, base, adapted);
    struct rng rng;
    rng_seed(&rng, 6);
    for (size_t i = 0; i < bench->count; i++)
        bench->values[i] = 0.1f * (float)rng_normal(&rng);
}

static void open_bench(struct bench *bench, const char *model, int32_t threads,
                       bool (*adapted)(int32_t layer, int32_t proj))
{
    open_bench_with(bench, model, &(struct train_pass_options){.threads = threads}, adapted);
}

static void close_bench(struct bench *bench)
{
    free(bench->values);
    free(bench->modules);
    train_pass_destroy(bench->pass);
    for (int32_t i = 0; bench->quantized && i < bench->module_count; i++)
        weight_deinit(
            &bench->model->weights.layers[i / SORA_PROJ_COUNT].projections[i % SORA_PROJ_COUNT]);
    sora_model_close(bench->model);
}

static double run(struct bench *bench)
{
    double loss;
    struct sora_error err;
    memset(bench->grads, 0, bench->count * sizeof(float));
    if (train_pass_run(bench->pass, &batch, bench->modules, bench->dropout, 8, &loss, &err) !=
        SORA_OK)
        fail_msg("%s", err.text);
    return loss;
}

// The slope of the loss along a random direction, measured over a rise of 2 `rise`; *computed: the
// gradient times that direction.
static double measure_slope(struct bench *bench, uint64_t seed, double rise, double *computed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    float *kept = malloc(2 * bench->count * sizeof(float));
    assert_non_null(kept);
    float *direction = kept + bench->count;
    memcpy(kept, bench->values, bench->count * sizeof(float));
    run(bench);
    // Toward the gradient plus noise: a purely random direction has a slope lost in rounding.
    double norm = 0.0, slope = 0.0;
    for (size_t i = 0; i < bench->count; i++)
        norm += (double)bench->grads[i] * (double)bench->grads[i];
    norm = sqrt(norm / (double)bench->count);
    for (size_t i = 0; i < bench->count; i++) {
        direction[i] = bench->grads[i] / (float)norm + (float)rng_normal(&rng);
        slope += (double)(bench->grads[i] * direction[i]);
    }
    const double h = rise / fabs(slope);
    for (size_t i = 0; i < bench->count; i++)
        bench->values[i] = kept[i] + (float)h * direction[i];
    const double up = run(bench);
    for (size_t i = 0; i < bench->count; i++)
        bench->values[i] = kept[i] - (float)h * direction[i];
    const double down = run(bench);
    memcpy(bench->values, kept, bench->count * sizeof(float));
    free(kept);
    *computed = slope;
    return (up - down) / (2.0 * h);
}

static bool slope_agrees(struct bench *bench, float gradient_factor)
{
    double computed;
    // Far above rounding, too short to bend.
    const double measured = measure_slope(bench, 7, 4e-3, &computed);
    computed *= (double)gradient_factor;
    const bool agrees = fabs(measured - computed) < 0.01 * fabs(computed);
    if (!agrees && gradient_factor == 1.0f)
        print_message("measured %g, computed %g\n", measured, computed);
    return agrees;
}

static bool all(int32_t layer, int32_t proj)
{
    (void)layer;
    (void)proj;
    return true;
}

static bool only_upper_down(int32_t layer, int32_t proj)
{
    return layer == 1 && proj == SORA_PROJ_DOWN;
}

static bool only_lower_gate(int32_t layer, int32_t proj)
{
    return layer == 0 && proj == SORA_PROJ_GATE;
}

static bool only_lower_o(int32_t layer, int32_t proj)
{
    return layer == 0 && proj == SORA_PROJ_O;
}

static bool only_upper_k(int32_t layer, int32_t proj)
{
    return layer == 1 && proj == SORA_PROJ_K;
}

static bool scattered(int32_t layer, int32_t proj)
{
    return (layer + proj) % 3 == 0;
}

static void the_gradients_are_slopes_for_every_family(void **state)
{
    (void)state;
    const char *models[] = {"tiny/llama", "tiny/llama3-rope", "tiny/mistral-window", "tiny/qwen2",
                            "tiny/qwen3"};
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct bench bench;
        open_bench(&bench, models[i], 2, all);
        if (!slope_agrees(&bench, 1.0f))
            fail_msg("%s: the gradient is not the slope", models[i]);
        assert_false(slope_agrees(&bench, 1.05f)); // the comparison can fail
        close_bench(&bench);
    }
}

static void the_gradients_of_some_modules_are_those_of_all(void **state)
{
    (void)state;
    bool (*const patterns[])(int32_t, int32_t) = {only_upper_down, only_lower_gate, only_lower_o,
                                                  only_upper_k, scattered};
    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        struct bench bench;
        open_bench(&bench, "tiny/qwen3", 2, patterns[i]);
        if (!slope_agrees(&bench, 1.0f))
            fail_msg("pattern %zu: the gradient is not the slope", i);
        close_bench(&bench);
    }
}

static void the_gradients_are_slopes_under_dropout(void **state)
{
    (void)state;
    struct bench bench;
    open_bench(&bench, "tiny/llama", 2, scattered);
    bench.dropout = 0.3f;
    assert_true(slope_agrees(&bench, 1.0f));
    const double dropped = run(&bench);
    assert_true(dropped == run(&bench)); // the same seed, the same masks
    bench.dropout = 0.0f;
    assert_true(dropped != run(&bench));
    close_bench(&bench);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    struct bench one, three;
    open_bench(&one, "tiny/qwen2", 1, all);
    open_bench(&three, "tiny/qwen2", 3, all);
    assert_true(run(&one) == run(&three));
    assert_memory_equal(one.grads, three.grads, one.count * sizeof(float));
    close_bench(&one);
    close_bench(&three);
}

static void recomputing_changes_no_bit(void **state)
{
    (void)state;
    const char *models[] = {"tiny/mistral-window", "tiny/qwen3"};
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        struct bench kept, again;
        open_bench(&kept, models[i], 2, all);
        open_bench_with(&again, models[i],
                        &(struct train_pass_options){.threads = 2, .recompute = true}, all);
        kept.dropout = again.dropout = i == 0 ? 0.2f : 0.0f;
        assert_true(run(&kept) == run(&again));
        assert_memory_equal(kept.grads, again.grads, kept.count * sizeof(float));
        close_bench(&kept);
        close_bench(&again);
    }
}

// One block of 32 values in Q8_0 or Q4_1; returns its bytes.
static size_t quantize_block(enum weight_type type, const float *from, uint8_t *to)
{
    float low = from[0], high = from[0];
    for (int32_t i = 1; i < 32; i++) {
        low = fminf(low, from[i]);
        high = fmaxf(high, from[i]);
    }
    if (type == WEIGHT_Q8_0) {
        const uint16_t half = half_to_f16(fmaxf(fabsf(low), fabsf(high)) / 127.0f);
        memcpy(to, &half, sizeof half);
        for (int32_t i = 0; i < 32; i++)
            to[2 + i] = (uint8_t)(int8_t)lrintf(from[i] / (half_from_f16(half) + 1e-20f));
        return 34;
    }
    const uint16_t halves[2] = {half_to_f16((high - low) / 15.0f), half_to_f16(low)};
    memcpy(to, halves, sizeof halves);
    uint8_t q[32];
    for (int32_t i = 0; i < 32; i++) {
        const float value = (from[i] - low) / (half_from_f16(halves[0]) + 1e-20f);
        q[i] = (uint8_t)fminf(15.0f, fmaxf(0.0f, rintf(value)));
    }
    for (int32_t i = 0; i < 16; i++)
        to[4 + i] = (uint8_t)(q[i] | q[i + 16] << 4);
    return 20;
}

static void quantize(struct weight *weight, enum weight_type type)
{
    struct weight made;
    struct sora_error err;
    assert_int_equal(weight_init(&made, type, weight->d_out, weight->d_in, &err), SORA_OK);
    const size_t row_bytes = weight_type_row_bytes(type, weight->d_in);
    uint8_t *bytes = calloc(WEIGHT_PANEL_ROWS, row_bytes);
    float *row = calloc((size_t)weight->d_in, sizeof(float));
    assert_non_null(bytes);
    assert_non_null(row);
    for (int32_t panel = 0; panel < weight_panel_count(&made); panel++) {
        const void *rows[WEIGHT_PANEL_ROWS] = {NULL};
        for (int32_t i = 0; i < WEIGHT_PANEL_ROWS; i++) {
            if (panel * WEIGHT_PANEL_ROWS + i >= weight->d_out)
                break;
            uint8_t *to = bytes + (size_t)i * row_bytes;
            rows[i] = to;
            weight_row_to_f32(weight, panel * WEIGHT_PANEL_ROWS + i, row);
            for (int32_t k = 0; k < weight->d_in; k += 32)
                to += quantize_block(type, row + k, to);
        }
        weight_pack_panel(&made, panel, rows);
    }
    free(row);
    free(bytes);
    *weight = made; // what it was lies in the model's own pages
}

static void quantize_projections(struct bench *bench, enum weight_type type)
{
    bench->quantized = true;
    for (int32_t layer = 0; layer < bench->model->weights.layer_count; layer++)
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
            quantize(&bench->model->weights.layers[layer].projections[proj], type);
}

static double cosine(const float *a, const float *b, size_t count)
{
    double ab = 0.0, aa = 0.0, bb = 0.0;
    for (size_t i = 0; i < count; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

// The same quantized model, computed in f32 and in int8.
static void open_both(struct bench *plain, struct bench *fast, const char *model,
                      enum weight_type type)
{
    const struct train_pass_options options = {.threads = 2, .compute = SORA_COMPUTE_INT8};
    open_bench(plain, model, 2, all);
    open_bench_with(fast, model, &options, all);
    quantize_projections(plain, type);
    quantize_projections(fast, type);
}

// The same loss up to the rounding of x to integers, and gradients that point the same way.
static void int8_follows_f32(void **state)
{
    (void)state;
    const struct {
        const char *model;
        enum weight_type type;
        double loss, angle;
    } rows[] = {{"tiny/qwen2", WEIGHT_Q8_0, 1e-4, 1e-4}, {"tiny/llama", WEIGHT_Q4_1, 2e-2, 2e-2}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bench plain, fast;
        open_both(&plain, &fast, rows[i].model, rows[i].type);
        const double want = run(&plain), found = run(&fast);
        const double angle = 1.0 - cosine(plain.grads, fast.grads, plain.count);
        if (!(fabs(found - want) <= rows[i].loss * want && angle <= rows[i].angle))
            fail_msg("%s: loss %g for %g, 1 - cosine %g", rows[i].model, found, want, angle);
        assert_true(found != want); // it was another computation
        close_bench(&plain);
        close_bench(&fast);
    }
}

// Rounding x to integers makes the loss a staircase: over a short rise its slope is chance (off by
// 6 % in Q8_0 at 0.001), over a longer one the steps average out, and what is left is the bend of
// the loss, which f32 has too.
static void int8_gradients_are_slopes_over_a_stretch(void **state)
{
    (void)state;
    enum { DIRECTIONS = 16 };
    const double rise = 0.08;
    const struct {
        const char *model;
        enum weight_type type;
        double bound; // four standard errors of the mean
    } rows[] = {{"tiny/qwen2", WEIGHT_Q8_0, 2e-3}, {"tiny/llama", WEIGHT_Q4_1, 4e-2}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bench plain, fast;
        open_both(&plain, &fast, rows[i].model, rows[i].type);
        double excess = 0.0;
        for (uint64_t seed = 1; seed <= DIRECTIONS; seed++) {
            double plain_slope, fast_slope;
            const double plain_measured = measure_slope(&plain, seed, rise, &plain_slope);
            const double fast_measured = measure_slope(&fast, seed, rise, &fast_slope);
            excess += fast_measured / fast_slope - plain_measured / plain_slope;
        }
        excess /= DIRECTIONS;
        if (!(fabs(excess) < rows[i].bound))
            fail_msg("%s: the slope is %g of the gradient's beyond f32's", rows[i].model, excess);
        close_bench(&plain);
        close_bench(&fast);
    }
}

static void the_number_of_threads_changes_no_bit_with_int8(void **state)
{
    (void)state;
    struct bench one, three;
    struct train_pass_options options = {.threads = 1, .compute = SORA_COMPUTE_INT8};
    open_bench_with(&one, "tiny/llama", &options, scattered);
    options.threads = 3;
    open_bench_with(&three, "tiny/llama", &options, scattered);
    quantize_projections(&one, WEIGHT_Q4_1);
    quantize_projections(&three, WEIGHT_Q4_1);
    assert_true(run(&one) == run(&three));
    assert_memory_equal(one.grads, three.grads, one.count * sizeof(float));
    close_bench(&one);
    close_bench(&three);
}

static void gradients_add_up_over_runs(void **state)
{
    (void)state;
    struct bench bench;
    struct sora_error err;
    double loss;
    open_bench(&bench, "tiny/llama", 1, scattered);
    run(&bench);
    const float once = bench.modules[0].dg[0];
    assert_true(once != 0.0f);
    assert_int_equal(train_pass_run(bench.pass, &batch, bench.modules, 0.0f, 8, &loss, &err),
                     SORA_OK);
    assert_true(fabsf(bench.modules[0].dg[0] - 2.0f * once) < 1e-5f * fabsf(once));
    close_bench(&bench);
}

static void other_sequences_of_the_batch_change_nothing(void **state)
{
    (void)state;
    struct bench bench;
    struct sora_error err;
    double alone, packed;
    open_bench(&bench, "tiny/llama", 1, all);
    const int32_t alone_starts[] = {0, 15}, alone_scored[] = {4, 5, 6, 14};
    const struct train_batch one = {tokens, 15, alone_starts, 1, alone_scored, 4};
    const struct train_batch two = {tokens, 28, starts, 3, alone_scored, 4};
    assert_int_equal(train_pass_run(bench.pass, &one, bench.modules, 0.0f, 0, &alone, &err),
                     SORA_OK);
    assert_int_equal(train_pass_run(bench.pass, &two, bench.modules, 0.0f, 0, &packed, &err),
                     SORA_OK);
    assert_true(fabs(alone - packed) < 1e-6);
    close_bench(&bench);
}

static void a_bad_batch_is_refused(void **state)
{
    (void)state;
    static const int32_t bad_tokens[] = {1, 2, 1 << 30};
    static const int32_t negative[] = {1, -2, 3};
    static const int32_t three[] = {0, 3}, short_of[] = {0, 2}, with_empty[] = {0, 1, 1, 3};
    static const int32_t two[] = {0, 1, 3};
    static const int32_t at_1[] = {1}, at_0[] = {0}, at_3[] = {3}, falling[] = {2, 1};
    const struct {
        struct train_batch batch;
        sora_status status;
    } rows[] = {
        {{tokens, 33, three, 1, at_1, 1}, SORA_LIMIT},
        {{tokens, 0, three, 1, at_1, 1}, SORA_LIMIT},
        {{bad_tokens, 3, three, 1, at_1, 1}, SORA_MISMATCH},
        {{negative, 3, three, 1, at_1, 1}, SORA_MISMATCH},
        {{tokens, 3, short_of, 1, at_1, 1}, SORA_MALFORMED},
        {{tokens, 3, with_empty, 3, at_1, 1}, SORA_MALFORMED},
        {{tokens, 3, three, 1, at_1, 0}, SORA_MALFORMED},
        {{tokens, 3, three, 1, at_0, 1}, SORA_MALFORMED},
        {{tokens, 3, three, 1, at_3, 1}, SORA_MALFORMED},
        {{tokens, 3, two, 2, at_1, 1}, SORA_MALFORMED}, // first of its sequence
        {{tokens, 3, three, 1, falling, 2}, SORA_MALFORMED},
        {{tokens, 3, three, 1, at_1, 1}, SORA_OK},
    };
    struct bench bench;
    open_bench(&bench, "tiny/llama", 1, scattered);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sora_error err;
        double loss;
        const sora_status status =
            train_pass_run(bench.pass, &rows[i].batch, bench.modules, 0.0f, 0, &loss, &err);
        if (status != rows[i].status)
            fail_msg("row %zu: %s", i, sora_status_name(status));
    }
    close_bench(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradients_are_slopes_for_every_family),
        cmocka_unit_test(the_gradients_of_some_modules_are_those_of_all),
        cmocka_unit_test(the_gradients_are_slopes_under_dropout),
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
        cmocka_unit_test(recomputing_changes_no_bit),
        cmocka_unit_test(int8_follows_f32),
        cmocka_unit_test(int8_gradients_are_slopes_over_a_stretch),
        cmocka_unit_test(the_number_of_threads_changes_no_bit_with_int8),
        cmocka_unit_test(gradients_add_up_over_runs),
        cmocka_unit_test(other_sequences_of_the_batch_change_nothing),
        cmocka_unit_test(a_bad_batch_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

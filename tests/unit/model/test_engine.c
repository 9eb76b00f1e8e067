// SPDX-License-Identifier: Apache-2.0
// The engine against reference vectors of small models (transformers, f32), and batch invariance:
// a row alone has the very bits that it has in any company.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "sora/engine.h"
#include "sora/limits.h"

#define TOKENS_MAX 1024
#define CHUNK 100 // tokens of a prompt in one step

// How near a model must come (tests/golden/README.md); greedy steps with a smaller margin between
// first and second may go either way.
struct tolerance {
    double error_max, error_mean, margin_min;
};
static const struct tolerance tiny_tolerance = {1e-3, 1e-3, 2e-3};
static const struct tolerance smollm2_tolerance = {2e-2, 2e-3, 2e-2};

static double log_sum_exp(const float *logits, int32_t count)
{
    double max = logits[0], sum = 0;
    for (int32_t i = 1; i < count; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int32_t i = 0; i < count; i++)
        sum += exp(logits[i] - max);
    return max + log(sum);
}

static int32_t arg_max(const float *logits, int32_t count)
{
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static cJSON *read_json(const char *path)
{
    char *text = NULL;
    size_t bytes = 0;
    cJSON *tree = NULL;
    struct sora_error err = {0};
    assert_int_equal(file_read(path, SORA_JSON_BYTES_MAX, &text, &bytes, &err), SORA_OK);
    assert_int_equal(json_parse(text, bytes, &tree, &err), SORA_OK);
    free(text);
    return tree;
}

static sora_model *open_model(const char *path)
{
    sora_model *model = NULL;
    struct sora_error err = {0};
    if (sora_model_open(path, &model, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return model;
}

static sora_engine *make_engine_with(const sora_model *model, enum sora_compute compute,
                                     enum sora_kv kv, int32_t threads)
{
    struct sora_engine_options options = sora_engine_options_defaults(model);
    options.compute = compute;
    options.kv = kv;
    options.threads = threads;
    options.seqs_max = 16;
    sora_engine *engine = NULL;
    struct sora_error err = {0};
    if (sora_engine_create(model, &options, &engine, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return engine;
}

static sora_engine *make_engine(const sora_model *model, enum sora_compute compute, int32_t threads)
{
    return make_engine_with(model, compute, SORA_KV_AUTO, threads);
}

static int32_t read_tokens(const cJSON *array, int32_t *tokens)
{
    int32_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, array)
    {
        assert_true(count < TOKENS_MAX);
        tokens[count++] = item->valueint;
    }
    return count;
}

// Whether the listed log-probabilities [[token, value], ...] are near enough; NaN is not.
// The mean and, in *worst, the largest error of the expected log-probabilities.
static double top_error(const cJSON *top, const float *logits, int32_t vocab, double *worst)
{
    double sum = 0, norm = log_sum_exp(logits, vocab);
    *worst = 0;
    const cJSON *pair;
    cJSON_ArrayForEach(pair, top)
    {
        int32_t token = cJSON_GetArrayItem(pair, 0)->valueint;
        double expected = cJSON_GetArrayItem(pair, 1)->valuedouble;
        double error = fabs(logits[token] - norm - expected);
        *worst = !(error <= *worst) ? error : *worst;
        sum += error;
    }
    return sum / cJSON_GetArraySize(top);
}

static bool top_agrees(const cJSON *top, const float *logits, int32_t vocab,
                       const struct tolerance *tolerance)
{
    double worst, mean = top_error(top, logits, vocab, &worst);
    return worst <= tolerance->error_max && mean <= tolerance->error_mean;
}

static const float *run_span(sora_engine *engine, int32_t seq, const int32_t *tokens, int32_t count,
                             enum sora_logits want)
{
    assert_true(sora_engine_seq_reserve(engine, seq, sora_engine_seq_length(engine, seq) + count));
    struct sora_span span = {.seq = seq, .tokens = tokens, .token_count = count, .want = want};
    sora_engine_step(engine, &span, 1, NULL);
    return span.logits;
}

static void check_case(sora_engine *engine, int32_t vocab, const cJSON *expected,
                       const struct tolerance *tolerance)
{
    int32_t tokens[TOKENS_MAX];
    int32_t count = read_tokens(cJSON_GetObjectItem(expected, "tokens"), tokens);
    int32_t seq = sora_engine_seq_open(engine);
    const float *logits = NULL;
    double nll = 0;
    for (int32_t first = 0; first < count; first += CHUNK) {
        int32_t rows = count - first < CHUNK ? count - first : CHUNK;
        logits = run_span(engine, seq, tokens + first, rows, SORA_LOGITS_ALL);
        for (int32_t i = 0; i < rows && first + i + 1 < count; i++, logits += vocab)
            nll += log_sum_exp(logits, vocab) - logits[tokens[first + i + 1]];
    }
    const cJSON *nll_expected = cJSON_GetObjectItem(expected, "prompt_nll");
    if (cJSON_IsNumber(nll_expected))
        assert_true(fabs(nll / (count - 1) - nll_expected->valuedouble) <= tolerance->error_mean);

    assert_true(top_agrees(cJSON_GetObjectItem(expected, "top"), logits, vocab, tolerance));

    const cJSON *greedy = cJSON_GetObjectItem(expected, "greedy");
    const cJSON *margins = cJSON_GetObjectItem(expected, "greedy_margin");
    for (int32_t i = 0; i < cJSON_GetArraySize(greedy); i++) {
        if (cJSON_GetArrayItem(margins, i)->valuedouble < tolerance->margin_min)
            break;
        int32_t token = arg_max(logits, vocab);
        assert_int_equal(token, cJSON_GetArrayItem(greedy, i)->valueint);
        logits = run_span(engine, seq, &token, 1, SORA_LOGITS_LAST);
    }
    sora_engine_seq_close(engine, seq);
}

static void check_model(const char *model_path, const char *expected_path,
                        const struct tolerance *tolerance)
{
    cJSON *expected = read_json(expected_path);
    sora_model *model = open_model(model_path);
    sora_engine *engine = make_engine(model, SORA_COMPUTE_F32, 2);
    const cJSON *item;
    assert_true(cJSON_GetArraySize(expected) > 0);
    cJSON_ArrayForEach(item, expected)
        check_case(engine, sora_model_get_info(model)->base.vocab_size, item, tolerance);
    assert_int_equal(sora_engine_kv_stats(engine).blocks_used, 0);
    sora_engine_destroy(engine);
    sora_model_close(model);
    cJSON_Delete(expected);
}

#define CHECK_TINY(name)                                                             \
    check_model(GOLDEN_DIR "/tiny/" name, GOLDEN_DIR "/tiny/" name "/expected.json", \
                &tiny_tolerance)

static const char *need_model(const char *test)
{
    const char *model = getenv("SORA_TEST_MODEL");
    if (model == NULL) {
        printf("SKIPPED %s: SORA_TEST_MODEL is not set\n", test);
        skip();
    }
    return model;
}

static void smollm2_agrees_with_transformers(void **state)
{
    (void)state;
    check_model(need_model(__func__), GOLDEN_DIR "/smollm2.json", &smollm2_tolerance);
}

// llama.cpp is at 0.097 on these prompts (tests/golden/README.md).
static void int8_stays_near_on_smollm2(void **state)
{
    (void)state;
    sora_model *model = open_model(need_model(__func__));
    sora_engine *engine = make_engine(model, SORA_COMPUTE_AUTO, 2);
    assert_int_equal(sora_engine_compute(engine), SORA_COMPUTE_INT8);
    cJSON *expected = read_json(GOLDEN_DIR "/smollm2.json");
    const int32_t vocab = sora_model_get_info(model)->base.vocab_size;
    double sum = 0, worst;
    const cJSON *item;
    cJSON_ArrayForEach(item, expected)
    {
        int32_t tokens[TOKENS_MAX];
        int32_t count = read_tokens(cJSON_GetObjectItem(item, "tokens"), tokens);
        int32_t seq = sora_engine_seq_open(engine);
        const float *logits = NULL;
        for (int32_t first = 0; first < count; first += CHUNK)
            logits = run_span(engine, seq, tokens + first,
                              count - first < CHUNK ? count - first : CHUNK, SORA_LOGITS_LAST);
        sum += top_error(cJSON_GetObjectItem(item, "top"), logits, vocab, &worst);
        assert_true(worst <= 0.4);
        sora_engine_seq_close(engine, seq);
    }
    printf("mean abs error of the log-probabilities: %.4f\n", sum / cJSON_GetArraySize(expected));
    assert_true(sum / cJSON_GetArraySize(expected) <= 0.06);
    cJSON_Delete(expected);
    sora_engine_destroy(engine);
    sora_model_close(model);
}

static void compute_follows_the_weights(void **state)
{
    (void)state;
    sora_model *model = open_model(GOLDEN_DIR "/tiny/llama");
    sora_engine *engine = make_engine(model, SORA_COMPUTE_AUTO, 1);
    assert_int_equal(sora_engine_compute(engine), SORA_COMPUTE_F32);
    sora_engine_destroy(engine);
    struct sora_engine_options options = sora_engine_options_defaults(model);
    struct sora_error err;
    options.compute = SORA_COMPUTE_INT8;
    engine = NULL;
    assert_int_equal(sora_engine_create(model, &options, &engine, &err), SORA_MISMATCH);
    assert_non_null(strstr(err.text, "F32"));
    assert_null(engine);
    sora_model_close(model);
}

static void llama_agrees_with_transformers(void **state)
{
    (void)state;
    CHECK_TINY("llama");
}

static void llama3_rope_scaling_agrees_with_transformers(void **state)
{
    (void)state;
    CHECK_TINY("llama3-rope");
}

static void mistral_with_a_window_agrees_with_transformers(void **state)
{
    (void)state;
    CHECK_TINY("mistral-window");
}

static void qwen2_agrees_with_transformers(void **state)
{
    (void)state;
    CHECK_TINY("qwen2");
}

static void qwen3_agrees_with_transformers(void **state)
{
    (void)state;
    CHECK_TINY("qwen3");
}

static void an_unknown_architecture_is_refused_by_name(void **state)
{
    (void)state;
    sora_model *model = NULL;
    struct sora_error err = {0};
    assert_int_equal(sora_model_open(GOLDEN_DIR "/tiny/gemma3", &model, &err), SORA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "gemma3"));
    assert_null(model);
}

// The comparer itself must notice a wrong value and a NaN.
static void the_comparer_notices_what_is_wrong(void **state)
{
    (void)state;
    float logits[4] = {0.0f, 1.0f, 2.0f, 3.0f};
    cJSON *right = cJSON_Parse("[[3, -0.440190]]"), *wrong = cJSON_Parse("[[3, -0.450]]");
    assert_true(top_agrees(right, logits, 4, &tiny_tolerance));
    assert_false(top_agrees(wrong, logits, 4, &tiny_tolerance));
    logits[3] = NAN;
    assert_false(top_agrees(right, logits, 4, &tiny_tolerance));
    cJSON_Delete(right);
    cJSON_Delete(wrong);
}

// A made-up adapter with ragged ranks; f32.
struct toy_adapter {
    struct sora_lora lora;
    struct sora_lora_module *modules;
    float *data;
};

static struct toy_adapter make_adapter(const struct sora_base *base, uint64_t seed,
                                       int32_t rank_max)
{
    struct rng rng;
    rng_seed(&rng, seed);
    size_t module_count = (size_t)base->layer_count * SORA_PROJ_COUNT, floats = 0;
    struct toy_adapter toy = {.modules = calloc(module_count, sizeof *toy.modules)};
    for (size_t i = 0; i < module_count; i++) {
        toy.modules[i].rank = (int32_t)rng_below(&rng, (uint64_t)rank_max + 1);
        size_t width = (size_t)(base->d_in[i % SORA_PROJ_COUNT] + base->d_out[i % SORA_PROJ_COUNT]);
        floats += ((size_t)toy.modules[i].rank * width + 32) / 16 * 16;
    }
    assert_int_equal(posix_memalign((void **)&toy.data, 64, (floats + 16) * sizeof(float)), 0);
    float *next = toy.data;
    for (size_t i = 0; i < module_count; i++) {
        struct sora_lora_module *module = &toy.modules[i];
        size_t a = (size_t)module->rank * (size_t)base->d_in[i % SORA_PROJ_COUNT];
        size_t b = (size_t)module->rank * (size_t)base->d_out[i % SORA_PROJ_COUNT];
        module->scale = 2.0f;
        module->dtype = SORA_F32;
        module->a = module->rank > 0 ? next : NULL;
        module->bt = module->rank > 0 ? next + a : NULL;
        for (size_t j = 0; j < a + b; j++)
            next[j] = (float)rng_normal(&rng) * 0.05f;
        next += (a + b + 15) / 16 * 16;
    }
    toy.lora = (struct sora_lora){.layer_count = base->layer_count, .modules = toy.modules};
    return toy;
}

static void free_adapter(struct toy_adapter *toy)
{
    free(toy->modules);
    free(toy->data);
}

enum { MIX_SEQS = 9, MIX_TOKENS = 90, MIX_ADAPTERS = 3 };

struct mix {
    int32_t tokens[MIX_SEQS][MIX_TOKENS];
    int32_t lengths[MIX_SEQS];
    struct sora_lora_part parts[MIX_SEQS][3];
    int32_t part_counts[MIX_SEQS];
};

// The logits after each whole sequence, fed in chunks of `chunk` tokens, alone or all at once.
static void run_mix(sora_engine *engine, const struct mix *mix, int32_t vocab, int32_t chunk,
                    bool together, float *out)
{
    for (int32_t first = 0; first < MIX_SEQS; first += together ? MIX_SEQS : 1) {
        int32_t count = together ? MIX_SEQS : 1, seqs[MIX_SEQS], done[MIX_SEQS] = {0};
        for (int32_t i = 0; i < count; i++)
            seqs[i] = sora_engine_seq_open(engine);
        for (bool busy = true; busy;) {
            struct sora_span spans[MIX_SEQS];
            int32_t which[MIX_SEQS], span_count = 0;
            for (int32_t i = 0; i < count; i++) {
                int32_t s = first + i, left = mix->lengths[s] - done[i];
                if (left == 0)
                    continue;
                struct sora_span span = {.seq = seqs[i],
                                         .tokens = mix->tokens[s] + done[i],
                                         .token_count = left < chunk ? left : chunk,
                                         .parts = mix->parts[s],
                                         .part_count = mix->part_counts[s]};
                span.want = span.token_count == left ? SORA_LOGITS_LAST : SORA_LOGITS_NONE;
                assert_true(sora_engine_seq_reserve(engine, seqs[i], done[i] + span.token_count));
                done[i] += span.token_count;
                which[span_count] = s;
                spans[span_count++] = span;
            }
            busy = span_count > 0;
            if (busy)
                sora_engine_step(engine, spans, span_count, NULL);
            for (int32_t i = 0; i < span_count; i++) {
                if (spans[i].logits != NULL)
                    memcpy(out + (size_t)which[i] * (size_t)vocab, spans[i].logits,
                           (size_t)vocab * sizeof *out);
            }
        }
        for (int32_t i = 0; i < count; i++)
            sora_engine_seq_close(engine, seqs[i]);
    }
}

static void check_mixes(sora_model *model, enum sora_compute compute, enum sora_kv kv)
{
    const struct sora_base *base = &sora_model_get_info(model)->base;
    struct toy_adapter adapters[MIX_ADAPTERS];
    for (int32_t i = 0; i < MIX_ADAPTERS; i++)
        adapters[i] = make_adapter(base, 7 + (uint64_t)i, 5 * (i + 1));
    struct mix mix = {0};
    struct rng rng;
    rng_seed(&rng, 3);
    for (int32_t s = 0; s < MIX_SEQS; s++) {
        mix.lengths[s] = 1 + (int32_t)rng_below(&rng, MIX_TOKENS);
        for (int32_t t = 0; t < mix.lengths[s]; t++)
            mix.tokens[s][t] = (int32_t)rng_below(&rng, (uint64_t)base->vocab_size);
        mix.part_counts[s] = s % 4 == 3 ? 0 : 1 + s % 3;
        for (int32_t p = 0; p < mix.part_counts[s]; p++) // in every order
            mix.parts[s][p] = (struct sora_lora_part){
                .lora = &adapters[(s % 2 == 0 ? s + p : s + 2 * p) % MIX_ADAPTERS].lora,
                .scale = (s + p) % 2 == 0 ? 1.0f : 0.5f,
                .rank_max = s % 5 == 4 ? 2 : 0,
            };
    }
    size_t count = (size_t)MIX_SEQS * (size_t)base->vocab_size;
    float *alone = malloc(count * sizeof *alone), *mixed = malloc(count * sizeof *mixed);
    sora_engine *one = make_engine_with(model, compute, kv, 1);
    sora_engine *two = make_engine_with(model, compute, kv, 3);
    run_mix(one, &mix, base->vocab_size, MIX_TOKENS, false, alone);
    for (int32_t chunk = 1; chunk <= MIX_TOKENS; chunk = chunk * 3 + 1) {
        run_mix(two, &mix, base->vocab_size, chunk, true, mixed);
        assert_memory_equal(alone, mixed, count * sizeof *alone);
    }
    // It would notice: another adapter gives other bits.
    mix.parts[0][0].lora = &adapters[1].lora;
    run_mix(two, &mix, base->vocab_size, 7, true, mixed);
    assert_memory_not_equal(alone, mixed, (size_t)base->vocab_size * sizeof *alone);
    assert_memory_equal(alone + base->vocab_size, mixed + base->vocab_size,
                        (count - (size_t)base->vocab_size) * sizeof *alone);
    for (int32_t i = 0; i < MIX_ADAPTERS; i++)
        free_adapter(&adapters[i]);
    free(alone);
    free(mixed);
    sora_engine_destroy(one);
    sora_engine_destroy(two);
    sora_model_close(model);
}

static void a_row_has_the_same_bits_alone_and_in_any_mix(void **state)
{
    (void)state;
    check_mixes(open_model(GOLDEN_DIR "/tiny/qwen3"), SORA_COMPUTE_F32, SORA_KV_F32);
    check_mixes(open_model(GOLDEN_DIR "/tiny/qwen3"), SORA_COMPUTE_F32, SORA_KV_F16);
    check_mixes(open_model(GOLDEN_DIR "/tiny/qwen3"), SORA_COMPUTE_F32, SORA_KV_I16);
}

static void sixteen_bits_of_keys_and_values_stay_near(void **state)
{
    (void)state;
    enum { COUNT = 60 };
    const enum sora_kv kinds[] = {SORA_KV_F32, SORA_KV_F16, SORA_KV_I16};
    sora_model *model = open_model(GOLDEN_DIR "/tiny/llama");
    const int32_t vocab = sora_model_get_info(model)->base.vocab_size;
    float *exact = NULL;
    int32_t tokens[COUNT];
    for (int32_t i = 0; i < COUNT; i++)
        tokens[i] = (7 * i + 3) % vocab;
    for (int k = 0; k < 3; k++) {
        sora_engine *engine = make_engine_with(model, SORA_COMPUTE_F32, kinds[k], 2);
        const float *logits =
            run_span(engine, sora_engine_seq_open(engine), tokens, COUNT, SORA_LOGITS_LAST);
        double worst = 0;
        if (k == 0) {
            exact = malloc((size_t)vocab * sizeof *exact);
            memcpy(exact, logits, (size_t)vocab * sizeof *exact);
        }
        for (int32_t i = 0; i < vocab; i++)
            worst = fmax(worst, fabs((double)logits[i] - (double)exact[i]));
        assert_true(worst <= 2e-3);
        assert_true((worst > 0) == (k > 0));
        sora_engine_destroy(engine);
    }
    free(exact);
    sora_model_close(model);
}

// One adapter that has the ranks of the parts, one after another, each part's scale in its own
// power of two: the concatenation is exact then.
static struct toy_adapter concatenate(const struct sora_base *base,
                                      const struct sora_lora_part *parts, int32_t part_count)
{
    size_t module_count = (size_t)base->layer_count * SORA_PROJ_COUNT, floats = 0;
    struct toy_adapter toy = {.modules = calloc(module_count, sizeof *toy.modules)};
    for (size_t i = 0; i < module_count; i++) {
        size_t width = (size_t)(base->d_in[i % SORA_PROJ_COUNT] + base->d_out[i % SORA_PROJ_COUNT]);
        for (int32_t p = 0; p < part_count; p++) {
            int32_t rank = parts[p].lora->modules[i].rank;
            bool cut = parts[p].rank_max > 0 && parts[p].rank_max < rank;
            toy.modules[i].rank += cut ? parts[p].rank_max : rank;
        }
        floats += ((size_t)toy.modules[i].rank * width + 32) / 16 * 16;
    }
    assert_int_equal(posix_memalign((void **)&toy.data, 64, (floats + 16) * sizeof(float)), 0);
    float *next = toy.data;
    for (size_t i = 0; i < module_count; i++) {
        struct sora_lora_module *module = &toy.modules[i];
        size_t d_in = (size_t)base->d_in[i % SORA_PROJ_COUNT];
        size_t d_out = (size_t)base->d_out[i % SORA_PROJ_COUNT], filled = 0;
        float *a = next, *bt = next + (size_t)module->rank * d_in;
        *module = (struct sora_lora_module){
            .rank = module->rank, .scale = 1.0f, .dtype = SORA_F32, .a = a, .bt = bt};
        for (int32_t p = 0; p < part_count; p++) {
            const struct sora_lora_module *from = &parts[p].lora->modules[i];
            bool cut = parts[p].rank_max > 0 && parts[p].rank_max < from->rank;
            size_t ranks = (size_t)(cut ? parts[p].rank_max : from->rank);
            for (size_t j = 0; j < ranks * d_in; j++)
                a[filled * d_in + j] = ((const float *)from->a)[j] * parts[p].scale * from->scale;
            if (ranks > 0)
                memcpy(bt + filled * d_out, from->bt, ranks * d_out * sizeof *bt);
            filled += ranks;
        }
        next += ((size_t)module->rank * (d_in + d_out) + 15) / 16 * 16;
    }
    toy.lora = (struct sora_lora){.layer_count = base->layer_count, .modules = toy.modules};
    return toy;
}

// To the bit: the scales are powers of two, which A takes in without rounding.
static void composed_adapters_equal_their_concatenation(void **state)
{
    (void)state;
    sora_model *model = open_model(GOLDEN_DIR "/tiny/llama");
    const struct sora_base *base = &sora_model_get_info(model)->base;
    sora_engine *engine = make_engine(model, SORA_COMPUTE_F32, 2);
    struct toy_adapter adapters[SORA_REQUEST_ADAPTERS_MAX];
    struct sora_lora_part parts[SORA_REQUEST_ADAPTERS_MAX];
    int32_t tokens[20];
    size_t bytes = (size_t)base->vocab_size * sizeof(float);
    float *composed = malloc(bytes);
    for (int32_t i = 0; i < 20; i++)
        tokens[i] = 5 + 7 * i;
    for (int32_t i = 0; i < SORA_REQUEST_ADAPTERS_MAX; i++) {
        adapters[i] = make_adapter(base, 30 + (uint64_t)i, 6);
        parts[i] = (struct sora_lora_part){.lora = &adapters[i].lora,
                                           .scale = i % 2 == 0 ? 0.5f : -1.0f,
                                           .rank_max = i % 3 == 2 ? 2 : 0};
    }
    for (int32_t count = 2; count <= SORA_REQUEST_ADAPTERS_MAX; count += 3) {
        struct toy_adapter whole = concatenate(base, parts, count);
        const struct sora_lora_part one = {.lora = &whole.lora, .scale = 1};
        struct sora_step_stats stats[3];
        for (int32_t run = 0; run < 3; run++) {
            int32_t seq = sora_engine_seq_open(engine);
            assert_true(sora_engine_seq_reserve(engine, seq, 20));
            // The third run lacks an adapter: it would be noticed.
            struct sora_span span = {.seq = seq,
                                     .tokens = tokens,
                                     .token_count = 20,
                                     .parts = run == 1 ? &one : parts,
                                     .part_count = run == 1 ? 1 : count - (run == 2),
                                     .want = SORA_LOGITS_LAST};
            sora_engine_step(engine, &span, 1, &stats[run]);
            if (run == 0)
                memcpy(composed, span.logits, bytes);
            assert_int_equal(memcmp(composed, span.logits, bytes) == 0, run != 2);
            sora_engine_seq_close(engine, seq);
        }
        assert_int_equal(stats[0].rank_sum, stats[1].rank_sum);
        assert_true(stats[2].rank_sum < stats[0].rank_sum);
        free_adapter(&whole);
    }
    for (int32_t i = 0; i < SORA_REQUEST_ADAPTERS_MAX; i++)
        free_adapter(&adapters[i]);
    free(composed);
    sora_engine_destroy(engine);
    sora_model_close(model);
}

static void with_int8_a_row_has_the_same_bits_too(void **state)
{
    (void)state;
    check_mixes(open_model(need_model(__func__)), SORA_COMPUTE_INT8, SORA_KV_AUTO);
}

static void blocks_run_out_without_harm_and_come_back(void **state)
{
    (void)state;
    sora_model *model = open_model(GOLDEN_DIR "/tiny/llama");
    struct sora_engine_options options = sora_engine_options_defaults(model);
    options.seqs_max = 2;
    options.context_max = 64;
    options.kv_bytes = (size_t)5 * 2 * 3 * 2 * SORA_KV_BLOCK_TOKENS * 16 * sizeof(float) + 8;
    sora_engine *engine = NULL;
    struct sora_error err = {0};
    assert_int_equal(sora_engine_create(model, &options, &engine, &err), SORA_OK);
    assert_int_equal(sora_engine_kv_stats(engine).blocks_total, 5);
    int32_t a = sora_engine_seq_open(engine), b = sora_engine_seq_open(engine);
    assert_int_equal(sora_engine_seq_open(engine), -1);
    assert_false(sora_engine_seq_reserve(engine, a, 65)); // over the context
    assert_true(sora_engine_seq_reserve(engine, a, 64));
    assert_false(sora_engine_seq_reserve(engine, b, 17));
    assert_int_equal(sora_engine_kv_stats(engine).blocks_used, 4);
    assert_true(sora_engine_seq_reserve(engine, b, 16));
    sora_engine_seq_close(engine, a);
    assert_true(sora_engine_seq_reserve(engine, b, 40));
    sora_engine_seq_close(engine, b);
    assert_int_equal(sora_engine_kv_stats(engine).blocks_used, 0);
    sora_engine_destroy(engine);
    sora_model_close(model);
}

static void options_out_of_range_are_named(void **state)
{
    (void)state;
    sora_model *model = open_model(GOLDEN_DIR "/tiny/llama");
    const struct {
        struct sora_engine_options change;
        const char *word;
    } rows[] = {
        {{.threads = -1}, "threads"},
        {{.seqs_max = SORA_SEQS_MAX + 1}, "sequences"},
        {{.rows_max = SORA_STEP_ROWS_MAX + 1}, "rows"},
        {{.context_max = 1 << 20}, "context"},
        {{.kv_bytes = 10}, "KV"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sora_engine_options options = sora_engine_options_defaults(model);
        const struct sora_engine_options *change = &rows[i].change;
        options.threads = change->threads != 0 ? change->threads : options.threads;
        options.seqs_max = change->seqs_max != 0 ? change->seqs_max : options.seqs_max;
        options.rows_max = change->rows_max != 0 ? change->rows_max : options.rows_max;
        options.context_max = change->context_max != 0 ? change->context_max : options.context_max;
        options.kv_bytes = change->kv_bytes;
        sora_engine *engine = NULL;
        struct sora_error err = {0};
        assert_int_equal(sora_engine_create(model, &options, &engine, &err), SORA_LIMIT);
        assert_non_null(strstr(err.text, rows[i].word));
        assert_null(engine);
    }
    sora_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_agrees_with_transformers),
        cmocka_unit_test(llama3_rope_scaling_agrees_with_transformers),
        cmocka_unit_test(mistral_with_a_window_agrees_with_transformers),
        cmocka_unit_test(qwen2_agrees_with_transformers),
        cmocka_unit_test(qwen3_agrees_with_transformers),
        cmocka_unit_test(smollm2_agrees_with_transformers),
        cmocka_unit_test(int8_stays_near_on_smollm2),
        cmocka_unit_test(compute_follows_the_weights),
        cmocka_unit_test(with_int8_a_row_has_the_same_bits_too),
        cmocka_unit_test(an_unknown_architecture_is_refused_by_name),
        cmocka_unit_test(the_comparer_notices_what_is_wrong),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_in_any_mix),
        cmocka_unit_test(sixteen_bits_of_keys_and_values_stay_near),
        cmocka_unit_test(composed_adapters_equal_their_concatenation),
        cmocka_unit_test(blocks_run_out_without_harm_and_come_back),
        cmocka_unit_test(options_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

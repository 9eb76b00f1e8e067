// SPDX-License-Identifier: Apache-2.0
// The plan: the same for the same seed, with the distributions that were asked for.
#include "load_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "loadtest/plan_arrivals.h"

static void digest_of(const char *json, const char *list, char hex[65])
{
    struct load_fixture load;
    struct sora_error err;
    load_fixture_init(&load, json, list, "base");
    assert_int_equal(plan_digest(&load.plan, hex, &err), SORA_OK);
    load_fixture_deinit(&load);
}

#define BUSY                                                                                  \
    "\"rate\": 20, \"requests\": 500, \"popularity\": \"zipf:1\", \"verify\": true, "         \
    "\"drop\": 0.1, \"chat\": 0.2, \"stream\": 0.7, \"churn_rate\": 2, \"base_share\": 0.1, " \
    "\"prompt_tokens\": \"uniform:1:9\""

static void the_same_seed_gives_the_same_plan(void **state)
{
    (void)state;
    char one[65], two[65], other[65], rate[65];
    digest_of("{" BUSY "}", "a,b,c,d", one);
    digest_of("{" BUSY "}", "a,b,c,d", two);
    digest_of("{" BUSY ", \"seed\": 2}", "a,b,c,d", other);
    digest_of("{" BUSY ", \"arrivals\": \"constant\"}", "a,b,c,d", rate);
    assert_string_equal(one, two);
    assert_string_not_equal(one, other);
    assert_string_not_equal(one, rate);
    // The plan of this text, for good: another machine and another year must get it too.
    assert_string_equal(one, "d66b9387a4db29ee8b0785b7171771b72b9c04021b089b62123e3f26520b19f5");
}

static void another_rate_asks_the_same_at_other_times(void **state)
{
    (void)state;
    struct load_fixture slow, fast;
    load_fixture_init(&slow,
                      "{\"rate\": 1, \"requests\": 100, \"prompt_tokens\": \"uniform:1:99\"}",
                      "a,b,c", NULL);
    load_fixture_init(&fast,
                      "{\"rate\": 9, \"requests\": 200, \"prompt_tokens\": \"uniform:1:99\"}",
                      "a,b,c", NULL);
    for (int32_t i = 0; i < 100; i++) {
        assert_int_equal(slow.plan.requests[i].model, fast.plan.requests[i].model);
        assert_int_equal(slow.plan.requests[i].prompt_tokens, fast.plan.requests[i].prompt_tokens);
        assert_true(slow.plan.requests[i].prompt_seed == fast.plan.requests[i].prompt_seed);
        assert_true(llabs(slow.plan.requests[i].planned_us - 9 * fast.plan.requests[i].planned_us) <
                    100);
    }
    load_fixture_deinit(&slow);
    load_fixture_deinit(&fast);
}

// Mean and variance of gaps, in units of 1/rate.
static void gap_moments(enum scenario_arrivals kind, double burstiness, double *mean,
                        double *variance)
{
    enum { COUNT = 200000 };
    struct rng rng;
    double sum = 0, squares = 0;
    rng_seed(&rng, 7);
    for (int i = 0; i < COUNT; i++) {
        double gap = 5 * arrivals_gap_s(kind, 5, burstiness, &rng);
        sum += gap;
        squares += gap * gap;
    }
    *mean = sum / COUNT;
    *variance = squares / COUNT - *mean * *mean;
}

static void gaps_have_the_moments_of_their_distribution(void **state)
{
    (void)state;
    static const struct {
        enum scenario_arrivals kind;
        double burstiness, variance;
    } cases[] = {{ARRIVALS_POISSON, 1, 1}, {ARRIVALS_GAMMA, 1, 1},    {ARRIVALS_GAMMA, 0.25, 4},
                 {ARRIVALS_GAMMA, 0.5, 2}, {ARRIVALS_GAMMA, 4, 0.25}, {ARRIVALS_CONSTANT, 1, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double mean = 0, variance = 0;
        gap_moments(cases[i].kind, cases[i].burstiness, &mean, &variance);
        assert_true(fabs(mean - 1) < 0.015);
        assert_true(fabs(variance - cases[i].variance) < 0.05 * fmax(cases[i].variance, 0.1));
    }
}

static void lengths_have_the_moments_of_their_distribution(void **state)
{
    (void)state;
    enum { COUNT = 50001 };
    static const struct {
        const char *text;
        int32_t low, high, median;
    } cases[] = {{"17", 17, 17, 17},
                 {"fixed:3", 3, 3, 3},
                 {"uniform:10:90", 10, 90, 50},
                 {"lognormal:40:0.8", 1, 320, 40},
                 {"lognormal:40:0.8:64", 1, 64, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct length length;
        struct sora_error err;
        struct rng rng;
        int32_t below = 0;
        rng_seed(&rng, 3);
        assert_int_equal(length_parse(cases[i].text, 1, 1000, &length, &err), SORA_OK);
        for (int j = 0; j < COUNT; j++) {
            int32_t sample = length_sample(&length, &rng);
            assert_in_range(sample, cases[i].low, cases[i].high);
            below += sample < cases[i].median;
        }
        assert_true(cases[i].low == cases[i].high || abs(below - COUNT / 2) < COUNT / 40);
    }
}

static void a_wrong_length_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "0",
        "1001",
        "-3",
        "2.5",
        "x",
        "uniform:9:3",
        "uniform:1",
        "lognormal:0:1",
        "lognormal:5:1:2000",
        "normal:3:4",
        "uniform:1:2:3",
        "nan",
        "fixed:111111111111111111111111111111111111111111111111111"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct length length;
        struct sora_error err = {.text = ""};
        assert_int_not_equal(length_parse(texts[i], 1, 1000, &length, &err), SORA_OK);
        assert_true(strlen(err.text) > 0);
    }
}

static void popularity_is_what_was_asked(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double weights[4];
    } cases[] = {{"uniform", {1, 1, 1, 1}},
                 {"zipf:1", {1, 1 / 2.0, 1 / 3.0, 1 / 4.0}},
                 {"zipf:0", {1, 1, 1, 1}},
                 {"given:6,0,2", {6, 0, 2, 2}}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[200];
        struct load_fixture load;
        double total = 0;
        int32_t counts[4] = {0};
        snprintf(json, sizeof json, "{\"requests\": 40000, \"rate\": 1000, \"popularity\": \"%s\"}",
                 cases[i].text);
        load_fixture_init(&load, json, "a,b,c,d", NULL);
        for (int32_t j = 0; j < load.plan.request_count; j++)
            counts[load.plan.requests[j].model]++;
        for (int j = 0; j < 4; j++)
            total += cases[i].weights[j];
        for (int j = 0; j < 4; j++)
            assert_true(fabs(counts[j] / 40000.0 - cases[i].weights[j] / total) < 0.01);
        load_fixture_deinit(&load);
    }
}

static void shares_are_what_was_asked(void **state)
{
    (void)state;
    struct load_fixture load;
    int32_t stream = 0, chat = 0, drop = 0, base = 0, repeats = 0;
    load_fixture_init(&load,
                      "{\"requests\": 20000, \"rate\": 1000, \"stream\": \"70%\", \"chat\": 0.2, "
                      "\"drop\": 0.1, \"base_share\": 0.25, \"verify\": true, "
                      "\"verify_repeat\": 0.4, \"output_tokens\": \"uniform:1:5\"}",
                      "a,b", "base");
    for (int32_t i = 0; i < load.plan.request_count; i++) {
        const struct plan_request *request = &load.plan.requests[i];
        const struct plan_request *original = &load.plan.requests[request->content];
        stream += request->stream;
        chat += request->chat;
        drop += request->drop_tokens > 0 || request->drop_ms > 0;
        base += request->model == load.models.base;
        repeats += request->content != i;
        assert_true(request->drop_tokens <= request->output_tokens);
        assert_true(request->content <= i && original->content == request->content);
        assert_true(request->prompt_seed == original->prompt_seed);
        assert_int_equal(request->model, original->model);
        assert_int_equal(request->chat, original->chat);
        assert_int_equal(request->output_tokens, original->output_tokens);
    }
    assert_true(abs(stream - 14000) < 400 && abs(chat - 4000) < 600 && abs(drop - 2000) < 300);
    assert_true(abs(base - 5000) < 600 && abs(repeats - 8000) < 400);
    load_fixture_deinit(&load);
}

static void groups_keep_to_their_adapters_and_lengths(void **state)
{
    (void)state;
    struct load_fixture load;
    int32_t large = 0;
    load_fixture_init(&load,
                      "{\"requests\": 4000, \"rate\": 1000, \"prompt_tokens\": 7, \"groups\": ["
                      "{\"name\": \"small\", \"make\": 3, \"share\": 3},"
                      "{\"name\": \"large\", \"make\": 1, \"share\": 1, \"prompt_tokens\": 900}]}",
                      NULL, NULL);
    assert_int_equal(load.models.count, 4);
    assert_int_equal(load.models.made_count, 4);
    assert_string_equal(load.models.names[3], "loadtest-large-00000");
    for (int32_t i = 0; i < load.plan.request_count; i++) {
        const struct plan_request *request = &load.plan.requests[i];
        large += request->group == 1;
        assert_int_equal(request->model == 3, request->group == 1);
        assert_int_equal(request->prompt_tokens, request->group == 1 ? 900 : 7);
    }
    assert_true(abs(large - 1000) < 100);
    load_fixture_deinit(&load);
    // The same on adapters that are there already: in the same proportion.
    load_fixture_init(&load,
                      "{\"requests\": 10, \"groups\": [{\"name\": \"s\", \"make\": 3},"
                      "{\"name\": \"l\", \"make\": 1}]}",
                      "a,b,c,d,e,f,g,h", NULL);
    assert_int_equal(load.models.made_count, 0);
    assert_int_equal(load.models.groups[0].count, 6);
    assert_int_equal(load.models.groups[1].first, 6);
    assert_int_equal(load.models.groups[1].count, 2);
    load_fixture_deinit(&load);
}

static void the_warm_up_and_the_end_are_kept(void **state)
{
    (void)state;
    struct load_fixture load;
    load_fixture_init(&load,
                      "{\"arrivals\": \"constant\", \"rate\": 10, \"duration\": \"3s\", "
                      "\"warmup\": \"1s\"}",
                      "a", NULL);
    assert_int_equal(load.plan.request_count, 39); // 0.1 s, 0.2 s, ... before 4 s
    for (int32_t i = 0; i < 39; i++)
        assert_int_equal(load.plan.requests[i].warmup, i < 9);
    load_fixture_deinit(&load);
}

static void churn_changes_only_what_lives(void **state)
{
    (void)state;
    struct load_fixture load;
    bool lives[4096] = {false};
    int32_t counts[3] = {0};
    load_fixture_init(&load,
                      "{\"rate\": 1, \"duration\": 100, \"churn_rate\": 20, "
                      "\"churn_mix\": \"2:1:1\"}",
                      "a", NULL);
    assert_in_range(load.plan.churn_count, 1700, 2300);
    for (int32_t i = 0; i < load.plan.churn_count; i++) {
        const struct plan_churn *op = &load.plan.churn[i];
        counts[op->kind]++;
        assert_int_equal(lives[op->name], op->kind != CHURN_UPLOAD);
        lives[op->name] = op->kind != CHURN_DELETE;
        assert_true(op->at_us < load.plan.send_us && !op->served);
        assert_true(i == 0 || op->at_us >= load.plan.churn[i - 1].at_us);
    }
    assert_true(abs(counts[CHURN_UPLOAD] - 2 * counts[CHURN_DELETE]) < 250);
    load_fixture_deinit(&load);
}

static void churn_changes_made_adapters_and_never_given_ones(void **state)
{
    (void)state;
    static const char json[] = "{\"duration\": 20, \"rate\": 1, \"churn_rate\": 9, \"make\": 3, "
                               "\"churn_served\": true}";
    for (int made = 0; made < 2; made++) {
        struct load_fixture load;
        int32_t served = 0;
        load_fixture_init(&load, json, made ? NULL : "mine,yours", NULL);
        for (int32_t i = 0; i < load.plan.churn_count; i++) {
            const struct plan_churn *op = &load.plan.churn[i];
            served += op->served;
            assert_true(!op->served || (op->kind == CHURN_UPDATE && op->name < 3));
        }
        assert_int_equal(served > 0, made);
        load_fixture_deinit(&load);
    }
}

static void a_trace_is_replayed(void **state)
{
    (void)state;
    static const char text[] = "t_ms,adapter,prompt_tokens,output_tokens\r\n"
                               "# a comment\n"
                               "1500.5,b,7,8\n"
                               "0,1,5,6\r\n"
                               "\n"
                               "1500.5, a ,9,10";
    struct load_fixture load;
    struct trace trace;
    struct plan plan;
    struct sora_error err = {.text = ""};
    load_fixture_init(&load, "{\"requests\": 1, \"speed\": 2}", "a,b", NULL);
    assert_int_equal(trace_parse(text, strlen(text), &trace, &err), SORA_OK);
    load.scenario.arrivals = ARRIVALS_TRACE;
    assert_int_equal(plan_create(&load.scenario, &load.models, &trace, &plan, &err), SORA_OK);
    assert_int_equal(plan.request_count, 3);
    static const struct {
        int64_t at_us;
        int32_t model, prompt, output;
    } want[] = {{0, 1, 5, 6}, {750250, 1, 7, 8}, {750250, 0, 9, 10}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(plan.requests[i].planned_us, want[i].at_us);
        assert_int_equal(plan.requests[i].model, want[i].model);
        assert_int_equal(plan.requests[i].prompt_tokens, want[i].prompt);
        assert_int_equal(plan.requests[i].output_tokens, want[i].output);
    }
    plan_deinit(&plan);
    trace_deinit(&trace);
    load_fixture_deinit(&load);
}

static void a_wrong_trace_is_refused_by_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {{"", "no line"},
                 {"t_ms,adapter,prompt_tokens,output_tokens\n", "no line"},
                 {"0,a,1,1\n5,a,1\n", "line 2"},
                 {"0,a,1,1\n5,a,1,0\n", "line 2"},
                 {"0,a,1,1,1\n", "line 1"},
                 {"-1,a,1,1\n", "line 1"},
                 {"1e30,a,1,1\n", "line 1"},
                 {"0,a,99999999999999999999,1\n", "line 1"},
                 {"0,a,1x,1\n", "line 1"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct trace trace;
        struct sora_error err = {.text = ""};
        assert_int_equal(trace_parse(cases[i].text, strlen(cases[i].text), &trace, &err),
                         SORA_MALFORMED);
        assert_non_null(strstr(err.text, cases[i].says));
    }
    struct trace trace;
    struct sora_error err = {.text = ""};
    assert_int_equal(trace_parse("0,a,1,1\n\0", 9, &trace, &err), SORA_MALFORMED);
}

static void a_trace_with_an_unknown_adapter_is_refused(void **state)
{
    (void)state;
    struct load_fixture load;
    struct trace trace;
    struct plan plan;
    struct sora_error err = {.text = ""};
    load_fixture_init(&load, "{\"requests\": 1}", "a,b", NULL);
    load.scenario.arrivals = ARRIVALS_TRACE;
    assert_int_equal(trace_parse("0,nobody,1,1", 12, &trace, &err), SORA_OK);
    assert_int_equal(plan_create(&load.scenario, &load.models, &trace, &plan, &err),
                     SORA_NOT_FOUND);
    assert_non_null(strstr(err.text, "nobody"));
    trace_deinit(&trace);
    load_fixture_deinit(&load);
}

static int32_t count_words(const struct buf *text)
{
    int32_t count = text->bytes > 0;
    for (size_t i = 0; i < text->bytes; i++)
        count += text->data[i] == ' ';
    return count;
}

static void prompts_share_their_prefix_and_have_their_length(void **state)
{
    (void)state;
    struct load_fixture load;
    struct buf first, text;
    buf_init(&first, 1 << 16);
    buf_init(&text, 1 << 16);
    load_fixture_init(&load,
                      "{\"requests\": 40, \"prefixes\": 2, \"prefix_tokens\": 20, "
                      "\"prompt_tokens\": \"uniform:1:9\"}",
                      "a", NULL);
    int32_t with_first = 0;
    for (int32_t i = 0; i < load.plan.request_count; i++) {
        const struct plan_request *request = &load.plan.requests[i];
        buf_clear(&text);
        plan_prefix_text(&load.plan, request, &text);
        assert_int_equal(count_words(&text), 20);
        if (first.bytes == 0)
            buf_append(&first, text.data, text.bytes);
        bool same = strcmp(first.data, text.data) == 0;
        assert_int_equal(same, request->prefix == load.plan.requests[0].prefix);
        with_first += same;
        plan_prompt_text(request, &text);
        assert_int_equal(count_words(&text), plan_prompt_tokens(&load.plan, request));
    }
    assert_in_range(with_first, 8, 32);
    buf_deinit(&first);
    buf_deinit(&text);
    load_fixture_deinit(&load);
}

static void token_ids_are_exact_and_in_their_range(void **state)
{
    (void)state;
    struct load_fixture load;
    struct buf text;
    buf_init(&text, 1 << 16);
    load_fixture_init(&load,
                      "{\"requests\": 20, \"token_ids\": \"100:103\", \"prefixes\": 1, "
                      "\"prefix_tokens\": 3, \"prompt_tokens\": \"uniform:1:9\"}",
                      "a", NULL);
    for (int32_t i = 0; i < load.plan.request_count; i++) {
        buf_clear(&text);
        plan_prompt_ids(&load.plan, &load.plan.requests[i], &text);
        int32_t count = 0;
        assert_int_equal(text.data[0], '[');
        for (char *at = text.data; *at != ']'; count++)
            assert_in_range(strtol(at + 1, &at, 10), 100, 102);
        assert_int_equal(count, plan_prompt_tokens(&load.plan, &load.plan.requests[i]));
    }
    buf_deinit(&text);
    load_fixture_deinit(&load);
}

static void the_alone_plan_has_each_repeated_request_once(void **state)
{
    (void)state;
    struct load_fixture load;
    struct plan alone;
    struct sora_error err;
    load_fixture_init(&load, "{\"requests\": 60, \"verify\": true, \"drop\": 0.5}", "a,b", NULL);
    assert_int_equal(plan_create_alone(&load.plan, 8, &alone, &err), SORA_OK);
    assert_int_equal(alone.request_count, 8);
    assert_true(alone.closed && alone.clients == 1);
    for (int32_t i = 0; i < 8; i++) {
        assert_int_equal(alone.requests[i].drop_tokens + alone.requests[i].drop_ms, 0);
        for (int32_t j = 0; j < i; j++)
            assert_int_not_equal(alone.requests[i].content, alone.requests[j].content);
    }
    plan_deinit(&alone);
    load_fixture_deinit(&load);
}

static void an_empty_plan_is_refused(void **state)
{
    (void)state;
    struct load_fixture load;
    struct plan plan;
    struct sora_error err = {.text = ""};
    load_fixture_init(&load, "{\"requests\": 1, \"rate\": 0.001}", "a", NULL);
    load.scenario.duration_s = 0;
    assert_int_equal(plan_create(&load.scenario, &load.models, NULL, &plan, &err), SORA_MALFORMED);
    assert_non_null(strstr(err.text, "empty"));
    load_fixture_deinit(&load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_plan),
        cmocka_unit_test(another_rate_asks_the_same_at_other_times),
        cmocka_unit_test(gaps_have_the_moments_of_their_distribution),
        cmocka_unit_test(lengths_have_the_moments_of_their_distribution),
        cmocka_unit_test(a_wrong_length_is_refused),
        cmocka_unit_test(popularity_is_what_was_asked),
        cmocka_unit_test(shares_are_what_was_asked),
        cmocka_unit_test(groups_keep_to_their_adapters_and_lengths),
        cmocka_unit_test(the_warm_up_and_the_end_are_kept),
        cmocka_unit_test(churn_changes_only_what_lives),
        cmocka_unit_test(churn_changes_made_adapters_and_never_given_ones),
        cmocka_unit_test(a_trace_is_replayed),
        cmocka_unit_test(a_wrong_trace_is_refused_by_its_line),
        cmocka_unit_test(a_trace_with_an_unknown_adapter_is_refused),
        cmocka_unit_test(prompts_share_their_prefix_and_have_their_length),
        cmocka_unit_test(token_ids_are_exact_and_in_their_range),
        cmocka_unit_test(the_alone_plan_has_each_repeated_request_once),
        cmocka_unit_test(an_empty_plan_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// LoRAX's and TGI's requests and answers, without a model: what a body becomes, what is refused,
// and the JSON of tokens, ends and errors.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "server/answer_tgi.h"

static const struct api_limits limits = {.vocab_size = 1000, .context_max = 2048};

static void decode(const char *body, bool stream, struct api_request *request)
{
    struct api_error error;
    if (api_decode_tgi(body, strlen(body), &limits, stream, request, &error) != SORA_OK)
        fail_msg("%s: %s", body, error.message);
}

static void what_says_nothing_is_greedy(void **state)
{
    (void)state;
    struct api_request request;
    decode("{\"inputs\":\"hi\"}", false, &request);
    assert_true(request.tgi.on && !request.tgi.sampled && !request.tgi.details);
    assert_string_equal(request.prompts[0].text, "hi");
    assert_true(request.sampling.temperature == 0.0f);
    assert_int_equal(request.max_tokens, -1);
    assert_false(request.stream || request.has_adapters);
    assert_true(request.include_stop && request.skip_special && request.add_special_tokens);
    api_request_deinit(&request);
    decode("{\"inputs\":[1,2],\"parameters\":{\"temperature\":1.0,\"top_p\":1.0}}", true, &request);
    assert_true(request.stream && !request.tgi.sampled);
    assert_int_equal(request.prompts[0].token_count, 2);
    api_request_deinit(&request);
}

static void every_parameter_arrives(void **state)
{
    (void)state;
    struct api_request request;
    decode("{\"inputs\":\"hi\",\"parameters\":{\"adapter_id\":\"x\",\"adapter_source\":\"hub\","
           "\"max_new_tokens\":7,\"temperature\":0.5,\"top_k\":3,\"top_p\":0.9,\"seed\":42,"
           "\"repetition_penalty\":1.5,\"frequency_penalty\":0.5,\"stop\":[\"a\",\"b\"],"
           "\"details\":true,\"return_full_text\":true,\"ignore_eos_token\":true,\"best_of\":1,"
           "\"do_sample\":true,\"watermark\":false,\"typical_p\":null},\"elastic\":true}",
           false, &request);
    assert_int_equal(request.adapter_count, 1);
    assert_string_equal(request.adapters[0].name, "x");
    assert_int_equal(request.max_tokens, 7);
    assert_true(request.sampling.temperature == 0.5f && request.sampling.top_p == 0.9f);
    assert_true(request.sampling.repetition_penalty == 1.5f);
    assert_true(request.sampling.frequency_penalty == 0.5f);
    assert_int_equal(request.sampling.top_k, 3);
    assert_int_equal(request.sampling.seed, 42);
    assert_int_equal(request.stop_count, 2);
    assert_true(request.tgi.details && request.tgi.full_text && request.tgi.sampled);
    assert_true(request.ignore_eos && request.elastic);
    api_request_deinit(&request);
}

static void what_is_wrong_or_not_done_here_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{}", "inputs"},
        {"{\"inputs\":3}", "inputs"},
        {"{\"inputs\":[]}", "inputs"},
        {"{\"inputs\":[1000]}", "inputs"},
        {"{\"inputs\":\"a\",\"parameters\":[]}", "parameters"},
        {"{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":0}}", "max_new_tokens"},
        {"{\"inputs\":\"a\",\"parameters\":{\"temperature\":0}}", "temperature"},
        {"{\"inputs\":\"a\",\"parameters\":{\"top_p\":1.5}}", "top_p"},
        {"{\"inputs\":\"a\",\"parameters\":{\"top_k\":0}}", "top_k"},
        {"{\"inputs\":\"a\",\"parameters\":{\"best_of\":2}}", "best_of"},
        {"{\"inputs\":\"a\",\"parameters\":{\"seed\":\"x\"}}", "seed"},
        {"{\"inputs\":\"a\",\"parameters\":{\"stop\":\"x\"}}", "stop"},
        {"{\"inputs\":\"a\",\"parameters\":{\"stop\":[\"\"]}}", "stop"},
        {"{\"inputs\":\"a\",\"parameters\":{\"details\":1}}", "details"},
        {"{\"inputs\":[1],\"parameters\":{\"return_full_text\":true}}", "return_full_text"},
        {"{\"inputs\":\"a\",\"parameters\":{\"truncate\":5}}", "truncate"},
        {"{\"inputs\":\"a\",\"parameters\":{\"watermark\":true}}", "watermark"},
        {"{\"inputs\":\"a\",\"parameters\":{\"typical_p\":0.5}}", "typical_p"},
        {"{\"inputs\":\"a\",\"parameters\":{\"response_format\":{}}}", "response_format"},
        {"{\"inputs\":\"a\",\"parameters\":{\"decoder_input_details\":true}}",
         "decoder_input_details"},
        {"{\"inputs\":\"a\",\"parameters\":{\"merged_adapters\":{\"ids\":[]}}}", "parameters"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_request request;
        struct api_error error;
        const char *body = cases[i].body;
        if (api_decode_tgi(body, strlen(body), &limits, false, &request, &error) == SORA_OK)
            fail_msg("accepted: %s", body);
        if (strcmp(error.param, cases[i].param) != 0)
            fail_msg("%s: %s, %s", body, error.param, error.message);
    }
}

struct fixture {
    struct api_request api;
    struct choice_options options;
    struct choice choice;
    struct answer answer;
    struct answer_tgi tgi;
    struct buf out;
};

static const int32_t ends[] = {9};

static void open_fixture(struct fixture *fix, const char *parameters, bool stream)
{
    char body[256];
    struct sora_error err;
    memset(fix, 0, sizeof *fix);
    snprintf(body, sizeof body, "{\"inputs\":[1,2,3],\"parameters\":%s}", parameters);
    decode(body, stream, &fix->api);
    fix->options.api = &fix->api;
    assert_int_equal(choice_init(&fix->choice, &fix->options, &err), SORA_OK);
    fix->answer = (struct answer){.api = &fix->api, .prompt_tokens = 3, .stream = stream};
    answer_tgi_init(&fix->tgi, &fix->answer);
    fix->tgi.end_tokens = ends;
    fix->tgi.end_token_count = 1;
    fix->tgi.max_tokens = 3;
    buf_init(&fix->out, 1u << 16);
}

static void close_fixture(struct fixture *fix)
{
    answer_tgi_deinit(&fix->tgi);
    choice_deinit(&fix->choice);
    api_request_deinit(&fix->api);
    buf_deinit(&fix->out);
}

static void take(struct fixture *fix, enum event_kind kind, int32_t token, enum event_finish finish)
{
    const struct event event = {.kind = kind, .token = token, .finish = finish, .logprob = -0.5f};
    if (kind == EVENT_TOKEN)
        (void)choice_token(&fix->choice, &event);
    else
        choice_end(&fix->choice, finish);
    answer_tgi_event(&fix->tgi, &fix->choice, &event, fix->api.stream ? &fix->out : NULL);
}

static void the_last_token_of_a_stream_brings_the_end(void **state)
{
    (void)state;
    struct fixture fix;
    open_fixture(&fix, "{\"details\":true}", true);
    take(&fix, EVENT_TOKEN, 5, FINISH_NONE);
    assert_string_equal(fix.out.data,
                        "data: {\"token\":{\"id\":5,\"text\":\"\",\"logprob\":-0.5,\"special\":"
                        "false},\"generated_text\":null,\"details\":null}\n\n");
    buf_clear(&fix.out);
    take(&fix, EVENT_TOKEN, 9, FINISH_NONE); // an end token waits for the end
    assert_int_equal(fix.out.bytes, 0);
    take(&fix, EVENT_DONE, -1, FINISH_STOP);
    assert_string_equal(fix.out.data,
                        "data: {\"token\":{\"id\":9,\"text\":\"\",\"logprob\":-0.5,\"special\":"
                        "false},\"generated_text\":\"\",\"details\":{\"finish_reason\":"
                        "\"eos_token\",\"prompt_tokens\":3,\"generated_tokens\":2,"
                        "\"seed\":null}}\n\n");
    close_fixture(&fix);
}

static void a_whole_answer_has_its_tokens_in_the_details(void **state)
{
    (void)state;
    struct fixture fix;
    open_fixture(&fix, "{\"details\":true,\"do_sample\":true,\"seed\":7}", false);
    for (int32_t token = 4; token < 7; token++)
        take(&fix, EVENT_TOKEN, token, FINISH_NONE);
    take(&fix, EVENT_DONE, -1, FINISH_LENGTH);
    answer_tgi_encode(&fix.tgi, &fix.choice, &fix.out);
    assert_string_equal(
        fix.out.data,
        "{\"generated_text\":\"\",\"details\":{\"finish_reason\":\"length\",\"prompt_tokens\":3,"
        "\"generated_tokens\":3,\"seed\":7,\"prefill\":[],\"tokens\":["
        "{\"id\":4,\"text\":\"\",\"logprob\":-0.5,\"special\":false},"
        "{\"id\":5,\"text\":\"\",\"logprob\":-0.5,\"special\":false},"
        "{\"id\":6,\"text\":\"\",\"logprob\":-0.5,\"special\":false}]}}");
    close_fixture(&fix);
    open_fixture(&fix, "{}", false);
    take(&fix, EVENT_TOKEN, 9, FINISH_NONE);
    take(&fix, EVENT_DONE, -1, FINISH_STOP);
    answer_tgi_encode(&fix.tgi, &fix.choice, &fix.out);
    assert_string_equal(fix.out.data, "{\"generated_text\":\"\"}");
    close_fixture(&fix);
}

static void what_did_not_end_has_no_end(void **state)
{
    (void)state;
    struct fixture fix;
    open_fixture(&fix, "{}", true);
    take(&fix, EVENT_DONE, -1, FINISH_SHUTDOWN);
    assert_int_equal(fix.out.bytes, 0);
    close_fixture(&fix);
}

static void errors_are_those_of_lorax(void **state)
{
    (void)state;
    static const struct {
        enum api_code code, theirs;
        const char *type;
    } cases[] = {
        {API_BAD_REQUEST, API_IMPOSSIBLE, "validation"},
        {API_NOT_FOUND, API_DEPENDENCY, "generation"},
        {API_INTERNAL, API_DEPENDENCY, "generation"},
        {API_TOO_MANY, API_TOO_MANY, "overloaded"},
        {API_UNAVAILABLE, API_UNAVAILABLE, "incomplete_generation"},
        {API_TOO_LARGE, API_TOO_LARGE, "validation"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_error error;
        struct sora_error err;
        struct buf out;
        cJSON *tree;
        buf_init(&out, 4096);
        (void)api_error_set(&error, cases[i].code, NULL, NULL, "what was wrong");
        answer_tgi_error(&out, &error);
        assert_int_equal(json_parse(out.data, out.bytes, &tree, &err), SORA_OK);
        assert_int_equal(cJSON_GetArraySize(tree), 2);
        const char *text = cJSON_GetObjectItem(tree, "error")->valuestring;
        assert_non_null(strstr(text, ": what was wrong"));
        assert_string_equal(cJSON_GetObjectItem(tree, "error_type")->valuestring, cases[i].type);
        assert_int_equal(answer_tgi_code(cases[i].code), cases[i].theirs);
        cJSON_Delete(tree);
        buf_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_says_nothing_is_greedy),
        cmocka_unit_test(every_parameter_arrives),
        cmocka_unit_test(what_is_wrong_or_not_done_here_is_named),
        cmocka_unit_test(the_last_token_of_a_stream_brings_the_end),
        cmocka_unit_test(a_whole_answer_has_its_tokens_in_the_details),
        cmocka_unit_test(what_did_not_end_has_no_end),
        cmocka_unit_test(errors_are_those_of_lorax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

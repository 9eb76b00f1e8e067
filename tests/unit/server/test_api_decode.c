// SPDX-License-Identifier: Apache-2.0
// Bodies of requests: what they become, and what is refused with which field.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api_decode.h"

static const struct api_limits limits = {.vocab_size = 1000, .context_max = 2048};

static void completion(const char *body, struct api_request *request)
{
    struct api_error error;
    if (api_decode_completion(body, strlen(body), &limits, request, &error) != SORA_OK)
        fail_msg("%s: %s", body, error.message);
}

static void the_defaults_are_those_of_openai(void **state)
{
    (void)state;
    struct api_request request;
    completion("{\"prompt\":\"hi\",\"unknown_field\":[1,{\"a\":2}],\"user\":\"me\"}", &request);
    assert_null(request.model);
    assert_int_equal(request.prompt_count, 1);
    assert_string_equal(request.prompts[0].text, "hi");
    assert_int_equal(request.max_tokens, -1);
    assert_int_equal(request.n, 1);
    assert_int_equal(request.best_of, 1);
    assert_int_equal(request.logprobs, -1);
    assert_true(request.sampling.temperature == 1.0f && request.sampling.top_p == 1.0f);
    assert_false(request.stream || request.echo || request.ignore_eos || request.has_seed);
    assert_true(request.skip_special && request.add_special_tokens);
    assert_true(request.adapter_count == 0 && !request.has_adapters && !request.elastic);
    api_request_deinit(&request);
}

static void every_field_arrives(void **state)
{
    (void)state;
    struct api_request request;
    completion(
        "{\"model\":\"a@2\",\"prompt\":[[1,2],[3]],\"max_tokens\":7,\"min_tokens\":2,"
        "\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.1,\"n\":2,\"best_of\":3,"
        "\"seed\":-5,\"logprobs\":4,\"echo\":true,\"stop\":[\"x\",\"yz\"],"
        "\"stop_token_ids\":[9],\"logit_bias\":{\"5\":-100,\"6\":1.5},\"presence_penalty\":1,"
        "\"frequency_penalty\":-1,\"repetition_penalty\":1.2,\"ignore_eos\":true,"
        "\"max_rank\":3,\"return_token_ids\":true,\"return_tokens_as_token_ids\":true,"
        "\"skip_special_tokens\":false,\"include_stop_str_in_output\":true}",
        &request);
    assert_string_equal(request.model, "a@2");
    assert_int_equal(request.prompt_count, 2);
    assert_int_equal(request.prompts[0].token_count, 2);
    assert_int_equal(request.prompts[1].tokens[0], 3);
    assert_int_equal(request.max_tokens, 7);
    assert_int_equal(request.min_tokens, 2);
    assert_int_equal(request.n, 2);
    assert_int_equal(request.best_of, 3);
    assert_true(request.has_seed && request.sampling.seed == (uint64_t)-5);
    assert_int_equal(request.sampling.top_k, 40);
    assert_int_equal(request.logprobs, 4);
    assert_int_equal(request.stop_count, 2);
    assert_string_equal(request.stops[1], "yz");
    assert_int_equal(request.stop_tokens[0], 9);
    assert_int_equal(request.sampling.logit_bias_count, 2);
    assert_int_equal(request.sampling.logit_bias[0].token, 5);
    assert_true(request.sampling.logit_bias[1].bias == 1.5f);
    assert_int_equal(request.max_rank, 3);
    assert_true(request.echo && request.ignore_eos && request.return_token_ids &&
                request.tokens_as_ids && !request.skip_special && request.include_stop);
    api_request_deinit(&request);
}

static void a_chat_keeps_its_messages(void **state)
{
    (void)state;
    struct api_request request;
    struct api_error error;
    static const char body[] =
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"be kind\"},{\"role\":\"user\","
        "\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
        "{\"role\":\"assistant\",\"content\":null}],\"logprobs\":true,\"top_logprobs\":5,"
        "\"max_completion_tokens\":3,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"adapters\":[{\"name\":\"x\",\"scale\":0.5}],\"tools\":[],"
        "\"response_format\":{\"type\":\"text\"}}";
    assert_int_equal(api_decode_chat(body, sizeof body - 1, &limits, &request, &error), SORA_OK);
    assert_int_equal(request.message_count, 3);
    assert_string_equal(request.messages[0].role, "system");
    assert_string_equal(request.messages[1].content, "a\nb");
    assert_string_equal(request.messages[2].content, "");
    assert_int_equal(request.logprobs, 5);
    assert_int_equal(request.max_tokens, 3);
    assert_true(request.stream && request.include_usage && request.add_generation_prompt);
    assert_int_equal(request.adapter_count, 1);
    assert_string_equal(request.adapters[0].name, "x");
    assert_true(request.adapters[0].scale == 0.5f);
    api_request_deinit(&request);
}

static void adapters_keep_their_order(void **state)
{
    (void)state;
    struct api_request request;
    completion("{\"prompt\":\"a\",\"elastic\":true,\"max_rank\":4,\"adapters\":[{\"name\":\"b\"},"
               "{\"name\":\"a@2\",\"scale\":-0.5,\"max_rank\":3},{\"name\":\"b\",\"scale\":0}]}",
               &request);
    assert_true(request.has_adapters && request.elastic);
    assert_int_equal(request.max_rank, 4);
    assert_int_equal(request.adapter_count, 3);
    assert_string_equal(request.adapters[0].name, "b");
    assert_true(request.adapters[0].scale == 1.0f && request.adapters[0].max_rank == 0);
    assert_string_equal(request.adapters[1].name, "a@2");
    assert_true(request.adapters[1].scale == -0.5f && request.adapters[1].max_rank == 3);
    assert_true(request.adapters[2].scale == 0.0f);
    api_request_deinit(&request);
    completion("{\"prompt\":\"a\",\"adapters\":[]}", &request);
    assert_true(request.has_adapters && request.adapter_count == 0);
    api_request_deinit(&request);
    completion("{\"prompt\":\"a\",\"adapters\":null,\"lora\":null}", &request);
    assert_false(request.has_adapters);
    api_request_deinit(&request);
}

// The last one of an id counts; 0 is as good as left out.
static void scales_by_id_are_those_of_llama_cpp(void **state)
{
    (void)state;
    struct api_request request;
    completion("{\"prompt\":\"a\",\"lora\":[{\"id\":3,\"scale\":1},{\"id\":1,\"scale\":0.5},"
               "{\"id\":7,\"scale\":0},{\"id\":3,\"scale\":0.25},{\"id\":1,\"scale\":0},"
               "{\"id\":10,\"scale\":0},{\"id\":11,\"scale\":0},{\"id\":12,\"scale\":0},"
               "{\"id\":13,\"scale\":0},{\"id\":14,\"scale\":0}]}",
               &request);
    assert_true(request.has_adapters);
    assert_int_equal(request.adapter_count, 1);
    assert_null(request.adapters[0].name);
    assert_int_equal(request.adapters[0].id, 3);
    assert_true(request.adapters[0].scale == 0.25f);
    api_request_deinit(&request);
}

static void adapter_id_is_that_of_lorax(void **state)
{
    (void)state;
    struct api_request request;
    completion("{\"prompt\":\"a\",\"parameters\":{\"adapter_id\":\"x\",\"other\":1}}", &request);
    assert_int_equal(request.adapter_count, 1);
    assert_string_equal(request.adapters[0].name, "x");
    api_request_deinit(&request);
    completion("{\"prompt\":\"a\",\"parameters\":{\"adapter_id\":\"\"}}", &request);
    assert_true(request.has_adapters && request.adapter_count == 0);
    api_request_deinit(&request);
    completion("{\"prompt\":\"a\",\"parameters\":\"text\"}", &request); // somebody else's field
    assert_false(request.has_adapters);
    api_request_deinit(&request);
}

static void more_adapters_than_may_be_composed_are_refused(void **state)
{
    (void)state;
    struct api_request request;
    struct api_error error;
    static const char *const items[] = {"{\"name\":\"n%d\"}", "{\"id\":%d,\"scale\":1}"};
    static const char *const fields[] = {"adapters", "lora"};
    for (int way = 0; way < 2; way++)
        for (int count = SORA_REQUEST_ADAPTERS_MAX; count <= SORA_REQUEST_ADAPTERS_MAX + 1;
             count++) {
            char body[1024];
            int at = snprintf(body, sizeof body, "{\"prompt\":\"a\",\"%s\":[", fields[way]);
            for (int i = 0; i < count; i++) {
                at += snprintf(body + at, sizeof body - (size_t)at, "%s", i > 0 ? "," : "");
                at += snprintf(body + at, sizeof body - (size_t)at, way == 0 ? items[0] : items[1],
                               i);
            }
            at += snprintf(body + at, sizeof body - (size_t)at, "]}");
            if (count == SORA_REQUEST_ADAPTERS_MAX) {
                completion(body, &request);
                assert_int_equal(request.adapter_count, count);
                api_request_deinit(&request);
                continue;
            }
            assert_int_not_equal(api_decode_completion(body, (size_t)at, &limits, &request, &error),
                                 SORA_OK);
            assert_string_equal(error.code, "over_limit");
            assert_string_equal(error.param, fields[way]);
        }
}

struct refusal {
    const char *body, *param, *text;
};

static void check_refusals(const struct refusal *cases, size_t count, bool chat)
{
    for (size_t i = 0; i < count; i++) {
        struct api_request request;
        struct api_error error = {.http = API_OK};
        const char *body = cases[i].body;
        sora_status status =
            chat ? api_decode_chat(body, strlen(body), &limits, &request, &error)
                 : api_decode_completion(body, strlen(body), &limits, &request, &error);
        if (status == SORA_OK)
            fail_msg("accepted: %s", body);
        assert_int_equal(error.http, API_BAD_REQUEST);
        if (strcmp(error.param, cases[i].param) != 0 ||
            strstr(error.message, cases[i].text) == NULL)
            fail_msg("%s: param \"%s\", message \"%s\"", body, error.param, error.message);
    }
}

static void a_wrong_completion_is_refused_with_its_field(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {"", "", "not valid JSON"},
        {"{", "", "not valid JSON"},
        {"[1]", "", "JSON object"},
        {"{\"prompt\":\"a\",\"prompt\":\"b\"}", "", "duplicate"},
        {"{}", "prompt", "required"},
        {"{\"prompt\":null}", "prompt", "required"},
        {"{\"prompt\":5}", "prompt", "must be a string"},
        {"{\"prompt\":[]}", "prompt", "empty list"},
        {"{\"prompt\":[[]]}", "prompt", "is empty"},
        {"{\"prompt\":[1,\"a\"]}", "prompt", "item 1"},
        {"{\"prompt\":[\"a\",true]}", "prompt", "something else"},
        {"{\"prompt\":[1000]}", "prompt", "[0, 1000)"},
        {"{\"prompt\":[-1]}", "prompt", "[0, 1000)"},
        {"{\"prompt\":[1.5]}", "prompt", "[0, 1000)"},
        {"{\"prompt\":\"a\",\"model\":7}", "model", "string"},
        {"{\"prompt\":\"a\",\"max_tokens\":-1}", "max_tokens", "[0,"},
        {"{\"prompt\":\"a\",\"max_tokens\":\"5\"}", "max_tokens", "integer"},
        {"{\"prompt\":\"a\",\"max_tokens\":2,\"min_tokens\":3}", "min_tokens", "exceeds"},
        {"{\"prompt\":\"a\",\"temperature\":-0.1}", "temperature", "[0,"},
        {"{\"prompt\":\"a\",\"temperature\":true}", "temperature", "number"},
        {"{\"prompt\":\"a\",\"top_p\":0}", "top_p", "(0, 1]"},
        {"{\"prompt\":\"a\",\"top_k\":-2}", "top_k", "[-1,"},
        {"{\"prompt\":\"a\",\"seed\":1.5}", "seed", "integer"},
        {"{\"prompt\":\"a\",\"n\":0}", "n", "[1,"},
        {"{\"prompt\":\"a\",\"n\":17}", "n", "[1, 16]"},
        {"{\"prompt\":\"a\",\"n\":3,\"best_of\":2}", "best_of", "[3,"},
        {"{\"prompt\":\"a\",\"n\":1,\"best_of\":2,\"stream\":true}", "best_of", "stream"},
        {"{\"prompt\":\"a\",\"logprobs\":51}", "logprobs", "[0, 50]"},
        {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs", "integer"},
        {"{\"prompt\":\"a\",\"stop\":[\"\"]}", "stop", "1 to"},
        {"{\"prompt\":\"a\",\"stop\":{}}", "stop", "string"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"x\":1}}", "logit_bias", "token id"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"1000\":1}}", "logit_bias", "[0, 1000)"},
        {"{\"prompt\":\"a\",\"logit_bias\":{\"1\":101}}", "logit_bias", "[-100, 100]"},
        {"{\"prompt\":\"a\",\"logit_bias\":[]}", "logit_bias", "object"},
        {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "not supported"},
        {"{\"prompt\":\"a\",\"stream\":\"yes\"}", "stream", "true or false"},
        {"{\"prompt\":\"a\",\"stream_options\":{}}", "stream_options", "only with"},
        {"{\"prompt\":\"a\",\"max_rank\":0}", "max_rank", "[1,"},
        {"{\"prompt\":\"a\",\"adapters\":[{}]}", "adapters", "required"},
        {"{\"prompt\":\"a\",\"adapters\":{}}", "adapters", "list"},
        {"{\"prompt\":\"a\",\"adapters\":[\"x\"]}", "adapters", "adapters[0]"},
        {"{\"prompt\":\"a\",\"adapters\":[{\"name\":1}]}", "name", "string"},
        {"{\"prompt\":\"a\",\"adapters\":[{\"name\":\"x\",\"scale\":101}]}", "scale", "100"},
        {"{\"prompt\":\"a\",\"adapters\":[{\"name\":\"x\",\"max_rank\":0}]}", "max_rank", "1"},
        {"{\"prompt\":\"a\",\"max_rank\":1025}", "max_rank", "1024"},
        {"{\"prompt\":\"a\",\"elastic\":1}", "elastic", "true or false"},
        {"{\"prompt\":\"a\",\"lora\":{}}", "lora", "must be an array"},
        {"{\"prompt\":\"a\",\"lora\":[{\"id\":0}]}", "lora", "scale are required"},
        {"{\"prompt\":\"a\",\"lora\":[{\"id\":-1,\"scale\":1}]}", "id", "-1"},
        {"{\"prompt\":\"a\",\"lora\":[{\"id\":0.5,\"scale\":1}]}", "id", "0.5"},
        {"{\"prompt\":\"a\",\"lora\":[],\"adapters\":[]}", "lora", "without"},
        {"{\"prompt\":\"a\",\"parameters\":{\"adapter_id\":3}}", "adapter_id", "string"},
        {"{\"prompt\":\"a\",\"parameters\":{\"merged_adapters\":{}}}", "parameters", "adapters"},
    };
    check_refusals(cases, sizeof cases / sizeof cases[0], false);
}

static void a_wrong_chat_is_refused_with_its_field(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {"{}", "messages", "at least one"},
        {"{\"messages\":[]}", "messages", "at least one"},
        {"{\"messages\":[1]}", "messages", "object"},
        {"{\"messages\":[{\"content\":\"a\"}]}", "messages", "role"},
        {"{\"messages\":[{\"role\":\"robot\",\"content\":\"a\"}]}", "messages", "role"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages", "content"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", "messages",
         "text only"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_logprobs\":2}",
         "top_logprobs", "only with"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{}]}", "tools",
         "not built yet"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"response_format\":"
         "{\"type\":\"json_object\"}}",
         "response_format", "built yet"},
    };
    check_refusals(cases, sizeof cases / sizeof cases[0], true);
}

static void more_than_the_named_maxima_is_refused(void **state)
{
    (void)state;
    struct api_request request;
    struct api_error error;
    char body[4096];
    int used = snprintf(body, sizeof body, "{\"prompt\":[");
    for (int i = 0; i <= SORA_REQUEST_PROMPTS_MAX; i++)
        used += snprintf(body + used, sizeof body - (size_t)used, "%s\"a\"", i > 0 ? "," : "");
    snprintf(body + used, sizeof body - (size_t)used, "]}");
    assert_int_equal(api_decode_completion(body, strlen(body), &limits, &request, &error),
                     SORA_MALFORMED);
    assert_string_equal(error.code, "over_limit");
    used = snprintf(body, sizeof body, "{\"prompt\":\"a\",\"stop\":[");
    for (int i = 0; i <= SORA_STOP_COUNT_MAX; i++)
        used += snprintf(body + used, sizeof body - (size_t)used, "%s\"a\"", i > 0 ? "," : "");
    snprintf(body + used, sizeof body - (size_t)used, "]}");
    assert_int_equal(api_decode_completion(body, strlen(body), &limits, &request, &error),
                     SORA_MALFORMED);
    assert_string_equal(error.param, "stop");
}

static void tokenize_takes_text_or_messages(void **state)
{
    (void)state;
    struct api_request request;
    struct api_error error;
    bool strings;
    static const char text[] = "{\"prompt\":\"a\",\"return_token_strs\":true}";
    static const char chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}";
    static const char ids[] = "{\"prompt\":[1]}";
    static const char tokens[] = "{\"tokens\":[1,2]}";
    assert_int_equal(api_decode_tokenize(text, strlen(text), &request, &strings, &error), SORA_OK);
    assert_true(strings && request.add_special_tokens);
    api_request_deinit(&request);
    assert_int_equal(api_decode_tokenize(chat, strlen(chat), &request, &strings, &error), SORA_OK);
    assert_int_equal(request.kind, API_CHAT);
    api_request_deinit(&request);
    assert_int_not_equal(api_decode_tokenize(ids, strlen(ids), &request, &strings, &error),
                         SORA_OK);
    assert_int_equal(api_decode_detokenize(tokens, strlen(tokens), &limits, &request, &error),
                     SORA_OK);
    assert_int_equal(request.prompts[0].token_count, 2);
    api_request_deinit(&request);
    assert_int_not_equal(api_decode_detokenize(text, strlen(text), &limits, &request, &error),
                         SORA_OK);
}

static void errors_are_openais_object(void **state)
{
    (void)state;
    struct api_error error;
    struct buf out;
    buf_init(&out, 4096);
    (void)api_error_set(&error, API_NOT_FOUND, "model_not_found", "model", "no \"%s\"", "x\n");
    api_error_encode(&out, &error);
    assert_string_equal(out.data, "{\"error\":{\"message\":\"no \\\"x\\\\n\\\"\",\"type\":"
                                  "\"invalid_request_error\",\"param\":\"model\",\"code\":"
                                  "\"model_not_found\"}}");
    buf_deinit(&out);
    static const struct {
        sora_status status;
        enum api_origin origin;
        int http;
    } codes[] = {
        {SORA_MALFORMED, API_FROM_BODY, 400},   {SORA_MALFORMED, API_FROM_ADAPTER, 400},
        {SORA_MISMATCH, API_FROM_ADAPTER, 422}, {SORA_LIMIT, API_FROM_ADAPTER, 422},
        {SORA_LIMIT, API_FROM_BODY, 400},       {SORA_UNSUPPORTED, API_FROM_ADAPTER, 422},
        {SORA_NOT_FOUND, API_FROM_MODEL, 404},  {SORA_PRECONDITION, API_FROM_ADAPTER, 412},
        {SORA_FULL, API_FROM_ADAPTER, 507},     {SORA_BUSY, API_FROM_BODY, 429},
        {SORA_NO_MEMORY, API_FROM_BODY, 503},   {SORA_INTERNAL, API_FROM_BODY, 500},
        {SORA_IO, API_FROM_ADAPTER, 500},
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        struct sora_error cause = {.code = codes[i].status, .text = "x"};
        (void)api_error_from(&error, codes[i].origin, &cause);
        assert_int_equal(api_code_http(error.http), codes[i].http);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_those_of_openai),
        cmocka_unit_test(every_field_arrives),
        cmocka_unit_test(a_chat_keeps_its_messages),
        cmocka_unit_test(adapters_keep_their_order),
        cmocka_unit_test(scales_by_id_are_those_of_llama_cpp),
        cmocka_unit_test(adapter_id_is_that_of_lorax),
        cmocka_unit_test(more_adapters_than_may_be_composed_are_refused),
        cmocka_unit_test(a_wrong_completion_is_refused_with_its_field),
        cmocka_unit_test(a_wrong_chat_is_refused_with_its_field),
        cmocka_unit_test(more_than_the_named_maxima_is_refused),
        cmocka_unit_test(tokenize_takes_text_or_messages),
        cmocka_unit_test(errors_are_openais_object),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

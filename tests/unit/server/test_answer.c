// SPDX-License-Identifier: Apache-2.0
// The JSON of answers and streams, and the text of /metrics, without a model.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>
#include <cmocka.h>
#include <string.h>

#include "server/answer.h"
#include "server/metrics.h"
#include "server/sse.h"

static struct event token_event(int32_t token)
{
    static const int32_t tops[] = {7, 8};
    static const float scores[] = {-0.25f, -1.5f};
    return (struct event){.kind = EVENT_TOKEN,
                          .token = token,
                          .logprob = -2.0f,
                          .rank = 3,
                          .top_count = 2,
                          .top_tokens = tops,
                          .top_logprobs = scores};
}

static void a_completion_has_openais_and_vllms_fields(void **state)
{
    (void)state;
    struct api_request api = {.kind = API_COMPLETION,
                              .logprobs = 2,
                              .return_token_ids = true,
                              .skip_special = true,
                              .n = 1};
    struct choice_options options = {.tokenizer = NULL, .api = &api};
    struct choice choice;
    struct event event = token_event(5);
    struct buf out;
    const int32_t prompt[] = {1, 2};
    assert_int_equal(choice_init(&choice, &options, NULL), SORA_OK);
    choice_prompt_token(&choice, 1, NULL);
    assert_false(choice_token(&choice, &event));
    event.token = 7;
    assert_false(choice_token(&choice, &event));
    assert_null(choice_finish_reason(&choice));
    choice_end(&choice, FINISH_LENGTH);
    struct answer answer = {.kind = API_COMPLETION,
                            .id = "cmpl-1",
                            .created_s = 9,
                            .model = "m\"x",
                            .api = &api,
                            .prompt_tokens = 2,
                            .completion_tokens = 2};
    struct answer_choice item = {
        .choice = &choice, .prompt_tokens = prompt, .prompt_token_count = 2};
    buf_init(&out, 1u << 16);
    answer_encode(&answer, &item, 1, &out);
    assert_string_equal(
        out.data,
        "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":9,\"model\":\"m\\\"x\","
        "\"choices\":[{\"index\":0,\"text\":\"\",\"logprobs\":{\"tokens\":[\"token_id:1\","
        "\"token_id:5\",\"token_id:7\"],\"token_logprobs\":[null,-2,-2],\"top_logprobs\":[null,"
        "{\"token_id:7\":-0.25,\"token_id:8\":-1.5,\"token_id:5\":-2},"
        "{\"token_id:7\":-0.25,\"token_id:8\":-1.5}],\"text_offset\":[0,0,0]},"
        "\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":[5,7],"
        "\"prompt_token_ids\":[1,2]}],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":2,"
        "\"total_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":0}}}");
    choice_deinit(&choice);
    buf_deinit(&out);
}

static void a_chat_has_its_own_shape(void **state)
{
    (void)state;
    struct api_request api = {.kind = API_CHAT, .logprobs = 1, .n = 1};
    struct choice_options options = {.tokenizer = NULL, .api = &api};
    struct choice choice;
    struct event event = token_event(5);
    struct buf out;
    event.top_count = 1;
    assert_int_equal(choice_init(&choice, &options, NULL), SORA_OK);
    assert_false(choice_token(&choice, &event));
    choice_end(&choice, FINISH_STOP);
    struct answer answer = {.kind = API_CHAT, .id = "c", .created_s = 9, .model = "m", .api = &api};
    struct answer_choice item = {.choice = &choice, .index = 3};
    buf_init(&out, 1u << 16);
    answer_encode(&answer, &item, 1, &out);
    assert_non_null(strstr(
        out.data,
        "{\"index\":3,\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":"
        "{\"content\":[{\"token\":\"token_id:5\",\"logprob\":-2,\"bytes\":null,\"top_logprobs\":"
        "[{\"token\":\"token_id:7\",\"logprob\":-0.25,\"bytes\":null}]}]},\"finish_reason\":"
        "\"stop\",\"stop_reason\":null}"));
    assert_non_null(strstr(out.data, "\"object\":\"chat.completion\""));
    cJSON *tree = cJSON_ParseWithLength(out.data, out.bytes);
    assert_non_null(tree);
    cJSON_Delete(tree);
    choice_deinit(&choice);
    buf_deinit(&out);
}

static void a_stream_begins_with_the_role_and_ends_with_usage_and_a_mark(void **state)
{
    (void)state;
    struct api_request api = {
        .kind = API_CHAT, .logprobs = -1, .n = 1, .stream = true, .include_usage = true};
    struct choice_options options = {.tokenizer = NULL, .api = &api};
    struct choice choice;
    struct buf out;
    assert_int_equal(choice_init(&choice, &options, NULL), SORA_OK);
    struct answer answer = {.kind = API_CHAT,
                            .stream = true,
                            .id = "c",
                            .created_s = 9,
                            .model = "m",
                            .api = &api,
                            .prompt_tokens = 1};
    struct answer_choice item = {.choice = &choice, .first = true};
    buf_init(&out, 1u << 16);
    answer_encode_chunk(&answer, &item, &out);
    assert_string_equal(out.data,
                        "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":9,"
                        "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":"
                        "\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":"
                        "null}],\"usage\":null}\n\n");
    buf_clear(&out);
    buf_text(&choice.text, "a\nb");
    item.first = false;
    choice_end(&choice, FINISH_LENGTH);
    answer_encode_chunk(&answer, &item, &out);
    assert_non_null(strstr(out.data, "\"delta\":{\"content\":\"a\\nb\"}"));
    assert_non_null(strstr(out.data, "\"finish_reason\":\"length\""));
    // One event is one line: nothing in it may end it early.
    assert_true(strchr(out.data, '\n') == out.data + out.bytes - 2);
    buf_clear(&out);
    answer_encode_chunk(&answer, NULL, &out);
    sse_comment(&out, "waiting");
    sse_done(&out);
    assert_non_null(strstr(out.data, "\"choices\":[],\"usage\":{\"prompt_tokens\":1,"));
    assert_non_null(strstr(out.data, "}\n\n: waiting\n\ndata: [DONE]\n\n"));
    choice_deinit(&choice);
    buf_deinit(&out);
}

static void minus_infinity_is_a_number_in_json(void **state)
{
    (void)state;
    struct api_request api = {.kind = API_COMPLETION, .logprobs = 0, .n = 1};
    struct choice_options options = {.tokenizer = NULL, .api = &api};
    struct choice choice;
    struct event event = {.kind = EVENT_TOKEN, .token = 1, .logprob = -1.0f / 0.0f};
    assert_int_equal(choice_init(&choice, &options, NULL), SORA_OK);
    assert_false(choice_token(&choice, &event));
    assert_string_equal(choice.values.data, "-9999");
    choice_deinit(&choice);
}

static void metrics_are_prometheus_text(void **state)
{
    (void)state;
    static struct metrics metrics;
    static const char *const routes[] = {"GET /a", "none"};
    struct buf out;
    buf_init(&out, 1u << 20);
    metrics_add(&metrics, METRICS_OUTPUT_TOKENS, 3);
    metrics_add(&metrics, METRICS_STEP_TOTAL_US, 1500000);
    metrics_set(&metrics, METRICS_RUNNING, 2);
    metrics_observe(&metrics, METRICS_FIRST_TOKEN, 30000);
    metrics_observe(&metrics, METRICS_FIRST_TOKEN, 999000000);
    metrics_reply(&metrics, 1, API_NOT_FOUND);
    metrics_encode(&metrics, routes, 2, &out);
    static const char *const lines[] = {
        "# TYPE sora_generation_tokens_total counter\nsora_generation_tokens_total 3\n",
        "sora_step_seconds_total 1.5\n",
        "sora_requests_running 2\n",
        "sora_requests_total{route=\"none\",code=\"404\"} 1\n",
        "sora_time_to_first_token_seconds_bucket{le=\"0.025\"} 0\n",
        "sora_time_to_first_token_seconds_bucket{le=\"0.05\"} 1\n",
        "sora_time_to_first_token_seconds_bucket{le=\"120\"} 1\n",
        "sora_time_to_first_token_seconds_bucket{le=\"+Inf\"} 2\n",
        "sora_time_to_first_token_seconds_sum 999.03\n",
        "sora_time_to_first_token_seconds_count 2\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (strstr(out.data, lines[i]) == NULL)
            fail_msg("missing: %s", lines[i]);
    assert_null(strstr(out.data, "route=\"GET /a\"")); // never asked for: no line
    buf_clear(&out);
    metrics_encode_label(&out, "a\"b\\c\nd");
    assert_string_equal(out.data, "\"a\\\"b\\\\c\\nd\"");
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_has_openais_and_vllms_fields),
        cmocka_unit_test(a_chat_has_its_own_shape),
        cmocka_unit_test(a_stream_begins_with_the_role_and_ends_with_usage_and_a_mark),
        cmocka_unit_test(minus_infinity_is_a_number_in_json),
        cmocka_unit_test(metrics_are_prometheus_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// What replies, errors and lists of models say, and how foreign ones are refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loadtest/client_reply.h"
#include "loadtest/discover.h"
#include "loadtest/nearest.h"
#include "loadtest/verify.h"

static void an_event_says_what_it_brings(void **state)
{
    (void)state;
    static const struct {
        const char *data, *text;
        bool has_token, finished, done;
        int32_t output_tokens;
    } cases[] = {
        {"[DONE]", "", false, false, true, -1},
        {"{\"choices\":[{\"text\":\"ab\"}]}", "ab", true, false, false, -1},
        {"{\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}", "", false, true, false,
         -1},
        {"{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", "", false, false,
         false, -1},
        {"{\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}", "x", true, false,
         false, -1},
        {"{\"choices\":[{\"delta\":{\"reasoning_content\":\"r\"}}]}", "r", true, false, false, -1},
        {"{\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}", "", true, false, false, -1},
        {"{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", "", false, true, false, -1},
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}", "", false,
         false, false, 4},
        {"{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}", "", false, false, false, 4},
        {"{\"choices\":[{\"text\":\"a\"}],\"usage\":null,\"error\":null}", "a", true, false, false,
         -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply reply;
        struct sora_error err = {.text = ""};
        struct buf text;
        buf_init(&text, 1024);
        if (reply_read_event(cases[i].data, strlen(cases[i].data), &reply, &text, &err) != SORA_OK)
            fail_msg("%s: %s", cases[i].data, err.text);
        assert_string_equal(text.data != NULL ? text.data : "", cases[i].text);
        assert_int_equal(reply.has_token, cases[i].has_token);
        assert_int_equal(reply.finished, cases[i].finished);
        assert_int_equal(reply.done, cases[i].done);
        assert_int_equal(reply.output_tokens, cases[i].output_tokens);
        buf_deinit(&text);
    }
}

static void a_wrong_event_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *data, *says;
    } cases[] = {
        {"", "event"},
        {"[DONE", "event"},
        {"{\"choices\":[{\"text\":\"ab\"}]", "event"},
        {"{\"choices\":[{\"text\":7}]}", "text"},
        {"{\"choices\":[7]}", "choices[0]"},
        {"{\"choices\":7}", "choices"},
        {"{}", "choices"},
        {"3", "object"},
        {"{\"choices\":[{}]}", "no text"},
        {"{\"choices\":[{\"delta\":\"x\"}]}", "delta"},
        {"{\"choices\":[{\"text\":\"a\",\"finish_reason\":1}]}", "finish_reason"},
        {"{\"choices\":[],\"usage\":{\"completion_tokens\":-4}}", "completion_tokens"},
        {"{\"choices\":[],\"usage\":{\"completion_tokens\":1e300}}", "completion_tokens"},
        {"{\"choices\":[],\"usage\":\"many\"}", "usage"},
        {"{\"error\":{\"message\":\"engine died\"}}", "engine died"},
        {"{\"error\":\"engine died\"}", "engine died"},
        {"{\"choices\":[{\"text\":\"\xff\"}]}", "event"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct reply reply;
        struct sora_error err = {.text = ""};
        assert_int_not_equal(
            reply_read_event(cases[i].data, strlen(cases[i].data), &reply, NULL, &err), SORA_OK);
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].data, err.text, cases[i].says);
    }
}

static void a_body_needs_a_choice_with_text(void **state)
{
    (void)state;
    static const char good[] = "{\"choices\":[{\"message\":{\"content\":\"hi\"},"
                               "\"finish_reason\":\"stop\"}],"
                               "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}";
    struct reply reply;
    struct sora_error err;
    struct buf text;
    buf_init(&text, 1024);
    assert_int_equal(reply_read_body(good, strlen(good), &reply, &text, &err), SORA_OK);
    assert_string_equal(text.data, "hi");
    assert_int_equal(reply.prompt_tokens, 5);
    assert_int_equal(reply_read_body("{\"choices\":[]}", 14, &reply, &text, &err), SORA_MALFORMED);
    assert_int_equal(reply_read_body("{}", 2, &reply, &text, &err), SORA_MALFORMED);
    assert_int_equal(reply_read_body("", 0, &reply, &text, &err), SORA_MALFORMED);
    buf_deinit(&text);
}

static void the_message_of_an_error_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *body, *message;
    } cases[] = {{"{\"error\":{\"message\":\"full\"}}", "full"},
                 {"{\"error\":\"full\"}", "full"},
                 {"{\"message\":\"full\"}", "full"},
                 {"{\"detail\":\"full\"}", "full"},
                 {"{\"error\":{\"message\":7}}", "{\"error\":{\"message\":7}}"},
                 {"<html>\x01", "<html>\\x01"},
                 {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        reply_error_text(cases[i].body, strlen(cases[i].body), text, sizeof text);
        assert_string_equal(text, cases[i].message);
    }
}

static void models_are_told_apart_from_adapters(void **state)
{
    (void)state;
    static const struct {
        const char *json, *base, *adapters;
    } cases[] = {
        {"{\"data\":[{\"id\":\"m\",\"parent\":null},{\"id\":\"a\",\"parent\":\"m\"},"
         "{\"id\":\"b\",\"parent\":\"m\"}]}",
         "m", "a,b"},
        {"{\"data\":[{\"id\":\"m\"}]}", "m", NULL},
        {"{\"data\":[]}", NULL, NULL},
        {"{\"data\":[{\"id\":\"m\"},{\"id\":\"a,b\",\"parent\":\"m\"}]}", "m", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct discovered found;
        struct sora_error err;
        assert_int_equal(discover_parse(cases[i].json, strlen(cases[i].json), &found, &err),
                         SORA_OK);
        assert_string_equal(found.base != NULL ? found.base : "-",
                            cases[i].base != NULL ? cases[i].base : "-");
        assert_string_equal(found.adapters != NULL ? found.adapters : "-",
                            cases[i].adapters != NULL ? cases[i].adapters : "-");
        discovered_deinit(&found);
    }
    static const char *const wrong[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"data\":[1]}",
                                        "{\"data\":[{}]}",
                                        "{\"data\":[{\"id\":3}]}",
                                        "{\"data\":[{\"id\":\"\"}]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct discovered found;
        struct sora_error err;
        assert_int_equal(discover_parse(wrong[i], strlen(wrong[i]), &found, &err), SORA_MALFORMED);
    }
}

static void llama_servers_adapters_are_numbered(void **state)
{
    (void)state;
    struct discovered found;
    struct sora_error err;
    static const char json[] = "[{\"id\":0,\"path\":\"x\",\"scale\":0},{\"id\":1,\"path\":\"y\"}]";
    assert_int_equal(discover_parse_lora(json, strlen(json), &found, &err), SORA_OK);
    assert_string_equal(found.adapters, "lora-0,lora-1");
    discovered_deinit(&found);
    assert_int_equal(discover_parse_lora("{}", 2, &found, &err), SORA_MALFORMED);
}

static void a_different_reply_is_seen_and_an_equal_one_passes(void **state)
{
    (void)state;
    struct verify *verify = NULL;
    struct sora_error err;
    char text[300] = "";
    assert_int_equal(verify_create(4, &verify, &err), SORA_OK);
    assert_true(verify_add(verify, 1, "abc", 3, text, sizeof text));
    assert_true(verify_add(verify, 2, "", 0, text, sizeof text));
    assert_true(verify_add(verify, 1, "abc", 3, text, sizeof text));
    assert_true(verify_add(verify, 2, NULL, 0, text, sizeof text));
    assert_false(verify_add(verify, 1, "abd", 3, text, sizeof text));
    assert_non_null(strstr(text, "from byte 2 \"c\" before, \"d\" now"));
    assert_false(verify_add(verify, 1, "ab", 2, text, sizeof text));
    assert_non_null(strstr(text, "from byte 2 \"c\" before, \"\" now"));
    assert_false(verify_add(verify, 2, "x", 1, text, sizeof text));
    struct verify_counts counts = verify_counts(verify);
    assert_int_equal(counts.kept, 2);
    assert_int_equal(counts.compared, 5);
    assert_int_equal(counts.different, 3);
    verify_destroy(verify);
}

static void the_nearest_name_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"rate", "requests", "ranks", NULL};
    assert_string_equal(nearest_name("ratee", names), "rate");
    assert_string_equal(nearest_name("request", names), "requests");
    assert_string_equal(nearest_name("rank", names), "ranks");
    assert_string_equal(nearest_name("", names), "rate");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_says_what_it_brings),
        cmocka_unit_test(a_wrong_event_is_refused),
        cmocka_unit_test(a_body_needs_a_choice_with_text),
        cmocka_unit_test(the_message_of_an_error_is_found),
        cmocka_unit_test(models_are_told_apart_from_adapters),
        cmocka_unit_test(llama_servers_adapters_are_numbered),
        cmocka_unit_test(a_different_reply_is_seen_and_an_equal_one_passes),
        cmocka_unit_test(the_nearest_name_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

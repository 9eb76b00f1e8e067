// SPDX-License-Identifier: Apache-2.0
// Chat templates against transformers' rendering, and which model templates are recognised.
#include "text_fixture.h"

#include "text/tokenizer.h"

// Renders a golden chat; malloc'ed.
static char *render(const sora_tokenizer *tokenizer, const char *name, const cJSON *chat)
{
    struct sora_error err = {0};
    struct sora_message messages[32];
    int32_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(chat, "messages"))
    {
        assert_true(count < 32);
        messages[count].role = cJSON_GetObjectItem(item, "role")->valuestring;
        messages[count++].content = cJSON_GetObjectItem(item, "content")->valuestring;
    }
    char *text;
    size_t bytes;
    assert_ok(sora_chat_render(tokenizer, name, messages, count,
                               cJSON_IsTrue(cJSON_GetObjectItem(chat, "add_generation_prompt")),
                               &text, &bytes, &err));
    assert_int_equal(bytes, strlen(text));
    return text;
}

static void the_golden_chats_have_the_reference_text(void **state)
{
    (void)state;
    cJSON *golden = fixture_golden("chat.json");
    assert_int_equal(cJSON_GetArraySize(golden), 24);
    const cJSON *chat;
    cJSON_ArrayForEach(chat, golden)
    {
        char *text = render(NULL, "smollm", chat);
        assert_string_equal(text, cJSON_GetObjectItem(chat, "text")->valuestring);
        free(text);
    }
    cJSON_Delete(golden);
}

static void plain_chatml_differs_where_no_system_message_starts_the_chat(void **state)
{
    (void)state;
    cJSON *golden = fixture_golden("chat.json");
    const cJSON *chat;
    int differences = 0;
    cJSON_ArrayForEach(chat, golden)
    {
        const cJSON *first = cJSON_GetObjectItem(chat, "messages")->child;
        bool system = strcmp(cJSON_GetObjectItem(first, "role")->valuestring, "system") == 0;
        char *text = render(NULL, "chatml", chat);
        bool same = strcmp(text, cJSON_GetObjectItem(chat, "text")->valuestring) == 0;
        assert_int_equal(same, system);
        differences += !same;
        free(text);
    }
    assert_true(differences > 0);
    cJSON_Delete(golden);
}

static void the_golden_chats_have_the_reference_ids(void **state)
{
    (void)state;
    const char *path = fixture_model_path(__func__);
    if (path == NULL)
        skip();
    struct sora_error err = {0};
    sora_tokenizer *tokenizer;
    assert_ok(sora_tokenizer_open(path, &tokenizer, &err));
    cJSON *golden = fixture_golden("chat.json");
    const cJSON *chat;
    cJSON_ArrayForEach(chat, golden)
    {
        char *text = render(tokenizer, NULL, chat); // recognises the model's template
        assert_true(
            fixture_encodes_to(tokenizer, text, strlen(text), cJSON_GetObjectItem(chat, "ids")));
        free(text);
    }
    cJSON_Delete(golden);
    sora_tokenizer_close(tokenizer);
}

static enum chat_kind kind_of(const char *text)
{
    return chat_template_recognise(text, strlen(text));
}

#define HEAD "{% for message in messages %}"
#define BODY \
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
#define TAIL "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
#define SYSTEM                                                                                  \
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a " \
    "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"

static void known_templates_are_recognised_in_any_spacing(void **state)
{
    (void)state;
    assert_int_equal(kind_of(HEAD BODY TAIL), CHAT_CHATML);
    assert_int_equal(kind_of(HEAD SYSTEM BODY TAIL), CHAT_SMOLLM);
    assert_int_equal(
        kind_of("{%for message in messages%}{{ \"<|im_start|>\"+message[\"role\"]+'\\n'+"
                "message['content'] + '<|im_end|>'+ \"\\n\" }}" TAIL),
        CHAT_CHATML);
}

static void a_template_that_differs_at_all_is_not_recognised(void **state)
{
    (void)state;
    static const char *const others[] = {
        "",
        HEAD,
        " " HEAD BODY TAIL,
        HEAD BODY TAIL "\n",
        HEAD SYSTEM SYSTEM BODY TAIL,
        HEAD BODY "{% endfor %}",
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}" TAIL,
        "{% for message in messages %}{{'<|im_start|> ' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}" TAIL,
        "{% formessage in messages %}" BODY TAIL,
        "{{ 'never closed",
        "{% never closed",
        "{{ 'a\\",
        "{",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(kind_of(others[i]), CHAT_UNKNOWN);
    char *large = calloc(1, 100000);
    memset(large, '{', 99999);
    assert_int_equal(chat_template_recognise(large, 99999), CHAT_UNKNOWN);
    free(large);
}

static void an_unknown_template_is_refused_with_the_names_to_choose_from(void **state)
{
    (void)state;
    struct sora_error err = {0};
    struct sora_tokenizer tokenizer = {.chat = CHAT_UNKNOWN};
    char *text;
    size_t bytes;
    assert_int_equal(sora_chat_render(&tokenizer, NULL, NULL, 0, true, &text, &bytes, &err),
                     SORA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "--chat-template smollm|chatml"));
    assert_null(text);
    assert_int_equal(sora_chat_render(NULL, NULL, NULL, 0, true, &text, &bytes, &err),
                     SORA_UNSUPPORTED);
    assert_int_equal(sora_chat_render(&tokenizer, "llama2", NULL, 0, true, &text, &bytes, &err),
                     SORA_UNSUPPORTED);
    assert_non_null(strstr(err.text, "llama2"));
}

static void a_chat_without_messages_is_the_generation_prompt(void **state)
{
    (void)state;
    struct sora_error err = {0};
    char *text;
    size_t bytes;
    assert_ok(sora_chat_render(NULL, "smollm", NULL, 0, true, &text, &bytes, &err));
    assert_string_equal(text, "<|im_start|>assistant\n");
    free(text);
    assert_ok(sora_chat_render(NULL, "smollm", NULL, 0, false, &text, &bytes, &err));
    assert_string_equal(text, "");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_chats_have_the_reference_text),
        cmocka_unit_test(plain_chatml_differs_where_no_system_message_starts_the_chat),
        cmocka_unit_test(the_golden_chats_have_the_reference_ids),
        cmocka_unit_test(known_templates_are_recognised_in_any_spacing),
        cmocka_unit_test(a_template_that_differs_at_all_is_not_recognised),
        cmocka_unit_test(an_unknown_template_is_refused_with_the_names_to_choose_from),
        cmocka_unit_test(a_chat_without_messages_is_the_generation_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

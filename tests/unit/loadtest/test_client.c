// SPDX-License-Identifier: Apache-2.0
// The client against a server on a thread that answers with whatever bytes a case says.
#include "load_fixture.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "loadtest/client.h"
#include "loadtest/client_body.h"

// Answers each connection with `reply`, after the whole request has come; then closes it, at once
// or, when the client should wait for more, once the client has closed its side.
struct script {
    const char *reply;
    bool holds;
    int listener;
    uint16_t port;
    pthread_t thread;
    char last_request[8192];
};

static void read_request(struct script *script, int socket)
{
    size_t bytes = 0, body = 0;
    char *text = script->last_request;
    while (bytes < sizeof script->last_request - 1) {
        ssize_t got = recv(socket, text + bytes, sizeof script->last_request - 1 - bytes, 0);
        if (got <= 0)
            return;
        bytes += (size_t)got;
        text[bytes] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        const char *length = strstr(text, "Content-Length: ");
        if (end == NULL)
            continue;
        body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
        if (bytes >= (size_t)(end + 4 - text) + body)
            return;
    }
}

static void *serve(void *context)
{
    struct script *script = context;
    while (true) {
        int socket = accept(script->listener, NULL, NULL);
        if (socket < 0)
            return NULL;
        read_request(script, socket);
        if (script->reply[0] != '\0')
            (void)!send(socket, script->reply, strlen(script->reply), MSG_NOSIGNAL);
        char rest[256];
        while (script->holds && recv(socket, rest, sizeof rest, 0) > 0)
            ;
        close(socket);
    }
}

static void script_start(struct script *script, const char *reply, bool holds)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    *script = (struct script){.reply = reply, .holds = holds};
    script->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(script->listener >= 0);
    assert_int_equal(bind(script->listener, (struct sockaddr *)&address, bytes), 0);
    assert_int_equal(listen(script->listener, 16), 0);
    assert_int_equal(getsockname(script->listener, (struct sockaddr *)&address, &bytes), 0);
    script->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&script->thread, NULL, serve, script), 0);
}

static void script_stop(struct script *script)
{
    shutdown(script->listener, SHUT_RDWR);
    pthread_join(script->thread, NULL);
    close(script->listener);
}

static void run_plan(const struct plan *plan, uint16_t port, struct stats *stats,
                     struct client_result *result)
{
    char url[64];
    struct sora_error err = {.text = ""};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    struct client_config config = {.url = url, .key = "secret", .fresh = true};
    struct client_load client = {.config = &config, .plan = plan, .stats = stats};
    if (client_run(&client, result, &err) != SORA_OK)
        fail_msg("%s", err.text);
}

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define TOKEN "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n"
#define FINISH "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
#define DONE "data: [DONE]\n\n"
#define JSON "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"

static const struct {
    const char *settings, *reply;
    enum record_outcome outcome;
    bool holds;
} cases[] = {
    {"", HEAD TOKEN TOKEN FINISH DONE, RECORD_OK, false},
    {"", HEAD TOKEN TOKEN DONE, RECORD_OK, false},
    {"", HEAD TOKEN TOKEN FINISH, RECORD_OK, false},
    {"", HEAD ": a comment\n\n" TOKEN FINISH DONE, RECORD_OK, false},
    {"", HEAD TOKEN TOKEN, RECORD_TRUNCATED, false},
    {"", HEAD DONE, RECORD_TRUNCATED, false},
    {"", HEAD, RECORD_TRUNCATED, false},
    {"", HEAD TOKEN "data: {\"choices\":[{\"te", RECORD_TRUNCATED, false},
    {"", HEAD TOKEN "data: {\"choices\":[{\"te\n\n", RECORD_STREAM, false},
    {"", HEAD TOKEN "data: {\"error\":{\"message\":\"died\"}}\n\n", RECORD_STREAM, false},
    {"", HEAD TOKEN FINISH DONE TOKEN, RECORD_STREAM, false},
    {"", HEAD TOKEN TOKEN TOKEN TOKEN TOKEN TOKEN TOKEN FINISH DONE, RECORD_STREAM, false},
    {"", HEAD TOKEN "data: {\"choices\":[],\"usage\":{\"completion_tokens\":9999}}\n\n" FINISH DONE,
     RECORD_STREAM, false},
    {"", JSON "{\"choices\":[{\"text\":\"a\"}]}", RECORD_STREAM, false},
    {"\"stream\": 0,", JSON "{\"choices\":[{\"text\":\"a\"}]}", RECORD_OK, false},
    {"\"stream\": 0,", JSON "{\"choices\":[{\"text\":", RECORD_STREAM, false},
    {"\"stream\": 0,", JSON "", RECORD_STREAM, false},
    {"\"stream\": 0,", "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"cho", RECORD_TRUNCATED,
     false},
    {"", "HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nfull", RECORD_HTTP_429, false},
    {"", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", RECORD_HTTP_5XX, false},
    {"", "HTTP/1.1 503 Busy\r\nContent-Length: 900\r\n\r\ncut", RECORD_HTTP_5XX, false},
    {"", "HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}", RECORD_HTTP_4XX, false},
    {"", "HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", RECORD_HTTP_4XX, false},
    {"", "", RECORD_TRUNCATED, false},
    {"", "not HTTP at all\r\n\r\n", RECORD_TRUNCATED, false},
    {"", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", RECORD_TRUNCATED, false},
    {"\"timeout\": \"150ms\",", HEAD TOKEN, RECORD_TIMEOUT, true},
    {"\"timeout\": \"150ms\",", "", RECORD_TIMEOUT, true},
    {"\"drain\": \"150ms\",", HEAD TOKEN, RECORD_TIMEOUT, true},
    {"\"drop\": 1, \"output_tokens\": 1,", HEAD TOKEN TOKEN, RECORD_DROPPED, true},
    {"\"drop\": 1, \"stream\": 0,", "", RECORD_DROPPED, true},
};

static void every_kind_of_reply_gets_its_outcome(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[200];
        struct load_fixture load;
        struct script script;
        struct client_result result;
        struct stats *stats = NULL;
        struct stats_summary summary;
        struct sora_error err;
        snprintf(json, sizeof json, "{%s \"requests\": 1, \"rate\": 1000%s}", cases[i].settings,
                 strstr(cases[i].settings, "output_tokens") ? "" : ", \"output_tokens\": 5");
        load_fixture_init(&load, json, "a", NULL);
        assert_int_equal(
            stats_create((const char *const *)load.models.names, 1, NULL, &stats, &err), SORA_OK);
        script_start(&script, cases[i].reply, cases[i].holds);
        run_plan(&load.plan, script.port, stats, &result);
        script_stop(&script);
        stats_summary(stats, &summary);
        if (result.outcomes[cases[i].outcome] != 1 || summary.outcomes[cases[i].outcome] != 1) {
            for (int j = 0; j < RECORD_OUTCOME_COUNT; j++) {
                if (result.outcomes[j] > 0)
                    fail_msg("case %zu: %s (%s), not %s", i,
                             record_outcome_name((enum record_outcome)j), result.problems[j],
                             record_outcome_name(cases[i].outcome));
            }
        }
        assert_true(cases[i].outcome <= RECORD_DROPPED ||
                    result.problems[cases[i].outcome][0] != '\0');
        stats_destroy(stats);
        load_fixture_deinit(&load);
    }
}

static void an_unreachable_server_is_counted(void **state)
{
    (void)state;
    struct load_fixture load;
    struct script script;
    struct client_result result;
    load_fixture_init(&load, "{\"requests\": 5, \"rate\": 1000}", "a", NULL);
    script_start(&script, "", false);
    script_stop(&script); // nobody listens on this port now
    run_plan(&load.plan, script.port, NULL, &result);
    assert_int_equal(result.outcomes[RECORD_CONNECT], 5);
    assert_non_null(strstr(result.problems[RECORD_CONNECT], "127.0.0.1"));
    load_fixture_deinit(&load);
}

static void the_request_says_what_was_planned(void **state)
{
    (void)state;
    static const char *const parts[] = {"POST /v1/chat/completions HTTP/1.1",
                                        "Authorization: Bearer secret",
                                        "\"model\":\"a\"",
                                        "\"messages\":[{\"role\":\"system\",\"content\":\"",
                                        "\"max_tokens\":5,\"temperature\":0",
                                        "\"ignore_eos\":true",
                                        "\"stream\":true",
                                        "\"include_usage\":true"};
    struct load_fixture load;
    struct script script;
    struct client_result result;
    load_fixture_init(&load,
                      "{\"requests\": 1, \"rate\": 1000, \"chat\": 1, \"prefixes\": 1, "
                      "\"prefix_tokens\": 3, \"output_tokens\": 5}",
                      "a", NULL);
    script_start(&script, HEAD TOKEN FINISH DONE, false);
    run_plan(&load.plan, script.port, NULL, &result);
    script_stop(&script);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(script.last_request, parts[i]) == NULL)
            fail_msg("no %s in %s", parts[i], script.last_request);
    }
    load_fixture_deinit(&load);
}

static void adapters_are_selected_by_name_or_by_number(void **state)
{
    (void)state;
    static const struct {
        enum client_selector selector;
        int32_t model;
        const char *begins;
    } selections[] = {
        {CLIENT_BY_MODEL, 1, "{\"model\":\"b \\\"2\\\"\",\"prompt\":"},
        {CLIENT_BY_MODEL, 2, "{\"model\":\"base\",\"prompt\":"},
        {CLIENT_BY_LORA, 1, "{\"model\":\"base\",\"lora\":[{\"id\":1,\"scale\":1.0}],\"prompt\":"},
        {CLIENT_BY_LORA, 2, "{\"model\":\"base\",\"lora\":[],\"prompt\":"},
    };
    struct load_fixture load;
    struct buf body, scratch;
    buf_init(&body, 1 << 16);
    buf_init(&scratch, 1 << 16);
    load_fixture_init(&load, "{\"requests\": 1}", "a,b \"2\"", "base");
    for (size_t i = 0; i < sizeof selections / sizeof selections[0]; i++) {
        struct plan_request request = load.plan.requests[0];
        request.model = selections[i].model;
        client_body_encode(&load.plan, &request, selections[i].selector, &body, &scratch);
        assert_memory_equal(body.data, selections[i].begins, strlen(selections[i].begins));
    }
    buf_deinit(&body);
    buf_deinit(&scratch);
    load_fixture_deinit(&load);
}

static void latency_counts_from_the_planned_time(void **state)
{
    (void)state;
    struct load_fixture load;
    struct script script;
    struct client_result result;
    struct stats *stats = NULL;
    struct stats_summary summary;
    struct sora_error err;
    // One connection at a time is accepted, and each is held until its client gives up: the second
    // request waits for the first, which an open loop must see.
    load_fixture_init(&load,
                      "{\"requests\": 2, \"arrivals\": \"constant\", \"rate\": 100, "
                      "\"timeout\": \"300ms\"}",
                      "a", NULL);
    assert_int_equal(stats_create((const char *const *)load.models.names, 1, NULL, &stats, &err),
                     SORA_OK);
    script_start(&script, HEAD TOKEN, true);
    int64_t before_us = clock_now_us();
    run_plan(&load.plan, script.port, stats, &result);
    int64_t took_us = clock_now_us() - before_us;
    script_stop(&script);
    stats_summary(stats, &summary);
    assert_int_equal(result.outcomes[RECORD_TIMEOUT], 2);
    assert_true(took_us < 550000); // both were sent at once, not one after the other
    assert_true(summary.client.late_max_us < 50000);
    stats_destroy(stats);
    load_fixture_deinit(&load);
}

static void a_signal_ends_the_run(void **state)
{
    (void)state;
    char url[64];
    struct load_fixture load;
    struct script script;
    struct client_result result;
    struct sora_error err;
    volatile sig_atomic_t stop = 1;
    load_fixture_init(&load, "{\"arrivals\": \"closed\", \"clients\": 3}", "a", NULL);
    script_start(&script, HEAD TOKEN, true);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", script.port);
    struct client_config config = {.url = url};
    struct client_load client = {.config = &config, .plan = &load.plan, .stop = &stop};
    assert_int_equal(client_run(&client, &result, &err), SORA_OK);
    assert_true(result.stopped);
    assert_int_equal(result.ended, 0);
    script_stop(&script);
    load_fixture_deinit(&load);
}

static int start_curl(void **state)
{
    (void)state;
    return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? 0 : -1;
}

static int stop_curl(void **state)
{
    (void)state;
    curl_global_cleanup();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_reply_gets_its_outcome),
        cmocka_unit_test(an_unreachable_server_is_counted),
        cmocka_unit_test(the_request_says_what_was_planned),
        cmocka_unit_test(adapters_are_selected_by_name_or_by_number),
        cmocka_unit_test(latency_counts_from_the_planned_time),
        cmocka_unit_test(a_signal_ends_the_run),
    };
    return cmocka_run_group_tests(tests, start_curl, stop_curl);
}

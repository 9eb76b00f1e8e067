// SPDX-License-Identifier: Apache-2.0
// The HTTP side over real loopback connections, with a handler that echoes bodies.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "server/http.h"

enum { BODY_MAX = 100000 };

static struct http_server *server;
static _Atomic int64_t budget;

static sora_status take_piece(void *context, const void *bytes, size_t byte_count,
                              struct api_error *error)
{
    struct buf *all = context;
    if (memchr(bytes, '!', byte_count) != NULL)
        return api_error_set(error, API_FULL, NULL, NULL, "the sink is full");
    buf_append(all, bytes, byte_count);
    return SORA_OK;
}

// Replies with what went through the sink.
static void echo_passed(struct http_call *call)
{
    struct api_error error;
    struct buf all;
    buf_init(&all, BODY_MAX);
    if (http_pass_body(call, BODY_MAX, take_piece, &all, &error) == SORA_OK)
        http_reply(call, API_OK, "text/plain", all.data, all.bytes);
    else
        http_reply_error(call, &error);
    buf_deinit(&all);
}

// Replies with the body; "/pass" by way of a sink, "/stream" in two pieces, "/deep" after using a
// lot of stack.
static void echo(struct http_call *call, void *context)
{
    struct http_body body;
    struct api_error error;
    (void)context;
    if (strcmp(call->path, "/stream") == 0) {
        (void)http_stream_begin(call, "text/plain");
        (void)http_stream_send(call, "one,", 4);
        (void)http_stream_send(call, "two", 3);
        (void)http_stream_end(call);
        return;
    }
    if (strcmp(call->path, "/pass") == 0) {
        echo_passed(call);
        return;
    }
    if (strcmp(call->path, "/deep") == 0) {
        volatile char stack[1u << 20];
        for (size_t i = 0; i < sizeof stack; i += 4096)
            stack[i] = 1;
        http_reply(call, API_OK, "text/plain", (const char *)stack, 1);
        return;
    }
    if (http_read_body(call, BODY_MAX, &budget, &body, &error) != SORA_OK) {
        http_reply_error(call, &error);
        return;
    }
    http_add_header(call, "X-Path", "%s", call->path);
    http_reply(call, API_OK, "text/plain", body.data, body.bytes);
    http_body_free(&body);
}

static int start(void **state)
{
    (void)state;
    struct http_options options = {.host = "localhost", .port = 0, .threads = 4, .handle = echo};
    struct sora_error err;
    atomic_store(&budget, 1 << 20);
    return http_start(&options, &server, &err) == SORA_OK ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    http_stop(server);
    return 0;
}

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct timeval limit = {.tv_sec = 20};
    address.sin_port = htons((uint16_t)http_port(server));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(connection, (struct sockaddr *)&address, sizeof address), 0);
    return connection;
}

static void send_text(int connection, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t sent = send(connection, text, bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            return; // the server has closed: what it said is read next
        text += sent;
        bytes -= (size_t)sent;
    }
}

// Reads until `until` has come (NULL: until the end) into a buffer that the caller frees.
static char *receive(int connection, const char *until)
{
    size_t used = 0, capacity = 1u << 18;
    char *text = calloc(capacity, 1);
    assert_non_null(text);
    while (used + 1 < capacity && (until == NULL || strstr(text, until) == NULL)) {
        ssize_t got = recv(connection, text + used, capacity - 1 - used, 0);
        if (got <= 0)
            break;
        used += (size_t)got;
    }
    return text;
}

static void check_reply(const char *request, const char *begin, const char *part)
{
    int connection = dial();
    send_text(connection, request, strlen(request));
    shutdown(connection, SHUT_WR);
    char *reply = receive(connection, NULL);
    if (strncmp(reply, begin, strlen(begin)) != 0 || strstr(reply, part) == NULL)
        fail_msg("%.40s...: got %.600s", request, reply);
    free(reply);
    close(connection);
}

static void bodies_come_with_a_length_or_in_chunks(void **state)
{
    (void)state;
    check_reply("POST /a%2Fb HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\n", "X-Path: /a%2Fb\r\nContent-Length: 5\r\n\r\nhello");
    check_reply("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\n", "\r\n\r\nhello");
    check_reply("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n",
                "Content-Length: 0\r\n\r\n");
}

static void a_connection_serves_one_request_after_another(void **state)
{
    (void)state;
    int connection = dial();
    for (int i = 0; i < 5; i++) {
        static const char request[] =
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nx-request-id: my.id-1\r\n\r\nabc";
        send_text(connection, request, sizeof request - 1);
        char *reply = receive(connection, "\r\n\r\nabc");
        assert_non_null(strstr(reply, "Connection: keep-alive"));
        assert_non_null(strstr(reply, "x-request-id: my.id-1\r\n"));
        free(reply);
    }
    close(connection);
}

static void a_request_id_that_could_do_harm_is_replaced(void **state)
{
    (void)state;
    int connection = dial();
    static const char request[] =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nx-request-id: a b<c>\r\n\r\n";
    send_text(connection, request, sizeof request - 1);
    char *reply = receive(connection, "\r\n\r\n");
    assert_non_null(strstr(reply, "x-request-id: "));
    assert_null(strstr(reply, "a b<c>"));
    free(reply);
    close(connection);
}

static void a_body_without_a_length_is_refused(void **state)
{
    (void)state;
    check_reply("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 411 ", "length_required");
}

static void a_body_over_the_limit_is_refused_and_the_client_hears_it(void **state)
{
    (void)state;
    enum { BYTES = 3000000 };
    char *body = malloc(BYTES);
    assert_non_null(body);
    memset(body, 'x', BYTES);
    static const char head[] = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n";
    int connection = dial();
    send_text(connection, head, sizeof head - 1);
    send_text(connection, body, BYTES);
    char *reply = receive(connection, NULL);
    assert_int_equal(strncmp(reply, "HTTP/1.1 413 ", 13), 0);
    assert_non_null(strstr(reply, "100000 bytes"));
    free(reply);
    close(connection);
    // In chunks nobody knows before.
    static const char chunked[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "2dc6c0\r\n"; // 3,000,000
    connection = dial();
    send_text(connection, chunked, sizeof chunked - 1);
    send_text(connection, body, BYTES);
    send_text(connection, "\r\n0\r\n\r\n", 7);
    reply = receive(connection, NULL);
    assert_int_equal(strncmp(reply, "HTTP/1.1 413 ", 13), 0);
    free(reply);
    close(connection);
    free(body);
    assert_int_equal(atomic_load(&budget), 1 << 20); // all memory was given back
}

static void a_body_exactly_at_the_limit_passes(void **state)
{
    (void)state;
    char *request = calloc(1, BODY_MAX + 100);
    assert_non_null(request);
    int head = snprintf(request, 100, "POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", BODY_MAX);
    memset(request + head, 'y', BODY_MAX);
    check_reply(request, "HTTP/1.1 200 ", "yyyy");
    free(request);
}

// What holds for a body in memory holds for one that is passed on.
static void a_body_is_passed_on_in_pieces(void **state)
{
    (void)state;
    char *request = calloc(1, BODY_MAX + 100);
    assert_non_null(request);
    check_reply("POST /pass HTTP/1.1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
                "HTTP/1.1 200 OK\r\n", "\r\n\r\nhello");
    check_reply("POST /pass HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                "3\r\none\r\n4\r\n,two\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\n", "\r\n\r\none,two");
    check_reply("POST /pass HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 411 ", "");
    check_reply("POST /pass HTTP/1.1\r\nContent-Length: 100001\r\n\r\n", "HTTP/1.1 413 ",
                "100000 bytes");
    // The sink's own word ends it, however much is still to come.
    int head =
        snprintf(request, 100, "POST /pass HTTP/1.1\r\nContent-Length: %d\r\n\r\n", BODY_MAX);
    memset(request + head, 'y', BODY_MAX);
    request[head + 10] = '!';
    check_reply(request, "HTTP/1.1 507 ", "the sink is full");
    free(request);
}

static void a_body_that_breaks_off_is_refused(void **state)
{
    (void)state;
    check_reply("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 400 ",
                "incomplete_body");
    check_reply("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400 ",
                "incomplete_body");
}

static void memory_for_bodies_is_bounded_over_all_of_them(void **state)
{
    (void)state;
    atomic_store(&budget, 1000);
    check_reply("POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789", "HTTP/1.1 429 ",
                "uploads_busy");
    assert_int_equal(atomic_load(&budget), 1000);
    atomic_store(&budget, 1 << 20);
}

static void a_silent_client_is_told_that_it_is_too_slow(void **state)
{
    (void)state;
    static const char request[] = "POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
    int connection = dial();
    send_text(connection, request, sizeof request - 1);
    char *reply = receive(connection, NULL);
    assert_int_equal(strncmp(reply, "HTTP/1.1 408 ", 13), 0);
    free(reply);
    close(connection);
}

static void what_is_no_http_is_answered_as_json(void **state)
{
    (void)state;
    check_reply("GARBAGE\r\n\r\n", "HTTP/1.1 400 ", "{\"error\":{\"message\":");
    check_reply("POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", "HTTP/1.1 411 ", "\"code\":");
}

static void a_stream_is_chunked_for_new_and_plain_for_old_clients(void **state)
{
    (void)state;
    check_reply("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ",
                "Transfer-Encoding: chunked\r\n\r\n4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n");
    check_reply("GET /stream HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", "\r\n\r\none,two");
}

static void a_handler_has_a_stack_of_its_own_size(void **state)
{
    (void)state;
    check_reply("GET /deep HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", "Content-Length: 1");
}

static void a_client_that_asks_first_is_told_to_go_on(void **state)
{
    (void)state;
    check_reply("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", "\r\n\r\nok");
    check_reply("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 999999\r\n\r\n",
                "HTTP/1.1 413 ", "body_too_large");
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    struct http_options options = {
        .host = "127.0.0.1", .port = http_port(server), .threads = 1, .handle = echo};
    struct http_server *other;
    struct sora_error err;
    assert_int_equal(http_start(&options, &other, &err), SORA_IO);
    assert_non_null(strstr(err.text, "in use"));
    options.host = "no.such.host.invalid";
    assert_int_equal(http_start(&options, &other, &err), SORA_MALFORMED);
}

static void paths_are_decoded_strictly(void **state)
{
    (void)state;
    static const struct {
        const char *text, *decoded;
    } cases[] = {
        {"a%2Fb%20c", "a/b c"}, {"plain", "plain"}, {"%41", "A"}, {"%4", NULL},
        {"%zz", NULL},          {"a%00b", NULL},    {"%", NULL},  {"123456789012345", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[12];
        bool good = http_decode_path(cases[i].text, strlen(cases[i].text), out, sizeof out);
        assert_int_equal(good, cases[i].decoded != NULL);
        if (good)
            assert_string_equal(out, cases[i].decoded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_come_with_a_length_or_in_chunks),
        cmocka_unit_test(a_connection_serves_one_request_after_another),
        cmocka_unit_test(a_request_id_that_could_do_harm_is_replaced),
        cmocka_unit_test(a_body_without_a_length_is_refused),
        cmocka_unit_test(a_body_over_the_limit_is_refused_and_the_client_hears_it),
        cmocka_unit_test(a_body_exactly_at_the_limit_passes),
        cmocka_unit_test(a_body_is_passed_on_in_pieces),
        cmocka_unit_test(a_body_that_breaks_off_is_refused),
        cmocka_unit_test(memory_for_bodies_is_bounded_over_all_of_them),
        cmocka_unit_test(a_silent_client_is_told_that_it_is_too_slow),
        cmocka_unit_test(what_is_no_http_is_answered_as_json),
        cmocka_unit_test(a_stream_is_chunked_for_new_and_plain_for_old_clients),
        cmocka_unit_test(a_handler_has_a_stack_of_its_own_size),
        cmocka_unit_test(a_client_that_asks_first_is_told_to_go_on),
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(paths_are_decoded_strictly),
    };
    return cmocka_run_group_tests(tests, start, stop);
}

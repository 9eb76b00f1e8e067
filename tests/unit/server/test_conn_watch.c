// SPDX-License-Identifier: Apache-2.0
// Noticing that a client has gone, on real loopback connections.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "server/conn_watch.h"

struct pair {
    int client, server;
    int client_port, server_port;
};

static void connect_pair(struct pair *pair)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t bytes = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    pair->server_port = ntohs(address.sin_port);
    pair->client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(pair->client, (struct sockaddr *)&address, sizeof address), 0);
    pair->server = accept(listener, NULL, NULL);
    assert_true(pair->server >= 0);
    bytes = sizeof address;
    assert_int_equal(getsockname(pair->client, (struct sockaddr *)&address, &bytes), 0);
    pair->client_port = ntohs(address.sin_port);
    close(listener);
}

static void post(void *context)
{
    sem_post(context);
}

static bool wait_ms(sem_t *sem, int64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return sem_timedwait(sem, &until) == 0;
}

static void the_servers_end_of_a_connection_is_found(void **state)
{
    (void)state;
    struct pair a, b;
    connect_pair(&a);
    connect_pair(&b);
    assert_int_equal(conn_watch_socket("127.0.0.1", a.client_port, a.server_port), a.server);
    assert_int_equal(conn_watch_socket("::ffff:127.0.0.1", b.client_port, b.server_port), b.server);
    // The same peer at another port of ours, another address, no address.
    assert_int_equal(conn_watch_socket("127.0.0.1", a.client_port, b.server_port), -1);
    assert_int_equal(conn_watch_socket("127.0.0.2", a.client_port, a.server_port), -1);
    assert_int_equal(conn_watch_socket("nonsense", a.client_port, a.server_port), -1);
    close(a.client), close(a.server), close(b.client), close(b.server);
}

static void a_close_is_told_once_and_at_once(void **state)
{
    (void)state;
    struct conn_watch *watch;
    struct pair pair;
    sem_t gone;
    sem_init(&gone, 0, 0);
    assert_int_equal(conn_watch_start(4, &watch, NULL), SORA_OK);
    connect_pair(&pair);
    int64_t ticket = conn_watch_add(watch, pair.server, post, &gone);
    assert_true(ticket >= 0);
    // Data that nobody has read yet is no close.
    assert_int_equal(write(pair.client, "x", 1), 1);
    assert_false(wait_ms(&gone, 50));
    close(pair.client);
    assert_true(wait_ms(&gone, 5000));
    assert_false(wait_ms(&gone, 50));
    conn_watch_remove(watch, ticket);
    close(pair.server);
    conn_watch_stop(watch);
}

static void nothing_is_told_after_remove(void **state)
{
    (void)state;
    struct conn_watch *watch;
    struct pair pair;
    sem_t gone;
    sem_init(&gone, 0, 0);
    assert_int_equal(conn_watch_start(1, &watch, NULL), SORA_OK);
    for (int i = 0; i < 20; i++) {
        connect_pair(&pair);
        int64_t ticket = conn_watch_add(watch, pair.server, post, &gone);
        assert_true(ticket >= 0);
        // The table is full, and a bad socket is refused; both tickets may be removed.
        assert_int_equal(conn_watch_add(watch, pair.client, post, &gone), -1);
        assert_int_equal(conn_watch_add(watch, -1, post, &gone), -1);
        conn_watch_remove(watch, -1);
        conn_watch_remove(watch, ticket);
        close(pair.client);
        close(pair.server);
    }
    assert_false(wait_ms(&gone, 50));
    conn_watch_stop(watch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_servers_end_of_a_connection_is_found),
        cmocka_unit_test(a_close_is_told_once_and_at_once),
        cmocka_unit_test(nothing_is_told_after_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

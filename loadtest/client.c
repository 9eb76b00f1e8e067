// SPDX-License-Identifier: Apache-2.0
// See client.h. The sockets are watched by epoll and driven by curl_multi_socket_action, so that an
// event costs the same with one connection as with a thousand; a timerfd wakes the loop to the
// microsecond, where curl_multi_poll would round to milliseconds.
#include "loadtest/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "loadtest/client_transfer.h"
#include "sora/limits.h"

#define EPOLL_EVENTS 64
#define SPARE_FILES 64 // descriptors that are not connections
#define TICK_US 100000 // the live line, and a look at the signal
#define LEAD_US 20000  // the run's zero lies so far ahead that the first request is not late

struct client {
    const struct client_load *load;
    struct client_result *result;
    CURLM *multi;
    int epoll_fd, timer_fd;
    int64_t start_us; // clock
    int64_t curl_due_us, armed_us;
    struct transfer **transfers; // all ever made
    struct transfer *free;
    struct transfer *churn;
    int32_t transfer_count, running, running_max, next;
    int64_t over_us; // when sending ended, INT64_MAX: not yet
    int64_t measured_us;
    struct rusage measured_from;
    int64_t events;
    int64_t tick_us;
    sora_status status; // of the client itself
    struct sora_error *err;
};

static int64_t now_of(const struct client *client)
{
    return clock_now_us() - client->start_us;
}

static int on_socket(CURL *easy, curl_socket_t socket, int what, void *context, void *known)
{
    (void)easy;
    struct client *client = context;
    struct epoll_event event = {.data.fd = socket};
    if (what == CURL_POLL_REMOVE) {
        // The socket may be closed already, which removed it.
        (void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, socket, &event);
        curl_multi_assign(client->multi, socket, NULL);
        return 0;
    }
    if (what != CURL_POLL_OUT)
        event.events |= EPOLLIN;
    if (what != CURL_POLL_IN)
        event.events |= EPOLLOUT;
    if (epoll_ctl(client->epoll_fd, known != NULL ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket,
                  &event) != 0)
        return -1;
    curl_multi_assign(client->multi, socket, client);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct client *client = context;
    client->curl_due_us = timeout_ms < 0 ? INT64_MAX : now_of(client) + (int64_t)timeout_ms * 1000;
    return 0;
}

// As many connections as the system lets this process have.
static int32_t find_running_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 256;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 2 * SPARE_FILES)
        return SPARE_FILES;
    if (limit.rlim_cur - SPARE_FILES > SORA_LOADTEST_RUNNING_MAX)
        return SORA_LOADTEST_RUNNING_MAX;
    return (int32_t)limit.rlim_cur - SPARE_FILES;
}

static sora_status client_open(struct client *client, struct sora_error *err)
{
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    client->multi = curl_multi_init();
    client->running_max = find_running_max();
    client->transfers = calloc(SORA_LOADTEST_RUNNING_MAX + 1, sizeof(struct transfer *));
    if (client->epoll_fd < 0 || client->timer_fd < 0)
        return sora_fail(err, SORA_IO, "epoll: %s", strerror(errno));
    if (client->multi == NULL || client->transfers == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the client");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = client->timer_fd};
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->timer_fd, &event) != 0)
        return sora_fail(err, SORA_IO, "epoll: %s", strerror(errno));
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client);
    curl_multi_setopt(client->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)client->running_max);
    return SORA_OK;
}

static void client_close(struct client *client)
{
    for (int32_t i = 0; client->transfers != NULL && i < client->transfer_count; i++) {
        if (client->transfers[i]->running)
            curl_multi_remove_handle(client->multi, client->transfers[i]->easy);
        transfer_destroy(client->transfers[i]);
    }
    free(client->transfers);
    if (client->multi != NULL)
        curl_multi_cleanup(client->multi);
    if (client->epoll_fd >= 0)
        close(client->epoll_fd);
    if (client->timer_fd >= 0)
        close(client->timer_fd);
}

static void fail(struct client *client, sora_status status)
{
    if (client->status == SORA_OK)
        client->status = status;
}

static struct transfer *new_transfer(struct client *client, bool is_churn)
{
    struct transfer *made = NULL;
    ASSERT(client->transfer_count <= SORA_LOADTEST_RUNNING_MAX);
    sora_status status =
        transfer_create(client->load, client->start_us, is_churn, &made, client->err);
    if (status != SORA_OK) {
        fail(client, status);
        return NULL;
    }
    client->transfers[client->transfer_count++] = made;
    return made;
}

static void launch(struct client *client, struct transfer *transfer)
{
    CURLMcode code = curl_multi_add_handle(client->multi, transfer->easy);
    if (code != CURLM_OK) {
        fail(client, sora_fail(client->err, SORA_IO, "libcurl: %s", curl_multi_strerror(code)));
        return;
    }
    transfer->running = true;
    client->running += !transfer->is_churn;
}

// The processor time before the first measured request, so that the warm-up is not counted.
static void begin_measuring(struct client *client, int64_t now_us)
{
    if (client->measured_us >= 0)
        return;
    client->measured_us = now_us;
    client->events = 0;
    getrusage(RUSAGE_SELF, &client->measured_from);
}

static void send_next(struct client *client)
{
    const struct plan *plan = client->load->plan;
    int32_t index = client->next++;
    int64_t now_us = now_of(client);
    struct transfer *transfer = client->free;
    if (transfer != NULL)
        client->free = transfer->next_free;
    else if ((transfer = new_transfer(client, false)) == NULL)
        return;
    bool warmup = plan->closed ? now_us < plan->warmup_us : plan->requests[index].warmup;
    if (!warmup)
        begin_measuring(client, now_us);
    sora_status status = transfer_prepare(transfer, index, warmup, client->err);
    if (status != SORA_OK) {
        fail(client, status);
        return;
    }
    client->result->sent++;
    client->events++;
    launch(client, transfer);
}

static bool may_send(const struct client *client)
{
    return client->next < client->load->plan->request_count && client->over_us == INT64_MAX &&
           client->running < client->running_max;
}

// INT64_MAX: nothing to send until a reply ends.
static int64_t next_send_us(const struct client *client)
{
    const struct plan *plan = client->load->plan;
    if (!may_send(client))
        return INT64_MAX;
    if (plan->closed)
        return client->running < plan->clients ? 0 : INT64_MAX;
    return plan->requests[client->next].planned_us;
}

static void send_due(struct client *client)
{
    const struct plan *plan = client->load->plan;
    int64_t now_us = now_of(client);
    if (now_us >= 0 && client->over_us == INT64_MAX &&
        (client->next == plan->request_count || now_us >= plan->send_us)) {
        client->over_us = now_us;
        client->result->run_dry =
            plan->closed && plan->send_us != INT64_MAX && now_us < plan->send_us;
    }
    while (client->status == SORA_OK && next_send_us(client) <= now_us)
        send_next(client);
}

static void send_churn(struct client *client)
{
    struct churn *churn = client->load->churn;
    struct churn_call call;
    int64_t now_us = now_of(client);
    if (churn == NULL || client->over_us != INT64_MAX || churn_due_us(churn) > now_us)
        return;
    if (client->churn == NULL && (client->churn = new_transfer(client, true)) == NULL)
        return;
    churn_take(churn, now_us, &call);
    transfer_prepare_churn(client->churn, &call);
    launch(client, client->churn);
}

static void keep_problem(struct client *client, const struct transfer *transfer)
{
    enum record_outcome outcome = transfer->record.outcome;
    char *kept = client->result->problems[outcome];
    client->result->outcomes[outcome]++;
    if (kept[0] == '\0')
        snprintf(kept, CLIENT_PROBLEM_BYTES, "%s", transfer->problem_text);
}

static void end_churn(struct client *client, struct transfer *transfer)
{
    char text[160];
    const struct buf *body = &transfer->text;
    reply_error_text(body->data != NULL ? body->data : "", body->bytes, text, sizeof text);
    if (transfer->http_status == 0)
        snprintf(text, sizeof text, "%.150s", transfer->curl_text);
    churn_answer(client->load->churn, now_of(client), transfer->http_status, text,
                 client->load->stats);
}

static void end_transfer(struct client *client, struct transfer *transfer, CURLcode code)
{
    curl_multi_remove_handle(client->multi, transfer->easy);
    transfer->running = false;
    transfer_finish(transfer, code);
    if (transfer->is_churn) {
        end_churn(client, transfer);
        return;
    }
    client->running--;
    client->result->ended++;
    client->events += transfer->events + 1;
    keep_problem(client, transfer);
    if (client->load->stats != NULL)
        stats_add_record(client->load->stats, &transfer->record);
    transfer->next_free = client->free;
    client->free = transfer;
}

static void end_finished(struct client *client)
{
    int left = 0;
    CURLMsg *message;
    while ((message = curl_multi_info_read(client->multi, &left)) != NULL) {
        char *transfer = NULL;
        CURLcode code = message->data.result; // message dies with the handle's removal
        if (message->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
        end_transfer(client, (struct transfer *)(void *)transfer, code);
    }
}

// What still runs is an error of the server when the time to drain is over; after a signal it is
// nobody's.
static void cut_running(struct client *client, bool count)
{
    for (int32_t i = 0; i < client->transfer_count; i++) {
        struct transfer *transfer = client->transfers[i];
        if (!transfer->running)
            continue;
        if (!count && !transfer->is_churn) {
            curl_multi_remove_handle(client->multi, transfer->easy);
            transfer->running = false;
            client->running--;
            continue;
        }
        if (transfer->problem == RECORD_OK) {
            transfer->problem = RECORD_TIMEOUT;
            snprintf(transfer->problem_text, sizeof transfer->problem_text,
                     "still running when the time to drain was over");
        }
        client->result->cut += !transfer->is_churn;
        end_transfer(client, transfer, CURLE_OPERATION_TIMEDOUT);
    }
}

static void show(struct client *client)
{
    const struct plan *plan = client->load->plan;
    int64_t now_us = now_of(client);
    if (now_us < client->tick_us || now_us < 0)
        return;
    client->tick_us = now_us + TICK_US;
    if (client->load->live == NULL || client->load->stats == NULL)
        return;
    int64_t last_us = plan->closed ? 0 : plan->requests[plan->request_count - 1].planned_us;
    struct report_progress progress = {
        .now_us = now_us,
        .duration_us = plan->send_us != INT64_MAX ? plan->send_us : last_us,
        .sent = client->result->sent,
        .done = client->result->ended,
        .total = plan->closed && plan->send_us != INT64_MAX ? 0 : plan->request_count,
        .running = client->running,
        .warmup = now_us < plan->warmup_us,
    };
    report_live_update(client->load->live, client->load->stats, &progress);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// Milliseconds for epoll: 0 when something is due, else -1 with the timer set.
static int arm(struct client *client)
{
    int64_t due_us = least(least(client->curl_due_us, next_send_us(client)), client->tick_us);
    if (client->load->churn != NULL && client->over_us == INT64_MAX)
        due_us = least(due_us, churn_due_us(client->load->churn));
    if (due_us <= now_of(client))
        return 0;
    if (due_us == client->armed_us)
        return -1;
    int64_t at_us = due_us + client->start_us;
    struct itimerspec timer = {
        .it_value = {.tv_sec = at_us / 1000000, .tv_nsec = at_us % 1000000 * 1000}};
    if (timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &timer, NULL) != 0)
        fail(client, sora_fail(client->err, SORA_IO, "timerfd: %s", strerror(errno)));
    client->armed_us = due_us;
    return -1;
}

static void handle_socket(struct client *client, const struct epoll_event *event)
{
    int running = 0, what = 0;
    if (event->data.fd == client->timer_fd) {
        uint64_t count;
        client->armed_us = -1;
        if (read(client->timer_fd, &count, sizeof count) < 0 && errno != EAGAIN)
            fail(client, sora_fail(client->err, SORA_IO, "timerfd: %s", strerror(errno)));
        return;
    }
    if (event->events & EPOLLIN)
        what |= CURL_CSELECT_IN;
    if (event->events & EPOLLOUT)
        what |= CURL_CSELECT_OUT;
    if (event->events & (EPOLLERR | EPOLLHUP))
        what |= CURL_CSELECT_ERR;
    curl_multi_socket_action(client->multi, event->data.fd, what, &running);
}

static void wait_and_drive(struct client *client)
{
    struct epoll_event events[EPOLL_EVENTS];
    int running = 0;
    int count = epoll_wait(client->epoll_fd, events, EPOLL_EVENTS, arm(client));
    if (count < 0 && errno != EINTR)
        fail(client, sora_fail(client->err, SORA_IO, "epoll: %s", strerror(errno)));
    for (int i = 0; i < count; i++)
        handle_socket(client, &events[i]);
    if (client->curl_due_us <= now_of(client)) {
        client->curl_due_us = INT64_MAX;
        curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    end_finished(client);
}

static bool is_over(const struct client *client)
{
    bool churning = client->load->churn != NULL && churn_is_busy(client->load->churn);
    return client->status != SORA_OK ||
           (client->over_us != INT64_MAX && client->running == 0 && !churning);
}

static void run_loop(struct client *client)
{
    const struct client_load *load = client->load;
    int64_t drain_us = (int64_t)(load->plan->scenario->drain_s * 1e6);
    while (!is_over(client)) {
        send_due(client);
        send_churn(client);
        wait_and_drive(client);
        show(client);
        if (load->stop != NULL && *load->stop) {
            client->result->stopped = true;
            cut_running(client, false);
            break;
        }
        if (client->over_us != INT64_MAX && now_of(client) - client->over_us > drain_us)
            cut_running(client, true);
    }
}

static int64_t time_us(const struct timeval *time)
{
    return (int64_t)time->tv_sec * 1000000 + time->tv_usec;
}

static void report_cost(struct client *client)
{
    struct rusage now;
    if (client->load->stats == NULL || client->measured_us < 0)
        return;
    getrusage(RUSAGE_SELF, &now);
    const struct rusage *before = &client->measured_from;
    int64_t cpu_us = time_us(&now.ru_utime) + time_us(&now.ru_stime) - time_us(&before->ru_utime) -
                     time_us(&before->ru_stime);
    stats_set_client_cost(client->load->stats, cpu_us, now_of(client) - client->measured_us,
                          client->events);
}

sora_status client_run(const struct client_load *load, struct client_result *result,
                       struct sora_error *err)
{
    struct client client = {
        .load = load,
        .result = result,
        .epoll_fd = -1,
        .timer_fd = -1,
        .curl_due_us = INT64_MAX,
        .armed_us = -1,
        .over_us = INT64_MAX,
        .measured_us = -1,
        .err = err,
        .status = SORA_OK,
    };
    *result = (struct client_result){.sent = 0};
    sora_status status = client_open(&client, err);
    if (status == SORA_OK) {
        client.start_us = clock_now_us() + LEAD_US;
        client.tick_us = 0;
        run_loop(&client);
        status = client.status;
        result->run_us = now_of(&client);
        report_cost(&client);
    }
    client_close(&client);
    return status;
}

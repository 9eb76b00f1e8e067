// SPDX-License-Identifier: Apache-2.0
// Reading a request's body: with a limit on bytes, on silence and on slowness, and on the memory
// that all bodies of a kind hold together. HTTP workers only.
#include <civetweb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "server/http.h"
#include "sora/limits.h"

#define READ_BYTES 65536

void http_body_free(struct http_body *body)
{
    free(body->data);
    if (body->budget != NULL)
        atomic_fetch_add(body->budget, (int64_t)body->capacity);
    *body = (struct http_body){.data = NULL};
}

static bool is_chunked(const struct http_call *call)
{
    const char *coding = http_header(call, "Transfer-Encoding");
    return coding != NULL && strcasecmp(coding, "chunked") == 0;
}

// Whether the client waits for a word before it sends.
static bool asks_first(const struct http_call *call)
{
    const char *expects = http_header(call, "Expect");
    return expects != NULL && strcasecmp(expects, "100-continue") == 0;
}

bool http_body_pending(const struct http_call *call)
{
    const struct mg_request_info *info = mg_get_request_info(call->connection);
    return info != NULL && call->body != HTTP_BODY_DONE &&
           (info->content_length > 0 || is_chunked(call));
}

void http_body_drain(struct http_call *call)
{
    char scrap[READ_BYTES];
    size_t bytes = 0;
    int64_t until_us = clock_now_us() + SORA_BODY_IDLE_MS * 500LL;
    if (call->body == HTTP_BODY_UNREAD && asks_first(call))
        return;            // it was told no before it began
    if (call->socket >= 0) // the reply is whole: a client that waits for its end closes now
        (void)shutdown(call->socket, SHUT_WR);
    while (bytes < SORA_BODY_DRAIN_BYTES_MAX && clock_now_us() < until_us) {
        int got = mg_read(call->connection, scrap, sizeof scrap);
        if (got <= 0)
            return;
        bytes += (size_t)got;
    }
}

static sora_status too_large(struct http_call *call, size_t bytes_max, struct api_error *error)
{
    call->close = true;
    return api_error_set(error, API_TOO_LARGE, NULL, NULL,
                         "the body exceeds the %zu bytes that this route takes", bytes_max);
}

// Room for at least `need` bytes and a zero.
static sora_status grow(struct http_body *body, size_t need, size_t bytes_max,
                        struct api_error *error)
{
    if (need < body->capacity)
        return SORA_OK;
    size_t capacity = body->capacity > 0 ? body->capacity : READ_BYTES;
    while (capacity <= need)
        capacity *= 2;
    if (capacity > bytes_max + 1)
        capacity = bytes_max + 1;
    int64_t more = (int64_t)(capacity - body->capacity);
    if (body->budget != NULL && atomic_fetch_sub(body->budget, more) < more) {
        atomic_fetch_add(body->budget, more);
        return api_error_set(error, API_TOO_MANY, "uploads_busy", NULL,
                             "other uploads hold all memory that is kept for them: try again "
                             "later");
    }
    char *data = realloc(body->data, capacity);
    if (data == NULL) {
        if (body->budget != NULL)
            atomic_fetch_add(body->budget, more);
        return api_error_set(error, API_UNAVAILABLE, "no_memory", NULL,
                             "no memory for a body of %zu bytes", need);
    }
    body->data = data;
    body->capacity = capacity;
    return SORA_OK;
}

static bool too_slow(int64_t begin_us, size_t bytes)
{
    int64_t allowed_us =
        SORA_BODY_IDLE_MS * 1000LL + (int64_t)bytes * 1000000 / SORA_BODY_RATE_BYTES;
    return clock_now_us() - begin_us > allowed_us;
}

// Why a read ended early.
static sora_status read_failed(struct http_call *call, int64_t read_us, size_t bytes,
                               struct api_error *error)
{
    call->close = true;
    call->body = HTTP_BODY_DONE;
    if (clock_now_us() - read_us > SORA_BODY_IDLE_MS * 900LL)
        return api_error_set(error, API_TOO_SLOW, NULL, NULL,
                             "no byte of the body came for %d s after the first %zu",
                             SORA_BODY_IDLE_MS / 1000, bytes);
    return api_error_set(error, API_BAD_REQUEST, "incomplete_body", NULL,
                         "the body ended or broke off after %zu bytes", bytes);
}

// Where a body goes: into memory that grows, or through one buffer into a sink.
struct target {
    struct http_body *body; // NULL: the sink
    http_body_sink *sink;
    void *context;
    size_t bytes; // so far
};

static sora_status use_part(struct target *target, const char *part, size_t bytes,
                            struct api_error *error)
{
    target->bytes += bytes;
    if (target->body == NULL)
        return target->sink(target->context, part, bytes, error);
    target->body->bytes = target->bytes;
    return SORA_OK;
}

static sora_status read_all(struct http_call *call, size_t bytes_max, int64_t length,
                            struct target *target, struct api_error *error)
{
    char buffer[READ_BYTES];
    int64_t begin_us = clock_now_us();
    for (;;) {
        size_t part = READ_BYTES;
        if (length >= 0 && (size_t)length - target->bytes < part)
            part = (size_t)length - target->bytes;
        if (length >= 0 && part == 0)
            return SORA_OK;
        if (part > bytes_max - target->bytes)
            part = bytes_max - target->bytes;
        if (part == 0) { // exactly full: one more byte is too many
            char extra;
            return mg_read(call->connection, &extra, 1) == 0 ? SORA_OK
                                                             : too_large(call, bytes_max, error);
        }
        sora_status status = SORA_OK;
        if (target->body != NULL)
            status = grow(target->body, target->bytes + part, bytes_max, error);
        if (status != SORA_OK)
            return status;
        char *to = target->body != NULL ? target->body->data + target->bytes : buffer;
        int64_t read_us = clock_now_us();
        int got = mg_read(call->connection, to, part);
        if (got == 0 && length < 0)
            return SORA_OK; // the last chunk
        if (got <= 0)
            return read_failed(call, read_us, target->bytes, error);
        status = use_part(target, to, (size_t)got, error);
        if (status != SORA_OK)
            return status;
        if (too_slow(begin_us, target->bytes)) {
            call->close = true;
            call->body = HTTP_BODY_DONE;
            return api_error_set(error, API_TOO_SLOW, NULL, NULL,
                                 "the body came more slowly than %d bytes a second",
                                 SORA_BODY_RATE_BYTES);
        }
    }
}

// Holds the announced length against the bound and tells a client that asks to begin. *length: -1
// when it comes in chunks.
static sora_status begin(struct http_call *call, size_t bytes_max, int64_t *length,
                         struct api_error *error)
{
    bool chunked = is_chunked(call);
    *length = mg_get_request_info(call->connection)->content_length;
    if (*length < 0 && !chunked) {
        call->close = true;
        return api_error_set(error, API_NO_LENGTH, NULL, NULL,
                             "the request needs a Content-Length, or Transfer-Encoding: chunked");
    }
    if (*length >= 0 && (uint64_t)*length > bytes_max)
        return too_large(call, bytes_max, error);
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (asks_first(call) && mg_write(call->connection, go_on, sizeof go_on - 1) <= 0)
        call->close = true;
    call->body = HTTP_BODY_BEGUN;
    if (chunked)
        *length = -1;
    return SORA_OK;
}

sora_status http_read_body(struct http_call *call, size_t bytes_max, _Atomic int64_t *budget,
                           struct http_body *body, struct api_error *error)
{
    *body = (struct http_body){.budget = budget};
    struct target target = {.body = body};
    int64_t length;
    sora_status status = begin(call, bytes_max, &length, error);
    if (status == SORA_OK)
        status = grow(body, 1, bytes_max, error);
    if (status == SORA_OK)
        status = read_all(call, bytes_max, length, &target, error);
    if (status != SORA_OK) {
        http_body_free(body);
        return status;
    }
    body->data[body->bytes] = '\0';
    call->body = HTTP_BODY_DONE;
    return SORA_OK;
}

sora_status http_pass_body(struct http_call *call, size_t bytes_max, http_body_sink *sink,
                           void *context, struct api_error *error)
{
    struct target target = {.sink = sink, .context = context};
    int64_t length;
    sora_status status = begin(call, bytes_max, &length, error);
    if (status == SORA_OK)
        status = read_all(call, bytes_max, length, &target, error);
    if (status == SORA_OK)
        call->body = HTTP_BODY_DONE;
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// See http.h. Starting CivetWeb, reading requests, sending replies.
#include "server/http.h"

#include <arpa/inet.h>
#include <civetweb.h>
#include <ctype.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/rng.h"
#include "server/big_stack.h"
#include "server/conn_watch.h"
#include "server/http_tls.h"
#include "sora/limits.h"

#define HEAD_BYTES_MAX 16384
#define SEND_BYTES 262144 // of one write: a slow reader is given SORA_BODY_IDLE_MS for each

struct http_server {
    struct http_options options;
    struct mg_context *civetweb;
    int32_t port;
    char start_error[256]; // CivetWeb's last words before it gave up starting
};

static int log_message(const struct mg_connection *connection, const char *message)
{
    struct http_server *server = connection != NULL ? mg_get_user_context_data(connection) : NULL;
    char quoted[LOG_QUOTE_BYTES];
    if (server != NULL && server->civetweb == NULL && server->start_error[0] == '\0')
        snprintf(server->start_error, sizeof server->start_error, "%s", message);
    else
        log_debug("http", "civetweb", "message=%s", log_quote(quoted, message));
    return 1;
}

// A client's own id when it is harmless in a header and a log, otherwise a new one.
static void choose_request_id(const struct mg_connection *connection, char *out)
{
    const char *sent = mg_get_header(connection, "x-request-id");
    size_t bytes = sent != NULL ? strlen(sent) : 0;
    bool sane = bytes > 0 && bytes < HTTP_REQUEST_ID_BYTES;
    for (size_t i = 0; sane && i < bytes; i++)
        sane = isalnum((unsigned char)sent[i]) || strchr("-_.:", sent[i]) != NULL;
    if (sane) {
        memcpy(out, sent, bytes + 1);
        return;
    }
    uint64_t random[2];
    rng_system(random, sizeof random);
    snprintf(out, HTTP_REQUEST_ID_BYTES, "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
}

static void begin_call(struct http_server *server, struct mg_connection *connection,
                       struct http_call *call)
{
    const struct mg_request_info *info = mg_get_request_info(connection);
    *call = (struct http_call){.connection = connection, .server = server, .socket = -1};
    buf_init(&call->headers, HEAD_BYTES_MAX);
    choose_request_id(connection, call->request_id);
    if (info == NULL || info->request_method == NULL) {
        call->method = "";
        call->close = true;
        return;
    }
    call->method = info->request_method;
    call->query = info->query_string;
    const char *uri = info->local_uri_raw != NULL ? info->local_uri_raw : "";
    if (strlen(uri) < sizeof call->path) // a longer one is no route of ours
        snprintf(call->path, sizeof call->path, "%s", uri);
    const char *wish = mg_get_header(connection, "Connection");
    bool old = info->http_version == NULL || strcmp(info->http_version, "1.1") != 0;
    call->close = old || (wish != NULL && strcasecmp(wish, "close") == 0);
    call->chunked = !old;
    call->socket = conn_watch_socket(info->remote_addr, info->remote_port, info->server_port);
}

struct handled {
    struct http_server *server;
    struct mg_connection *connection;
    enum api_code code;
};

static void handle_call(void *context)
{
    struct handled *handled = context;
    struct http_server *server = handled->server;
    struct http_call call;
    begin_call(server, handled->connection, &call);
    server->options.handle(&call, server->options.context);
    if (http_body_pending(&call))
        http_body_drain(&call);
    buf_deinit(&call.headers);
    if (call.close)
        mg_disable_connection_keep_alive(handled->connection);
    handled->code = call.code;
}

static int handle(struct mg_connection *connection, void *context)
{
    struct handled handled = {.server = context, .connection = connection, .code = API_INTERNAL};
    struct big_stack *stack = mg_get_thread_pointer(connection);
    if (stack == NULL) { // no thread was to be had: drop the connection rather than its worker
        mg_disable_connection_keep_alive(connection);
        return api_code_http(API_INTERNAL);
    }
    big_stack_run(stack, handle_call, &handled);
    return api_code_http(handled.code);
}

enum { CIVETWEB_WORKER = 1 }; // thread_type of init_thread

static void *init_thread(const struct mg_context *context, int thread_type)
{
    (void)context;
    return thread_type == CIVETWEB_WORKER ? big_stack_create() : NULL;
}

static void exit_thread(const struct mg_context *context, int thread_type, void *stack)
{
    (void)context, (void)thread_type;
    big_stack_destroy(stack);
}

// What CivetWeb refuses before a handler sees it: broken heads.
static int http_error(struct mg_connection *connection, int status, const char *message)
{
    struct http_server *server = mg_get_user_context_data(connection);
    struct http_call call;
    struct api_error error;
    begin_call(server, connection, &call);
    call.close = true;
    (void)api_error_set(&error, api_code_from_http(status), NULL, NULL,
                        "the request is not valid HTTP/1.1: %s", message);
    http_reply_error(&call, &error);
    buf_deinit(&call.headers);
    mg_disable_connection_keep_alive(connection);
    return 0;
}

// Called when CivetWeb wants its SSL_CTX and when it lets it go. 1: it is ours, also to free.
static int give_tls(void **context, void *server)
{
    *context = ((struct http_server *)server)->options.tls;
    return 1;
}

// "127.0.0.1:8080", with TLS "127.0.0.1:8080s", or "[::1]:8080"; a name is resolved.
static sora_status listen_address(const struct http_options *options, char *out, size_t out_bytes,
                                  struct sora_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[INET6_ADDRSTRLEN + 16] = "";
    int failure = getaddrinfo(options->host, NULL, &hints, &found);
    if (failure == 0)
        failure = getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof host, NULL, 0,
                              NI_NUMERICHOST);
    if (found != NULL)
        freeaddrinfo(found);
    if (failure != 0)
        return sora_fail(err, SORA_MALFORMED, "--host %s: %s", options->host,
                         gai_strerror(failure));
    const char *form = strchr(host, ':') != NULL ? "[%s]:%d%s" : "%s:%d%s";
    snprintf(out, out_bytes, form, host, (int)options->port, options->tls != NULL ? "s" : "");
    return SORA_OK;
}

static sora_status start_civetweb(struct http_server *server, const char *address,
                                  struct sora_error *err)
{
    char threads[16], idle[16], keep[16], backlog[16];
    snprintf(threads, sizeof threads, "%d", server->options.threads);
    snprintf(idle, sizeof idle, "%d", SORA_BODY_IDLE_MS);
    snprintf(keep, sizeof keep, "%d", SORA_HTTP_KEEP_ALIVE_MS);
    snprintf(backlog, sizeof backlog, "%d", server->options.threads);
    const char *settings[] = {"listening_ports",
                              address,
                              "num_threads",
                              threads,
                              "request_timeout_ms",
                              idle,
                              "enable_keep_alive",
                              "yes",
                              "keep_alive_timeout_ms",
                              keep,
                              "connection_queue",
                              backlog,
                              "listen_backlog",
                              "1024",
                              "tcp_nodelay",
                              "1",
                              "decode_url",
                              "no",
                              "linger_timeout_ms",
                              "2000",
                              "enable_directory_listing",
                              "no",
                              "access_control_allow_origin",
                              "",
                              "access_control_allow_methods",
                              "",
                              "access_control_allow_headers",
                              "",
                              NULL};
    struct mg_callbacks callbacks = {.external_ssl_ctx = give_tls,
                                     .log_message = log_message,
                                     .http_error = http_error,
                                     .init_thread = init_thread,
                                     .exit_thread = exit_thread};
    struct mg_server_port port;
    server->civetweb = mg_start(&callbacks, server, settings);
    if (server->civetweb == NULL)
        return sora_fail(err, SORA_IO, "cannot listen on %s: %s", address,
                         server->start_error[0] != '\0' ? server->start_error
                                                        : "the HTTP server did not start");
    if (mg_get_server_ports(server->civetweb, 1, &port) != 1)
        return sora_fail(err, SORA_INTERNAL, "%s: the port is unknown", address);
    server->port = port.port;
    mg_set_request_handler(server->civetweb, "**", handle, server);
    return SORA_OK;
}

sora_status http_start(const struct http_options *options, struct http_server **server,
                       struct sora_error *err)
{
    char address[128];
    sora_status status = listen_address(options, address, sizeof address, err);
    if (status != SORA_OK)
        return status;
    struct http_server *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the HTTP server");
    made->options = *options;
    unsigned features = options->tls != NULL ? MG_FEATURES_TLS : MG_FEATURES_DEFAULT;
    if (options->tls != NULL)
        status = http_tls_load(err);
    if ((mg_init_library(features) & features) != features && status == SORA_OK)
        status = sora_fail(err, SORA_UNSUPPORTED, "CivetWeb cannot use the modules for TLS");
    if (status == SORA_OK)
        status = start_civetweb(made, address, err);
    if (status != SORA_OK) {
        http_stop(made);
        return status;
    }
    *server = made;
    return SORA_OK;
}

void http_stop(struct http_server *server)
{
    if (server == NULL)
        return;
    if (server->civetweb != NULL)
        mg_stop(server->civetweb);
    mg_exit_library();
    free(server);
}

int32_t http_port(const struct http_server *server)
{
    return server->port;
}

const char *http_header(const struct http_call *call, const char *name)
{
    return mg_get_header(call->connection, name);
}

bool http_query(const struct http_call *call, const char *name, char *out, size_t out_bytes)
{
    return call->query != NULL &&
           mg_get_var(call->query, strlen(call->query), name, out, out_bytes) >= 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool http_decode_path(const char *text, size_t bytes, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (size_t i = 0; i < bytes; i++) {
        int c = (unsigned char)text[i];
        if (c == '%') {
            int high = bytes - i > 2 ? hex_value(text[i + 1]) : -1;
            int low = bytes - i > 2 ? hex_value(text[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = high * 16 + low;
            i += 2;
        }
        if (c < ' ' || c == 0x7f || used + 1 >= out_bytes)
            return false;
        out[used++] = (char)c;
    }
    if (used >= out_bytes)
        return false;
    out[used] = '\0';
    return true;
}

void http_add_header(struct http_call *call, const char *name, const char *format, ...)
{
    va_list args;
    buf_printf(&call->headers, "%s: ", name);
    va_start(args, format);
    buf_vprintf(&call->headers, format, args);
    va_end(args);
    buf_text(&call->headers, "\r\n");
}

static bool send_all(struct http_call *call, const char *data, size_t bytes)
{
    while (bytes > 0) {
        size_t part = bytes < SEND_BYTES ? bytes : SEND_BYTES;
        int sent = mg_write(call->connection, data, part);
        if (sent <= 0) {
            call->close = true;
            return false;
        }
        data += sent;
        bytes -= (size_t)sent;
    }
    return true;
}

static void append_head(struct http_call *call, struct buf *out, enum api_code code,
                        const char *type)
{
    call->code = code;
    call->replied = true;
    call->close = call->close || http_body_pending(call);
    buf_printf(out, "HTTP/1.1 %d %s\r\n", api_code_http(code), api_code_reason(code));
    if (type != NULL)
        buf_printf(out, "Content-Type: %s\r\n", type);
    buf_printf(out, "x-request-id: %s\r\nConnection: %s\r\n", call->request_id,
               call->close ? "close" : "keep-alive");
    if (code == API_TOO_MANY || code == API_UNAVAILABLE)
        buf_printf(out, "Retry-After: %d\r\n",
                   call->retry_after_s > 0 ? (int)call->retry_after_s : 1);
    buf_append(out, call->headers.data, call->headers.bytes);
}

void http_reply(struct http_call *call, enum api_code code, const char *type, const void *body,
                size_t bytes)
{
    struct buf out;
    buf_init(&out, HEAD_BYTES_MAX * 2 + SEND_BYTES);
    append_head(call, &out, code, type);
    buf_printf(&out, "Content-Length: %zu\r\n\r\n", bytes);
    bool no_body = strcmp(call->method, "HEAD") == 0 || code == API_NOT_MODIFIED;
    bool together = bytes <= SEND_BYTES;
    if (!no_body && together)
        buf_append(&out, body, bytes);
    if (send_all(call, out.data, out.bytes) && !no_body && !together)
        (void)send_all(call, body, bytes);
    buf_deinit(&out);
}

void http_reply_json(struct http_call *call, enum api_code code, const struct buf *body)
{
    struct sora_error cause;
    struct api_error error;
    if (buf_status(body, &cause) == SORA_OK) {
        http_reply(call, code, "application/json", body->data, body->bytes);
        return;
    }
    (void)api_error_from(&error, API_FROM_BODY, &cause);
    error.http = API_INTERNAL;
    http_reply_error(call, &error);
}

void http_reply_error(struct http_call *call, const struct api_error *error)
{
    struct buf body;
    buf_init(&body, HEAD_BYTES_MAX);
    api_error_encode(&body, error);
    http_reply(call, error->http, "application/json", body.data, body.bytes);
    buf_deinit(&body);
}

bool http_stream_begin(struct http_call *call, const char *type)
{
    struct buf out;
    buf_init(&out, HEAD_BYTES_MAX * 2);
    if (!call->chunked)
        call->close = true;
    append_head(call, &out, API_OK, type);
    buf_text(&out, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    buf_text(&out, call->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    bool sent = send_all(call, out.data, out.bytes);
    buf_deinit(&out);
    return sent;
}

bool http_stream_send(struct http_call *call, const void *data, size_t bytes)
{
    if (!call->chunked || bytes == 0)
        return send_all(call, data, bytes);
    struct buf out;
    buf_init(&out, bytes + 64);
    buf_printf(&out, "%zx\r\n", bytes);
    buf_append(&out, data, bytes);
    buf_text(&out, "\r\n");
    bool sent = out.status == SORA_OK && send_all(call, out.data, out.bytes);
    buf_deinit(&out);
    return sent;
}

bool http_stream_end(struct http_call *call)
{
    return !call->chunked || send_all(call, "0\r\n\r\n", 5);
}

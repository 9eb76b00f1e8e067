// SPDX-License-Identifier: Apache-2.0
// HTTP as the handlers see it: one call in, one reply or stream out. Everything CivetWeb is behind
// this file. A call belongs to the HTTP worker that serves it.
//
// CivetWeb is used for handlers only: no document root, no form parsing. Bodies are read raw, with
// a limit, a deadline and a least rate.
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "server/api_error.h"
#include "server/auth.h"

struct http_server;

#define HTTP_REQUEST_ID_BYTES 65
#define HTTP_PATH_BYTES_MAX 1024

enum http_body_state {
    HTTP_BODY_UNREAD, // as the request came
    HTTP_BODY_BEGUN,  // the client is sending
    HTTP_BODY_DONE,   // read, or not worth waiting for
};

struct http_call {
    struct mg_connection *connection;
    struct http_server *server;
    const char *method;
    char path[HTTP_PATH_BYTES_MAX]; // as sent: still percent-encoded, without the query
    const char *query;              // NULL: none
    char request_id[HTTP_REQUEST_ID_BYTES];
    int socket; // to watch for the client's going; -1: not found
    bool close; // no keep-alive after this reply
    enum http_body_state body;
    bool replied;              // the head is out
    bool chunked;              // of a stream: HTTP/1.1
    enum api_code code;        // of the reply
    int32_t retry_after_s;     // of a 429 or 503; 0: one second
    struct auth_caller caller; // zeros: nobody yet
    struct buf headers;        // "Name: value\r\n" to be sent with the reply
};

struct http_options {
    const char *host;
    int32_t port; // 0: a free one
    int32_t threads;
    void *tls; // of base/tls.h, borrowed; NULL: plain HTTP
    // Called for every request, on a worker; must reply.
    void (*handle)(struct http_call *call, void *context);
    void *context;
};

SORA_CHECKED sora_status http_start(const struct http_options *options, struct http_server **server,
                                    struct sora_error *err);
// Waits for the handlers that run.
void http_stop(struct http_server *server); // accepts NULL
int32_t http_port(const struct http_server *server);

// A header of the request, or NULL.
const char *http_header(const struct http_call *call, const char *name);
// A decoded query parameter into out; false when absent or too long.
bool http_query(const struct http_call *call, const char *name, char *out, size_t out_bytes);
// Percent-decodes [text, text + bytes) into out; false when it does not fit, is broken, or has a
// zero or control byte.
bool http_decode_path(const char *text, size_t bytes, char *out, size_t out_bytes);

// The whole body, malloc'ed and zero-terminated. `budget` (may be NULL) is a count of bytes that
// may still be held by all such bodies together; http_body_free gives back what was taken.
struct http_body {
    char *data;
    size_t bytes, capacity;
    _Atomic int64_t *budget;
};
SORA_CHECKED sora_status http_read_body(struct http_call *call, size_t bytes_max,
                                        _Atomic int64_t *budget, struct http_body *body,
                                        struct api_error *error);
void http_body_free(struct http_body *body);
// The same without keeping it: every piece goes to the sink as it comes, until that fails.
typedef sora_status http_body_sink(void *context, const void *bytes, size_t byte_count,
                                   struct api_error *error);
SORA_CHECKED sora_status http_pass_body(struct http_call *call, size_t bytes_max,
                                        http_body_sink *sink, void *context,
                                        struct api_error *error);
// Whether the request announced a body that no handler has read to its end: the connection cannot
// be used again then.
bool http_body_pending(const struct http_call *call);
// After the reply: reads such a body off, within bounds. A client that sends first and listens
// then would see a reset instead of the reply if the connection closed on unread bytes.
void http_body_drain(struct http_call *call);

// A header for the reply to come.
void http_add_header(struct http_call *call, const char *name, const char *format, ...)
    SORA_PRINTF(3, 4);
// The reply, whole. Failure to send is the client's business.
void http_reply(struct http_call *call, enum api_code code, const char *type, const void *body,
                size_t bytes);
void http_reply_json(struct http_call *call, enum api_code code, const struct buf *body);
void http_reply_error(struct http_call *call, const struct api_error *error);

// A reply that comes in pieces, each sent at once. False: the client is gone.
bool http_stream_begin(struct http_call *call, const char *type);
bool http_stream_send(struct http_call *call, const void *data, size_t bytes);
bool http_stream_end(struct http_call *call);

#endif

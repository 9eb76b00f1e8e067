// SPDX-License-Identifier: Apache-2.0
// Where the server is and how it is spoken to; single calls that wait for their answer (discovery,
// uploads before the run). libcurl's global state must be initialized. One thread.
#ifndef LOADTEST_CLIENT_HTTP_H
#define LOADTEST_CLIENT_HTTP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "sora/status.h"

enum client_selector {
    CLIENT_BY_MODEL, // the adapter's name is the `model`
    CLIENT_BY_LORA   // llama-server: `lora:[{"id":N,"scale":1}]` beside the base's name
};

struct client_config {
    const char *url; // "http://host:port", without a slash at its end
    const char *key; // sent as a bearer token, NULL: none
    const char *ca_file;
    bool insecure; // does not check the certificate
    bool fresh;    // a new connection for each request
    enum client_selector selector;
};

struct client_http; // one connection that is kept

SORA_CHECKED sora_status client_http_create(const struct client_config *config,
                                            struct client_http **http, struct sora_error *err);
void client_http_destroy(struct client_http *http); // accepts NULL

struct client_call {
    const char *method, *path; // path may be foreign only where client_http_escape made it
    const void *body;          // NULL: none
    size_t body_bytes;
    const char *content_type;
};

// SORA_IO when no answer came, with the reason; every status is an answer. `body` is cleared first.
SORA_CHECKED sora_status client_http_call(struct client_http *http, const struct client_call *call,
                                          long *http_status, struct buf *body,
                                          struct sora_error *err);
// Appends a name as one segment of a path.
void client_http_escape(struct buf *path, const char *name);

// What every handle of the run has in common: TLS, no signals, HTTP/1.1.
void client_http_options(CURL *easy, const struct client_config *config);
// Content type, key, and no "Expect: 100-continue". NULL without memory; freed by curl.
struct curl_slist *client_http_headers(const struct client_config *config,
                                       const char *content_type);

#endif

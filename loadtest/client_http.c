// SPDX-License-Identifier: Apache-2.0
// See client_http.h.
#include "loadtest/client_http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sora/limits.h"

#define CALL_TIMEOUT_S 120L // an upload of a gigabyte over a slow disk
#define CONNECT_TIMEOUT_S 10L
#define URL_BYTES_MAX 4096

struct client_http {
    const struct client_config *config;
    CURL *easy;
};

sora_status client_http_create(const struct client_config *config, struct client_http **http,
                               struct sora_error *err)
{
    struct client_http *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->easy = curl_easy_init();
    if (made == NULL || made->easy == NULL) {
        free(made);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a connection");
    }
    made->config = config;
    *http = made;
    return SORA_OK;
}

void client_http_destroy(struct client_http *http)
{
    if (http == NULL)
        return;
    curl_easy_cleanup(http->easy);
    free(http);
}

void client_http_options(CURL *easy, const struct client_config *config)
{
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "sora-loadtest/" SORA_VERSION);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, config->fresh ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, config->fresh ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); // a proxy would be measured too
    if (config->ca_file != NULL)
        curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
    if (config->insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

struct curl_slist *client_http_headers(const struct client_config *config, const char *content_type)
{
    char line[4096];
    struct curl_slist *list = NULL;
    snprintf(line, sizeof line, "Content-Type: %s", content_type);
    const char *lines[] = {"Expect:", line};
    for (size_t i = 0; i < 2; i++) {
        struct curl_slist *longer = curl_slist_append(list, lines[i]);
        if (longer == NULL) {
            curl_slist_free_all(list);
            return NULL;
        }
        list = longer;
    }
    if (config->key == NULL)
        return list;
    snprintf(line, sizeof line, "Authorization: Bearer %s", config->key);
    struct curl_slist *longer = curl_slist_append(list, line);
    if (longer == NULL)
        curl_slist_free_all(list);
    return longer;
}

static size_t take_bytes(char *data, size_t size, size_t count, void *context)
{
    struct buf *body = context;
    buf_append(body, data, size * count);
    return body->status == SORA_OK ? size * count : 0;
}

sora_status client_http_call(struct client_http *http, const struct client_call *call,
                             long *http_status, struct buf *body, struct sora_error *err)
{
    char url[URL_BYTES_MAX], reason[CURL_ERROR_SIZE] = "";
    CURL *easy = http->easy;
    buf_clear(body);
    *http_status = 0;
    if (http->config->url[0] == '\0')
        return sora_fail(err, SORA_MALFORMED, "no URL is given, and the server must be asked");
    int bytes = snprintf(url, sizeof url, "%s%s", http->config->url, call->path);
    if (bytes >= (int)sizeof url)
        return sora_fail(err, SORA_LIMIT, "a URL exceeds %d bytes", URL_BYTES_MAX - 1);
    struct curl_slist *headers = client_http_headers(
        http->config, call->content_type != NULL ? call->content_type : "application/json");
    if (headers == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a request");
    curl_easy_reset(easy); // keeps the connection
    client_http_options(easy, http->config);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, CALL_TIMEOUT_S);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, body);
    if (call->body != NULL) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
    }
    CURLcode code = curl_easy_perform(easy);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, http_status);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
    curl_slist_free_all(headers);
    if (code != CURLE_OK)
        return sora_fail(err, SORA_IO, "%s %s: %s", call->method, url,
                         reason[0] != '\0' ? reason : curl_easy_strerror(code));
    return buf_status(body, err);
}

void client_http_escape(struct buf *path, const char *name)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const unsigned char *at = (const unsigned char *)name; *at != '\0'; at++) {
        if (strchr(plain, *at) != NULL)
            buf_append(path, at, 1);
        else
            buf_printf(path, "%%%02X", *at);
    }
}

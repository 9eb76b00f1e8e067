// SPDX-License-Identifier: Apache-2.0
// See upload.h. One libcurl easy handle for each upload; the caller's thread.
#include "server/upload.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "sora/limits.h"
#include "sora/store.h"

#define KEY_BYTES_MAX 4096
#define REPLY_BYTES_MAX (1u << 20) // a card is a few KB for each layer
#define TIMEOUT_S 600L
#define CONNECT_TIMEOUT_S 10L

sora_status upload_check(const struct upload_target *target, struct sora_error *err)
{
    if (strncmp(target->url, "http://", 7) != 0 && strncmp(target->url, "https://", 8) != 0)
        return sora_fail(err, SORA_MALFORMED,
                         "--upload %s: expected a URL such as http://127.0.0.1:8080", target->url);
    if (target->name == NULL)
        return sora_fail(err, SORA_MALFORMED, "--upload needs --name, the adapter's name there");
    sora_status status = sora_store_check_name(target->name, err);
    if (status != SORA_OK || target->key_file == NULL)
        return status;
    char *key = NULL;
    size_t bytes = 0;
    status = file_read(target->key_file, KEY_BYTES_MAX, &key, &bytes, err);
    free(key);
    return status;
}

static size_t collect(char *data, size_t size, size_t count, void *context)
{
    buf_append(context, data, size * count);
    return size * count;
}

// "Authorization: Bearer KEY" added to the list; the key is the file's first line.
static sora_status add_key(const char *path, struct curl_slist **headers, struct sora_error *err)
{
    char *key = NULL;
    size_t bytes = 0;
    sora_status status = file_read(path, KEY_BYTES_MAX, &key, &bytes, err);
    if (status != SORA_OK)
        return status;
    key[strcspn(key, "\r\n")] = '\0';
    struct buf line;
    buf_init(&line, KEY_BYTES_MAX + 64);
    buf_printf(&line, "Authorization: Bearer %s", key);
    struct curl_slist *longer =
        line.status == SORA_OK ? curl_slist_append(*headers, line.data) : NULL;
    if (longer == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    else
        *headers = longer;
    buf_deinit(&line);
    free(key);
    return status;
}

// The server's "error.message", or the start of whatever it sent.
static sora_status refused(long http_status, const struct buf *reply, const char *url,
                           struct sora_error *err)
{
    cJSON *tree = NULL;
    const char *message = NULL;
    if (reply->bytes > 0 && json_parse(reply->data, reply->bytes, &tree, NULL) == SORA_OK) {
        const cJSON *error = cJSON_GetObjectItemCaseSensitive(tree, "error");
        if (json_get_string(error, "message", &message, NULL) != SORA_OK)
            message = NULL;
    }
    sora_status status = sora_fail(err, SORA_IO, "%s answered %ld: %.300s", url, http_status,
                                   message != NULL    ? message
                                   : reply->bytes > 0 ? reply->data
                                                      : "no text");
    cJSON_Delete(tree);
    return status;
}

static sora_status send_request(CURL *curl, const char *url, struct curl_slist *headers,
                                const void *bytes, size_t byte_count, struct sora_error *err)
{
    struct buf reply;
    char problem[CURL_ERROR_SIZE] = "";
    long http_status = 0;
    buf_init(&reply, REPLY_BYTES_MAX);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "PUT");
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)byte_count);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, bytes);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, problem);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply);
    CURLcode code = curl_easy_perform(curl);
    sora_status status = SORA_OK;
    if (code != CURLE_OK)
        status = sora_fail(err, SORA_IO, "%s: %s", url,
                           problem[0] != '\0' ? problem : curl_easy_strerror(code));
    else if (curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &http_status) != CURLE_OK ||
             http_status / 100 != 2)
        status = refused(http_status, &reply, url, err);
    buf_deinit(&reply);
    return status;
}

// "URL/v1/adapters/NAME" with the name escaped; a slash at the URL's end is dropped.
static sora_status make_url(CURL *curl, const struct upload_target *target, struct buf *url,
                            struct sora_error *err)
{
    size_t length = strlen(target->url);
    while (length > 0 && target->url[length - 1] == '/')
        length--;
    char *name = curl_easy_escape(curl, target->name, 0);
    if (name == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "out of memory");
    buf_append(url, target->url, length);
    buf_printf(url, "/v1/adapters/%s", name);
    curl_free(name);
    return buf_status(url, err);
}

sora_status upload_adapter(const struct upload_target *target, const void *bytes, size_t byte_count,
                           struct sora_error *err)
{
    struct curl_slist *headers = NULL;
    struct buf url;
    buf_init(&url, KEY_BYTES_MAX);
    CURL *curl = curl_easy_init();
    sora_status status = SORA_OK;
    if (curl != NULL)
        headers = curl_slist_append(NULL, "Content-Type: application/octet-stream");
    if (headers == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    if (status == SORA_OK && target->key_file != NULL)
        status = add_key(target->key_file, &headers, err);
    if (status == SORA_OK)
        status = make_url(curl, target, &url, err);
    if (status == SORA_OK)
        status = send_request(curl, url.data, headers, bytes, byte_count, err);
    buf_deinit(&url);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// Bringing adapters in and switching versions: PUT, POST and rollback under /v1/adapters. The file
// is read, checked, packed and stored on the HTTP worker; running requests notice nothing.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "server/multipart.h"
#include "server/routes.h"
#include "sora/adapter.h"

#define DIGEST_BYTES 65
#define ROLLBACK_BYTES_MAX 4096

// The digest of If-Match without its quotes; "*" is the digest of whatever is active now. False:
// the header cannot hold, replied.
static bool read_condition(struct server *server, struct http_call *call, const char *name,
                           char digest[DIGEST_BYTES], const char **condition)
{
    struct sora_registry_card card;
    struct api_error error;
    const char *sent = http_header(call, "If-Match");
    *condition = NULL;
    if (sent == NULL)
        return true;
    *condition = digest;
    if (strcmp(sent, "*") == 0) {
        if (!routes_find_card(server, call, name, &card))
            return false;
        memcpy(digest, card.entry.digest, DIGEST_BYTES);
        return true;
    }
    size_t bytes = strlen(sent);
    bool quoted = bytes >= 2 && sent[0] == '"' && sent[bytes - 1] == '"';
    sent += quoted;
    bytes -= quoted ? 2 : 0;
    if (bytes >= DIGEST_BYTES) {
        (void)api_error_set(&error, API_PRECONDITION, NULL, NULL,
                            "If-Match must be \"*\" or the digest of the active version");
        http_reply_error(call, &error);
        return false;
    }
    memcpy(digest, sent, bytes);
    digest[bytes] = '\0';
    return true;
}

// upload: what the bytes are in, or NULL when they are in memory.
static void publish(struct server *server, struct http_call *call, const char *name,
                    sora_upload *upload, const void *bytes, size_t byte_count)
{
    char digest[DIGEST_BYTES], activate[8] = "";
    const char *condition;
    struct sora_registry_card card;
    bool created = false;
    if (!read_condition(server, call, name, digest, &condition))
        return;
    (void)http_query(call, "activate", activate, sizeof activate);
    bool stays = strcasecmp(activate, "false") == 0 || strcmp(activate, "0") == 0;
    struct routes_upload put = {name, upload, bytes, byte_count, condition, !stays};
    if (!routes_publish(server, call, &put, &card, &created))
        return;
    bool is_new = created && card.version_count == 1;
    routes_reply_card(server, call, is_new ? API_CREATED : API_OK, &card);
}

// A llama.cpp adapter becomes our file, then goes the way of every upload.
static void publish_gguf(struct server *server, struct http_call *call, const char *name,
                         const uint8_t *data, size_t data_bytes)
{
    struct sora_error cause;
    uint8_t *bytes;
    size_t byte_count;
    if (sora_adapter_from_gguf(data, data_bytes, &server->info->base, &bytes, &byte_count,
                               &cause) != SORA_OK) {
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
        return;
    }
    publish(server, call, name, NULL, bytes, byte_count);
    free(bytes);
}

// A body on its way to the store's disk.
struct incoming {
    struct server *server;
    struct http_call *call;
    sora_upload *upload;
    int64_t taken_bytes; // of the budget for all uploads
};

static sora_status take_piece(void *context, const void *bytes, size_t byte_count,
                              struct api_error *error)
{
    struct incoming *in = context;
    struct sora_error cause;
    int64_t more = (int64_t)byte_count;
    if (atomic_fetch_sub(&in->server->upload_budget, more) < more) {
        atomic_fetch_add(&in->server->upload_budget, more);
        return api_error_set(error, API_TOO_MANY, "uploads_busy", NULL,
                             "other uploads take all the room that is kept for them: try again "
                             "later");
    }
    in->taken_bytes += more;
    if (sora_upload_write(in->upload, bytes, byte_count, &cause) == SORA_OK)
        return SORA_OK;
    return api_error_from(error, API_FROM_ADAPTER, &cause);
}

static sora_status receive(struct incoming *in, struct api_error *error)
{
    struct sora_error cause;
    const char *announced = http_header(in->call, "Content-Length");
    unsigned long long expected = announced != NULL ? strtoull(announced, NULL, 10) : 0;
    if (expected > SORA_ADAPTER_BYTES_MAX)
        expected = 0; // refused as a body
    if (sora_upload_open(in->server->store, (size_t)expected, &in->upload, &cause) != SORA_OK)
        return api_error_from(error, API_FROM_ADAPTER, &cause);
    sora_status status = http_pass_body(in->call, SORA_ADAPTER_BYTES_MAX, take_piece, in, error);
    if (status == SORA_OK && sora_upload_finish(in->upload, &cause) != SORA_OK)
        status = api_error_from(error, API_FROM_ADAPTER, &cause);
    return status;
}

void routes_adapters_put(struct server *server, struct http_call *call, const char *name)
{
    struct incoming in = {.server = server, .call = call};
    struct api_error error;
    const char *type = http_header(call, "Content-Type");
    bool wrong_type = type != NULL && (strncasecmp(type, "multipart/", 10) == 0 ||
                                       strncasecmp(type, "application/json", 16) == 0);
    // Refuse before a gigabyte is sent for nothing.
    if (wrong_type) {
        (void)api_error_set(&error, API_BAD_MEDIA, NULL, NULL,
                            "the body must be the bytes of the file, as "
                            "application/octet-stream; a PEFT pair goes to POST /v1/adapters");
        http_reply_error(call, &error);
        return;
    }
    if (!routes_fits(server, call, name))
        return;
    if (receive(&in, &error) == SORA_OK) {
        size_t byte_count;
        const uint8_t *bytes = sora_upload_bytes(in.upload, &byte_count);
        if (sora_adapter_is_gguf(bytes, byte_count))
            publish_gguf(server, call, name, bytes, byte_count);
        else
            publish(server, call, name, in.upload, bytes, byte_count);
    } else {
        http_reply_error(call, &error);
    }
    sora_upload_close(in.upload);
    atomic_fetch_add(&server->upload_budget, in.taken_bytes);
}

// The name of a POSTed adapter: the form field, or ?name=.
static bool find_name(struct http_call *call, const struct multipart *form,
                      char name[SORA_STORED_NAME_BYTES_MAX + 1])
{
    const struct multipart_part *part = multipart_find(form, "name");
    if (part == NULL)
        return http_query(call, "name", name, SORA_STORED_NAME_BYTES_MAX + 1);
    if (part->bytes > SORA_STORED_NAME_BYTES_MAX)
        return false;
    memcpy(name, part->data, part->bytes);
    name[part->bytes] = '\0';
    return strlen(name) == part->bytes;
}

// A PEFT pair becomes our file, then goes the way of every upload.
static void publish_pair(struct server *server, struct http_call *call, const char *name,
                         const struct multipart_part *config, const struct multipart_part *weights)
{
    struct sora_error cause;
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    char *text = memchr(config->data, '\0', config->bytes) == NULL
                     ? strndup(config->data, config->bytes)
                     : NULL;
    sora_status status = SORA_OK;
    if (text == NULL)
        status = sora_fail(&cause, SORA_MALFORMED, "config: is not text");
    if (status == SORA_OK)
        status = sora_adapter_from_peft(text, weights->data, weights->bytes, &server->info->base,
                                        &bytes, &byte_count, &cause);
    if (status == SORA_OK)
        publish(server, call, name, NULL, bytes, byte_count);
    else
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    free(text);
    free(bytes);
}

static void post_form(struct server *server, struct http_call *call, const struct http_body *body)
{
    struct multipart form;
    struct sora_error cause;
    struct api_error error;
    char name[SORA_STORED_NAME_BYTES_MAX + 1];
    sora_status status =
        multipart_parse(http_header(call, "Content-Type"), body->data, body->bytes, &form, &cause);
    if (status == SORA_UNSUPPORTED) {
        (void)api_error_set(&error, API_BAD_MEDIA, NULL, NULL, "%s", cause.text);
        http_reply_error(call, &error);
        return;
    }
    if (status != SORA_OK) {
        routes_reply_status(call, API_FROM_BODY, &cause);
        return;
    }
    const struct multipart_part *config = multipart_find(&form, "config");
    const struct multipart_part *weights = multipart_find(&form, "weights");
    bool named = find_name(call, &form, name);
    if (config == NULL || weights == NULL || !named) {
        (void)api_error_set(&error, API_BAD_REQUEST, "missing_field",
                            config == NULL    ? "config"
                            : weights == NULL ? "weights"
                                              : "name",
                            "the form needs config (adapter_config.json), weights "
                            "(adapter_model.safetensors) and name (or ?name=)");
        http_reply_error(call, &error);
        return;
    }
    char stored[NAMES_BYTES];
    if (routes_target(server, call, name, stored))
        publish_pair(server, call, stored, config, weights);
}

void routes_adapters_post(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct http_body body;
    struct api_error error;
    if (http_read_body(call, SORA_ADAPTER_BYTES_MAX, &server->upload_budget, &body, &error) !=
        SORA_OK) {
        http_reply_error(call, &error);
        return;
    }
    post_form(server, call, &body);
    http_body_free(&body);
}

static sora_status read_version(struct http_call *call, int32_t *version, struct api_error *error)
{
    struct http_body body;
    struct sora_error cause;
    cJSON *tree = NULL;
    int64_t number = 0;
    sora_status status = http_read_body(call, ROLLBACK_BYTES_MAX, NULL, &body, error);
    if (status != SORA_OK)
        return status;
    status = json_parse(body.data, body.bytes, &tree, &cause);
    if (status == SORA_OK)
        status = json_get_int(tree, "version", 1, SORA_ADAPTER_VERSION_MAX, &number, &cause);
    if (status == SORA_OK && number == 0)
        status = sora_fail(&cause, SORA_MALFORMED, "version: is required, as in {\"version\": 1}");
    cJSON_Delete(tree);
    http_body_free(&body);
    *version = (int32_t)number;
    if (status != SORA_OK)
        return api_error_set(error, API_BAD_REQUEST, "invalid_value", "version", "%s", cause.text);
    return SORA_OK;
}

void routes_adapters_rollback(struct server *server, struct http_call *call, const char *name)
{
    struct sora_registry_card card;
    struct sora_error cause;
    struct api_error error;
    int32_t version = 0;
    if (read_version(call, &version, &error) != SORA_OK)
        http_reply_error(call, &error);
    else if (routes_rollback(server, call, name, version, &card, &cause) != SORA_OK)
        routes_reply_status(call, API_FROM_ADAPTER, &cause);
    else
        routes_reply_card(server, call, API_OK, &card);
}

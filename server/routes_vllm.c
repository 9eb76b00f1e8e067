// SPDX-License-Identifier: Apache-2.0
// vLLM's POST /v1/load_lora_adapter and /v1/unload_lora_adapter, with its texts, its error object
// and its codes. A load is an upload of a file that the server itself can see, under --adapter-root
// alone; an unload is a deletion. HTTP workers only.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/file_root.h"
#include "base/json.h"
#include "server/routes.h"
#include "sora/adapter.h"

#define BODY_BYTES_MAX 65536

// {"error":{...}} with the status as code, as vLLM has it.
static void reply_refusal(struct http_call *call, enum api_code code, const char *type,
                          const char *message)
{
    struct buf out;
    buf_init(&out, 8192);
    buf_text(&out, "{\"error\":{\"message\":");
    buf_json_string(&out, message, strlen(message));
    buf_printf(&out, ",\"type\":\"%s\",\"param\":null,\"code\":%d}}", type, api_code_http(code));
    http_reply_json(call, code, &out);
    buf_deinit(&out);
}

// A fault of the adapter, its name or the body; what concerns the key, a limit or the server is
// said as everywhere.
static void reply_fault(struct http_call *call, const struct api_error *error)
{
    if (error->http == API_BAD_REQUEST || error->http == API_IMPOSSIBLE)
        reply_refusal(call, API_BAD_REQUEST, "BadRequestError", error->message);
    else if (error->http == API_NOT_FOUND)
        reply_refusal(call, API_NOT_FOUND, "NotFoundError", error->message);
    else
        http_reply_error(call, error);
}

static void reply_success(struct http_call *call, const char *name, const char *what)
{
    struct buf out;
    buf_init(&out, 4096);
    buf_printf(&out, "Success: LoRA adapter '%s' %s successfully.", name, what);
    http_reply(call, API_OK, "text/plain; charset=utf-8", out.data, out.bytes);
    buf_deinit(&out);
}

struct order {
    const char *name, *path;
    bool in_place;
};

static sora_status read_fields(const cJSON *tree, struct order *order, struct sora_error *cause)
{
    int64_t number = 0;
    if (!cJSON_IsObject(tree))
        return sora_fail(cause, SORA_MALFORMED, "the body must be a JSON object");
    sora_status status = json_get_string(tree, "lora_name", &order->name, cause);
    if (status == SORA_OK)
        status = json_get_string(tree, "lora_path", &order->path, cause);
    if (status == SORA_OK)
        status = json_get_bool(tree, "load_inplace", &order->in_place, cause);
    if (status == SORA_OK) // checked, then ignored, as there
        status = json_get_int(tree, "lora_int_id", INT32_MIN, INT32_MAX, &number, cause);
    return status;
}

// The fields point into *tree, which the caller frees. False: replied.
static bool read_order(struct http_call *call, cJSON **tree, struct order *order)
{
    struct http_body body;
    struct sora_error cause;
    struct api_error error;
    *tree = NULL;
    *order = (struct order){.name = NULL};
    if (http_read_body(call, BODY_BYTES_MAX, NULL, &body, &error) != SORA_OK) {
        http_reply_error(call, &error);
        return false;
    }
    sora_status status = json_parse(body.data, body.bytes, tree, &cause);
    http_body_free(&body);
    if (status == SORA_OK)
        status = read_fields(*tree, order, &cause);
    if (status == SORA_OK)
        return true;
    cJSON_Delete(*tree);
    reply_refusal(call, API_BAD_REQUEST, "BadRequestError", cause.text);
    return false;
}

static bool is_empty(const char *text)
{
    return text == NULL || text[0] == '\0';
}

// One file under the root, within what uploads may take of the memory; *taken of it is the
// caller's to give back.
static sora_status read_under(struct server *server, const struct file_under *file,
                              const char *path, size_t bytes_max, char **data, size_t *bytes,
                              int64_t *taken, struct sora_error *cause)
{
    int64_t wanted = (int64_t)file->bytes;
    if (file->bytes <= bytes_max && atomic_fetch_sub(&server->upload_budget, wanted) < wanted) {
        atomic_fetch_add(&server->upload_budget, wanted);
        return sora_fail(cause, SORA_BUSY, "other uploads take the memory: try again later");
    }
    sora_status status = file_root_read(file, path, bytes_max, data, bytes, cause);
    if (file->bytes <= bytes_max)
        *taken += wanted;
    return status;
}

// A file of a PEFT folder; links in it are held to the root too.
static sora_status read_inside(struct server *server, const char *folder, const char *name,
                               size_t bytes_max, char **data, size_t *bytes, int64_t *taken,
                               struct sora_error *cause)
{
    struct file_under file;
    char *path = file_join(folder, name);
    if (path == NULL)
        return sora_fail(cause, SORA_NO_MEMORY, "no memory for a path");
    sora_status status = file_root_open(server->adapter_root, path, &file, cause);
    if (status == SORA_OK && file.is_folder)
        status = sora_fail(cause, SORA_MALFORMED, "%.300s: is a folder", path);
    if (status == SORA_OK)
        status = read_under(server, &file, path, bytes_max, data, bytes, taken, cause);
    file_root_close(&file);
    free(path);
    return status;
}

static sora_status read_folder(struct server *server, const char *folder, uint8_t **bytes,
                               size_t *byte_count, int64_t *taken, struct sora_error *cause)
{
    char *config = NULL, *weights = NULL;
    size_t config_bytes = 0, weights_bytes = 0;
    sora_status status = read_inside(server, folder, "adapter_config.json", SORA_JSON_BYTES_MAX,
                                     &config, &config_bytes, taken, cause);
    if (status == SORA_OK)
        status = read_inside(server, folder, "adapter_model.safetensors", SORA_ADAPTER_BYTES_MAX,
                             &weights, &weights_bytes, taken, cause);
    if (status == SORA_OK && strlen(config) != config_bytes)
        status = sora_fail(cause, SORA_MALFORMED, "adapter_config.json: a zero byte");
    if (status == SORA_OK)
        status = sora_adapter_from_peft(config, weights, weights_bytes, &server->info->base, bytes,
                                        byte_count, cause);
    free(config);
    free(weights);
    return status;
}

// Our file's bytes of what stands at the path.
static sora_status read_adapter(struct server *server, const char *path, uint8_t **bytes,
                                size_t *byte_count, int64_t *taken, struct sora_error *cause)
{
    struct file_under file;
    char *data = NULL;
    *bytes = NULL;
    sora_status status = file_root_open(server->adapter_root, path, &file, cause);
    if (status != SORA_OK)
        return status;
    if (file.is_folder) {
        status = read_folder(server, path, bytes, byte_count, taken, cause);
    } else {
        status = read_under(server, &file, path, SORA_ADAPTER_BYTES_MAX, &data, byte_count, taken,
                            cause);
        *bytes = (uint8_t *)data;
    }
    file_root_close(&file);
    if (status == SORA_OK && sora_adapter_is_gguf(*bytes, *byte_count)) {
        uint8_t *gguf = *bytes;
        *bytes = NULL;
        status = sora_adapter_from_gguf(gguf, *byte_count, &server->info->base, bytes, byte_count,
                                        cause);
        free(gguf);
    }
    return status;
}

static void reply_loaded_already(struct http_call *call, const char *name)
{
    struct buf text;
    buf_init(&text, 4096);
    buf_printf(&text,
               "The lora adapter '%s' has already been loaded. If you want to load the adapter in "
               "place, set 'load_inplace' to True.",
               name);
    reply_refusal(call, API_BAD_REQUEST, "InvalidUserInput", text.data);
    buf_deinit(&text);
}

// What vLLM's engine says of it.
static void say_load_failed(const struct order *order, const struct sora_error *cause,
                            struct api_error *error)
{
    (void)api_error_from(error, API_FROM_ADAPTER, cause);
    if (cause->code == SORA_NOT_FOUND)
        (void)api_error_set(error, API_NOT_FOUND, NULL, NULL,
                            "Loading lora %.128s failed: No adapter found for %.300s", order->name,
                            order->path);
    else
        (void)api_error_set(error, error->http, error->code, NULL, "Loading lora %.128s failed: %s",
                            order->name, cause->text);
}

// Reads, then publishes under the door's lock: of two that load one name, one is told that it is
// loaded already.
static void load(struct server *server, struct http_call *call, const struct order *order,
                 const char *stored)
{
    struct sora_registry_card card;
    struct sora_error cause;
    struct api_error error;
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    int64_t taken = 0;
    bool created = false, known = false, done = false;
    sora_status status = read_adapter(server, order->path, &bytes, &byte_count, &taken, &cause);
    if (status == SORA_OK) {
        const struct routes_upload put = {
            .stored = stored, .bytes = bytes, .byte_count = byte_count, .activate = true};
        pthread_mutex_lock(&server->door_mutex);
        known = !order->in_place && sora_registry_has(server->registry, stored);
        if (!known)
            done = routes_try_publish(server, call, &put, &card, &created, &error);
        pthread_mutex_unlock(&server->door_mutex);
    } else {
        say_load_failed(order, &cause, &error);
    }
    free(bytes);
    atomic_fetch_add(&server->upload_budget, taken);
    if (known)
        reply_loaded_already(call, order->name);
    else if (done)
        reply_success(call, order->name, "added");
    else
        reply_fault(call, &error);
}

void routes_vllm_load(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct order order;
    struct api_error error;
    char stored[NAMES_BYTES];
    cJSON *tree;
    if (!read_order(call, &tree, &order))
        return;
    if (is_empty(order.name) || is_empty(order.path))
        reply_refusal(call, API_BAD_REQUEST, "InvalidUserInput",
                      "Both 'lora_name' and 'lora_path' must be provided.");
    else if (!routes_find_target(server, call, order.name, stored, &error))
        reply_fault(call, &error);
    else if (!order.in_place && sora_registry_has(server->registry, stored))
        reply_loaded_already(call, order.name);
    else
        load(server, call, &order, stored);
    cJSON_Delete(tree);
}

static void reply_not_loaded(struct http_call *call, const char *name)
{
    struct buf text;
    buf_init(&text, 4096);
    buf_printf(&text, "The lora adapter '%.512s' cannot be found.", name);
    reply_refusal(call, API_NOT_FOUND, "NotFoundError", text.data);
    buf_deinit(&text);
}

static void unload(struct server *server, struct http_call *call, const char *name)
{
    struct sora_error cause;
    struct api_error error;
    char stored[NAMES_BYTES];
    size_t freed_bytes = 0;
    // A version is no adapter that could be unloaded.
    if (strchr(name, '@') != NULL ||
        !names_resolve(server->registry, &call->caller, name, stored, NULL)) {
        reply_not_loaded(call, name);
        return;
    }
    if (!routes_settle_name(server, call, ROUTE_CHANGES, name, stored))
        return;
    pthread_mutex_lock(&server->door_mutex);
    sora_status status = routes_remove(server, call, stored, &freed_bytes, &cause);
    pthread_mutex_unlock(&server->door_mutex);
    if (status == SORA_OK) {
        reply_success(call, name, "removed");
    } else if (status == SORA_NOT_FOUND) { // somebody was faster
        reply_not_loaded(call, name);
    } else {
        (void)api_error_from(&error, API_FROM_ADAPTER, &cause);
        reply_fault(call, &error);
    }
}

void routes_vllm_unload(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct order order;
    cJSON *tree;
    if (!read_order(call, &tree, &order))
        return;
    if (is_empty(order.name))
        reply_refusal(call, API_BAD_REQUEST, "InvalidUserInput",
                      "'lora_name' needs to be provided to unload a LoRA adapter.");
    else
        unload(server, call, order.name);
    cJSON_Delete(tree);
}

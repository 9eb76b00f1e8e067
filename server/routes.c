// SPDX-License-Identifier: Apache-2.0
// See routes.h.
#include "server/routes.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/generate.h"

struct route {
    const char *method;
    const char *prefix; // the path, or what stands before {name}
    const char *suffix; // what stands behind {name}; NULL: the route has no name
    routes_handler *handler;
    bool always;     // also while the server starts or drains
    uint32_t scopes; // of a key, one of which is enough
    enum route_use use;
};

// A row that says nothing is the admins'. OPEN needs no key at all: what tells nothing about what
// is served, for probes and load balancers. /metrics has the names of all adapters in it.
enum { ADMIN = 0, INFER = SORA_SCOPE_INFER, ADAPTERS = SORA_SCOPE_ADAPTERS, OPEN = 1 << 30 };

// A longer suffix stands before a shorter one: names may have slashes.
static const struct route routes[] = {
    {"POST", "/v1/completions", NULL, routes_completions, false, INFER, ROUTE_READS},
    {"POST", "/v1/chat/completions", NULL, routes_chat, false, INFER, ROUTE_READS},
    {"GET", "/v1/models", NULL, routes_models_list, false, INFER | ADAPTERS, ROUTE_READS},
    {"GET", "/v1/models/", "", routes_models_get, false, INFER | ADAPTERS, ROUTE_READS},
    {"DELETE", "/v1/models/", "", routes_models_delete, false, ADAPTERS, ROUTE_CHANGES},
    {"GET", "/v1/adapters", NULL, routes_adapters_list, false, INFER | ADAPTERS, ROUTE_READS},
    {"POST", "/v1/adapters", NULL, routes_adapters_post, false, ADAPTERS, ROUTE_READS},
    {"GET", "/v1/adapters/", "/versions", routes_adapters_versions, false, INFER | ADAPTERS,
     ROUTE_READS},
    {"POST", "/v1/adapters/", "/rollback", routes_adapters_rollback, false, ADAPTERS,
     ROUTE_CHANGES},
    {"GET", "/v1/adapters/", "/content", routes_adapters_content, false, ADAPTERS, ROUTE_READS},
    // All tenants share the memory: what is in it is the operator's to order.
    {"POST", "/v1/adapters/", "/pin", routes_adapters_pin, false, ADMIN, ROUTE_CHANGES},
    {"POST", "/v1/adapters/", "/unload", routes_adapters_unload, false, ADMIN, ROUTE_CHANGES},
    {"PUT", "/v1/adapters/", "", routes_adapters_put, false, ADAPTERS, ROUTE_MAKES},
    {"GET", "/v1/adapters/", "", routes_adapters_get, false, INFER | ADAPTERS, ROUTE_READS},
    {"DELETE", "/v1/adapters/", "", routes_adapters_delete, false, ADAPTERS, ROUTE_CHANGES},
    {"POST", "/v1/load_lora_adapter", NULL, routes_vllm_load, false, ADAPTERS, ROUTE_AT_ROOT},
    {"POST", "/v1/unload_lora_adapter", NULL, routes_vllm_unload, false, ADAPTERS, ROUTE_AT_ROOT},
    {"GET", "/lora-adapters", NULL, routes_loras_list, false, INFER | ADAPTERS, ROUTE_READS},
    {"POST", "/lora-adapters", NULL, routes_loras_set, false, ADAPTERS, ROUTE_READS},
    {"POST", "/generate", NULL, routes_generate, false, INFER, ROUTE_READS},
    {"POST", "/generate_stream", NULL, routes_generate_stream, false, INFER, ROUTE_READS},
    {"POST", "/tokenize", NULL, routes_tokenize, false, INFER, ROUTE_READS},
    {"POST", "/detokenize", NULL, routes_detokenize, false, INFER, ROUTE_READS},
    {"GET", "/health", NULL, routes_health, true, OPEN, ROUTE_READS},
    {"GET", "/ready", NULL, routes_ready, true, OPEN, ROUTE_READS},
    {"GET", "/version", NULL, routes_version, true, OPEN, ROUTE_READS},
    {"GET", "/v1/audit", NULL, routes_audit, false, ADMIN, ROUTE_READS},
    {"GET", "/metrics", NULL, routes_metrics, true, ADMIN, ROUTE_READS},
};
enum { ROUTE_COUNT = sizeof routes / sizeof routes[0], ROUTE_NONE = ROUTE_COUNT };
_Static_assert(ROUTE_COUNT < METRICS_ROUTE_MAX, "metrics hold every route and the unknown one");

// Names in the metrics, in the order of the table; the last is for what is no route.
static const char *const labels[ROUTE_COUNT + 1] = {
    "POST /v1/completions",
    "POST /v1/chat/completions",
    "GET /v1/models",
    "GET /v1/models/{id}",
    "DELETE /v1/models/{id}",
    "GET /v1/adapters",
    "POST /v1/adapters",
    "GET /v1/adapters/{name}/versions",
    "POST /v1/adapters/{name}/rollback",
    "GET /v1/adapters/{name}/content",
    "POST /v1/adapters/{name}/pin",
    "POST /v1/adapters/{name}/unload",
    "PUT /v1/adapters/{name}",
    "GET /v1/adapters/{name}",
    "DELETE /v1/adapters/{name}",
    "POST /v1/load_lora_adapter",
    "POST /v1/unload_lora_adapter",
    "GET /lora-adapters",
    "POST /lora-adapters",
    "POST /generate",
    "POST /generate_stream",
    "POST /tokenize",
    "POST /detokenize",
    "GET /health",
    "GET /ready",
    "GET /version",
    "GET /v1/audit",
    "GET /metrics",
    "none",
};

const char *const *routes_labels(int32_t *count)
{
    *count = ROUTE_COUNT + 1;
    return labels;
}

// Whether the path is the route's; the part of the name is [*name, *name + *name_bytes).
static bool path_matches(const struct route *route, const char *path, const char **name,
                         size_t *name_bytes)
{
    size_t bytes = strlen(path), prefix = strlen(route->prefix);
    if (route->suffix == NULL)
        return strcmp(path, route->prefix) == 0;
    size_t suffix = strlen(route->suffix);
    if (bytes <= prefix + suffix || strncmp(path, route->prefix, prefix) != 0 ||
        strcmp(path + bytes - suffix, route->suffix) != 0)
        return false;
    *name = path + prefix;
    *name_bytes = bytes - prefix - suffix;
    return true;
}

// The method of a call as the table knows it.
static const char *effective_method(const struct http_call *call)
{
    return strcmp(call->method, "HEAD") == 0 ? "GET" : call->method;
}

// The route's index, or ROUTE_NONE. *allowed lists the methods of the path when only the method is
// wrong.
static int find_route(const struct server *server, const struct http_call *call, const char **name,
                      size_t *name_bytes, struct buf *allowed)
{
    const char *method = effective_method(call);
    for (int i = 0; i < ROUTE_COUNT; i++) {
        bool hidden = routes[i].use == ROUTE_AT_ROOT && server->adapter_root == NULL;
        if (hidden || !path_matches(&routes[i], call->path, name, name_bytes))
            continue;
        if (strcmp(routes[i].method, method) == 0)
            return i;
        buf_printf(allowed, "%s%s", allowed->bytes > 0 ? ", " : "", routes[i].method);
        if (routes[i].suffix != NULL && routes[i].suffix[0] != '\0')
            break; // a name never reaches past the longer suffix
    }
    return ROUTE_NONE;
}

static void reply_no_route(struct http_call *call, const struct buf *allowed)
{
    struct api_error error;
    if (allowed->bytes > 0) {
        http_add_header(call, "Allow", "%s", allowed->data);
        (void)api_error_set(&error, API_BAD_METHOD, NULL, NULL, "%s %s: the methods are %s",
                            call->method, call->path, allowed->data);
    } else {
        (void)api_error_set(&error, API_NOT_FOUND, "route_not_found", NULL,
                            "%s %s: there is no such route", call->method, call->path);
    }
    http_reply_error(call, &error);
}

static void reply_not_ready(struct http_call *call, int state)
{
    struct api_error error;
    bool starting = state == SERVER_STARTING;
    call->close = true;
    (void)api_error_set(&error, API_UNAVAILABLE, starting ? "starting" : "draining", NULL,
                        starting ? "the server is loading its model"
                                 : "the server is shutting down");
    http_reply_error(call, &error);
}

static void run_handler(struct server *server, struct http_call *call, const struct route *route,
                        const char *name, size_t name_bytes)
{
    char decoded[SORA_ADAPTER_NAME_BYTES_MAX * 2], stored[NAMES_BYTES];
    struct api_error error;
    if (route->suffix != NULL && !http_decode_path(name, name_bytes, decoded, sizeof decoded)) {
        (void)api_error_set(&error, API_BAD_REQUEST, "invalid_name", "name",
                            "the name in the path is not valid: at most %d printable bytes, "
                            "percent-encoded",
                            SORA_ADAPTER_NAME_BYTES_MAX);
        http_reply_error(call, &error);
        return;
    }
    // Counted before the state is read: draining waits for what got in.
    if (!route->always)
        atomic_fetch_add(&server->calls, 1);
    int state = atomic_load(&server->state);
    if (state != SERVER_READY && !route->always)
        reply_not_ready(call, state);
    else if (route->suffix == NULL)
        route->handler(server, call, NULL);
    else if (routes_settle_name(server, call, route->use, decoded, stored))
        route->handler(server, call, stored);
    if (!route->always)
        atomic_fetch_sub(&server->calls, 1);
}

void routes_handle(struct http_call *call, void *context)
{
    struct server *server = context;
    int64_t begin_us = clock_now_us();
    const char *name = NULL;
    size_t name_bytes = 0;
    struct buf allowed;
    buf_init(&allowed, 256);
    int index = find_route(server, call, &name, &name_bytes, &allowed);
    // Who has no key learns nothing, not even which routes there are.
    uint32_t scopes = index == ROUTE_NONE ? SORA_SCOPE_ALL : routes[index].scopes;
    bool admitted = scopes == OPEN || routes_admit(server, call, scopes);
    if (admitted && index == ROUTE_NONE)
        reply_no_route(call, &allowed);
    else if (admitted)
        run_handler(server, call, &routes[index], name, name_bytes);
    routes_leave(call);
    buf_deinit(&allowed);
    metrics_reply(&server->metrics, index, call->code);
    char quoted[LOG_QUOTE_BYTES];
    log_debug("http", "reply", "id=%s route=\"%s\" path=%s code=%d us=%lld", call->request_id,
              labels[index], log_quote(quoted, call->path), api_code_http(call->code),
              (long long)(clock_now_us() - begin_us));
}

void routes_completions(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    generate_reply(server, call, GENERATE_COMPLETION);
}

void routes_chat(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    generate_reply(server, call, GENERATE_CHAT);
}

void routes_generate(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    generate_reply(server, call, GENERATE_TGI);
}

void routes_generate_stream(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    generate_reply(server, call, GENERATE_TGI_STREAM);
}

void routes_say_status(struct http_call *call, enum api_origin origin,
                       const struct sora_error *cause, struct api_error *error)
{
    char quoted[LOG_QUOTE_BYTES];
    (void)api_error_from(error, origin, cause);
    if (cause->code == SORA_UNAVAILABLE) { // the client is told less
        log_info("catalog", "refused", "id=%s error=%s", call->request_id,
                 log_quote(quoted, cause->text));
        call->retry_after_s = SORA_CATALOG_RETRY_MS_MAX / 1000;
    }
    names_show_in(&call->caller, error->message);
}

void routes_reply_status(struct http_call *call, enum api_origin origin,
                         const struct sora_error *cause)
{
    struct api_error error;
    routes_say_status(call, origin, cause, &error);
    http_reply_error(call, &error);
}

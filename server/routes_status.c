// SPDX-License-Identifier: Apache-2.0
// How the server is: /health, /ready, /version, /metrics. HTTP workers only.
#include <stdlib.h>
#include <string.h>

#include "server/routes.h"

static void reply_text(struct http_call *call, const char *json)
{
    http_reply(call, API_OK, "application/json", json, strlen(json));
}

void routes_health(struct server *server, struct http_call *call, const char *name)
{
    (void)server, (void)name;
    reply_text(call, "{\"status\":\"ok\"}");
}

// Ready also while the shared catalog is away: what is here is served.
static void reply_ready(struct server *server, struct http_call *call)
{
    struct buf out;
    buf_init(&out, 4096);
    buf_text(&out, "{\"status\":\"ready\"");
    if (server->replica != NULL) {
        struct replica_state state = replica_get_state(server->replica);
        buf_printf(&out, ",\"catalog\":{\"connected\":%s,\"away_seconds\":%lld}",
                   state.connected ? "true" : "false", (long long)state.away_s);
    }
    buf_text(&out, "}");
    http_reply_json(call, API_OK, &out);
    buf_deinit(&out);
}

void routes_ready(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    struct api_error error;
    int state = atomic_load(&server->state);
    if (state == SERVER_READY) {
        reply_ready(server, call);
        return;
    }
    bool starting = state == SERVER_STARTING;
    (void)api_error_set(&error, API_UNAVAILABLE, starting ? "starting" : "draining", NULL, "%s",
                        starting ? "the model is being loaded" : "the server is shutting down");
    http_reply_error(call, &error);
}

void routes_version(struct server *server, struct http_call *call, const char *name)
{
    (void)server, (void)name;
    reply_text(call, "{\"version\":\"" SORA_VERSION "\"}");
}

static void encode_number(struct buf *out, const char *name, const char *type, const char *help,
                          double value)
{
    metrics_encode_head(out, name, type, help);
    buf_printf(out, "%s %.15g\n", name, value);
}

static void encode_registry(struct server *server, struct buf *out)
{
    struct sora_registry_stats stats = sora_registry_get_stats(server->registry);
    encode_number(out, "sora_adapters_registered", "gauge", "Names of adapters", stats.registered);
    encode_number(out, "sora_adapters_resident", "gauge", "Adapter versions in memory",
                  stats.resident);
    encode_number(out, "sora_adapter_bytes", "gauge", "Memory of resident adapters",
                  (double)stats.resident_bytes);
    encode_number(out, "sora_adapter_loads_total", "counter",
                  "Adapters brought into memory, from disk or as uploaded", (double)stats.loads);
    encode_number(out, "sora_adapter_evictions_total", "counter", "Adapters put out of memory",
                  (double)stats.evictions);
    encode_number(out, "sora_adapter_bytes_max", "gauge",
                  "Memory there is for adapters, 0: no bound", (double)stats.bytes_max);
    encode_number(out, "sora_adapter_pinned_bytes", "gauge", "Memory of pinned adapters",
                  (double)stats.pinned_bytes);
    encode_number(out, "sora_adapter_requests_waiting", "gauge",
                  "Requests that wait for an adapter to be loaded", stats.waiting);
    size_t bytes = 0, bytes_max = 0;
    sora_store_usage(server->store, &bytes, &bytes_max);
    encode_number(out, "sora_store_bytes", "gauge", "Adapters on disk", (double)bytes);
    encode_number(out, "sora_store_bytes_max", "gauge", "Limit of the store, 0: none",
                  (double)bytes_max);
}

static void encode_catalog(struct server *server, struct buf *out)
{
    if (server->replica == NULL)
        return;
    struct replica_state state = replica_get_state(server->replica);
    encode_number(out, "sora_catalog_connected", "gauge",
                  "Whether the shared catalog can be reached; without it nothing can be changed",
                  state.connected ? 1 : 0);
    encode_number(out, "sora_catalog_disconnects_total", "counter",
                  "Times the shared catalog was lost", (double)state.disconnects);
}

static void encode_adapter_counter(const struct sora_registry_card *cards, int32_t count,
                                   const char *name, const char *help, bool tokens, struct buf *out)
{
    metrics_encode_head(out, name, "counter", help);
    for (int32_t i = 0; i < count; i++) {
        buf_printf(out, "%s{adapter=", name);
        metrics_encode_label(out, cards[i].entry.name);
        buf_printf(out, "} %lld\n", (long long)(tokens ? cards[i].tokens : cards[i].requests));
    }
}

// One series for each adapter in memory, also for those that nobody has asked for.
static void encode_resident(const struct sora_registry_card *cards, int32_t count, struct buf *out)
{
    static const char name[] = "sora_adapter_resident";
    metrics_encode_head(out, name, "gauge",
                        "Adapters in memory; the value is the requests in flight");
    for (int32_t i = 0; i < count; i++) {
        buf_printf(out, "%s{adapter=", name);
        metrics_encode_label(out, cards[i].entry.name);
        buf_printf(out, ",version=\"%d\",pinned=\"%s\"} %lld\n", (int)cards[i].entry.version,
                   cards[i].entry.pinned ? "true" : "false", (long long)cards[i].in_flight);
    }
}

// Brings the cards of adapters in memory to the front; their number.
static int32_t residents_first(struct sora_registry_card *cards, int32_t count)
{
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
        if (!cards[i].resident)
            continue;
        struct sora_registry_card swap = cards[found];
        cards[found++] = cards[i];
        cards[i] = swap;
    }
    return found;
}

// Brings the most used adapters to the front: only so many come with labels of their own, a bound
// on what a scrape may cost.
static int32_t most_used_first(struct sora_registry_card *cards, int32_t count)
{
    int32_t kept = 0;
    for (; kept < count && kept < SORA_METRICS_ADAPTERS_MAX; kept++) {
        int32_t most = kept;
        for (int32_t i = kept + 1; i < count; i++)
            if (cards[i].requests > cards[most].requests)
                most = i;
        struct sora_registry_card swap = cards[kept];
        cards[kept] = cards[most];
        cards[most] = swap;
    }
    return kept;
}

static void encode_adapters(struct server *server, struct buf *out)
{
    struct sora_registry_card *cards = NULL;
    int32_t count = 0;
    if (sora_registry_list(server->registry, &cards, &count, NULL) != SORA_OK)
        return;
    int32_t kept = most_used_first(cards, count);
    encode_adapter_counter(cards, kept, "sora_adapter_requests_total", "Requests by adapter", false,
                           out);
    encode_adapter_counter(cards, kept, "sora_adapter_tokens_total",
                           "Prompt and output tokens by adapter", true, out);
    count = residents_first(cards, count);
    encode_resident(cards, most_used_first(cards, count), out);
    free(cards);
}

// What routers that know vLLM look at.
static void encode_vllm(struct server *server, struct buf *out)
{
    const struct metrics *metrics = &server->metrics;
    double total = (double)metrics_get(metrics, METRICS_KV_BLOCKS_TOTAL);
    double used = (double)metrics_get(metrics, METRICS_KV_BLOCKS_USED);
    double loading = sora_registry_get_stats(server->registry).waiting;
    const struct {
        const char *name, *help;
        double value;
    } gauges[] = {
        {"vllm:num_requests_running", "Requests in the engine",
         (double)metrics_get(metrics, METRICS_RUNNING)},
        {"vllm:num_requests_waiting", "Requests in the queue",
         (double)metrics_get(metrics, METRICS_WAITING) + loading},
        {"vllm:kv_cache_usage_perc", "Part of the KV cache in use, 1 is all",
         total > 0 ? used / total : 0},
    };
    for (size_t i = 0; i < sizeof gauges / sizeof gauges[0]; i++) {
        metrics_encode_head(out, gauges[i].name, "gauge", gauges[i].help);
        buf_printf(out, "%s{model_name=", gauges[i].name);
        metrics_encode_label(out, server->base_name);
        buf_printf(out, "} %.9g\n", gauges[i].value);
    }
    struct buf running, waiting;
    int64_t changed_s = 0;
    buf_init(&running, 1u << 20);
    buf_init(&waiting, 1u << 20);
    request_table_adapters(&server->requests, &running, &waiting, &changed_s);
    metrics_encode_head(out, "vllm:lora_requests_info", "gauge",
                        "Adapters of running and waiting requests; the value is when they changed");
    buf_printf(out, "vllm:lora_requests_info{max_lora=\"%d\",running_lora_adapters=",
               (int)(server->config.seqs_max > 0 ? server->config.seqs_max : SORA_SEQS_DEFAULT));
    metrics_encode_label(out, running.data);
    buf_text(out, ",waiting_lora_adapters=");
    metrics_encode_label(out, waiting.data);
    buf_printf(out, "} %lld\n", (long long)changed_s);
    buf_deinit(&running);
    buf_deinit(&waiting);
}

void routes_metrics(struct server *server, struct http_call *call, const char *name)
{
    (void)name;
    int32_t route_count;
    const char *const *labels = routes_labels(&route_count);
    struct buf out;
    buf_init(&out, 16u << 20);
    metrics_encode(&server->metrics, labels, route_count, &out);
    // While the model is loading there is no registry to ask.
    if (atomic_load(&server->state) != SERVER_STARTING) {
        encode_registry(server, &out);
        encode_catalog(server, &out);
        encode_adapters(server, &out);
        encode_vllm(server, &out);
    }
    http_reply(call, API_OK, "text/plain; version=0.0.4; charset=utf-8", out.data, out.bytes);
    buf_deinit(&out);
}

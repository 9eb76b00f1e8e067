// SPDX-License-Identifier: Apache-2.0
// See server.h. Called by the main thread only.
#include "server/server.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/file_root.h"
#include "base/log.h"
#include "base/tls.h"
#include "server/audit.h"
#include "server/routes.h"
#include "sora/adapter.h"
#include "sora/limits.h"

#define DRAIN_LOOK_US 20000
#define CGROUP_BYTES_MAX 64 // one number

static int32_t http_threads(const struct server_config *config)
{
    int32_t seqs = config->seqs_max > 0 ? config->seqs_max : SORA_SEQS_DEFAULT;
    return config->queue_max + seqs + SORA_ADAPTER_WAITERS_MAX + SORA_HTTP_SPARE_THREADS;
}

// Whether only this machine can reach the address.
static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strncmp(host, "127.", 4) == 0;
}

sora_status server_open(const struct server_config *config, struct server **server,
                        struct sora_error *err)
{
    struct server *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the server");
    made->config = *config;
    made->started_s = clock_unix_s();
    atomic_store(&made->upload_budget, (int64_t)SORA_UPLOAD_BYTES_MAX);
    request_table_init(&made->requests);
    int32_t threads = http_threads(config);
    struct auth_options auth = {.store_path = config->store_path,
                                .catalog_url = config->catalog_url,
                                .key_file = config->api_key_file,
                                .loopback = is_loopback(config->host),
                                .reload = config->reload_keys};
    sora_status status = card_cache_init(&made->cards, err);
    pthread_mutex_init(&made->door_mutex, NULL);
    pthread_mutex_init(&made->several_mutex, NULL);
    if (status == SORA_OK)
        status = lora_ids_init(&made->lora_ids, err);
    if (status == SORA_OK && config->adapter_root != NULL) {
        status = file_root_resolve(config->adapter_root, &made->adapter_root, err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "--adapter-root");
    }
    if (status == SORA_OK) // before the first request can come
        status = auth_start(&auth, &made->auth, err);
    if (status == SORA_OK)
        status = conn_watch_start(threads, &made->watch, err);
    if (status == SORA_OK && config->tls_certificate != NULL)
        status = tls_server_open(config->tls_certificate, config->tls_key, &made->tls, err);
    struct http_options options = {.host = config->host,
                                   .port = config->port,
                                   .threads = threads,
                                   .tls = made->tls,
                                   .handle = routes_handle,
                                   .context = made};
    if (status == SORA_OK)
        status = http_start(&options, &made->http, err);
    if (status != SORA_OK) {
        server_close(made);
        return status;
    }
    *server = made;
    return SORA_OK;
}

static sora_status collect_end_tokens(struct server *server, struct sora_error *err)
{
    if (server->tokenizer == NULL)
        return SORA_OK;
    int32_t words = sora_tokenizer_vocab_size(server->tokenizer), count = 0;
    int32_t vocab = server->info->base.vocab_size; // rows of the output matrix, at least as many
    for (int32_t token = 0; token < words && token < vocab; token++)
        count += sora_tokenizer_is_end(server->tokenizer, token);
    server->end_tokens = calloc((size_t)count + 1, sizeof *server->end_tokens);
    if (server->end_tokens == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d end tokens", count);
    for (int32_t token = 0; token < words && token < vocab; token++)
        if (sora_tokenizer_is_end(server->tokenizer, token))
            server->end_tokens[server->end_token_count++] = token;
    return SORA_OK;
}

static sora_status load_model(struct server *server, struct sora_error *err)
{
    const struct server_config *config = &server->config;
    sora_status status = sora_model_open(config->model_path, &server->model, err);
    if (status != SORA_OK)
        return status;
    server->info = sora_model_get_info(server->model);
    const char *name = config->model_name != NULL ? config->model_name : server->info->name;
    if (name[0] == '\0' || strlen(name) >= sizeof server->base_name)
        return sora_fail(err, SORA_LIMIT,
                         "the model's name \"%.200s\" is not 1 to %d bytes: give "
                         "one with --model-name",
                         name, SORA_ADAPTER_NAME_BYTES_MAX);
    snprintf(server->base_name, sizeof server->base_name, "%s", name);
    status = sora_tokenizer_open(config->model_path, &server->tokenizer, err);
    if (status == SORA_OK)
        status = collect_end_tokens(server, err);
    return status;
}

static sora_status start_engine(struct server *server, struct sora_error *err)
{
    const struct server_config *config = &server->config;
    struct sora_engine_options options = sora_engine_options_defaults(server->model);
    options.compute = config->compute;
    options.kv = config->kv;
    options.prefix_cache = !config->no_prefix_cache;
    if (config->threads > 0)
        options.threads = config->threads;
    if (config->seqs_max > 0)
        options.seqs_max = config->seqs_max;
    if (config->context > 0)
        options.context_max = config->context;
    if (config->kv_bytes > 0)
        options.kv_bytes = config->kv_bytes;
    sora_status status = sora_engine_create(server->model, &options, &server->engine, err);
    if (status != SORA_OK)
        return status;
    struct engine_loop_options loop = {.engine = server->engine,
                                       .vocab_size = server->info->base.vocab_size,
                                       .seqs_max = options.seqs_max,
                                       .rows_max = options.rows_max,
                                       .logit_rows_max = options.logit_rows_max,
                                       .queue_max = config->queue_max,
                                       .step_us_max = (int64_t)config->step_ms * 1000,
                                       .metrics = &server->metrics};
    status = engine_loop_start(&loop, &server->loop, err);
    if (status != SORA_OK)
        return status;
    int32_t most = engine_loop_tokens_max(server->loop);
    server->context_max = options.context_max < most ? options.context_max : most;
    return SORA_OK;
}

// The machine's memory, or what a container may take of it; 0: not known.
static size_t machine_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    size_t bytes = pages > 0 && page_bytes > 0 ? (size_t)pages * (size_t)page_bytes : 0;
    char *text = NULL;
    size_t text_bytes = 0;
    if (file_read("/sys/fs/cgroup/memory.max", CGROUP_BYTES_MAX, &text, &text_bytes, NULL) !=
        SORA_OK)
        return bytes;
    unsigned long long most = strtoull(text, NULL, 10); // 0 of "max"
    free(text);
    return most > 0 && most < bytes ? (size_t)most : bytes;
}

static void count_load(void *context, int64_t elapsed_us)
{
    struct metrics *metrics = context;
    metrics_observe(metrics, METRICS_ADAPTER_LOAD, elapsed_us);
}

static sora_status open_registry(struct server *server, struct sora_error *err)
{
    size_t bytes_max = server->config.adapter_bytes;
    if (bytes_max == 0)
        bytes_max = machine_bytes() / SORA_ADAPTER_MEMORY_PART;
    const bool int8 = sora_compute_for(server->model, server->config.compute) == SORA_COMPUTE_INT8;
    server->cards.int8 = int8;
    struct sora_registry_memory memory = {.bytes_max = bytes_max,
                                          .int8 = int8,
                                          .wait_us = SORA_ADAPTER_WAIT_US,
                                          .patience_us = SORA_ADAPTER_PATIENCE_US,
                                          .loaded = count_load,
                                          .context = &server->metrics};
    sora_status status = sora_registry_create(server->store, &server->info->base, server->base_name,
                                              &server->registry, err);
    if (status != SORA_OK)
        return status;
    sora_registry_set_memory(server->registry, &memory);
    sora_registry_load_pinned(server->registry);
    return SORA_OK;
}

static sora_status preload(struct server *server, const struct server_preload *item,
                           struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    struct sora_registry_card card;
    struct sora_audit record;
    bool created;
    sora_status status =
        sora_adapter_import(item->path, &server->info->base, &bytes, &byte_count, err);
    struct audit_change change = {.action = "adapter.publish", .stored = item->name};
    if (status == SORA_OK)
        status = audit_begin(server, NULL, &change, &record, err);
    if (status == SORA_OK) {
        status = sora_registry_publish(server->registry, item->name, bytes, byte_count, NULL, true,
                                       &card, &created, err);
        audit_end(server, &record, status, &card.entry, err);
    }
    free(bytes);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "--adapter %s=%s", item->name, item->path);
    log_info("server", "preload", "adapter=%s version=%d digest=%s", item->name,
             (int)card.entry.version, card.entry.digest);
    return SORA_OK;
}

static sora_status open_store(struct server *server, struct sora_error *err)
{
    const char *path = server->config.store_path, *url = server->config.catalog_url;
    sora_status status = url != NULL ? sora_store_open_shared(path, url, &server->store, err)
                                     : sora_store_open(path, &server->store, err);
    if (status == SORA_OK) {
        sora_store_set_limit(server->store, server->config.store_bytes);
        status = open_registry(server, err);
    }
    if (status == SORA_OK && url != NULL)
        status = replica_start(server->store, server->registry, &server->replica, err);
    return status;
}

sora_status server_load(struct server *server, struct sora_error *err)
{
    sora_status status = load_model(server, err);
    if (status == SORA_OK)
        status = start_engine(server, err);
    if (status == SORA_OK)
        status = open_store(server, err);
    for (int32_t i = 0; status == SORA_OK && i < server->config.preload_count; i++)
        status = preload(server, &server->config.preloads[i], err);
    if (status != SORA_OK)
        return status;
    char quoted[LOG_QUOTE_BYTES];
    log_info("server", "ready",
             "model=%s parameters=%" PRId64 " weight_bytes=%zu load_s=%.2f context=%d "
             "compute=%s",
             log_quote(quoted, server->base_name), server->info->parameters,
             server->info->weight_bytes, server->info->load_seconds, (int)server->context_max,
             sora_compute_name(sora_engine_compute(server->engine)));
    atomic_store(&server->state, SERVER_READY);
    return SORA_OK;
}

void server_drain(struct server *server, int64_t timeout_us)
{
    int64_t until_us = clock_now_us() + timeout_us;
    atomic_store(&server->state, SERVER_DRAINING);
    log_info("server", "drain", "calls=%d", (int)atomic_load(&server->calls));
    while (atomic_load(&server->calls) > 0 && clock_now_us() < until_us)
        clock_sleep_us(DRAIN_LOOK_US);
}

void server_close(struct server *server)
{
    if (server == NULL)
        return;
    // One that never was ready has no registry to be asked for metrics: it stays as it is.
    int ready = SERVER_READY;
    (void)atomic_compare_exchange_strong(&server->state, &ready, SERVER_DRAINING);
    engine_loop_stop(server->loop); // what still runs is told so and answers
    http_stop(server->http);
    tls_server_close(server->tls);
    conn_watch_stop(server->watch);
    auth_stop(server->auth);
    replica_stop(server->replica);
    engine_loop_destroy(server->loop);
    if (server->registry != NULL)
        sora_registry_destroy(server->registry);
    if (server->store != NULL)
        sora_store_close(server->store);
    if (server->engine != NULL)
        sora_engine_destroy(server->engine);
    free(server->end_tokens);
    if (server->tokenizer != NULL)
        sora_tokenizer_close(server->tokenizer);
    if (server->model != NULL)
        sora_model_close(server->model);
    card_cache_deinit(&server->cards);
    lora_ids_deinit(&server->lora_ids);
    pthread_mutex_destroy(&server->several_mutex);
    pthread_mutex_destroy(&server->door_mutex);
    free(server->adapter_root);
    request_table_deinit(&server->requests);
    free(server);
}

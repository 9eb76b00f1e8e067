// SPDX-License-Identifier: Apache-2.0
// One server: the model, its engine and tokenizer, the store and registry of adapters, and the HTTP
// side in front of them. cmd_serve owns it; after server_load every pointer in it stays as it is
// until server_close, so HTTP workers read it without locks.
//
// Order of life: server_open listens (everything but /health, /version and /metrics answers 503),
// server_load brings the model and the adapters, server_drain lets running requests finish,
// server_close ends it.
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/auth.h"
#include "server/card.h"
#include "server/conn_watch.h"
#include "server/engine_loop.h"
#include "server/http.h"
#include "server/lora_ids.h"
#include "server/metrics.h"
#include "server/replica.h"
#include "server/request.h"
#include "sora/engine.h"
#include "sora/registry.h"
#include "sora/store.h"
#include "sora/text.h"

struct server_preload {
    char name[SORA_STORED_NAME_BYTES_MAX + 1]; // --adapter NAME=FILE
    const char *path;
};

struct server_config {
    const char *model_path;
    const char *model_name; // NULL: the model's stem
    const char *store_path;
    const char *catalog_url;               // NULL: the store's own catalog
    const char *api_key_file;              // NULL: the catalog's keys alone
    atomic_bool *reload_keys;              // as auth_options.reload
    const char *tls_certificate, *tls_key; // both or none: HTTPS
    const char *adapter_root;              // of paths that vLLM\'s load may name; NULL: it is off
    const char *host;
    int32_t port;
    int32_t threads, context, seqs_max; // 0: the default
    enum sora_compute compute;
    enum sora_kv kv;
    bool no_prefix_cache;
    size_t kv_bytes;
    size_t adapter_bytes; // memory for adapters; 0: a part of the machine's
    size_t store_bytes;   // on disk; 0: no limit
    int32_t queue_max;
    int32_t elastic_at;        // requests from which on elastic ones are shortened; 0: never
    int32_t elastic_rank;      // to so many ranks
    int32_t step_ms;           // of a step in which others generate, at most
    const char *chat_template; // NULL: the model's own
    struct server_preload preloads[SORA_PRELOAD_COUNT_MAX];
    int32_t preload_count;
};

enum server_state { SERVER_STARTING, SERVER_READY, SERVER_DRAINING };

struct server {
    struct server_config config;
    _Atomic int state; // enum server_state
    int64_t started_s; // Unix time

    sora_model *model;
    const struct sora_model_info *info;
    char base_name[SORA_ADAPTER_NAME_BYTES_MAX + 1];
    sora_tokenizer *tokenizer; // NULL: the model has none
    int32_t *end_tokens;
    int32_t end_token_count;
    int32_t context_max; // tokens in one sequence
    sora_engine *engine;
    struct engine_loop *loop;
    sora_store *store;
    sora_registry *registry;
    struct replica *replica; // NULL: the catalog is the store's own

    struct metrics metrics;
    struct request_table requests;
    struct card_cache cards;
    struct lora_ids lora_ids;
    char *adapter_root;            // resolved; NULL: none
    pthread_mutex_t door_mutex;    // one load or unload of vLLM's at a time
    pthread_mutex_t several_mutex; // one request for several adapters pins them at a time
    _Atomic int64_t upload_budget; // bytes of adapter bodies that may still come in
    _Atomic int32_t calls;         // being handled, but for health checks
    struct conn_watch *watch;
    struct auth *auth;
    void *tls; // of base/tls.h; NULL: plain HTTP
    struct http_server *http;
};

// Takes a copy of the config's struct; its strings are borrowed.
SORA_CHECKED sora_status server_open(const struct server_config *config, struct server **server,
                                     struct sora_error *err);
SORA_CHECKED sora_status server_load(struct server *server, struct sora_error *err);
// No new requests; waits until the running ones are done, timeout_us at most.
void server_drain(struct server *server, int64_t timeout_us);
void server_close(struct server *server); // accepts NULL

#endif

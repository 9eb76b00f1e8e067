// SPDX-License-Identifier: Apache-2.0
// What answers which path. Handlers run on HTTP workers and must reply.
#ifndef SERVER_ROUTES_H
#define SERVER_ROUTES_H

#include "server/names.h"
#include "server/server.h"

// Finds the handler of a call and runs it; http_options.handle with a struct server as context.
void routes_handle(struct http_call *call, void *server);

// `name`: the {name} or {id} of the path as a stored name (sora/tenant.h), which the caller may see
// and, where the route changes it, may change; NULL where there is none.
typedef void routes_handler(struct server *server, struct http_call *call, const char *name);

routes_handler routes_chat, routes_completions, routes_generate, routes_generate_stream; // routes.c
routes_handler routes_health, routes_ready, routes_version, routes_metrics; // routes_status.c
routes_handler routes_tokenize, routes_detokenize;                          // routes_text.c
routes_handler routes_models_list, routes_models_get, routes_models_delete; // routes_models.c
routes_handler routes_adapters_list, routes_adapters_get, routes_adapters_versions,
    routes_adapters_content, routes_adapters_delete;        // routes_adapters.c
routes_handler routes_adapters_pin, routes_adapters_unload; // routes_memory.c
routes_handler routes_audit;                                // routes_auth.c
routes_handler routes_vllm_load, routes_vllm_unload;        // routes_vllm.c
routes_handler routes_loras_list, routes_loras_set;         // routes_loras.c
routes_handler routes_adapters_put, routes_adapters_post, routes_adapters_rollback; // ..._upload.c

// Names of the routes for the metrics.
const char *const *routes_labels(int32_t *count);

// What a route does with the adapter that its path names. AT_ROOT: names none, and is not there
// without --adapter-root.
enum route_use { ROUTE_READS, ROUTE_CHANGES, ROUTE_MAKES, ROUTE_AT_ROOT };

// --- routes_auth.c: each replies itself when it returns false ---

// Finds the caller by its key and holds it against the scopes, of which one is enough (0: admins
// only), and its tenant's limits. routes_leave follows every call, also of a refused one.
bool routes_admit(struct server *server, struct http_call *call, uint32_t scopes);
void routes_leave(struct http_call *call);
// From the name of a path to the stored name, which the handlers get.
bool routes_settle_name(struct server *server, struct http_call *call, enum route_use use,
                        const char *name, char stored[NAMES_BYTES]);
// From the name of an upload to the stored name. The first does not reply.
bool routes_find_target(struct server *server, struct http_call *call, const char *name,
                        char stored[NAMES_BYTES], struct api_error *error);
bool routes_target(struct server *server, struct http_call *call, const char *name,
                   char stored[NAMES_BYTES]);
// Keeps the cards that the caller may see, in order; returns how many.
int32_t routes_keep_visible(struct server *server, const struct http_call *call,
                            struct sora_registry_card *cards, int32_t count);
void routes_reply_unknown(struct http_call *call, const char *name);

// Changes, with their records and within the tenant's limits.
struct routes_upload {
    const char *stored;
    sora_upload *upload; // whose bytes they are, or NULL
    const void *bytes;
    size_t byte_count;
    const char *if_match; // NULL: none
    bool activate;
};
// Before the body is read: false when it alone is more than the tenant may store.
bool routes_fits(struct server *server, struct http_call *call, const char *stored);
// The first does not reply.
bool routes_try_publish(struct server *server, struct http_call *call,
                        const struct routes_upload *put, struct sora_registry_card *card,
                        bool *created, struct api_error *error);
bool routes_publish(struct server *server, struct http_call *call, const struct routes_upload *put,
                    struct sora_registry_card *card, bool *created);
SORA_CHECKED sora_status routes_rollback(struct server *server, struct http_call *call,
                                         const char *stored, int32_t version,
                                         struct sora_registry_card *card, struct sora_error *cause);
SORA_CHECKED sora_status routes_set_pinned(struct server *server, struct http_call *call,
                                           const char *stored, bool pinned,
                                           struct sora_registry_card *card,
                                           struct sora_error *cause);
SORA_CHECKED sora_status routes_remove(struct server *server, struct http_call *call,
                                       const char *stored, size_t *freed_bytes,
                                       struct sora_error *cause);

// The card of "name" (active version) or "name@version"; replies 404 itself and returns false.
bool routes_find_card(struct server *server, struct http_call *call, const char *name,
                      struct sora_registry_card *card);
// Replies with a card, or with what kept it from being read.
void routes_reply_card(struct server *server, struct http_call *call, enum api_code code,
                       const struct sora_registry_card *card);
// {"object":"list","data":[cards]}
void routes_reply_cards(struct server *server, struct http_call *call,
                        const struct sora_registry_card *cards, int32_t card_count);
// What a failed operation is to a client: the first does not reply.
void routes_say_status(struct http_call *call, enum api_origin origin,
                       const struct sora_error *cause, struct api_error *error);
void routes_reply_status(struct http_call *call, enum api_origin origin,
                         const struct sora_error *cause);

#endif

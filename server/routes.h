// SPDX-License-Identifier: Apache-2.0
// What answers which path. Handlers run on HTTP workers and must reply.
#ifndef SERVER_ROUTES_H
#define SERVER_ROUTES_H

#include "server/server.h"

// Finds the handler of a call and runs it; http_options.handle with a struct server as context.
void routes_handle(struct http_call *call, void *server);

// `name`: the decoded {name} or {id} of the path, NULL where there is none.
typedef void routes_handler(struct server *server, struct http_call *call, const char *name);

routes_handler routes_chat, routes_completions;                             // routes.c
routes_handler routes_health, routes_ready, routes_version, routes_metrics; // routes_status.c
routes_handler routes_tokenize, routes_detokenize;                          // routes_text.c
routes_handler routes_models_list, routes_models_get, routes_models_delete; // routes_models.c
routes_handler routes_adapters_list, routes_adapters_get, routes_adapters_versions,
    routes_adapters_content, routes_adapters_delete; // routes_adapters.c
routes_handler routes_adapters_put, routes_adapters_post, routes_adapters_rollback; // ..._upload.c

// Names of the routes for the metrics.
const char *const *routes_labels(int32_t *count);

// The card of "name" (active version) or "name@version"; replies 404 itself and returns false.
bool routes_find_card(struct server *server, struct http_call *call, const char *name,
                      struct sora_registry_card *card);
// Replies with a card, or with what kept it from being read.
void routes_reply_card(struct server *server, struct http_call *call, enum api_code code,
                       const struct sora_registry_card *card);
// {"object":"list","data":[cards]}
void routes_reply_cards(struct server *server, struct http_call *call,
                        const struct sora_registry_card *cards, int32_t card_count);
void routes_reply_status(struct http_call *call, enum api_origin origin,
                         const struct sora_error *cause);

#endif

// SPDX-License-Identifier: Apache-2.0
// See generate_adapters.h.
#include "server/generate_adapters.h"

#include <stdio.h>
#include <string.h>

#include "server/generate.h"
#include "server/names.h"

struct wanted {
    char stored[NAMES_BYTES];
    const char *field; // of the request
    float scale;
    int32_t max_rank;
};

struct wanted_list {
    struct wanted items[SORA_REQUEST_ADAPTERS_MAX];
    int32_t count;
};

static sora_status no_such_id(struct api_error *error, int32_t id)
{
    return api_error_set(error, API_NOT_FOUND, "adapter_not_found", "lora",
                         "lora: there is no adapter with the id %d; GET /lora-adapters lists them",
                         (int)id);
}

// What one entry of the request means to the caller. The base adds nothing to itself.
static sora_status want(struct server *server, const struct auth_caller *caller,
                        const struct api_adapter *adapter, const char *field,
                        struct wanted_list *list, struct api_error *error)
{
    struct wanted *to = &list->items[list->count];
    to->field = field;
    to->scale = adapter->scale;
    to->max_rank = adapter->max_rank;
    if (adapter->name == NULL) {
        if (!lora_ids_name(&server->lora_ids, adapter->id, to->stored) ||
            !sora_registry_has(server->registry, to->stored) ||
            !names_visible(server->registry, caller, to->stored))
            return no_such_id(error, adapter->id);
    } else {
        if (strcmp(adapter->name, server->base_name) == 0)
            return SORA_OK;
        if (!names_resolve(server->registry, caller, adapter->name, to->stored, NULL))
            return generate_unknown(server, adapter->name, field, error);
    }
    list->count++;
    return SORA_OK;
}

// Of what the request names, "adapters" and the like go with the base as model.
static sora_status want_named(struct server *server, const struct auth_caller *caller,
                              const struct api_request *api, struct wanted_list *list,
                              struct api_error *error)
{
    bool model_is_base = api->model == NULL || strcmp(api->model, server->base_name) == 0;
    if (model_is_base || api->adapter_count > 0) {
        sora_status status = SORA_OK;
        for (int32_t i = 0; i < api->adapter_count && status == SORA_OK; i++)
            status = want(server, caller, &api->adapters[i],
                          api->adapters[i].name != NULL ? "adapters" : "lora", list, error);
        if (status == SORA_OK && !model_is_base)
            status = api_error_set(error, API_BAD_REQUEST, "invalid_value", "adapters",
                                   "adapters: goes with the base as model, not with an adapter");
        return status;
    }
    const struct api_adapter alone = {.name = api->model, .id = -1, .scale = 1};
    return want(server, caller, &alone, "model", list, error);
}

// The tenant's own scales hold for requests that name nothing but the base. What has been deleted
// since they were set is not listed any more and has none.
static void want_scaled(struct server *server, const struct auth_caller *caller,
                        struct wanted_list *list)
{
    struct lora_scales scales;
    struct api_error error;
    lora_ids_scales(&server->lora_ids, caller->tenant, &scales);
    for (int32_t i = 0; i < scales.count; i++) {
        const struct api_adapter adapter = {.id = scales.items[i].id,
                                            .scale = scales.items[i].scale};
        (void)want(server, caller, &adapter, "model", list, &error);
    }
}

static sora_status pin_each(struct server *server, const struct auth_caller *caller,
                            const struct wanted_list *list, struct generate_adapters *adapters,
                            struct api_error *error)
{
    sora_status status = SORA_OK;
    for (int32_t i = 0; i < list->count && status == SORA_OK; i++)
        status = generate_pin_stored(server, caller, list->items[i].stored, list->items[i].field,
                                     &adapters->pins[i], error);
    return status;
}

// Pins all, or none. Of the requests for several only one at a time holds some and waits for room
// for more: what it waits for are requests that have all of theirs, and those end.
static sora_status pin_all(struct server *server, const struct auth_caller *caller,
                           const struct wanted_list *list, struct generate_adapters *adapters,
                           struct api_error *error)
{
    const bool several = list->count > 1;
    adapters->pin_count = list->count;
    if (several)
        pthread_mutex_lock(&server->several_mutex);
    sora_status status = pin_each(server, caller, list, adapters, error);
    if (status != SORA_OK)
        generate_release_adapters(server, adapters);
    if (several)
        pthread_mutex_unlock(&server->several_mutex);
    return status;
}

// The most ranks of a module that load leaves to a request; 0: no limit.
static int32_t rank_limit(struct server *server, const struct api_request *api)
{
    int32_t from = server->config.elastic_at;
    bool loaded = from > 0 && request_table_count(&server->requests) >= from;
    return api->elastic && loaded ? server->config.elastic_rank : 0;
}

// Ranks are sorted by what they do, the most important first: the first ones are the best adapter
// of that size.
static void use(const struct wanted *wanted, const sora_pin *pin, const struct api_request *api,
                int32_t limit, struct generate_adapters *adapters)
{
    const struct sora_adapter_info *info = sora_pin_info(pin);
    int32_t ranks = wanted->max_rank > 0 ? wanted->max_rank : api->max_rank;
    if (wanted->scale == 0)
        return;
    if (ranks == 0 || ranks > info->rank_max)
        ranks = info->rank_max;
    if (limit > 0 && ranks > limit)
        ranks = adapters->rank_limit = limit;
    adapters->list[adapters->count++] =
        (struct request_adapter){.part = {.lora = sora_pin_lora(pin),
                                          .scale = wanted->scale,
                                          .rank_max = ranks < info->rank_max ? ranks : 0},
                                 .name = sora_pin_name(pin),
                                 .digest = info->digest};
}

sora_status generate_take_adapters(struct server *server, const struct auth_caller *caller,
                                   const struct api_request *api,
                                   struct generate_adapters *adapters, struct api_error *error)
{
    struct wanted_list list = {.count = 0};
    memset(adapters, 0, sizeof *adapters);
    sora_status status = want_named(server, caller, api, &list, error);
    if (status == SORA_OK && list.count == 0 && !api->has_adapters)
        want_scaled(server, caller, &list);
    if (status == SORA_OK)
        status = pin_all(server, caller, &list, adapters, error);
    if (status != SORA_OK)
        return status;
    int32_t limit = rank_limit(server, api);
    for (int32_t i = 0; i < list.count; i++)
        use(&list.items[i], adapters->pins[i], api, limit, adapters);
    if (adapters->rank_limit > 0)
        metrics_add(&server->metrics, METRICS_SHORTENED, 1);
    return SORA_OK;
}

void generate_release_adapters(struct server *server, struct generate_adapters *adapters)
{
    for (int32_t i = 0; i < adapters->pin_count; i++)
        sora_registry_unpin(server->registry, adapters->pins[i]);
    adapters->pin_count = adapters->count = 0;
}

void generate_count_tokens(struct server *server, const struct generate_adapters *adapters,
                           int64_t tokens)
{
    for (int32_t i = 0; i < adapters->pin_count; i++)
        sora_registry_count_tokens(server->registry, adapters->pins[i], tokens);
}

// SPDX-License-Identifier: Apache-2.0
// See setup.h.
#include "loadtest/setup.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "loadtest/client_reply.h"
#include "loadtest/discover.h"
#include "sora/limits.h"

#define ANSWER_BYTES_MAX (16u << 20) // a card lists every module
#define PATH_BYTES_MAX 1024

static int64_t made_total(const struct scenario *scenario)
{
    int64_t total = 0;
    for (int32_t g = 0; g < scenario_group_count(scenario); g++)
        total += scenario_group_at(scenario, g)->make;
    return total;
}

sora_status setup_models(struct client_http *http, const struct scenario *scenario,
                         enum client_selector selector, struct plan_models *models,
                         struct sora_error *err)
{
    struct discovered found = {NULL, NULL};
    const char *list = scenario->adapters, *base = scenario->base;
    bool is_listed = list != NULL || made_total(scenario) > 0;
    bool needs_base = base == NULL && (scenario->base_share > 0 || selector == CLIENT_BY_LORA ||
                                       scenario->arrivals == ARRIVALS_TRACE ||
                                       (list != NULL && strcmp(list, "none") == 0));
    sora_status status = SORA_OK;
    if (!is_listed || needs_base)
        status = discover_models(http, selector, &found, err);
    if (status != SORA_OK)
        return status;
    if (base == NULL && (needs_base || (!is_listed && found.adapters == NULL)))
        base = found.base;
    if (needs_base && base == NULL)
        status = sora_fail(err, SORA_NOT_FOUND, "/v1/models lists no base model; --base names it");
    if (!is_listed)
        list = found.adapters != NULL ? found.adapters : "none";
    if (status == SORA_OK)
        status = plan_models_create(scenario, list, base, models, err);
    discovered_deinit(&found);
    return status;
}

static sora_status get_card(struct client_http *http, const char *name, struct buf *body,
                            struct sora_error *err)
{
    long http_status = 0;
    char text[200];
    struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    buf_text(&path, "/v1/adapters/");
    client_http_escape(&path, name);
    sora_status status = buf_status(&path, err);
    struct client_call call = {.method = "GET", .path = path.data};
    if (status == SORA_OK)
        status = client_http_call(http, &call, &http_status, body, err);
    buf_deinit(&path);
    if (status != SORA_OK || http_status == 200)
        return status;
    reply_error_text(body->data != NULL ? body->data : "", body->bytes, text, sizeof text);
    return sora_fail(err, SORA_IO, "the card of %.128s: HTTP %ld: %s", name, http_status, text);
}

static sora_status base_of_server(struct client_http *http, struct made_base *base,
                                  struct sora_error *err)
{
    struct discovered found = {NULL, NULL};
    struct buf body;
    buf_init(&body, ANSWER_BYTES_MAX);
    sora_status status = discover_models(http, CLIENT_BY_MODEL, &found, err);
    if (status == SORA_OK && found.adapters == NULL)
        status = sora_fail(err, SORA_NOT_FOUND,
                           "adapters cannot be made: the server has none whose card would tell "
                           "what its base is; upload one, or give --like FILE.safetensors");
    if (status == SORA_OK) {
        found.adapters[strcspn(found.adapters, ",")] = '\0';
        status = get_card(http, found.adapters, &body, err);
    }
    if (status == SORA_OK) {
        status = made_base_from_card(body.data != NULL ? body.data : "", body.bytes, base, err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "the card of %.128s (or give --like FILE)",
                                      found.adapters);
    }
    buf_deinit(&body);
    discovered_deinit(&found);
    return status;
}

sora_status setup_base(struct client_http *http, const char *like, struct made_base *base,
                       struct sora_error *err)
{
    struct file_map map;
    if (like == NULL)
        return base_of_server(http, base, err);
    sora_status status = file_map_open(like, &map, err);
    if (status != SORA_OK)
        return status;
    status = made_base_from_file(map.data, map.bytes, base, err);
    file_map_close(&map);
    return status == SORA_OK ? status : sora_fail_within(err, status, "%.200s", like);
}

static sora_status upload_one(struct client_http *http, const char *name, const uint8_t *bytes,
                              size_t byte_count, struct buf *body, struct sora_error *err)
{
    long http_status = 0;
    char text[200];
    struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    buf_text(&path, "/v1/adapters/");
    client_http_escape(&path, name);
    sora_status status = buf_status(&path, err);
    struct client_call call = {.method = "PUT",
                               .path = path.data,
                               .body = bytes,
                               .body_bytes = byte_count,
                               .content_type = "application/octet-stream"};
    if (status == SORA_OK)
        status = client_http_call(http, &call, &http_status, body, err);
    buf_deinit(&path);
    if (status != SORA_OK || (http_status >= 200 && http_status < 300))
        return status;
    reply_error_text(body->data != NULL ? body->data : "", body->bytes, text, sizeof text);
    return sora_fail(err, SORA_IO, "upload of %.128s: HTTP %ld: %s", name, http_status, text);
}

static const struct length *ranks_of(const struct scenario *scenario,
                                     const struct plan_models *models, int32_t index)
{
    int32_t g = 0;
    while (g + 1 < scenario_group_count(scenario) &&
           index >= models->groups[g].first + models->groups[g].count)
        g++;
    return &scenario_group_at(scenario, g)->ranks;
}

sora_status setup_upload(struct client_http *http, const struct scenario *scenario,
                         const struct plan_models *models, const struct made_base *base,
                         setup_progress_fn progress, void *context, struct sora_error *err)
{
    struct buf body;
    sora_status status = SORA_OK;
    buf_init(&body, ANSWER_BYTES_MAX);
    for (int32_t i = 0; i < models->made_count && status == SORA_OK; i++) {
        uint8_t *bytes = NULL;
        size_t byte_count = 0;
        uint64_t seed = (uint64_t)scenario->seed * 2654435761u + (uint64_t)i;
        if (progress != NULL && !progress(context, i, models->made_count)) {
            status = sora_fail(err, SORA_CANCELLED, "interrupted");
            break;
        }
        status = made_adapter_encode(base, ranks_of(scenario, models, i), seed, &bytes, &byte_count,
                                     err);
        if (status == SORA_OK)
            status = upload_one(http, models->names[i], bytes, byte_count, &body, err);
        free(bytes);
    }
    buf_deinit(&body);
    return status;
}

static int32_t remove_one(struct client_http *http, const char *name, struct buf *body)
{
    long http_status = 0;
    struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    buf_text(&path, "/v1/adapters/");
    client_http_escape(&path, name);
    struct client_call call = {.method = "DELETE", .path = path.data};
    sora_status status = client_http_call(http, &call, &http_status, body, NULL);
    buf_deinit(&path);
    bool gone = (http_status >= 200 && http_status < 300) || http_status == 404;
    return status == SORA_OK && gone ? 0 : 1;
}

int32_t setup_remove(struct client_http *http, const struct plan_models *models, int32_t count,
                     const struct churn *churn)
{
    char name[SORA_ADAPTER_NAME_BYTES_MAX + 1];
    struct buf body;
    int32_t failed = 0;
    buf_init(&body, ANSWER_BYTES_MAX);
    for (int32_t i = 0; i < count; i++)
        failed += remove_one(http, models->names[i], &body);
    for (int32_t i = 0; churn != NULL && churn_leftover(churn, i, name, sizeof name); i++)
        failed += remove_one(http, name, &body);
    buf_deinit(&body);
    return failed;
}

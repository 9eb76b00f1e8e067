// SPDX-License-Identifier: Apache-2.0
// Who can be asked, and how groups of traffic share the adapters. Pure.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loadtest/plan.h"

void plan_models_deinit(struct plan_models *models)
{
    for (int32_t i = 0; i < models->count; i++)
        free(models->names[i]);
    free(models->names);
    *models = (struct plan_models){.base = -1};
}

static sora_status append_name(struct plan_models *models, const char *name, size_t bytes,
                               struct sora_error *err)
{
    if (bytes == 0 || bytes > SORA_ADAPTER_NAME_BYTES_MAX)
        return sora_fail(err, SORA_MALFORMED, "a model's name has %zu bytes, expected 1 to %d",
                         bytes, SORA_ADAPTER_NAME_BYTES_MAX);
    if (models->count == SORA_LOADTEST_MODELS_MAX)
        return sora_fail(err, SORA_LIMIT, "more than %d models", SORA_LOADTEST_MODELS_MAX);
    if (models->names == NULL)
        models->names = calloc(SORA_LOADTEST_MODELS_MAX, sizeof *models->names);
    if (models->names != NULL)
        models->names[models->count] = strndup(name, bytes);
    if (models->names == NULL || models->names[models->count] == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the names of models");
    models->count++;
    return SORA_OK;
}

sora_status plan_models_add(struct plan_models *models, const char *name, int32_t *index,
                            struct sora_error *err)
{
    for (int32_t i = 0; i < models->count; i++) {
        if (strcmp(models->names[i], name) == 0) {
            *index = i;
            return SORA_OK;
        }
    }
    *index = models->count;
    return append_name(models, name, strlen(name), err);
}

static sora_status make_names(const struct scenario *scenario, struct plan_models *models,
                              struct sora_error *err)
{
    sora_status status = SORA_OK;
    for (int32_t g = 0; g < scenario_group_count(scenario); g++) {
        const struct scenario_group *group = scenario_group_at(scenario, g);
        models->groups[g].first = models->count;
        models->groups[g].count = (int32_t)group->make;
        for (int64_t i = 0; i < group->make && status == SORA_OK; i++) {
            char name[SORA_ADAPTER_NAME_BYTES_MAX + 1];
            int bytes = snprintf(name, sizeof name, "loadtest-%.80s%s%05lld",
                                 group->name != NULL ? group->name : "",
                                 group->name != NULL ? "-" : "", (long long)i);
            status = append_name(models, name, (size_t)bytes, err);
        }
    }
    models->made_count = models->count;
    return status;
}

static sora_status split_list(const char *list, int64_t count_max, struct plan_models *models,
                              struct sora_error *err)
{
    sora_status status = SORA_OK;
    if (strcmp(list, "none") == 0)
        return SORA_OK;
    for (const char *at = list; status == SORA_OK; at++) {
        size_t bytes = strcspn(at, ",");
        if (count_max > 0 && models->count == count_max)
            break;
        status = append_name(models, at, bytes, err);
        at += bytes;
        if (*at == '\0')
            break;
    }
    return status;
}

// Parts of the list one after the other; a list shorter than the groups is used again.
static void share_out(const struct scenario *scenario, struct plan_models *models)
{
    int32_t groups = scenario_group_count(scenario), first = 0;
    double total = 0, before = 0;
    for (int32_t g = 0; g < groups; g++)
        total += (double)scenario_group_at(scenario, g)->make;
    for (int32_t g = 0; g < groups; g++) {
        double part =
            total > 0 ? (double)scenario_group_at(scenario, g)->make / total : 1.0 / groups;
        before += part;
        int32_t end = g + 1 == groups ? models->count : (int32_t)(before * models->count + 0.5);
        if (end <= first) {
            models->groups[g].first = models->count > 0 ? g % models->count : 0;
            models->groups[g].count = models->count > 0 ? 1 : 0;
            continue;
        }
        models->groups[g].first = first;
        models->groups[g].count = end - first;
        first = end;
    }
}

sora_status plan_models_create(const struct scenario *scenario, const char *list, const char *base,
                               struct plan_models *models, struct sora_error *err)
{
    *models = (struct plan_models){.base = -1};
    sora_status status;
    if (list == NULL) {
        status = make_names(scenario, models, err);
    } else {
        status = split_list(list, scenario->adapters_max, models, err);
        share_out(scenario, models);
    }
    if (status == SORA_OK && base != NULL)
        status = plan_models_add(models, base, &models->base, err);
    for (int32_t g = 0; status == SORA_OK && g < scenario_group_count(scenario); g++) {
        if (models->groups[g].count > 0)
            continue;
        if (models->base < 0) {
            status = sora_fail(err, SORA_NOT_FOUND, "no adapter and no base model to ask for");
        } else {
            models->groups[g].first = models->base;
            models->groups[g].count = 1;
        }
    }
    if (status != SORA_OK)
        plan_models_deinit(models);
    return status;
}

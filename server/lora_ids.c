// SPDX-License-Identifier: Apache-2.0
// See lora_ids.h.
#include "server/lora_ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 1 << 18 }; // more than twice SORA_ADAPTER_COUNT_MAX: chains stay short
_Static_assert(BUCKETS > 2 * SORA_ADAPTER_COUNT_MAX, "a table of ids is never full");

struct lora_tenant {
    char name[SORA_TENANT_BYTES_MAX + 1];
    struct lora_scales scales;
    struct lora_tenant *next;
};

sora_status lora_ids_init(struct lora_ids *ids, struct sora_error *err)
{
    *ids = (struct lora_ids){.count = 0};
    pthread_mutex_init(&ids->mutex, NULL);
    ids->names = calloc(SORA_ADAPTER_COUNT_MAX, sizeof *ids->names);
    ids->buckets = calloc(BUCKETS, sizeof *ids->buckets);
    if (ids->names == NULL || ids->buckets == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the numbers of adapters");
    memset(ids->buckets, 0xff, BUCKETS * sizeof *ids->buckets);
    return SORA_OK;
}

void lora_ids_deinit(struct lora_ids *ids)
{
    for (int32_t i = 0; i < ids->count; i++)
        free(ids->names[i]);
    free(ids->names);
    free(ids->buckets);
    while (ids->tenants != NULL) {
        struct lora_tenant *next = ids->tenants->next;
        free(ids->tenants);
        ids->tenants = next;
    }
    ids->names = NULL;
    ids->buckets = NULL;
    ids->count = 0;
}

// Locked. The bucket that holds the name's id, or the empty one where it belongs.
static int32_t *bucket_of(const struct lora_ids *ids, const char *stored)
{
    uint32_t at = 2166136261u; // FNV-1a
    for (const char *c = stored; *c != '\0'; c++)
        at = (at ^ (unsigned char)*c) * 16777619u;
    at = (at ^ (at >> 16)) & (BUCKETS - 1);
    while (ids->buckets[at] >= 0 && strcmp(ids->names[ids->buckets[at]], stored) != 0)
        at = (at + 1) & (BUCKETS - 1);
    return &ids->buckets[at];
}

int32_t lora_ids_of(struct lora_ids *ids, const char *stored)
{
    pthread_mutex_lock(&ids->mutex);
    int32_t *bucket = bucket_of(ids, stored);
    if (*bucket < 0 && ids->count < SORA_ADAPTER_COUNT_MAX) {
        ids->names[ids->count] = strdup(stored);
        if (ids->names[ids->count] != NULL)
            *bucket = ids->count++;
    }
    int32_t id = *bucket;
    pthread_mutex_unlock(&ids->mutex);
    return id;
}

bool lora_ids_name(struct lora_ids *ids, int32_t id, char name[SORA_STORED_NAME_BYTES_MAX + 1])
{
    pthread_mutex_lock(&ids->mutex);
    bool found = id >= 0 && id < ids->count;
    if (found)
        snprintf(name, SORA_STORED_NAME_BYTES_MAX + 1, "%s", ids->names[id]);
    pthread_mutex_unlock(&ids->mutex);
    return found;
}

// Locked. The link to the tenant's, or the one at the end.
static struct lora_tenant **find(struct lora_ids *ids, const char *tenant)
{
    struct lora_tenant **link = &ids->tenants;
    while (*link != NULL && strcmp((*link)->name, tenant) != 0)
        link = &(*link)->next;
    return link;
}

void lora_ids_scales(struct lora_ids *ids, const char *tenant, struct lora_scales *scales)
{
    scales->count = 0;
    if (atomic_load(&ids->tenant_count) == 0)
        return;
    pthread_mutex_lock(&ids->mutex);
    const struct lora_tenant *of = *find(ids, tenant);
    if (of != NULL)
        *scales = of->scales;
    pthread_mutex_unlock(&ids->mutex);
}

sora_status lora_ids_set_scales(struct lora_ids *ids, const char *tenant,
                                const struct lora_scales *scales, struct sora_error *err)
{
    struct lora_tenant *made = calloc(1, sizeof *made), *gone = NULL;
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the scales of a tenant");
    snprintf(made->name, sizeof made->name, "%s", tenant);
    made->scales = *scales;
    pthread_mutex_lock(&ids->mutex);
    struct lora_tenant **link = find(ids, tenant);
    gone = *link;
    if (gone != NULL) {
        *link = gone->next;
        atomic_fetch_sub(&ids->tenant_count, 1);
    }
    if (scales->count > 0) {
        made->next = ids->tenants;
        ids->tenants = made;
        made = NULL;
        atomic_fetch_add(&ids->tenant_count, 1);
    }
    pthread_mutex_unlock(&ids->mutex);
    free(gone);
    free(made);
    return SORA_OK;
}

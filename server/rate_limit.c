// SPDX-License-Identifier: Apache-2.0
// See rate_limit.h.
#include "server/rate_limit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define MINUTE_US 60e6
#define CODE "rate_limit_exceeded"

static void refill(struct rate_bucket *bucket, int64_t per_minute, int64_t now_us)
{
    double full = (double)per_minute;
    if (bucket->at_us == 0)
        bucket->level = full;
    else if (now_us > bucket->at_us)
        bucket->level += (double)(now_us - bucket->at_us) * full / MINUTE_US;
    if (bucket->at_us == 0 || now_us > bucket->at_us)
        bucket->at_us = now_us > 0 ? now_us : 1;
    if (bucket->level > full) // also when the limit was lowered
        bucket->level = full;
}

bool rate_bucket_take(struct rate_bucket *bucket, int64_t per_minute, double amount, int64_t now_us,
                      int64_t *wait_us)
{
    *wait_us = 0;
    if (per_minute == 0)
        return true;
    refill(bucket, per_minute, now_us);
    double need = amount < (double)per_minute ? amount : (double)per_minute;
    // Rounding of the refill must not keep out who waited as long as was said.
    if (bucket->level + 1e-6 >= need) {
        bucket->level -= amount;
        return true;
    }
    *wait_us = (int64_t)ceil((need - bucket->level) * MINUTE_US / (double)per_minute);
    return false;
}

void rate_bucket_spend(struct rate_bucket *bucket, int64_t per_minute, double amount,
                       int64_t now_us)
{
    if (per_minute == 0)
        return;
    refill(bucket, per_minute, now_us);
    bucket->level -= amount;
}

static int32_t whole_seconds(int64_t wait_us)
{
    int64_t seconds = wait_us / 1000000 + (wait_us % 1000000 > 0);
    return seconds < 1 ? 1 : seconds > INT32_MAX ? INT32_MAX : (int32_t)seconds;
}

bool rate_enter(struct rate_tenant *tenant, int64_t now_us, int32_t *retry_s,
                struct api_error *error)
{
    int64_t wait_us = 0;
    pthread_mutex_lock(&tenant->mutex);
    struct sora_tenant_limits limits = tenant->limits;
    bool crowded = limits.concurrent_requests > 0 && tenant->running >= limits.concurrent_requests;
    bool entered = !crowded && rate_bucket_take(&tenant->requests, limits.requests_per_minute, 1.0,
                                                now_us, &wait_us);
    tenant->running += entered;
    pthread_mutex_unlock(&tenant->mutex);
    *retry_s = whole_seconds(wait_us);
    if (crowded)
        (void)api_error_set(error, API_TOO_MANY, CODE, NULL,
                            "the limit of %lld requests at once is reached: wait for one to end",
                            (long long)limits.concurrent_requests);
    else if (!entered)
        (void)api_error_set(error, API_TOO_MANY, CODE, NULL,
                            "the limit of %lld requests per minute is reached: try again in %d s",
                            (long long)limits.requests_per_minute, (int)*retry_s);
    return entered;
}

void rate_leave(struct rate_tenant *tenant)
{
    pthread_mutex_lock(&tenant->mutex);
    ASSERT(tenant->running > 0);
    tenant->running--;
    pthread_mutex_unlock(&tenant->mutex);
}

bool rate_take_tokens(struct rate_tenant *tenant, int64_t tokens, int64_t now_us, int32_t *retry_s,
                      struct api_error *error)
{
    int64_t wait_us = 0;
    pthread_mutex_lock(&tenant->mutex);
    int64_t limit = tenant->limits.tokens_per_minute;
    bool taken = rate_bucket_take(&tenant->tokens, limit, (double)tokens, now_us, &wait_us);
    pthread_mutex_unlock(&tenant->mutex);
    *retry_s = whole_seconds(wait_us);
    if (!taken)
        (void)api_error_set(error, API_TOO_MANY, CODE, NULL,
                            "the limit of %lld tokens per minute is reached and this prompt has "
                            "%lld: try again in %d s",
                            (long long)limit, (long long)tokens, (int)*retry_s);
    return taken;
}

void rate_spend_tokens(struct rate_tenant *tenant, int64_t tokens, int64_t now_us)
{
    pthread_mutex_lock(&tenant->mutex);
    rate_bucket_spend(&tenant->tokens, tenant->limits.tokens_per_minute, (double)tokens, now_us);
    pthread_mutex_unlock(&tenant->mutex);
}

int64_t rate_stored_limit(struct rate_tenant *tenant)
{
    pthread_mutex_lock(&tenant->mutex);
    int64_t limit = tenant->limits.stored_bytes;
    pthread_mutex_unlock(&tenant->mutex);
    return limit;
}

// The same number as the other limits, because that is what clients look for; but waiting makes no
// room, and routes_publish tells them not to try again by themselves.
bool rate_fits_bytes(struct rate_tenant *tenant, int64_t stored, int64_t bytes,
                     struct api_error *error)
{
    int64_t limit = rate_stored_limit(tenant);
    bool fits = limit == 0 || bytes <= limit - stored;
    if (!fits)
        (void)api_error_set(error, API_TOO_MANY, "storage_limit_exceeded", NULL,
                            "an adapter of %lld bytes does not fit: %lld of the %lld bytes that "
                            "may be stored are used; delete one first",
                            (long long)bytes, (long long)stored, (long long)limit);
    return fits;
}

void rate_lock_storage(struct rate_tenant *tenant)
{
    pthread_mutex_lock(&tenant->storage);
}

void rate_unlock_storage(struct rate_tenant *tenant)
{
    pthread_mutex_unlock(&tenant->storage);
}

// --- the table ---

void rate_table_init(struct rate_table *table)
{
    *table = (struct rate_table){.count = 0};
}

void rate_table_deinit(struct rate_table *table)
{
    for (int32_t i = 0; i < table->count; i++) {
        pthread_mutex_destroy(&table->tenants[i]->mutex);
        pthread_mutex_destroy(&table->tenants[i]->storage);
        free(table->tenants[i]);
    }
    free(table->tenants);
    rate_table_init(table);
}

// Index of the first tenant whose name is not before this one.
static int32_t lower_bound(const struct rate_table *table, const char *name)
{
    int32_t low = 0, high = table->count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (strcmp(table->tenants[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool grow(struct rate_table *table)
{
    int32_t capacity = table->capacity > 0 ? 2 * table->capacity : 16;
    struct rate_tenant **more =
        reallocarray(table->tenants, (size_t)capacity, sizeof(struct rate_tenant *));
    if (more == NULL)
        return false;
    table->tenants = more;
    table->capacity = capacity;
    return true;
}

struct rate_tenant *rate_table_tenant(struct rate_table *table, const char *name)
{
    int32_t at = lower_bound(table, name);
    if (at < table->count && strcmp(table->tenants[at]->name, name) == 0)
        return table->tenants[at];
    if (table->count == SORA_TENANT_COUNT_MAX || (table->count == table->capacity && !grow(table)))
        return NULL;
    struct rate_tenant *tenant = calloc(1, sizeof *tenant);
    if (tenant == NULL)
        return NULL;
    pthread_mutex_init(&tenant->mutex, NULL);
    pthread_mutex_init(&tenant->storage, NULL);
    snprintf(tenant->name, sizeof tenant->name, "%s", name);
    tenant->id = table->count + 1;
    size_t behind = (size_t)(table->count - at);
    memmove(&table->tenants[at + 1], &table->tenants[at], behind * sizeof table->tenants[0]);
    table->tenants[at] = tenant;
    table->count++;
    return tenant;
}

void rate_table_set_limits(struct rate_table *table, const struct sora_tenant_limits *limits,
                           int32_t limits_count)
{
    int32_t next = 0; // both are by name
    for (int32_t i = 0; i < table->count; i++) {
        struct rate_tenant *tenant = table->tenants[i];
        while (next < limits_count && strcmp(limits[next].tenant, tenant->name) < 0)
            next++;
        bool found = next < limits_count && strcmp(limits[next].tenant, tenant->name) == 0;
        pthread_mutex_lock(&tenant->mutex);
        tenant->limits = found ? limits[next] : (struct sora_tenant_limits){.stored_bytes = 0};
        pthread_mutex_unlock(&tenant->mutex);
    }
}

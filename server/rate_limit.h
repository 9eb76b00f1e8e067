// SPDX-License-Identifier: Apache-2.0
// Limits of tenants. Buckets are pure functions with the time as an argument; the table gives every
// tenant a small number of its own for the life of the process. Any thread may call.
#ifndef SERVER_RATE_LIMIT_H
#define SERVER_RATE_LIMIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/api_error.h"
#include "sora/access.h"

// A bucket holds what a minute allows, begins full, and is refilled evenly. What is only known
// afterwards (the tokens of an answer) may take it below zero: the next one waits until it is paid
// back, so that the mean over time holds exactly and a request of any size passes at last.
struct rate_bucket {
    double level;
    int64_t at_us; // when the level was true; 0: never used
};
// Takes `amount` when the level is at least that, or the bucket is full. Otherwise *wait_us tells
// when it would be. per_minute 0: no limit.
bool rate_bucket_take(struct rate_bucket *bucket, int64_t per_minute, double amount, int64_t now_us,
                      int64_t *wait_us);
// Takes without asking; a negative amount gives back.
void rate_bucket_spend(struct rate_bucket *bucket, int64_t per_minute, double amount,
                       int64_t now_us);

struct rate_tenant {
    pthread_mutex_t mutex;
    char name[SORA_TENANT_BYTES_MAX + 1]; // "": of everyone who has none
    int32_t id;                           // from 1
    struct sora_tenant_limits limits;
    struct rate_bucket requests, tokens;
    int32_t running;
    pthread_mutex_t storage; // held by the one upload that is being measured and stored
};

// Enters a request, or says why not and after how many seconds to try again. rate_leave follows
// every one that entered.
bool rate_enter(struct rate_tenant *tenant, int64_t now_us, int32_t *retry_s,
                struct api_error *error);
void rate_leave(struct rate_tenant *tenant);
// Takes the tokens of a prompt, or says why not.
bool rate_take_tokens(struct rate_tenant *tenant, int64_t tokens, int64_t now_us, int32_t *retry_s,
                      struct api_error *error);
void rate_spend_tokens(struct rate_tenant *tenant, int64_t tokens, int64_t now_us);
int64_t rate_stored_limit(struct rate_tenant *tenant); // 0: none
// Whether `bytes` more fit where `stored` of the limit are used already; otherwise error is filled.
// What is stored must not change between being read and being added to: uploads of a tenant that
// has a limit take turns.
bool rate_fits_bytes(struct rate_tenant *tenant, int64_t stored, int64_t bytes,
                     struct api_error *error);
void rate_lock_storage(struct rate_tenant *tenant);
void rate_unlock_storage(struct rate_tenant *tenant);

struct rate_table {
    struct rate_tenant **tenants; // by name
    int32_t count, capacity;
};
void rate_table_init(struct rate_table *table);
void rate_table_deinit(struct rate_table *table);
// Finds or adds; the pointer holds as long as the table. NULL: SORA_TENANT_COUNT_MAX are known, or
// memory is out. The table's owner lets one thread in at a time.
struct rate_tenant *rate_table_tenant(struct rate_table *table, const char *name);
// Gives every known tenant its limits of the list, and none to the others.
void rate_table_set_limits(struct rate_table *table, const struct sora_tenant_limits *limits,
                           int32_t limits_count);

#endif

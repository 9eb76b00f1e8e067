// SPDX-License-Identifier: Apache-2.0
// Uploads, updates and deletions of adapters beside the load, in the plan's order, one at a time.
// Knows no network: says what to send next and is told the answer. The client's thread.
#ifndef LOADTEST_CHURN_H
#define LOADTEST_CHURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "loadtest/made_adapter.h"
#include "loadtest/plan.h"
#include "loadtest/stats.h"
#include "sora/status.h"

struct churn;

// base: made files (a pool of them, varied before each upload); NULL: those of folder.
SORA_CHECKED sora_status churn_create(const struct plan *plan, const struct made_base *base,
                                      const char *folder, struct churn **churn,
                                      struct sora_error *err);
void churn_destroy(struct churn *churn); // accepts NULL

// When the next change is due; INT64_MAX: none, or one is under way.
int64_t churn_due_us(const struct churn *churn);
struct churn_call {
    const char *method; // "PUT" or "DELETE"
    const char *path;   // valid until the answer
    const void *body;   // NULL with DELETE
    size_t body_bytes;
};
void churn_take(struct churn *churn, int64_t now_us, struct churn_call *call);
// The answer to what was taken; http_status 0: none came. stats may be NULL.
void churn_answer(struct churn *churn, int64_t now_us, long http_status, const char *text,
                  struct stats *stats);
bool churn_is_busy(const struct churn *churn);

struct churn_counts {
    int64_t done[3], failed; // by kind
    int64_t bytes;           // uploaded
    int64_t mean_us;         // of one change, from its sending to the answer
    char first_failure[200];
};
void churn_get_counts(const struct churn *churn, struct churn_counts *counts);
// Own names that the run left on the server; index counts from 0. False: no more.
bool churn_leftover(const struct churn *churn, int32_t index, char *name, size_t name_bytes);

#endif

// SPDX-License-Identifier: Apache-2.0
// Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024):
// how much each tenant, and each adapter of a tenant, has been served. Who has had least goes
// first. Two levels, so that a tenant with a hundred adapters gets a tenant's share. A flow that
// comes back after a pause is lifted to the least of those that were active meanwhile: nobody saves
// up service by being silent. Belongs to the planner; no clock, no locks.
#ifndef SERVER_FAIR_H
#define SERVER_FAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/status.h"

struct fair;

// A tenant, or one adapter of a tenant.
struct fair_flow {
    uint64_t key;
    int64_t served;  // virtual tokens
    int64_t floor;   // of a tenant: an adapter that becomes active starts no lower
    int32_t active;  // items in the planner; of a tenant: items of all its adapters
    int32_t known;   // of a tenant: its adapters in the table
    int32_t running; // the planner's: sequences that run
    struct fair_flow *tenant;
    struct fair_flow *chain;        // of the hash table, or of the free ones
    struct fair_flow *next, *prev;  // active ones of the same tenant
    struct fair_flow *active_flows; // of a tenant: the first of its active adapters
};

// At most flows_max tenants and adapters are remembered; idle ones that have had least go first,
// and what finds no place shares one flow.
SORA_CHECKED sora_status fair_create(int32_t flows_max, struct fair **fair, struct sora_error *err);
void fair_destroy(struct fair *fair); // accepts NULL

// One more item of this tenant and adapter; 0 and 0 are the tenant without a name and the base.
struct fair_flow *fair_enter(struct fair *fair, uint64_t tenant, uint64_t adapter);
void fair_leave(struct fair *fair, struct fair_flow *flow);
void fair_charge(struct fair_flow *flow, int64_t tokens);
// True when a has been served less than b: its tenant, or, of one tenant, its adapter.
bool fair_before(const struct fair_flow *a, const struct fair_flow *b);

#endif

// SPDX-License-Identifier: Apache-2.0
// See fair.h. One table for both levels: a flow is found by its tenant's node and its own key, a
// tenant's node by the root and its key.
#include "server/fair.h"

#include <stdlib.h>

#include "base/assert.h"

enum { BUCKETS = 1024 };

struct fair {
    struct fair_flow root;     // the parent of all tenants
    struct fair_flow overflow; // an adapter of the root: what finds no place
    struct fair_flow *flows;   // [flows_max]
    int32_t flows_max;
    struct fair_flow *free;
    struct fair_flow *buckets[BUCKETS];
};

sora_status fair_create(int32_t flows_max, struct fair **fair, struct sora_error *err)
{
    ASSERT(flows_max >= 2);
    struct fair *made = calloc(1, sizeof *made);
    struct fair_flow *flows = calloc((size_t)flows_max, sizeof *flows);
    if (made == NULL || flows == NULL) {
        free(made);
        free(flows);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d flows", flows_max);
    }
    made->flows = flows;
    made->flows_max = flows_max;
    made->overflow.tenant = &made->root;
    for (int32_t i = flows_max - 1; i >= 0; i--) {
        flows[i].chain = made->free;
        made->free = &flows[i];
    }
    *fair = made;
    return SORA_OK;
}

void fair_destroy(struct fair *fair)
{
    if (fair == NULL)
        return;
    free(fair->flows);
    free(fair);
}

static struct fair_flow **bucket_of(struct fair *fair, const struct fair_flow *tenant, uint64_t key)
{
    uint64_t mixed = (key ^ (uint64_t)(uintptr_t)tenant) * 0x9e3779b97f4a7c15u;
    return &fair->buckets[mixed >> 54];
}

static void forget(struct fair *fair, struct fair_flow *flow)
{
    struct fair_flow **link = bucket_of(fair, flow->tenant, flow->key);
    while (*link != flow)
        link = &(*link)->chain;
    *link = flow->chain;
    flow->tenant->known--;
    *flow = (struct fair_flow){.chain = fair->free};
    fair->free = flow;
}

// Makes a place by forgetting the idle flow that is least ahead of the others: its counter would
// be lifted when it came back anyway. False: all are active.
static bool make_place(struct fair *fair)
{
    struct fair_flow *least = NULL;
    int64_t least_ahead = 0;
    for (int32_t i = 0; i < fair->flows_max; i++) {
        struct fair_flow *flow = &fair->flows[i];
        if (flow->tenant == NULL || flow->active > 0 || flow->known > 0)
            continue;
        int64_t ahead = flow->served - flow->tenant->floor;
        if (least == NULL || ahead < least_ahead) {
            least = flow;
            least_ahead = ahead;
        }
    }
    if (least != NULL)
        forget(fair, least);
    return least != NULL;
}

static struct fair_flow *find(struct fair *fair, struct fair_flow *tenant, uint64_t key)
{
    struct fair_flow **bucket = bucket_of(fair, tenant, key);
    for (struct fair_flow *flow = *bucket; flow != NULL; flow = flow->chain)
        if (flow->tenant == tenant && flow->key == key)
            return flow;
    if (fair->free == NULL && !make_place(fair))
        return NULL;
    struct fair_flow *flow = fair->free;
    fair->free = flow->chain;
    *flow = (struct fair_flow){.key = key, .tenant = tenant, .chain = *bucket};
    *bucket = flow;
    tenant->known++;
    return flow;
}

static void begin_active(struct fair_flow *flow)
{
    if (flow->active++ > 0)
        return;
    struct fair_flow *tenant = flow->tenant;
    if (tenant->active_flows != NULL) {
        int64_t least = tenant->active_flows->served;
        for (struct fair_flow *other = tenant->active_flows; other != NULL; other = other->next)
            least = other->served < least ? other->served : least;
        tenant->floor = least > tenant->floor ? least : tenant->floor;
    }
    if (flow->served < tenant->floor)
        flow->served = tenant->floor;
    flow->prev = NULL;
    flow->next = tenant->active_flows;
    if (flow->next != NULL)
        flow->next->prev = flow;
    tenant->active_flows = flow;
}

static void end_active(struct fair_flow *flow)
{
    ASSERT(flow->active > 0);
    if (--flow->active > 0)
        return;
    struct fair_flow *tenant = flow->tenant;
    *(flow->prev != NULL ? &flow->prev->next : &tenant->active_flows) = flow->next;
    if (flow->next != NULL)
        flow->next->prev = flow->prev;
    flow->next = flow->prev = NULL;
    // The last to leave says where the next one starts.
    if (tenant->active_flows == NULL && flow->served > tenant->floor)
        tenant->floor = flow->served;
}

struct fair_flow *fair_enter(struct fair *fair, uint64_t tenant, uint64_t adapter)
{
    struct fair_flow *parent = find(fair, &fair->root, tenant);
    struct fair_flow *flow = NULL;
    if (parent != NULL) {
        begin_active(parent); // before the search for the adapter, which may forget idle ones
        flow = find(fair, parent, adapter);
        if (flow == NULL)
            end_active(parent);
    }
    if (flow == NULL)
        flow = &fair->overflow;
    begin_active(flow);
    return flow;
}

void fair_leave(struct fair *fair, struct fair_flow *flow)
{
    end_active(flow);
    if (flow != &fair->overflow)
        end_active(flow->tenant);
}

void fair_charge(struct fair_flow *flow, int64_t tokens)
{
    flow->served += tokens;
    flow->tenant->served += tokens;
}

// The flow's share among tenants: the overflow stands beside them.
static const struct fair_flow *tenant_of(const struct fair_flow *flow)
{
    return flow->tenant->tenant == NULL ? flow : flow->tenant;
}

bool fair_before(const struct fair_flow *a, const struct fair_flow *b)
{
    if (a->tenant == b->tenant)
        return a->served < b->served;
    return tenant_of(a)->served < tenant_of(b)->served;
}

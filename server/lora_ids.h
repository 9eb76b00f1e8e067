// SPDX-License-Identifier: Apache-2.0
// llama.cpp's view of adapters: a number for each name, and scales that hold for whoever names no
// adapter. There both are the server's; here adapters come and go and tenants share a server, so a
// number is given when a name is first listed and never to another name, and each tenant has
// scales of its own, all 0 at the start. In memory only. Any thread.
#ifndef SERVER_LORA_IDS_H
#define SERVER_LORA_IDS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sora/limits.h"
#include "sora/status.h"

struct lora_scale {
    int32_t id;
    float scale;
};
// Those that are not 0.
struct lora_scales {
    struct lora_scale items[SORA_REQUEST_ADAPTERS_MAX];
    int32_t count;
};

struct lora_tenant; // with scales set

struct lora_ids {
    pthread_mutex_t mutex;
    char **names;     // [count] stored names; the index is the id
    int32_t *buckets; // of ids by name, -1: empty
    int32_t count;
    struct lora_tenant *tenants;
    _Atomic int32_t tenant_count; // 0: nobody has set any
};

SORA_CHECKED sora_status lora_ids_init(struct lora_ids *ids, struct sora_error *err);
void lora_ids_deinit(struct lora_ids *ids); // also after a failed or no init: zeros

// The id of a stored name, given now if it has none. -1: there are SORA_ADAPTER_COUNT_MAX already,
// or no memory.
int32_t lora_ids_of(struct lora_ids *ids, const char *stored);
// The stored name of an id; false: none has it.
bool lora_ids_name(struct lora_ids *ids, int32_t id, char name[SORA_STORED_NAME_BYTES_MAX + 1]);

void lora_ids_scales(struct lora_ids *ids, const char *tenant, struct lora_scales *scales);
SORA_CHECKED sora_status lora_ids_set_scales(struct lora_ids *ids, const char *tenant,
                                             const struct lora_scales *scales,
                                             struct sora_error *err);

#endif

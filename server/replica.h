// SPDX-License-Identifier: Apache-2.0
// One of several servers on a shared catalog: a thread that follows what the others change, and one
// that brings the files of active versions into this server's folder before somebody asks for them.
// While the database is away everything that is here goes on. Any thread may ask how it is.
#ifndef SERVER_REPLICA_H
#define SERVER_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/registry.h"
#include "sora/store.h"

struct replica;

// Borrows both, which outlive it.
SORA_CHECKED sora_status replica_start(sora_store *store, sora_registry *registry,
                                       struct replica **replica, struct sora_error *err);
void replica_stop(struct replica *replica); // accepts NULL

struct replica_state {
    bool connected;
    int64_t away_s;      // since when it is not
    int64_t disconnects; // ever
};
struct replica_state replica_get_state(struct replica *replica);

#endif

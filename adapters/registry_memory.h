// SPDX-License-Identifier: Apache-2.0
// Which adapters are in memory, what they take there, and which of them may leave: the least
// recently used of those that no request uses and nobody has pinned. No locks, no I/O, no waiting;
// owned by a registry table and covered by its registry's mutex. Adapters to be freed are handed
// out in a list, so that nothing large is freed under it.
#ifndef ADAPTERS_REGISTRY_MEMORY_H
#define ADAPTERS_REGISTRY_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sora/adapter.h"

// An adapter in memory.
struct registry_resident {
    sora_adapter *adapter;
    struct registry_resident *next; // among the doomed
};

// One distinct file. In memory while it is pinned by a request, or is somebody's active version or
// was asked for by its number, until its memory is needed.
struct registry_blob {
    char digest[65];
    struct registry_resident *resident;   // NULL: on disk only
    struct registry_load *load;           // under way
    struct registry_blob *before, *after; // in the list it is in, while resident
    struct registry_blobs *list;
    size_t packed_bytes; // 0: not known before the first load
    int32_t refs;        // versions and pins
    int32_t pins;        // requests that use it or wait for it
    int32_t actives;     // names whose active version it is
    int32_t orders;      // pinned names whose active version it is: it never leaves
    bool asked;          // by "name@version"
    bool leaves;         // unloaded by order: goes with its last request
    bool yields;         // somebody has waited long for its place
    double load_ms;
};

struct registry_blobs {
    struct registry_blob *first, *last;
};

struct registry_memory {
    size_t bytes_max;           // 0: no bound
    size_t bytes, idle_bytes;   // of all residents; of those that may leave
    size_t reserved_bytes;      // of loads under way
    size_t pinned_bytes;        // of blobs with orders, in memory or not
    struct registry_blobs idle; // may leave; least recently used first
    struct registry_blobs busy; // in use or pinned; longest so first
    int32_t resident, yielding;
    int64_t loads, evictions;
    double load_seconds;
    struct registry_resident *doomed;
};

// After any change of a blob's counts: it stays, may leave, or goes at once.
void registry_memory_settle(struct registry_memory *memory, struct registry_blob *blob);
// Gives the blob its adapter, for which there is room, or dooms this one when another was faster.
void registry_memory_attach(struct registry_memory *memory, struct registry_blob *blob,
                            struct registry_resident *resident, double load_ms);
void registry_memory_doom(struct registry_memory *memory, struct registry_resident *resident);
// What the blob takes in memory, once somebody has found out.
void registry_memory_measured(struct registry_memory *memory, struct registry_blob *blob,
                              size_t packed_bytes);
// One pinned name more or less whose active version it is.
void registry_memory_order(struct registry_memory *memory, struct registry_blob *blob, bool more);
// What pinned adapters would take if `more` were pinned and `less` were not (either may be NULL).
size_t registry_memory_pinned(const struct registry_memory *memory,
                              const struct registry_blob *less, const struct registry_blob *more);

// Whether so much is free without anybody's leaving.
bool registry_memory_has_room(const struct registry_memory *memory, size_t bytes);
// Lets idle adapters go until so much is free; when not enough can, none does.
bool registry_memory_make_room(struct registry_memory *memory, size_t bytes);
// Marks adapters in use whose going would make room for so many bytes, those first that have been
// in use for longest.
void registry_memory_ask_to_yield(struct registry_memory *memory, size_t bytes);
void registry_memory_forget_yields(struct registry_memory *memory);

#endif

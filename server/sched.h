// SPDX-License-Identifier: Apache-2.0
// Decides what the next step computes. A pure planner: no engine, no locks, no clock; it counts KV
// blocks by itself, so that thousands of requests can be simulated in a test. The engine thread
// owns it and carries its plans out. Blocks that sequences share are counted for each of them:
// there may be more left than it thinks, never less.
//
// Every running sequence whose prompt is done gets its one row; the rest of the step's rows goes to
// prompts, shared among tenants and adapters and then among their prompts, so that a long prompt
// does not keep a short one waiting. While others generate, prompts get no more rows than keep the
// step within step_us_max, by the pace of the steps before.
//
// A sequence is admitted when there are blocks for all its known tokens: first whoever's tenant and
// adapter have been served least (server/fair.h; within one, first come, first served). Of those
// that have waited SORA_FAIR_WAIT_US, the oldest gets every SORA_FAIR_OLDEST_TURN-th place, so that
// nobody waits for ever, whatever the others send. When a growing sequence finds no block, the
// latest arrival of whoever has been served most is put back: it gives its blocks up and is
// computed again later from its tokens, which is slower but loses nothing. The same makes a place
// for a flow that runs nothing and has waited SORA_FAIR_WAIT_US while all places are taken. The
// oldest running sequence is never put back, so there is always progress.
#ifndef SERVER_SCHED_H
#define SERVER_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "sora/status.h"

struct sched;

struct sched_item;
// Called when an item is admitted: how many of its tokens, less than length, need not be computed.
typedef int32_t sched_begin_fn(void *context, struct sched_item *item);

struct sched_options {
    sched_begin_fn *begin; // NULL: none
    void *begin_context;
    int32_t seqs_max;       // running at once
    int32_t rows_max;       // rows of a step; >= seqs_max
    int32_t logit_rows_max; // rows of a step that ask for logits; >= seqs_max
    int32_t blocks_total;   // KV blocks
    int32_t block_tokens;
    int64_t step_us_max; // of a step in which others generate; 0: no bound
};

enum item_state { ITEM_IDLE, ITEM_WAITING, ITEM_RUNNING };

// One sequence, embedded in its owner's struct. The owner sets `tenant`, `adapter`, `length` and
// the score_ fields before sched_add and raises `length` by one with every chosen token; the rest
// is the planner's.
struct sched_item {
    uint64_t tenant, adapter; // whose it is: 0 the tenant without a name, the base
    int32_t length;           // tokens known: the prompt and what was generated
    int32_t score_next;       // rows [score_next, score_end) need logits of their own (echo with
    int32_t score_end;        // logprobs); the owner raises score_next as they arrive
    int32_t computed;         // tokens whose keys and values are in the cache, after the last plan
    int32_t cached;           // of those, what was there at the first admission
    int32_t blocks;           // KV blocks held
    enum item_state state;
    uint64_t arrival;         // order of sched_add
    int64_t waiting_since_us; // when it was added or put back
    int32_t charged;          // tokens that its flow has been charged for
    struct fair_flow *flow;
    void *owner;
    struct sched_item *prev, *next;
};

struct sched_span {
    struct sched_item *item;
    int32_t start, count; // tokens [start, start + count) of the item
    bool all_logits;      // of every row: scoring
    bool last_logits;     // the span reaches the last known token
};

// In the order in which it must be carried out: put back, compute. Admitted items have begun.
struct sched_plan {
    struct sched_item **preempted;
    struct sched_span *spans;
    int32_t preempted_count, span_count;
    int32_t rows, logit_rows;
};

SORA_CHECKED sora_status sched_create(const struct sched_options *options, struct sched **sched,
                                      struct sora_error *err);
void sched_destroy(struct sched *sched); // accepts NULL; items are the callers'

// Most tokens one sequence may ever have, so that it can finish when it runs alone.
int32_t sched_tokens_max(const struct sched *sched);
void sched_add(struct sched *sched, struct sched_item *item, int64_t now_us);
// Finished or cancelled; in any state.
void sched_remove(struct sched *sched, struct sched_item *item);
// The next step. The plan belongs to the planner and is valid until the next call; its items count
// as computed from here on. rows 0: nothing to do.
const struct sched_plan *sched_next(struct sched *sched, int64_t now_us);
// How long the last plan took, which tells how many rows fit step_us_max.
void sched_took(struct sched *sched, int64_t elapsed_us);

int32_t sched_running(const struct sched *sched);
int32_t sched_waiting(const struct sched *sched);
int32_t sched_blocks_used(const struct sched *sched);

#endif

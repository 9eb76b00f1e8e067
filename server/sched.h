// SPDX-License-Identifier: Apache-2.0
// Decides what the next step computes. A pure planner: no engine, no locks, no clock; it counts KV
// blocks by itself, so that thousands of requests can be simulated in a test. The engine thread
// owns it and carries its plans out. Blocks that sequences share are counted for each of them:
// there may be more left than it thinks, never less.
//
// First come, first served. Every running sequence whose prompt is done gets its one row; the rest
// of the step's rows goes to prompts, in order of arrival, shared so that a long prompt does not
// keep a short one waiting. A sequence is admitted when there are blocks for all its known tokens.
// When a growing sequence finds no block, the latest arrival is put back: it gives its blocks up
// and is computed again later from its tokens, which is slower but loses nothing.
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
};

enum item_state { ITEM_IDLE, ITEM_WAITING, ITEM_RUNNING };

// One sequence, embedded in its owner's struct. The owner sets `length` and the score_ fields
// before sched_add and raises `length` by one with every chosen token; the rest is the planner's.
struct sched_item {
    int32_t length;     // tokens known: the prompt and what was generated
    int32_t score_next; // rows [score_next, score_end) need logits of their own (echo with
    int32_t score_end;  // logprobs); the owner raises score_next as they arrive
    int32_t computed;   // tokens whose keys and values are in the cache, after the last plan
    int32_t cached;     // of those, what was there at the first admission
    int32_t blocks;     // KV blocks held
    enum item_state state;
    uint64_t arrival; // order of sched_add
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
void sched_add(struct sched *sched, struct sched_item *item);
// Finished or cancelled; in any state.
void sched_remove(struct sched *sched, struct sched_item *item);
// The next step. The plan belongs to the planner and is valid until the next call; its items count
// as computed from here on. rows 0: nothing to do.
const struct sched_plan *sched_next(struct sched *sched);

int32_t sched_running(const struct sched *sched);
int32_t sched_waiting(const struct sched *sched);
int32_t sched_blocks_used(const struct sched *sched);

#endif

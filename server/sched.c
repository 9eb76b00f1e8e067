// SPDX-License-Identifier: Apache-2.0
// See sched.h. Two lists, both in order of arrival: a sequence that was put back takes its old
// place in the waiting list. Engine thread only.
#include "server/sched.h"

#include <stdlib.h>

#include "base/assert.h"
#include "sora/limits.h"

struct list {
    struct sched_item *first, *last;
    int32_t count;
};

struct sched {
    struct sched_options options;
    struct list waiting, running;
    int32_t blocks_free;
    uint64_t arrivals;
    struct sched_plan plan;
};

static void list_remove(struct list *list, struct sched_item *item)
{
    *(item->prev != NULL ? &item->prev->next : &list->first) = item->next;
    *(item->next != NULL ? &item->next->prev : &list->last) = item->prev;
    item->prev = item->next = NULL;
    list->count--;
}

// Keeps the list in order of arrival; nearly always at the end.
static void list_insert(struct list *list, struct sched_item *item)
{
    struct sched_item *before = list->last;
    while (before != NULL && before->arrival > item->arrival)
        before = before->prev;
    item->prev = before;
    item->next = before != NULL ? before->next : list->first;
    *(before != NULL ? &before->next : &list->first) = item;
    *(item->next != NULL ? &item->next->prev : &list->last) = item;
    list->count++;
}

sora_status sched_create(const struct sched_options *options, struct sched **sched,
                         struct sora_error *err)
{
    ASSERT(options->seqs_max > 0 && options->rows_max >= options->seqs_max);
    ASSERT(options->logit_rows_max >= options->seqs_max && options->block_tokens > 0);
    struct sched *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the planner");
    made->options = *options;
    made->blocks_free = options->blocks_total;
    size_t seqs = (size_t)options->seqs_max;
    made->plan.preempted = calloc(seqs, sizeof *made->plan.preempted);
    made->plan.spans = calloc(seqs, sizeof *made->plan.spans);
    if (made->plan.preempted == NULL || made->plan.spans == NULL) {
        sched_destroy(made);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for plans of %zu sequences", seqs);
    }
    *sched = made;
    return SORA_OK;
}

void sched_destroy(struct sched *sched)
{
    if (sched == NULL)
        return;
    free(sched->plan.preempted);
    free(sched->plan.spans);
    free(sched);
}

int32_t sched_tokens_max(const struct sched *sched)
{
    int64_t tokens = (int64_t)sched->options.blocks_total * sched->options.block_tokens;
    return tokens > SORA_CONTEXT_MAX ? SORA_CONTEXT_MAX : (int32_t)tokens;
}

void sched_add(struct sched *sched, struct sched_item *item)
{
    ASSERT(item->state == ITEM_IDLE && item->length > 0);
    ASSERT(item->length <= sched_tokens_max(sched));
    item->arrival = sched->arrivals++;
    item->computed = item->blocks = 0;
    item->cached = -1;
    item->state = ITEM_WAITING;
    list_insert(&sched->waiting, item);
}

static void give_blocks_back(struct sched *sched, struct sched_item *item)
{
    sched->blocks_free += item->blocks;
    item->blocks = 0;
    ASSERT(sched->blocks_free <= sched->options.blocks_total);
}

void sched_remove(struct sched *sched, struct sched_item *item)
{
    if (item->state == ITEM_IDLE)
        return;
    list_remove(item->state == ITEM_RUNNING ? &sched->running : &sched->waiting, item);
    give_blocks_back(sched, item);
    item->state = ITEM_IDLE;
}

static int32_t blocks_for(const struct sched *sched, int32_t tokens)
{
    return (tokens + sched->options.block_tokens - 1) / sched->options.block_tokens;
}

static void put_back(struct sched *sched, struct sched_item *item)
{
    list_remove(&sched->running, item);
    give_blocks_back(sched, item);
    item->computed = 0;
    item->state = ITEM_WAITING;
    list_insert(&sched->waiting, item);
    sched->plan.preempted[sched->plan.preempted_count++] = item;
}

// Blocks for all known tokens of a running item, taken from later arrivals if need be. False: the
// item itself was the latest and was put back.
static bool hold_blocks(struct sched *sched, struct sched_item *item)
{
    int32_t more = blocks_for(sched, item->length) - item->blocks;
    while (more > sched->blocks_free) {
        struct sched_item *victim = sched->running.last;
        put_back(sched, victim);
        if (victim == item)
            return false;
    }
    if (more > 0) {
        sched->blocks_free -= more;
        item->blocks += more;
    }
    return true;
}

static void add_span(struct sched *sched, struct sched_item *item, int32_t count)
{
    struct sched_plan *plan = &sched->plan;
    int32_t start = item->computed, end = start + count;
    struct sched_span span = {.item = item, .start = start, .count = count};
    span.all_logits = start < item->score_end && end > item->score_next;
    span.last_logits = end == item->length;
    plan->logit_rows += span.all_logits ? count : span.last_logits;
    plan->rows += count;
    item->computed = end;
    plan->spans[plan->span_count++] = span;
}

// Every sequence past its prompt: one row each, oldest first.
static void plan_decode(struct sched *sched)
{
    struct sched_item *next;
    for (struct sched_item *item = sched->running.first; item != NULL; item = next) {
        bool stays = hold_blocks(sched, item);
        next = stays ? item->next : NULL; // an item that went was the last
        if (stays && item->length - item->computed == 1)
            add_span(sched, item, 1);
    }
}

static void begin(struct sched *sched, struct sched_item *item)
{
    if (sched->options.begin != NULL)
        item->computed = sched->options.begin(sched->options.begin_context, item);
    ASSERT(item->computed >= 0 && item->computed < item->length);
    if (item->cached < 0) // put back and admitted again, it may find its own
        item->cached = item->computed;
}

// Admits while there is room for all known tokens, and a block to grow for every running one.
static void plan_admission(struct sched *sched)
{
    while (sched->waiting.first != NULL && sched->running.count < sched->options.seqs_max) {
        struct sched_item *item = sched->waiting.first;
        int32_t need = blocks_for(sched, item->length);
        int32_t spare = sched->running.count;
        if (need + spare > sched->blocks_free)
            return;
        list_remove(&sched->waiting, item);
        item->state = ITEM_RUNNING;
        item->blocks = need;
        sched->blocks_free -= need;
        list_insert(&sched->running, item);
        begin(sched, item);
    }
}

// Rows of an item's prompt that a step may take when `rows` are offered.
static int32_t chunk_of(const struct sched *sched, const struct sched_item *item, int32_t rows)
{
    int32_t left = item->length - item->computed;
    int32_t count = left < rows ? left : rows;
    int32_t logit_rows = sched->options.logit_rows_max - sched->plan.logit_rows;
    bool scores = item->computed < item->score_end && item->computed + count > item->score_next;
    if (scores && count > logit_rows)
        count = logit_rows;
    if (!scores && count == left && logit_rows < 1)
        count = left - 1; // all but the row that needs logits
    return count;
}

// Rows for one of `prompts` that still want some: an equal share of what is left, and what the
// later ones do not need of theirs.
static int32_t share_of(const struct sched_item *item, int32_t prompts, int32_t rows)
{
    int32_t equal = (rows + prompts - 1) / prompts, others = 0;
    if (equal < SORA_PREFILL_ROWS_MIN)
        equal = SORA_PREFILL_ROWS_MIN;
    for (const struct sched_item *later = item->next; later != NULL && others < rows;
         later = later->next) {
        int32_t left = later->length - later->computed;
        others += left < equal ? left : equal;
    }
    int32_t share = rows - others > equal ? rows - others : equal;
    return share < rows ? share : rows;
}

// Shares the rest of the step among the prompts, in order of arrival.
static void plan_prefill(struct sched *sched)
{
    int32_t budget = SORA_STEP_ROWS_DEFAULT;
    if (budget > sched->options.rows_max)
        budget = sched->options.rows_max;
    int32_t rows = budget - sched->plan.rows;
    if (rows < SORA_PREFILL_ROWS_MIN)
        rows = SORA_PREFILL_ROWS_MIN;
    if (rows > sched->options.rows_max - sched->plan.rows)
        rows = sched->options.rows_max - sched->plan.rows;
    int32_t prompts = 0;
    for (struct sched_item *item = sched->running.first; item != NULL; item = item->next)
        prompts += item->computed < item->length;
    for (struct sched_item *item = sched->running.first; item != NULL && rows > 0;
         item = item->next) {
        if (item->computed == item->length)
            continue;
        int32_t count = chunk_of(sched, item, share_of(item, prompts--, rows));
        if (count <= 0)
            continue;
        add_span(sched, item, count);
        rows -= count;
    }
}

const struct sched_plan *sched_next(struct sched *sched)
{
    struct sched_plan *plan = &sched->plan;
    plan->preempted_count = plan->span_count = 0;
    plan->rows = plan->logit_rows = 0;
    plan_decode(sched);
    if (plan->preempted_count == 0)
        plan_admission(sched);
    plan_prefill(sched);
    ASSERT(plan->rows <= sched->options.rows_max);
    ASSERT(plan->logit_rows <= sched->options.logit_rows_max);
    ASSERT(plan->rows > 0 || sched->running.count + sched->waiting.count == 0);
    return plan;
}

int32_t sched_running(const struct sched *sched)
{
    return sched->running.count;
}

int32_t sched_waiting(const struct sched *sched)
{
    return sched->waiting.count;
}

int32_t sched_blocks_used(const struct sched *sched)
{
    return sched->options.blocks_total - sched->blocks_free;
}

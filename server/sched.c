// SPDX-License-Identifier: Apache-2.0
// See sched.h. Two lists, both in order of arrival: a sequence that was put back takes its old
// place in the waiting list. A plan is made in this order: blocks for what runs, admission, a row
// for each that generates, prompts. Engine thread only.
#include "server/sched.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "server/fair.h"
#include "sora/limits.h"

struct list {
    struct sched_item *first, *last;
    int32_t count;
};

struct sched {
    struct sched_options options;
    struct list waiting, running;
    int32_t blocks_free;
    struct fair *fair;
    uint64_t arrivals;
    int32_t oldest_turn;         // admissions since the oldest was asked last
    double us_per_row;           // of steps that hold prompts, smoothed; 0: not known yet
    int64_t now_us;              // of the plan in work
    struct sched_item **prompts; // [seqs_max] scratch of plan_prefill
    int32_t *granted;            // [seqs_max] rows for each of them
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
    made->prompts = calloc(seqs, sizeof *made->prompts);
    made->granted = calloc(seqs, sizeof *made->granted);
    sora_status status = fair_create(SORA_FAIR_FLOWS_MAX, &made->fair, err);
    if (status == SORA_OK && (made->plan.preempted == NULL || made->plan.spans == NULL ||
                              made->prompts == NULL || made->granted == NULL))
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for plans of %zu sequences", seqs);
    if (status == SORA_OK)
        *sched = made;
    else
        sched_destroy(made);
    return status;
}

void sched_destroy(struct sched *sched)
{
    if (sched == NULL)
        return;
    free(sched->plan.preempted);
    free(sched->plan.spans);
    free(sched->prompts);
    free(sched->granted);
    fair_destroy(sched->fair);
    free(sched);
}

int32_t sched_tokens_max(const struct sched *sched)
{
    int64_t tokens = (int64_t)sched->options.blocks_total * sched->options.block_tokens;
    return tokens > SORA_CONTEXT_MAX ? SORA_CONTEXT_MAX : (int32_t)tokens;
}

void sched_add(struct sched *sched, struct sched_item *item, int64_t now_us)
{
    ASSERT(item->state == ITEM_IDLE && item->length > 0);
    ASSERT(item->length <= sched_tokens_max(sched));
    item->arrival = sched->arrivals++;
    item->waiting_since_us = now_us;
    item->computed = item->blocks = item->charged = 0;
    item->cached = -1;
    item->state = ITEM_WAITING;
    item->flow = fair_enter(sched->fair, item->tenant, item->adapter);
    list_insert(&sched->waiting, item);
}

static void give_blocks_back(struct sched *sched, struct sched_item *item)
{
    sched->blocks_free += item->blocks;
    item->blocks = 0;
    ASSERT(sched->blocks_free <= sched->options.blocks_total);
}

static void leave_running(struct sched *sched, struct sched_item *item)
{
    list_remove(&sched->running, item);
    item->flow->running--;
    give_blocks_back(sched, item);
}

void sched_remove(struct sched *sched, struct sched_item *item)
{
    if (item->state == ITEM_IDLE)
        return;
    if (item->state == ITEM_RUNNING)
        leave_running(sched, item);
    else
        list_remove(&sched->waiting, item);
    fair_leave(sched->fair, item->flow);
    item->flow = NULL;
    item->state = ITEM_IDLE;
}

static int32_t blocks_for(const struct sched *sched, int32_t tokens)
{
    return (tokens + sched->options.block_tokens - 1) / sched->options.block_tokens;
}

static void put_back(struct sched *sched, struct sched_item *item)
{
    leave_running(sched, item);
    item->computed = 0;
    item->state = ITEM_WAITING;
    item->waiting_since_us = sched->now_us;
    list_insert(&sched->waiting, item);
    sched->plan.preempted[sched->plan.preempted_count++] = item;
}

// The latest arrival of the flow that has been served most, of flows with at least `running_min`
// sequences; never the oldest that runs. NULL: none.
static struct sched_item *latest_of_most_served(const struct sched *sched, int32_t running_min)
{
    struct sched_item *found = NULL;
    for (struct sched_item *item = sched->running.last; item != sched->running.first;
         item = item->prev)
        if (item->flow->running >= running_min &&
            (found == NULL || fair_before(found->flow, item->flow)))
            found = item;
    return found;
}

// Blocks for all known tokens of a running item, taken from others if need be. False: the item
// itself was put back.
static bool hold_blocks(struct sched *sched, struct sched_item *item)
{
    int32_t more = blocks_for(sched, item->length) - item->blocks;
    while (more > sched->blocks_free) {
        struct sched_item *victim = latest_of_most_served(sched, 1);
        ASSERT(victim != NULL); // alone, an item has room for all it may have
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

static void plan_blocks(struct sched *sched)
{
    struct sched_item *item = sched->running.first;
    while (item != NULL)
        item = hold_blocks(sched, item) ? item->next : sched->running.first;
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
    if (span.last_logits && item->charged <= item->length) {
        fair_charge(item->flow, SORA_FAIR_TOKEN_COST);
        item->charged = item->length + 1;
    }
}

// Every sequence past its prompt: one row each, oldest first.
static void plan_decode(struct sched *sched)
{
    for (struct sched_item *item = sched->running.first; item != NULL; item = item->next)
        if (item->length - item->computed == 1)
            add_span(sched, item, 1);
}

static void begin(struct sched *sched, struct sched_item *item)
{
    if (sched->options.begin != NULL)
        item->computed = sched->options.begin(sched->options.begin_context, item);
    ASSERT(item->computed >= 0 && item->computed < item->length);
    if (item->cached < 0) // put back and admitted again, it may find its own
        item->cached = item->computed;
    // The whole prompt at once, so that one flow does not take all places of a step; what the cache
    // had costs nothing, nor does what is computed a second time.
    int32_t paid = item->charged > item->computed ? item->charged : item->computed;
    if (item->length > paid)
        fair_charge(item->flow, item->length - paid);
    if (item->charged < item->length)
        item->charged = item->length;
}

static struct sched_item *least_served(const struct sched *sched)
{
    struct sched_item *found = sched->waiting.first;
    for (struct sched_item *item = found->next; item != NULL; item = item->next)
        if (fair_before(item->flow, found->flow))
            found = item;
    return found;
}

// The oldest that waits, when it is its turn and it has waited long; else the least served.
static struct sched_item *next_in(const struct sched *sched)
{
    struct sched_item *oldest = sched->waiting.first;
    bool waited = sched->now_us - oldest->waiting_since_us >= SORA_FAIR_WAIT_US;
    if (waited && sched->oldest_turn + 1 >= SORA_FAIR_OLDEST_TURN)
        return oldest;
    return least_served(sched);
}

static void admit(struct sched *sched, struct sched_item *item)
{
    // The turn comes at every fourth place, and waits there until somebody has waited long.
    if (item == sched->waiting.first && sched->oldest_turn + 1 >= SORA_FAIR_OLDEST_TURN)
        sched->oldest_turn = 0;
    else
        sched->oldest_turn++;
    list_remove(&sched->waiting, item);
    item->state = ITEM_RUNNING;
    item->blocks = blocks_for(sched, item->length);
    sched->blocks_free -= item->blocks;
    item->flow->running++;
    list_insert(&sched->running, item);
    begin(sched, item);
}

// All places are taken: makes one, for the next step, when the flow whose turn it is runs nothing,
// has waited long, and another that has been served more runs several.
static void make_place(struct sched *sched)
{
    struct sched_item *item = least_served(sched);
    if (item->flow->running > 0 || sched->now_us - item->waiting_since_us < SORA_FAIR_WAIT_US)
        return;
    struct sched_item *victim = latest_of_most_served(sched, 2);
    if (victim != NULL && fair_before(item->flow, victim->flow))
        put_back(sched, victim);
}

// Admits while there is room for all known tokens, and a block to grow for every running one.
static void plan_admission(struct sched *sched)
{
    while (sched->waiting.first != NULL && sched->running.count < sched->options.seqs_max) {
        struct sched_item *item = next_in(sched);
        int32_t spare = sched->running.count;
        if (blocks_for(sched, item->length) + spare > sched->blocks_free)
            return;
        admit(sched, item);
    }
    if (sched->waiting.first != NULL)
        make_place(sched);
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

static int32_t min_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

// Rows that prompts may take in this step.
static int32_t prompt_rows(const struct sched *sched)
{
    const struct sched_options *options = &sched->options;
    int32_t decode = sched->plan.rows;
    int32_t budget = SORA_STEP_ROWS_DEFAULT;
    if (decode > 0 && options->step_us_max > 0 && sched->us_per_row > 0) {
        double rows = (double)options->step_us_max / sched->us_per_row;
        budget = rows < budget ? (int32_t)rows : budget;
    }
    int32_t rows = budget - decode;
    if (rows < SORA_PREFILL_ROWS_MIN)
        rows = SORA_PREFILL_ROWS_MIN;
    return min_of(rows, options->rows_max - decode);
}

// Order of the prompts of a step: by tenant, then adapter, least served first; then by arrival.
// Equally served ones stand in any order that keeps them together.
static bool goes_before(const struct sched_item *a, const struct sched_item *b)
{
    if (a->flow == b->flow)
        return a->arrival < b->arrival;
    if (fair_before(a->flow, b->flow) || fair_before(b->flow, a->flow))
        return fair_before(a->flow, b->flow);
    return a->flow->tenant != b->flow->tenant ? a->flow->tenant < b->flow->tenant
                                              : a->flow < b->flow;
}

static int32_t collect_prompts(struct sched *sched)
{
    int32_t count = 0;
    for (struct sched_item *item = sched->running.first; item != NULL; item = item->next) {
        if (item->computed == item->length)
            continue;
        int32_t place = count++;
        for (; place > 0 && goes_before(item, sched->prompts[place - 1]); place--)
            sched->prompts[place] = sched->prompts[place - 1];
        sched->prompts[place] = item;
    }
    return count;
}

enum group { GROUP_TENANT, GROUP_ADAPTER, GROUP_PROMPT };

// End of the group of prompts that begins at `begin`.
static int32_t group_end(const struct sched *sched, int32_t begin, int32_t end, enum group group)
{
    const struct fair_flow *flow = sched->prompts[begin]->flow;
    int32_t next = begin + 1;
    for (; group != GROUP_PROMPT && next < end; next++) {
        const struct fair_flow *other = sched->prompts[next]->flow;
        if (group == GROUP_TENANT ? other->tenant != flow->tenant : other != flow)
            break;
    }
    return next;
}

// Gives the groups of prompts [begin, end) equal shares of `rows`, and so on within each; what one
// does not need goes to those after it. Returns what is left.
static int32_t share_rows(struct sched *sched, int32_t begin, int32_t end, int32_t rows,
                          enum group group)
{
    int32_t groups = 0;
    for (int32_t i = begin; i < end; i = group_end(sched, i, end, group))
        groups++;
    for (int32_t i = begin, next; i < end && rows > 0; i = next, groups--) {
        next = group_end(sched, i, end, group);
        int32_t share = (rows + groups - 1) / groups;
        share = min_of(share > SORA_PREFILL_ROWS_MIN ? share : SORA_PREFILL_ROWS_MIN, rows);
        if (group != GROUP_PROMPT) {
            rows -= share - share_rows(sched, i, next, share, group + 1);
            continue;
        }
        const struct sched_item *item = sched->prompts[i];
        int32_t more = min_of(item->length - item->computed - sched->granted[i], share);
        sched->granted[i] += more;
        rows -= more;
    }
    return rows;
}

// Shares the rest of the step among the prompts; what was not needed goes to whoever still wants
// some, in the same order.
static void plan_prefill(struct sched *sched)
{
    int32_t rows = prompt_rows(sched), count = collect_prompts(sched);
    memset(sched->granted, 0, (size_t)count * sizeof *sched->granted);
    rows = share_rows(sched, 0, count, rows, GROUP_TENANT);
    for (int32_t i = 0; i < count && rows > 0; i++)
        rows = share_rows(sched, i, i + 1, rows, GROUP_PROMPT);
    for (int32_t i = 0; i < count; i++) {
        struct sched_item *item = sched->prompts[i];
        int32_t granted = chunk_of(sched, item, sched->granted[i]);
        if (granted > 0)
            add_span(sched, item, granted);
    }
}

const struct sched_plan *sched_next(struct sched *sched, int64_t now_us)
{
    struct sched_plan *plan = &sched->plan;
    plan->preempted_count = plan->span_count = 0;
    plan->rows = plan->logit_rows = 0;
    sched->now_us = now_us;
    plan_blocks(sched);
    if (plan->preempted_count == 0)
        plan_admission(sched);
    plan_decode(sched);
    plan_prefill(sched);
    ASSERT(plan->rows <= sched->options.rows_max);
    ASSERT(plan->logit_rows <= sched->options.logit_rows_max);
    ASSERT(plan->rows > 0 || sched->running.count + sched->waiting.count == 0);
    return plan;
}

void sched_took(struct sched *sched, int64_t elapsed_us)
{
    // Steps without a prompt cost what reading the weights costs, whatever their rows.
    if (sched->plan.rows - sched->plan.logit_rows < SORA_PREFILL_ROWS_MIN)
        return;
    double us = (double)elapsed_us / sched->plan.rows;
    sched->us_per_row =
        sched->us_per_row == 0 ? us : sched->us_per_row + (us - sched->us_per_row) / 8;
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

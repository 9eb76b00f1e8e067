// SPDX-License-Identifier: Apache-2.0
// See engine_loop.h. Everything below the inbox belongs to the engine thread alone.
#include "server/engine_loop.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "sora/limits.h"

// A token to choose after a step: the sequence and the logits of its last row.
struct choosing {
    struct request_seq *seq;
    const float *logits;
    int32_t token; // the result
};

struct engine_loop {
    struct engine_loop_options options;
    struct sched *sched;
    struct sora_span *spans;    // [seqs_max]
    struct choosing *choosings; // [seqs_max], in the order of the spans
    sora_sampler_scratch *sampling;
    struct request *first; // accepted requests, newest first
    int32_t request_count, admitted_count;
    struct sora_logprobs logprobs; // scratch of one row
    pthread_t thread;
    bool started;

    pthread_mutex_t mutex; // guards what follows
    pthread_cond_t changed;
    struct request *inbox_first, *inbox_last;
    int32_t waiting; // requests submitted of which nothing has been admitted yet
    bool stopping;
};

static void put_event(struct request_seq *seq, enum event_kind kind, int32_t token,
                      enum event_finish finish)
{
    struct event event = {.kind = kind, .seq = seq->index, .token = token, .finish = finish};
    event_ring_put(seq->request->ring, &event);
}

// A token event with what the request asked to know about it.
static void put_scored(struct engine_loop *loop, struct request_seq *seq, enum event_kind kind,
                       int32_t token, const float *logits)
{
    const struct request *request = seq->request;
    if (request->logprobs < 0) {
        put_event(seq, kind, token, FINISH_NONE);
        return;
    }
    struct sora_logprobs *scores = &loop->logprobs;
    sora_logprobs_of(logits, loop->options.vocab_size, token, request->logprobs, scores);
    struct event event = {.kind = kind,
                          .seq = seq->index,
                          .token = token,
                          .logprob = scores->logprob,
                          .rank = scores->rank,
                          .top_count = scores->top_count,
                          .top_tokens = scores->top_tokens,
                          .top_logprobs = scores->top_logprobs};
    event_ring_put(request->ring, &event);
}

static void one_less_waiting(struct engine_loop *loop)
{
    pthread_mutex_lock(&loop->mutex);
    loop->waiting--;
    pthread_mutex_unlock(&loop->mutex);
}

// The request is over: last event, off the list, and never touched again.
static void release(struct engine_loop *loop, struct request *request)
{
    *(request->prev != NULL ? &request->prev->next : &loop->first) = request->next;
    if (request->next != NULL)
        request->next->prev = request->prev;
    loop->request_count--;
    if (atomic_load_explicit(&request->admitted, memory_order_relaxed))
        loop->admitted_count--;
    else
        one_less_waiting(loop);
    metrics_observe(loop->options.metrics, METRICS_REQUEST, clock_now_us() - request->arrival_us);
    struct event end = {.kind = EVENT_END, .seq = -1};
    event_ring_put(request->ring, &end);
    sem_post(&request->released);
}

static void finish_seq(struct engine_loop *loop, struct request_seq *seq, enum event_finish finish)
{
    struct request *request = seq->request;
    ASSERT(!seq->done);
    seq->done = true;
    sched_remove(loop->sched, &seq->item);
    if (seq->handle >= 0)
        sora_engine_seq_close(loop->options.engine, seq->handle);
    seq->handle = -1;
    put_event(seq, EVENT_DONE, -1, finish);
    if (--request->seqs_open == 0)
        release(loop, request);
}

static bool contains(const int32_t *tokens, int32_t count, int32_t token)
{
    for (int32_t i = 0; i < count; i++)
        if (tokens[i] == token)
            return true;
    return false;
}

static bool ends_at(const struct request *request, int32_t token)
{
    if (contains(request->stop_tokens, request->stop_token_count, token))
        return true;
    return !request->ignore_eos && contains(request->end_tokens, request->end_token_count, token);
}

static void observe_token(struct engine_loop *loop, struct request_seq *seq, int64_t now_us)
{
    struct metrics *metrics = loop->options.metrics;
    metrics_add(metrics, METRICS_OUTPUT_TOKENS, 1);
    if (seq->generated == 1 && seq->index == 0)
        metrics_observe(metrics, METRICS_FIRST_TOKEN, now_us - seq->request->arrival_us);
    else if (seq->generated > 1)
        metrics_observe(metrics, METRICS_INTER_TOKEN, now_us - seq->last_token_us);
    seq->last_token_us = now_us;
}

static bool is_too_early(const struct request_seq *seq)
{
    return seq->generated < seq->request->min_tokens;
}

// On any of the engine's threads: a sequence's sampler is its own.
static void choose_one(void *context, int32_t index, int32_t thread)
{
    const struct engine_loop *loop = context;
    struct choosing *choosing = &loop->choosings[index];
    const struct request *request = choosing->seq->request;
    choosing->token = sora_sampler_next(choosing->seq->sampler, loop->sampling, thread,
                                        choosing->logits, request->end_tokens,
                                        is_too_early(choosing->seq) ? request->end_token_count : 0);
}

// The next token of every sequence whose last row was computed, from its logits [vocab].
static void choose_tokens(struct engine_loop *loop, const struct sched_plan *plan)
{
    int32_t count = 0;
    for (int32_t i = 0; i < plan->span_count; i++) {
        const struct sched_span *planned = &plan->spans[i];
        struct request_seq *seq = planned->item->owner;
        if (!planned->last_logits || seq->request->max_tokens == 0)
            continue;
        const size_t row = planned->all_logits ? (size_t)planned->count - 1 : 0;
        const float *logits = loop->spans[i].logits + row * (size_t)loop->options.vocab_size;
        loop->choosings[count++] = (struct choosing){.seq = seq, .logits = logits};
    }
    sora_engine_share(loop->options.engine, count, choose_one, loop);
}

static void take_token(struct engine_loop *loop, const struct choosing *choosing)
{
    struct request_seq *seq = choosing->seq;
    struct request *request = seq->request;
    const int32_t token = choosing->token;
    const bool too_early = is_too_early(seq);
    put_scored(loop, seq, EVENT_TOKEN, token, choosing->logits);
    seq->tokens[seq->item.length++] = token;
    seq->generated++;
    observe_token(loop, seq, clock_now_us());
    if (!too_early && ends_at(request, token))
        finish_seq(loop, seq, FINISH_STOP);
    else if (seq->generated == request->max_tokens)
        finish_seq(loop, seq, FINISH_LENGTH);
}

// Hands out what one span gave: scores of prompt tokens, then the next token, which is the first of
// those that `choosing` goes over.
static void use_logits(struct engine_loop *loop, const struct sched_span *planned,
                       const struct sora_span *span, const struct choosing **choosing)
{
    struct request_seq *seq = planned->item->owner;
    struct sched_item *item = &seq->item;
    size_t vocab = (size_t)loop->options.vocab_size;
    if (planned->all_logits) {
        for (int32_t row = 0; row < planned->count; row++) {
            int32_t position = planned->start + row;
            if (position != item->score_next || position >= item->score_end)
                continue; // computed again after having been put back
            put_scored(loop, seq, EVENT_PROMPT, seq->tokens[position + 1],
                       span->logits + (size_t)row * vocab);
            item->score_next++;
        }
    }
    if (!planned->last_logits)
        return;
    if (seq->request->max_tokens == 0)
        finish_seq(loop, seq, FINISH_LENGTH);
    else
        take_token(loop, (*choosing)++);
}

// What a prompt found in the cache, once for all choices of it.
static void count_cached(struct engine_loop *loop, struct request_seq *seq, int32_t cached)
{
    struct request *request = seq->request;
    metrics_add(loop->options.metrics, METRICS_PREFIX_HIT_TOKENS, cached);
    if (seq->index % request->choices == 0)
        atomic_fetch_add_explicit(&request->cached_tokens, cached, memory_order_relaxed);
}

// The planner admits a sequence: it is opened, with what the cache has of it. Scores of prompt
// tokens need their rows computed, so those prompts take nothing from the cache.
static int32_t admit(void *context, struct sched_item *item)
{
    struct engine_loop *loop = context;
    struct request_seq *seq = item->owner;
    struct request *request = seq->request;
    int32_t cached = 0;
    ASSERT(seq->handle < 0);
    if (item->score_next < item->score_end)
        seq->handle = sora_engine_seq_open(loop->options.engine);
    else
        seq->handle = sora_engine_seq_open_prefix(loop->options.engine, &request->view, seq->tokens,
                                                  item->length, &cached);
    ASSERT(seq->handle >= 0); // the planner keeps to seqs_max
    if (!atomic_load_explicit(&request->admitted, memory_order_relaxed)) {
        atomic_store_explicit(&request->admitted, true, memory_order_relaxed);
        loop->admitted_count++;
        one_less_waiting(loop);
    }
    if (item->cached < 0)
        count_cached(loop, seq, cached);
    return cached;
}

// Makes the engine's sequences what the plan says and writes its spans.
static void carry_out(struct engine_loop *loop, const struct sched_plan *plan)
{
    for (int32_t i = 0; i < plan->preempted_count; i++) {
        struct request_seq *seq = plan->preempted[i]->owner;
        sora_engine_seq_close(loop->options.engine, seq->handle);
        seq->handle = -1;
    }
    for (int32_t i = 0; i < plan->span_count; i++) {
        const struct sched_span *planned = &plan->spans[i];
        struct request_seq *seq = planned->item->owner;
        // Cannot fail: the planner counted the same blocks.
        ASSERT(sora_engine_seq_reserve(loop->options.engine, seq->handle,
                                       planned->start + planned->count));
        loop->spans[i] = (struct sora_span){
            .seq = seq->handle,
            .tokens = seq->tokens + planned->start,
            .token_count = planned->count,
            .parts = seq->request->parts,
            .part_count = seq->request->part_count,
            .want = planned->all_logits    ? SORA_LOGITS_ALL
                    : planned->last_logits ? SORA_LOGITS_LAST
                                           : SORA_LOGITS_NONE,
        };
    }
}

static void count_step(struct engine_loop *loop, const struct sched_plan *plan,
                       const struct sora_step_stats *stats, int64_t sampling_us)
{
    struct metrics *metrics = loop->options.metrics;
    metrics_add(metrics, METRICS_STEPS, 1);
    metrics_add(metrics, METRICS_STEP_RANK_SUM, stats->rank_sum);
    metrics_add(metrics, METRICS_STEP_ATTENTION_US, stats->attention_us);
    metrics_add(metrics, METRICS_STEP_BASE_US, stats->base_matmul_us);
    metrics_add(metrics, METRICS_STEP_ADAPTER_US, stats->adapter_us);
    metrics_add(metrics, METRICS_STEP_SAMPLING_US, sampling_us);
    metrics_add(metrics, METRICS_STEP_TOTAL_US, stats->total_us + sampling_us);
    metrics_add(metrics, METRICS_PREEMPTIONS, plan->preempted_count);
    metrics_observe(metrics, METRICS_STEP_ROWS, plan->rows);
}

static void show_load(struct engine_loop *loop)
{
    struct metrics *metrics = loop->options.metrics;
    pthread_mutex_lock(&loop->mutex);
    int32_t waiting = loop->waiting;
    pthread_mutex_unlock(&loop->mutex);
    metrics_set(metrics, METRICS_WAITING, waiting);
    metrics_set(metrics, METRICS_RUNNING, loop->admitted_count);
    metrics_set(metrics, METRICS_SEQS_RUNNING, sched_running(loop->sched));
    metrics_set(metrics, METRICS_KV_BLOCKS_USED, sched_blocks_used(loop->sched));
}

static void run_step(struct engine_loop *loop)
{
    int64_t start_us = clock_now_us();
    const struct sched_plan *plan = sched_next(loop->sched, start_us);
    if (plan->rows == 0)
        return;
    struct sora_step_stats stats = {.rows = 0};
    carry_out(loop, plan);
    show_load(loop);
    sora_engine_step(loop->options.engine, loop->spans, plan->span_count, &stats);
    int64_t begin_us = clock_now_us();
    const struct choosing *choosing = loop->choosings;
    choose_tokens(loop, plan);
    for (int32_t i = 0; i < plan->span_count; i++)
        use_logits(loop, &plan->spans[i], &loop->spans[i], &choosing);
    int64_t end_us = clock_now_us();
    count_step(loop, plan, &stats, end_us - begin_us);
    sched_took(loop->sched, end_us - start_us);
}

// Ends every sequence that nobody waits for any more.
static void drop_cancelled(struct engine_loop *loop)
{
    struct request *next;
    for (struct request *request = loop->first; request != NULL; request = next) {
        next = request->next;
        bool all = atomic_load_explicit(&request->cancel, memory_order_acquire);
        // The last finish_seq releases the request: its count is read before.
        int32_t count = request->seq_count, open = request->seqs_open;
        for (int32_t i = 0; i < count && open > 0; i++) {
            struct request_seq *seq = &request->seqs[i];
            if (seq->done || !(all || atomic_load_explicit(&seq->cancel, memory_order_acquire)))
                continue;
            open--;
            finish_seq(loop, seq, FINISH_CANCELLED);
        }
    }
}

static void accept(struct engine_loop *loop, struct request *request)
{
    request->prev = NULL;
    request->next = loop->first;
    if (loop->first != NULL)
        loop->first->prev = request;
    loop->first = request;
    loop->request_count++;
    for (int32_t i = 0; i < request->seq_count; i++)
        sched_add(loop->sched, &request->seqs[i].item, clock_now_us());
}

// Takes what was submitted; sleeps when there is nothing to do. False: stop.
static bool take_inbox(struct engine_loop *loop)
{
    bool idle = loop->request_count == 0;
    pthread_mutex_lock(&loop->mutex);
    while (idle && loop->inbox_first == NULL && !loop->stopping)
        pthread_cond_wait(&loop->changed, &loop->mutex);
    struct request *request = loop->inbox_first;
    loop->inbox_first = loop->inbox_last = NULL;
    bool stopping = loop->stopping;
    pthread_mutex_unlock(&loop->mutex);
    while (request != NULL) {
        struct request *next = request->inbox_next;
        accept(loop, request);
        request = next;
    }
    return !stopping;
}

static void end_all(struct engine_loop *loop)
{
    struct request *next;
    for (struct request *request = loop->first; request != NULL; request = next) {
        next = request->next;
        int32_t count = request->seq_count, open = request->seqs_open;
        for (int32_t i = 0; i < count && open > 0; i++) {
            if (request->seqs[i].done)
                continue;
            open--;
            finish_seq(loop, &request->seqs[i], FINISH_SHUTDOWN);
        }
    }
}

static void *run(void *context)
{
    struct engine_loop *loop = context;
    pthread_setname_np(pthread_self(), "sora-engine");
    while (take_inbox(loop)) {
        drop_cancelled(loop);
        run_step(loop);
        if (loop->request_count == 0)
            show_load(loop);
    }
    end_all(loop);
    show_load(loop);
    return NULL;
}

sora_status engine_loop_start(const struct engine_loop_options *options, struct engine_loop **loop,
                              struct sora_error *err)
{
    struct engine_loop *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the engine loop");
    made->options = *options;
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->changed, NULL);
    struct sora_kv_stats kv = sora_engine_kv_stats(options->engine);
    metrics_set(options->metrics, METRICS_KV_BLOCKS_TOTAL, kv.blocks_total);
    struct sched_options plan = {.begin = admit,
                                 .begin_context = made,
                                 .seqs_max = options->seqs_max,
                                 .rows_max = options->rows_max,
                                 .logit_rows_max = options->logit_rows_max,
                                 .blocks_total = kv.blocks_total,
                                 .block_tokens = kv.block_tokens,
                                 .step_us_max = options->step_us_max};
    sora_status status = sched_create(&plan, &made->sched, err);
    made->spans = calloc((size_t)options->seqs_max, sizeof *made->spans);
    made->choosings = calloc((size_t)options->seqs_max, sizeof *made->choosings);
    if (status == SORA_OK && (made->spans == NULL || made->choosings == NULL))
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for %d spans", options->seqs_max);
    if (status == SORA_OK)
        status = sora_sampler_scratch_create(
            options->vocab_size, sora_engine_threads(options->engine), &made->sampling, err);
    if (status == SORA_OK && pthread_create(&made->thread, NULL, run, made) != 0)
        status = sora_fail(err, SORA_IO, "cannot start the engine thread");
    if (status != SORA_OK) {
        engine_loop_destroy(made);
        return status;
    }
    made->started = true;
    *loop = made;
    return SORA_OK;
}

void engine_loop_stop(struct engine_loop *loop)
{
    if (loop == NULL || !loop->started)
        return;
    pthread_mutex_lock(&loop->mutex);
    loop->stopping = true;
    pthread_cond_signal(&loop->changed);
    pthread_mutex_unlock(&loop->mutex);
    pthread_join(loop->thread, NULL);
    loop->started = false;
}

void engine_loop_destroy(struct engine_loop *loop)
{
    if (loop == NULL)
        return;
    ASSERT(!loop->started && loop->request_count == 0);
    sched_destroy(loop->sched);
    free(loop->spans);
    free(loop->choosings);
    sora_sampler_scratch_destroy(loop->sampling);
    pthread_cond_destroy(&loop->changed);
    pthread_mutex_destroy(&loop->mutex);
    free(loop);
}

sora_status engine_loop_submit(struct engine_loop *loop, struct request *request,
                               struct sora_error *err)
{
    sora_status status = SORA_OK;
    pthread_mutex_lock(&loop->mutex);
    if (loop->stopping) {
        status = sora_fail(err, SORA_CANCELLED, "the server is shutting down");
    } else if (loop->waiting >= loop->options.queue_max) {
        status = sora_fail(err, SORA_BUSY,
                           "%d requests are waiting already, as many as --queue "
                           "allows: try again later",
                           loop->waiting);
    } else {
        loop->waiting++;
        request->inbox_next = NULL;
        if (loop->inbox_last != NULL)
            loop->inbox_last->inbox_next = request;
        else
            loop->inbox_first = request;
        loop->inbox_last = request;
        pthread_cond_signal(&loop->changed);
    }
    pthread_mutex_unlock(&loop->mutex);
    return status;
}

int32_t engine_loop_tokens_max(const struct engine_loop *loop)
{
    return sched_tokens_max(loop->sched);
}

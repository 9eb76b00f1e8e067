// SPDX-License-Identifier: Apache-2.0
// See request.h for who owns what when.
#include "server/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "sora/limits.h"

// A name as the planner knows it. Two names with one key would share their turns, no more.
static uint64_t key_of(const char *name)
{
    uint64_t key = 0;
    for (; name != NULL && *name != '\0'; name++)
        key = (key ^ (unsigned char)*name) * 0x100000001b3u + 1; // FNV-1a; never 0 for a name
    return key;
}

static sora_status make_seq(const struct request_spec *spec, struct request *request, int32_t index,
                            struct sora_error *err)
{
    struct request_seq *seq = &request->seqs[index];
    int32_t prompt = index / spec->choices, choice = index % spec->choices;
    int32_t count = spec->prompt_token_counts[prompt];
    ASSERT(count > 0 && spec->max_tokens >= 0);
    size_t capacity = (size_t)count + (size_t)spec->max_tokens;
    seq->request = request;
    seq->index = index;
    seq->handle = -1;
    seq->prompt_count = count;
    seq->item.owner = seq;
    seq->item.tenant = (uint64_t)spec->tenant;
    // Composed ones have the turns of the first: more adapters are not more turns.
    seq->item.adapter = key_of(spec->adapter_count > 0 ? spec->adapters[0].name : NULL);
    seq->item.length = count;
    seq->item.score_end = spec->score_prompt ? count - 1 : 0;
    seq->tokens = calloc(capacity, sizeof *seq->tokens);
    if (seq->tokens == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu tokens", capacity);
    memcpy(seq->tokens, spec->prompts[prompt], (size_t)count * sizeof *seq->tokens);
    struct sora_sampling sampling = *spec->sampling;
    sampling.seed += (uint64_t)choice;
    sora_status status = sora_sampler_create(&sampling, spec->vocab_size, &seq->sampler, err);
    if (status == SORA_OK)
        sora_sampler_see_prompt(seq->sampler, seq->tokens, count);
    return status;
}

// Every event the request may ever produce: tokens and their end per sequence, scored prompt
// tokens, and the end of all.
static size_t event_count(const struct request_spec *spec)
{
    size_t seqs = (size_t)spec->prompt_count * (size_t)spec->choices;
    size_t events = seqs * ((size_t)spec->max_tokens + 1) + 1;
    if (spec->score_prompt)
        for (int32_t i = 0; i < spec->prompt_count; i++)
            events += (size_t)spec->prompt_token_counts[i] * (size_t)spec->choices;
    return events;
}

static void take_adapters(const struct request_spec *spec, struct request *request)
{
    ASSERT(spec->adapter_count >= 0 && spec->adapter_count <= SORA_REQUEST_ADAPTERS_MAX);
    request->part_count = request->view.part_count = spec->adapter_count;
    for (int32_t i = 0; i < spec->adapter_count; i++) {
        const struct request_adapter *from = &spec->adapters[i];
        struct sora_prefix_part *part = &request->view.parts[i];
        request->parts[i] = from->part;
        request->names[i] = from->name;
        snprintf(part->digest, sizeof part->digest, "%s", from->digest);
        part->scale = from->part.scale;
        part->rank_max = from->part.rank_max;
    }
}

sora_status request_create(const struct request_spec *spec, struct request **request,
                           struct sora_error *err)
{
    ASSERT(spec->prompt_count > 0 && spec->choices > 0);
    sora_status status = SORA_OK;
    int32_t top_max = spec->logprobs > 0 ? spec->logprobs : 0;
    size_t events = event_count(spec);
    if (event_ring_bytes(events, top_max) > SORA_EVENT_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT,
                         "%zu tokens with %d log-probabilities each exceed the %u MB kept for the "
                         "answer of one request: ask for fewer choices, tokens or logprobs",
                         events, (int)top_max, SORA_EVENT_BYTES_MAX >> 20);
    struct request *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a request");
    sem_init(&made->released, 0, 0);
    made->seq_count = made->seqs_open = spec->prompt_count * spec->choices;
    made->max_tokens = spec->max_tokens;
    made->min_tokens = spec->min_tokens;
    made->ignore_eos = spec->ignore_eos;
    made->end_tokens = spec->end_tokens;
    made->end_token_count = spec->end_token_count;
    ASSERT(spec->stop_token_count <= SORA_STOP_TOKEN_COUNT_MAX);
    for (int32_t i = 0; i < spec->stop_token_count; i++)
        made->stop_tokens[made->stop_token_count++] = spec->stop_tokens[i];
    made->logprobs = spec->logprobs;
    made->choices = spec->choices;
    made->tenant = made->view.tenant = spec->tenant;
    take_adapters(spec, made);
    made->arrival_us = clock_now_us();
    made->seqs = calloc((size_t)made->seq_count, sizeof *made->seqs);
    if (made->seqs == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for %d sequences", made->seq_count);
    if (status == SORA_OK)
        status = event_ring_create(events, top_max, &made->ring, err);
    for (int32_t i = 0; status == SORA_OK && i < made->seq_count; i++)
        status = make_seq(spec, made, i, err);
    if (status == SORA_OK)
        *request = made;
    else
        request_destroy(made);
    return status;
}

void request_destroy(struct request *request)
{
    if (request == NULL)
        return;
    for (int32_t i = 0; request->seqs != NULL && i < request->seq_count; i++) {
        free(request->seqs[i].tokens);
        if (request->seqs[i].sampler != NULL)
            sora_sampler_destroy(request->seqs[i].sampler);
    }
    free(request->seqs);
    event_ring_destroy(request->ring);
    sem_destroy(&request->released);
    free(request);
}

void request_await(struct request *request)
{
    while (sem_wait(&request->released) != 0)
        ASSERT(errno == EINTR);
}

void request_cancel(struct request *request)
{
    atomic_store_explicit(&request->cancel, true, memory_order_release);
    event_ring_wake(request->ring);
}

void request_table_init(struct request_table *table)
{
    *table = (struct request_table){.count = 0};
    pthread_mutex_init(&table->mutex, NULL);
    table->changed_s = clock_unix_s();
}

void request_table_deinit(struct request_table *table)
{
    ASSERT(table->first == NULL && table->first_wait == NULL);
    pthread_mutex_destroy(&table->mutex);
}

void request_table_add(struct request_table *table, struct request *request)
{
    pthread_mutex_lock(&table->mutex);
    request->table_prev = NULL;
    request->table_next = table->first;
    if (table->first != NULL)
        table->first->table_prev = request;
    table->first = request;
    table->count++;
    table->changed_s = clock_unix_s();
    pthread_mutex_unlock(&table->mutex);
}

void request_table_remove(struct request_table *table, struct request *request)
{
    pthread_mutex_lock(&table->mutex);
    *(request->table_prev != NULL ? &request->table_prev->table_next : &table->first) =
        request->table_next;
    if (request->table_next != NULL)
        request->table_next->table_prev = request->table_prev;
    table->count--;
    table->changed_s = clock_unix_s();
    pthread_mutex_unlock(&table->mutex);
}

void request_table_wait(struct request_table *table, struct request_wait *wait)
{
    pthread_mutex_lock(&table->mutex);
    wait->prev = NULL;
    wait->next = table->first_wait;
    if (table->first_wait != NULL)
        table->first_wait->prev = wait;
    table->first_wait = wait;
    table->changed_s = clock_unix_s();
    pthread_mutex_unlock(&table->mutex);
}

void request_table_forget(struct request_table *table, struct request_wait *wait)
{
    pthread_mutex_lock(&table->mutex);
    *(wait->prev != NULL ? &wait->prev->next : &table->first_wait) = wait->next;
    if (wait->next != NULL)
        wait->next->prev = wait->prev;
    table->changed_s = clock_unix_s();
    pthread_mutex_unlock(&table->mutex);
}

int32_t request_table_count(struct request_table *table)
{
    pthread_mutex_lock(&table->mutex);
    int32_t count = table->count;
    pthread_mutex_unlock(&table->mutex);
    return count;
}

static void add_name_once(struct buf *names, const char *name)
{
    size_t bytes = strlen(name);
    for (const char *at = names->data; (at = strstr(at, name)) != NULL; at += bytes)
        if ((at == names->data || at[-1] == ',') && (at[bytes] == ',' || at[bytes] == '\0'))
            return;
    if (names->bytes > 0)
        buf_text(names, ",");
    buf_text(names, name);
}

void request_table_adapters(struct request_table *table, struct buf *running, struct buf *waiting,
                            int64_t *changed_s)
{
    pthread_mutex_lock(&table->mutex);
    for (struct request *request = table->first; request != NULL; request = request->table_next)
        for (int32_t i = 0; i < request->part_count; i++)
            add_name_once(atomic_load(&request->admitted) ? running : waiting, request->names[i]);
    for (struct request_wait *wait = table->first_wait; wait != NULL; wait = wait->next) {
        char name[SORA_STORED_NAME_BYTES_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(wait->adapter, "@"), wait->adapter);
        add_name_once(waiting, name);
    }
    *changed_s = table->changed_s;
    pthread_mutex_unlock(&table->mutex);
}

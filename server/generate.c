// SPDX-License-Identifier: Apache-2.0
// See generate.h. A generation lives on the stack of its HTTP worker; the request inside it is the
// engine's between submit and request_await.
#include "server/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/rng.h"
#include "server/answer_tgi.h"
#include "server/generate_adapters.h"
#include "server/sse.h"
#include "sora/limits.h"

#define COMPLETION_TOKENS_DEFAULT 16 // OpenAI's max_tokens of /v1/completions

struct generation {
    struct server *server;
    struct http_call *call;
    struct api_request api;
    struct generate_adapters adapters; // none: the base
    int32_t *prompts[SORA_REQUEST_PROMPTS_MAX];
    int32_t prompt_counts[SORA_REQUEST_PROMPTS_MAX];
    int32_t prompt_count;
    int32_t max_tokens;
    struct request *request;
    struct choice_options options;
    struct choice *choices; // [request->seq_count]
    int32_t choices_each;   // sequences of one prompt: best_of
    struct answer answer;
    struct answer_tgi tgi; // of LoRAX's requests
    char id[40];
    bool client_gone, shutdown;
};

static sora_status tokenize_prompts(struct generation *gen, struct api_error *error)
{
    const struct api_request *api = &gen->api;
    int32_t count = api->kind == API_CHAT ? 1 : api->prompt_count;
    for (int32_t i = 0; i < count; i++) {
        const struct api_prompt *prompt = api->kind == API_CHAT ? NULL : &api->prompts[i];
        sora_status status = generate_tokens(gen->server, api, prompt, &gen->prompts[i],
                                             &gen->prompt_counts[i], error);
        if (status != SORA_OK)
            return status;
        gen->prompt_count = i + 1;
        if (gen->prompt_counts[i] == 0)
            return api_error_set(error, API_BAD_REQUEST, "invalid_value", "prompt",
                                 "prompt: has no tokens");
        gen->answer.prompt_tokens += gen->prompt_counts[i];
    }
    return SORA_OK;
}

// Settles max_tokens for all prompts and holds it against the context.
static sora_status check_lengths(struct generation *gen, struct api_error *error)
{
    const struct api_request *api = &gen->api;
    int32_t context = gen->server->context_max, longest = 0;
    for (int32_t i = 0; i < gen->prompt_count; i++)
        longest = gen->prompt_counts[i] > longest ? gen->prompt_counts[i] : longest;
    int32_t least = api->max_tokens == 0 ? 0 : 1;
    bool given = api->max_tokens >= 0;
    int64_t wanted = given ? api->max_tokens : least;
    if (longest + wanted > context)
        return api_error_set(error, API_BAD_REQUEST, "context_length_exceeded",
                             api->kind == API_CHAT ? "messages" : "prompt",
                             "this model's context is %d tokens, but %d of the prompt and %d of "
                             "the answer were asked for: shorten one of them",
                             context, longest, (int)wanted);
    gen->max_tokens = given ? api->max_tokens : context - longest;
    if (!given && api->kind == API_COMPLETION && !api->tgi.on &&
        gen->max_tokens > COMPLETION_TOKENS_DEFAULT)
        gen->max_tokens = COMPLETION_TOKENS_DEFAULT;
    return SORA_OK;
}

static sora_status make_request(struct generation *gen, struct api_error *error)
{
    const struct api_request *api = &gen->api;
    const struct server *server = gen->server;
    gen->choices_each = api->best_of;
    int32_t logprobs = api->logprobs;
    if (logprobs < 0 && api->best_of > api->n)
        logprobs = 0; // the mean decides
    struct request_spec spec = {
        .sampling = &api->sampling,
        .prompts = (const int32_t *const *)gen->prompts,
        .prompt_token_counts = gen->prompt_counts,
        .prompt_count = gen->prompt_count,
        .choices = gen->choices_each,
        .max_tokens = gen->max_tokens,
        .min_tokens = api->min_tokens,
        .ignore_eos = api->ignore_eos,
        .score_prompt = api->echo && api->logprobs >= 0,
        .end_tokens = server->end_tokens,
        .end_token_count = server->end_token_count,
        .stop_tokens = api->stop_tokens,
        .stop_token_count = api->stop_token_count,
        .logprobs = logprobs,
        .vocab_size = server->info->base.vocab_size,
        .adapters = gen->adapters.list,
        .adapter_count = gen->adapters.count,
        .tenant = gen->call->caller.rate->id,
    };
    struct sora_error cause;
    sora_status status = request_create(&spec, &gen->request, &cause);
    return status == SORA_OK ? SORA_OK : api_error_from(error, API_FROM_BODY, &cause);
}

// One choice per sequence; with echo the prompt stands before it.
static sora_status make_choices(struct generation *gen, struct api_error *error)
{
    const struct api_request *api = &gen->api;
    struct sora_error cause;
    sora_status status = SORA_OK;
    int32_t count = gen->request->seq_count;
    gen->options = (struct choice_options){.tokenizer = gen->server->tokenizer, .api = api};
    gen->choices = calloc((size_t)count, sizeof *gen->choices);
    if (gen->choices == NULL)
        return api_error_set(error, API_UNAVAILABLE, "no_memory", NULL, "no memory");
    for (int32_t i = 0; i < count && status == SORA_OK; i++) {
        struct choice *choice = &gen->choices[i];
        int32_t prompt = i / gen->choices_each;
        status = choice_init(choice, &gen->options, &cause);
        if (status == SORA_OK && api->echo)
            status = choice_echo(choice, api->prompts[prompt].text, gen->prompts[prompt],
                                 gen->prompt_counts[prompt], &cause);
        if (status == SORA_OK && api->echo && api->logprobs >= 0)
            choice_prompt_token(choice, gen->prompts[prompt][0], NULL);
    }
    return status == SORA_OK ? SORA_OK : api_error_from(error, API_FROM_BODY, &cause);
}

static void client_gone(void *request)
{
    request_cancel(request);
}

// The index in the answer of a sequence, or -1 when best_of leaves it out (never in a stream).
static int32_t answer_index(const struct generation *gen, int32_t seq)
{
    int32_t prompt = seq / gen->choices_each, choice = seq % gen->choices_each;
    return choice < gen->api.n ? prompt * gen->api.n + choice : -1;
}

static struct answer_choice describe_choice(const struct generation *gen, int32_t seq)
{
    int32_t prompt = seq / gen->choices_each;
    struct answer_choice item = {.choice = &gen->choices[seq], .index = answer_index(gen, seq)};
    if (gen->api.return_token_ids) {
        item.prompt_tokens = gen->prompts[prompt];
        item.prompt_token_count = gen->prompt_counts[prompt];
    }
    return item;
}

// Takes one event in. True: something new of the sequence may be sent.
static bool use_event(struct generation *gen, const struct event *event)
{
    if (event->kind == EVENT_END)
        return false;
    struct choice *choice = &gen->choices[event->seq];
    if (choice->done)
        return false; // behind a stop string
    switch (event->kind) {
    case EVENT_PROMPT:
        choice_prompt_token(choice, event->token, event);
        return false;
    case EVENT_TOKEN:
        gen->answer.completion_tokens++;
        gen->answer.cached_tokens = atomic_load(&gen->request->cached_tokens);
        if (choice_token(choice, event))
            atomic_store_explicit(&gen->request->seqs[event->seq].cancel, true,
                                  memory_order_release);
        return choice->text.bytes > 0 || choice->entries > 0 || choice->ids > 0 || choice->done;
    default:
        if (event->finish == FINISH_CANCELLED)
            gen->client_gone = true;
        if (event->finish == FINISH_SHUTDOWN)
            gen->shutdown = true;
        choice_end(choice, event->finish);
        return event->finish == FINISH_STOP || event->finish == FINISH_LENGTH;
    }
}

static void wait_for_all(struct generation *gen)
{
    struct event event;
    do {
        while (!event_ring_take(gen->request->ring, &event, INT64_MAX / 4))
            continue;
        (void)use_event(gen, &event);
        if (gen->api.tgi.on)
            answer_tgi_event(&gen->tgi, &gen->choices[0], &event, NULL);
    } while (event.kind != EVENT_END);
}

static double mean_logprob(const struct choice *choice)
{
    return choice->token_count > 0 ? choice->logprob_sum / choice->token_count : -1e30;
}

// Moves the n best choices of every prompt to its front.
static void choose_best(struct generation *gen)
{
    int32_t each = gen->choices_each, n = gen->api.n;
    for (int32_t first = 0; n < each && first < gen->request->seq_count; first += each) {
        for (int32_t i = 0; i < n; i++) {
            int32_t best = i;
            for (int32_t j = i + 1; j < each; j++)
                if (mean_logprob(&gen->choices[first + j]) >
                    mean_logprob(&gen->choices[first + best]))
                    best = j;
            struct choice swap = gen->choices[first + i];
            gen->choices[first + i] = gen->choices[first + best];
            gen->choices[first + best] = swap;
        }
    }
}

static void reply_error(struct http_call *call, bool tgi, const struct api_error *error)
{
    struct buf body;
    if (!tgi) {
        http_reply_error(call, error);
        return;
    }
    buf_init(&body, 1u << 16);
    answer_tgi_error(&body, error);
    http_reply_json(call, answer_tgi_code(error->http), &body);
    buf_deinit(&body);
}

static void reply_whole(struct generation *gen)
{
    struct answer_choice list[SORA_REQUEST_SEQS_MAX];
    struct api_error error;
    struct buf body;
    wait_for_all(gen);
    if (gen->client_gone) {
        gen->call->code = API_CLIENT_GONE;
        gen->call->close = true;
        return;
    }
    if (gen->shutdown) {
        (void)api_error_set(&error, API_UNAVAILABLE, "shutting_down", NULL,
                            "the server shut down before the answer was complete");
        reply_error(gen->call, gen->api.tgi.on, &error);
        return;
    }
    choose_best(gen);
    int32_t count = 0;
    for (int32_t i = 0; i < gen->request->seq_count; i++)
        if (answer_index(gen, i) >= 0)
            list[count++] = describe_choice(gen, i);
    buf_init(&body, SORA_REPLY_BYTES_MAX);
    if (gen->api.tgi.on)
        answer_tgi_encode(&gen->tgi, &gen->choices[0], &body);
    else
        answer_encode(&gen->answer, list, count, &body);
    http_reply_json(gen->call, API_OK, &body);
    buf_deinit(&body);
}

// One chunk with what is new of a sequence.
static void add_chunk(struct generation *gen, int32_t seq, bool *started, struct buf *out)
{
    struct answer_choice item = describe_choice(gen, seq);
    if (*started)
        item.prompt_tokens = NULL;
    if (!*started && gen->api.kind == API_CHAT) {
        item.first = true; // the role alone; what the choice holds goes into the next one
        int32_t entries = gen->choices[seq].entries;
        gen->choices[seq].entries = 0;
        answer_encode_chunk(&gen->answer, &item, out);
        gen->choices[seq].entries = entries;
        item.first = false;
        item.prompt_tokens = NULL;
    }
    *started = true;
    answer_encode_chunk(&gen->answer, &item, out);
    choice_clear(&gen->choices[seq]);
}

// What ends a stream: the usage and the mark, or what went wrong.
static void add_stream_end(struct generation *gen, struct buf *out)
{
    struct api_error error;
    if (gen->shutdown) {
        (void)api_error_set(&error, API_UNAVAILABLE, "shutting_down", NULL,
                            "the server shut down before the answer was complete");
        sse_begin(out);
        (gen->api.tgi.on ? answer_tgi_error : api_error_encode)(out, &error);
        sse_end(out);
        return;
    }
    if (gen->api.tgi.on)
        return; // the last token was the end
    if (gen->api.include_usage)
        answer_encode_chunk(&gen->answer, NULL, out);
    sse_done(out);
}

// Sends what has gathered. A client that does not take it is gone.
static void send_chunks(struct generation *gen, struct buf *out)
{
    if (out->bytes == 0 || gen->client_gone)
        return;
    bool sent = out->status == SORA_OK && http_stream_send(gen->call, out->data, out->bytes);
    buf_clear(out);
    if (!sent) {
        gen->client_gone = true;
        request_cancel(gen->request);
    }
}

static void reply_stream(struct generation *gen)
{
    bool started[SORA_REQUEST_SEQS_MAX] = {false};
    struct event event = {.kind = EVENT_PROMPT};
    struct buf out;
    buf_init(&out, SORA_REPLY_BYTES_MAX);
    if (!http_stream_begin(gen->call, "text/event-stream; charset=utf-8"))
        request_cancel(gen->request);
    while (event.kind != EVENT_END) {
        // Everything that is there goes out in one piece, and then at once.
        if (!event_ring_take(gen->request->ring, &event, 0)) {
            send_chunks(gen, &out);
            int64_t begin_us = clock_now_us();
            if (!event_ring_take(gen->request->ring, &event, SORA_STREAM_COMMENT_US)) {
                if (clock_now_us() - begin_us >= SORA_STREAM_COMMENT_US)
                    sse_comment(&out, "waiting");
                continue;
            }
        }
        bool news = use_event(gen, &event);
        if (gen->api.tgi.on)
            answer_tgi_event(&gen->tgi, &gen->choices[0], &event, &out);
        else if (news)
            add_chunk(gen, event.seq, &started[event.seq], &out);
    }
    if (!gen->client_gone)
        add_stream_end(gen, &out);
    send_chunks(gen, &out);
    if (gen->client_gone || !http_stream_end(gen->call))
        gen->call->close = true;
    buf_deinit(&out);
}

static sora_status prepare(struct generation *gen, struct api_error *error)
{
    sora_status status =
        generate_take_adapters(gen->server, &gen->call->caller, &gen->api, &gen->adapters, error);
    gen->answer.rank_limit = gen->adapters.rank_limit;
    if (status == SORA_OK)
        status = tokenize_prompts(gen, error);
    if (status == SORA_OK)
        status = check_lengths(gen, error);
    if (status == SORA_OK)
        status = make_request(gen, error);
    if (status == SORA_OK)
        status = make_choices(gen, error);
    gen->tgi.max_tokens = gen->max_tokens;
    gen->tgi.end_tokens = gen->server->end_tokens;
    gen->tgi.end_token_count = gen->server->end_token_count;
    return status;
}

// From submit to the engine's last touch.
static sora_status run(struct generation *gen, struct api_error *error)
{
    struct server *server = gen->server;
    struct rate_tenant *rate = gen->call->caller.rate;
    struct sora_error cause;
    if (!rate_take_tokens(rate, gen->answer.prompt_tokens, clock_now_us(),
                          &gen->call->retry_after_s, error))
        return SORA_BUSY;
    request_table_add(&server->requests, gen->request);
    sora_status status = engine_loop_submit(server->loop, gen->request, &cause);
    if (status != SORA_OK) {
        request_table_remove(&server->requests, gen->request);
        metrics_add(&server->metrics, METRICS_REJECTED, 1);
        gen->call->retry_after_s = 0;
        rate_spend_tokens(rate, -gen->answer.prompt_tokens, clock_now_us());
        return api_error_from(error, API_FROM_BODY, &cause);
    }
    metrics_add(&server->metrics, METRICS_PROMPT_TOKENS, gen->answer.prompt_tokens);
    int64_t ticket = conn_watch_add(server->watch, gen->call->socket, client_gone, gen->request);
    if (gen->api.stream)
        reply_stream(gen);
    else
        reply_whole(gen);
    conn_watch_remove(server->watch, ticket);
    request_table_remove(&server->requests, gen->request);
    request_await(gen->request);
    rate_spend_tokens(rate, gen->answer.completion_tokens, clock_now_us());
    if (gen->client_gone)
        metrics_add(&server->metrics, METRICS_CANCELLED, 1);
    generate_count_tokens(server, &gen->adapters,
                          gen->answer.prompt_tokens + gen->answer.completion_tokens);
    return SORA_OK;
}

static void free_generation(struct generation *gen)
{
    for (int32_t i = 0; gen->choices != NULL && i < gen->request->seq_count; i++)
        if (gen->choices[i].options != NULL)
            choice_deinit(&gen->choices[i]);
    free(gen->choices);
    request_destroy(gen->request);
    for (int32_t i = 0; i < SORA_REQUEST_PROMPTS_MAX; i++)
        free(gen->prompts[i]);
    generate_release_adapters(gen->server, &gen->adapters);
    answer_tgi_deinit(&gen->tgi);
    api_request_deinit(&gen->api);
}

static void describe_answer(struct generation *gen, enum api_kind kind)
{
    uint64_t random[2];
    rng_system(random, sizeof random);
    snprintf(gen->id, sizeof gen->id, "%s-%016llx%08llx", kind == API_CHAT ? "chatcmpl" : "cmpl",
             (unsigned long long)random[0], (unsigned long long)(random[1] >> 32));
    gen->answer = (struct answer){
        .kind = kind,
        .stream = gen->api.stream,
        .id = gen->id,
        .created_s = clock_unix_s(),
        .model = gen->api.model != NULL ? gen->api.model : gen->server->base_name,
        .api = &gen->api,
    };
    if (gen->api.tgi.on)
        answer_tgi_init(&gen->tgi, &gen->answer);
}

static sora_status decode(enum generate_door door, const struct http_body *body,
                          const struct api_limits *limits, struct api_request *api,
                          struct api_error *error)
{
    switch (door) {
    case GENERATE_COMPLETION:
        return api_decode_completion(body->data, body->bytes, limits, api, error);
    case GENERATE_CHAT:
        return api_decode_chat(body->data, body->bytes, limits, api, error);
    default:
        return api_decode_tgi(body->data, body->bytes, limits, door == GENERATE_TGI_STREAM, api,
                              error);
    }
}

void generate_reply(struct server *server, struct http_call *call, enum generate_door door)
{
    struct generation gen = {.server = server, .call = call};
    struct api_limits limits = generate_limits(server);
    struct http_body body;
    struct api_error error;
    bool tgi = door == GENERATE_TGI || door == GENERATE_TGI_STREAM;
    sora_status status = http_read_body(call, SORA_BODY_BYTES_MAX, NULL, &body, &error);
    if (status != SORA_OK) {
        reply_error(call, tgi, &error);
        return;
    }
    status = decode(door, &body, &limits, &gen.api, &error);
    http_body_free(&body);
    if (status != SORA_OK) {
        reply_error(call, tgi, &error);
        return;
    }
    describe_answer(&gen, gen.api.kind);
    status = prepare(&gen, &error);
    if (status == SORA_OK)
        status = run(&gen, &error);
    if (status != SORA_OK)
        reply_error(call, tgi, &error);
    free_generation(&gen);
}

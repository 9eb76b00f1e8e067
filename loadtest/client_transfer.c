// SPDX-License-Identifier: Apache-2.0
// See client_transfer.h.
#include "loadtest/client_transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "loadtest/client_body.h"
#include "sora/limits.h"

#define URL_BYTES_MAX 4096
#define ERROR_BODY_BYTES_MAX 16384 // of an error's body; the rest is not read
#define CHURN_TIMEOUT_MS 120000L

static int64_t run_now_us(const struct transfer *transfer)
{
    return clock_now_us() - transfer->start_us;
}

static void set_problem(struct transfer *transfer, enum record_outcome problem, const char *text)
{
    if (transfer->problem != RECORD_OK)
        return;
    transfer->problem = problem;
    snprintf(transfer->problem_text, sizeof transfer->problem_text, "%s", text);
}

static void note_usage(struct transfer *transfer, const struct reply *reply)
{
    if (reply->prompt_tokens >= 0)
        transfer->record.prompt_tokens = reply->prompt_tokens;
    if (reply->output_tokens >= 0)
        transfer->record.output_tokens = reply->output_tokens;
}

static void note_token(struct transfer *transfer)
{
    int64_t now_us = run_now_us(transfer);
    transfer->token_events++;
    if (transfer->record.first_us == 0)
        transfer->record.first_us = now_us;
    else if (transfer->load->stats != NULL && !transfer->record.warmup)
        stats_add_gap(transfer->load->stats, transfer->record.adapter, now_us,
                      now_us - transfer->last_token_us);
    transfer->last_token_us = now_us;
}

static bool on_event(void *context, const char *data, size_t bytes)
{
    struct transfer *transfer = context;
    struct reply reply;
    struct sora_error err;
    struct buf *text = transfer->load->verify != NULL ? &transfer->text : NULL;
    transfer->events++;
    if (transfer->done) {
        set_problem(transfer, RECORD_STREAM, "an event after [DONE]");
        return false;
    }
    if (reply_read_event(data, bytes, &reply, text, &err) != SORA_OK) {
        set_problem(transfer, RECORD_STREAM, err.text);
        return false;
    }
    note_usage(transfer, &reply);
    transfer->done = reply.done;
    transfer->finished = transfer->finished || reply.finished;
    if (reply.has_token)
        note_token(transfer);
    if (transfer->request->drop_tokens > 0 &&
        transfer->token_events >= transfer->request->drop_tokens) {
        transfer->dropped = true;
        return false;
    }
    return true;
}

// The reply's first bytes: what kind of reply it is.
static void begin_reply(struct transfer *transfer)
{
    char *type = NULL;
    transfer->began = true;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &transfer->http_status);
    curl_easy_getinfo(transfer->easy, CURLINFO_CONTENT_TYPE, &type);
    bool good = transfer->http_status >= 200 && transfer->http_status < 300;
    transfer->is_stream = !transfer->is_churn && good && transfer->request->stream;
    if (transfer->is_stream && type != NULL && strncasecmp(type, "text/event-stream", 17) != 0)
        set_problem(transfer, RECORD_STREAM, "a stream was asked for, the content type is another");
}

static size_t on_body(char *data, size_t size, size_t count, void *context)
{
    struct transfer *transfer = context;
    size_t bytes = size * count;
    struct sora_error err;
    if (!transfer->began)
        begin_reply(transfer);
    if (transfer->problem != RECORD_OK)
        return CURL_WRITEFUNC_ERROR;
    if (transfer->is_stream) {
        sora_status status = sse_parse_feed(&transfer->sse, data, bytes, on_event, transfer, &err);
        if (status != SORA_OK && !transfer->dropped)
            set_problem(transfer, RECORD_STREAM, err.text);
        return status == SORA_OK ? bytes : CURL_WRITEFUNC_ERROR;
    }
    if (transfer->http_status >= 300 && transfer->text.bytes + bytes > ERROR_BODY_BYTES_MAX)
        return CURL_WRITEFUNC_ERROR;
    buf_append(&transfer->text, data, bytes);
    if (buf_status(&transfer->text, &err) == SORA_OK)
        return bytes;
    set_problem(transfer, RECORD_STREAM, err.text);
    return CURL_WRITEFUNC_ERROR;
}

sora_status transfer_create(const struct client_load *load, int64_t start_us, bool is_churn,
                            struct transfer **transfer, struct sora_error *err)
{
    struct transfer *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a connection");
    made->load = load;
    made->start_us = start_us;
    made->is_churn = is_churn;
    buf_init(&made->body, SORA_LOADTEST_REPLY_BYTES_MAX);
    buf_init(&made->scratch, SORA_LOADTEST_REPLY_BYTES_MAX);
    buf_init(&made->text, SORA_LOADTEST_REPLY_BYTES_MAX);
    sse_parse_init(&made->sse);
    made->easy = curl_easy_init();
    made->headers = client_http_headers(load->config,
                                        is_churn ? "application/octet-stream" : "application/json");
    if (made->easy == NULL || made->headers == NULL) {
        transfer_destroy(made);
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a connection");
    }
    client_http_options(made->easy, load->config);
    curl_easy_setopt(made->easy, CURLOPT_HTTPHEADER, made->headers);
    curl_easy_setopt(made->easy, CURLOPT_PRIVATE, made);
    curl_easy_setopt(made->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(made->easy, CURLOPT_WRITEDATA, made);
    curl_easy_setopt(made->easy, CURLOPT_ERRORBUFFER, made->curl_text);
    *transfer = made;
    return SORA_OK;
}

void transfer_destroy(struct transfer *transfer)
{
    if (transfer == NULL)
        return;
    if (transfer->easy != NULL)
        curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    buf_deinit(&transfer->body);
    buf_deinit(&transfer->scratch);
    buf_deinit(&transfer->text);
    sse_parse_deinit(&transfer->sse);
    free(transfer);
}

static void clear_reply(struct transfer *transfer)
{
    buf_clear(&transfer->text);
    sse_parse_clear(&transfer->sse);
    transfer->http_status = 0;
    transfer->is_stream = transfer->began = transfer->done = false;
    transfer->finished = transfer->dropped = false;
    transfer->token_events = 0;
    transfer->last_token_us = 0;
    transfer->events = 0;
    transfer->problem = RECORD_OK;
    transfer->problem_text[0] = transfer->curl_text[0] = '\0';
}

static void set_target(struct transfer *transfer, const char *method, const char *path,
                       const void *body, size_t bytes, long timeout_ms)
{
    char url[URL_BYTES_MAX];
    snprintf(url, sizeof url, "%s%s", transfer->load->config->url, path);
    curl_easy_setopt(transfer->easy, CURLOPT_URL, url);
    curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    if (body != NULL) {
        curl_easy_setopt(transfer->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)bytes);
        curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, body);
    } else {
        curl_easy_setopt(transfer->easy, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(transfer->easy, CURLOPT_CUSTOMREQUEST, method);
}

sora_status transfer_prepare(struct transfer *transfer, int32_t index, bool warmup,
                             struct sora_error *err)
{
    const struct plan *plan = transfer->load->plan;
    const struct plan_request *request = &plan->requests[index];
    int64_t now_us = run_now_us(transfer);
    clear_reply(transfer);
    transfer->request = request;
    client_body_encode(plan, request, transfer->load->config->selector, &transfer->body,
                       &transfer->scratch);
    sora_status status = buf_status(&transfer->scratch, err);
    if (status == SORA_OK)
        status = buf_status(&transfer->body, err);
    if (status != SORA_OK)
        return sora_fail_within(err, status, "request %d", (int)index);
    long timeout_ms =
        request->drop_ms > 0 ? request->drop_ms : (long)(plan->scenario->timeout_s * 1000);
    set_target(transfer, "POST", client_body_path(request), transfer->body.data,
               transfer->body.bytes, timeout_ms);
    transfer->record = (struct record){
        .request = index,
        .adapter = request->model,
        .planned_us = plan->closed ? now_us : request->planned_us,
        .sent_us = run_now_us(transfer),
        .prompt_tokens = plan_prompt_tokens(plan, request),
        .output_tokens = -1,
        .warmup = warmup,
    };
    return SORA_OK;
}

void transfer_prepare_churn(struct transfer *transfer, const struct churn_call *call)
{
    clear_reply(transfer);
    set_target(transfer, call->method, call->path, call->body, call->body_bytes, CHURN_TIMEOUT_MS);
}

// No status line came.
static void judge_silence(struct transfer *transfer, CURLcode code)
{
    curl_off_t connected_us = 0;
    const char *text =
        transfer->curl_text[0] != '\0' ? transfer->curl_text : curl_easy_strerror(code);
    curl_easy_getinfo(transfer->easy, CURLINFO_PRETRANSFER_TIME_T, &connected_us);
    if (connected_us == 0)
        set_problem(transfer, RECORD_CONNECT, text);
    else if (code == CURLE_OPERATION_TIMEDOUT)
        set_problem(transfer, RECORD_TIMEOUT, text);
    else
        set_problem(transfer, RECORD_TRUNCATED, text);
}

static void judge_status(struct transfer *transfer)
{
    char message[160], text[CLIENT_PROBLEM_BYTES];
    long http_status = transfer->http_status;
    enum record_outcome outcome = http_status == 429   ? RECORD_HTTP_429
                                  : http_status >= 500 ? RECORD_HTTP_5XX
                                                       : RECORD_HTTP_4XX;
    reply_error_text(transfer->text.data != NULL ? transfer->text.data : "", transfer->text.bytes,
                     message, sizeof message);
    snprintf(text, sizeof text, "HTTP %ld: %s", http_status, message);
    set_problem(transfer, outcome, text);
}

static void judge_stream(struct transfer *transfer, CURLcode code)
{
    if (transfer->finished || (transfer->done && transfer->token_events > 0))
        return;
    if (code != CURLE_OK)
        set_problem(transfer, RECORD_TRUNCATED,
                    transfer->curl_text[0] != '\0' ? transfer->curl_text
                                                   : curl_easy_strerror(code));
    else
        set_problem(transfer, RECORD_TRUNCATED,
                    transfer->done ? "[DONE] without any token"
                                   : "the stream ended without [DONE] or a finish reason");
}

static void judge_body(struct transfer *transfer, CURLcode code)
{
    struct reply reply;
    struct sora_error err;
    if (code != CURLE_OK) {
        set_problem(transfer, RECORD_TRUNCATED,
                    transfer->curl_text[0] != '\0' ? transfer->curl_text
                                                   : curl_easy_strerror(code));
        return;
    }
    buf_clear(&transfer->scratch);
    if (reply_read_body(transfer->text.data != NULL ? transfer->text.data : "",
                        transfer->text.bytes, &reply, &transfer->scratch, &err) != SORA_OK) {
        set_problem(transfer, RECORD_STREAM, err.text);
        return;
    }
    note_usage(transfer, &reply);
}

// A server that counts more tokens than were allowed would look fast.
static void judge_tokens(struct transfer *transfer)
{
    char text[CLIENT_PROBLEM_BYTES];
    struct record *record = &transfer->record;
    int32_t allowed = transfer->request->output_tokens;
    // Without a count, one event may be text that was held back.
    int32_t claimed =
        record->output_tokens >= 0 ? record->output_tokens : transfer->token_events - 1;
    if (record->output_tokens < 0) {
        bool whole = !transfer->request->stream && transfer->problem == RECORD_OK;
        record->output_tokens = whole && !transfer->dropped ? allowed : transfer->token_events;
    }
    if (transfer->problem != RECORD_OK || claimed <= allowed)
        return;
    snprintf(text, sizeof text, "%d tokens were counted, max_tokens was %d", (int)claimed,
             (int)allowed);
    set_problem(transfer, RECORD_STREAM, text);
}

static void judge_sameness(struct transfer *transfer)
{
    char text[CLIENT_PROBLEM_BYTES];
    const struct buf *reply = transfer->request->stream ? &transfer->text : &transfer->scratch;
    if (transfer->load->verify == NULL || transfer->problem != RECORD_OK || transfer->dropped)
        return;
    if (!verify_add(transfer->load->verify, transfer->request->content,
                    reply->data != NULL ? reply->data : "", reply->bytes, text, sizeof text))
        set_problem(transfer, RECORD_VERIFY, text);
}

void transfer_finish(struct transfer *transfer, CURLcode code)
{
    struct record *record = &transfer->record;
    if (!transfer->began)
        curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &transfer->http_status);
    if (transfer->is_churn)
        return;
    bool drop_time = code == CURLE_OPERATION_TIMEDOUT && transfer->request->drop_ms > 0;
    transfer->dropped = transfer->dropped || drop_time;
    if (transfer->problem == RECORD_OK && !transfer->dropped) {
        if (transfer->http_status == 0)
            judge_silence(transfer, code);
        else if (transfer->http_status < 200 || transfer->http_status >= 300)
            judge_status(transfer);
        else if (code == CURLE_OPERATION_TIMEDOUT)
            set_problem(transfer, RECORD_TIMEOUT, transfer->curl_text);
        else if (transfer->request->stream)
            judge_stream(transfer, code);
        else
            judge_body(transfer, code);
    }
    judge_tokens(transfer);
    judge_sameness(transfer);
    record->outcome = transfer->problem != RECORD_OK ? transfer->problem
                      : transfer->dropped            ? RECORD_DROPPED
                                                     : RECORD_OK;
    record->http_status = (int32_t)transfer->http_status;
    record->end_us = run_now_us(transfer);
}

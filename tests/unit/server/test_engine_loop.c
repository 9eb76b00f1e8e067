// SPDX-License-Identifier: Apache-2.0
// The engine thread on a tiny model: requests from many threads, little KV memory, cancellation and
// shutdown. Run it under ThreadSanitizer too.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "base/rng.h"
#include "server/engine_loop.h"

enum { TOKENS_MAX = 64, THREADS = 4, REQUESTS_EACH = 6 };

struct fixture {
    sora_model *model;
    sora_engine *engine;
    struct engine_loop *loop;
    struct metrics metrics;
    int32_t vocab;
};

// blocks: KV memory as a count of blocks, 0: plenty.
static void open_fixture(struct fixture *fix, int32_t seqs_max, int32_t blocks, int32_t queue_max)
{
    struct sora_error err;
    *fix = (struct fixture){.vocab = 0};
    assert_int_equal(sora_model_open(GOLDEN_DIR "/tiny/llama", &fix->model, &err), SORA_OK);
    const struct sora_base *base = &sora_model_get_info(fix->model)->base;
    struct sora_engine_options options = sora_engine_options_defaults(fix->model);
    fix->vocab = base->vocab_size;
    options.threads = 1;
    options.prefix_cache = false; // so that memory is short every time
    options.seqs_max = seqs_max;
    size_t block_bytes = (size_t)base->layer_count * (size_t)base->kv_head_count *
                         (size_t)base->head_dim * SORA_KV_BLOCK_TOKENS * 2 * sizeof(float);
    options.kv_bytes = (size_t)blocks * block_bytes;
    assert_int_equal(sora_engine_create(fix->model, &options, &fix->engine, &err), SORA_OK);
    struct engine_loop_options loop = {.engine = fix->engine,
                                       .vocab_size = fix->vocab,
                                       .seqs_max = seqs_max,
                                       .rows_max = options.rows_max,
                                       .logit_rows_max = options.logit_rows_max,
                                       .queue_max = queue_max,
                                       .metrics = &fix->metrics};
    assert_int_equal(engine_loop_start(&loop, &fix->loop, &err), SORA_OK);
}

static void close_fixture(struct fixture *fix)
{
    engine_loop_stop(fix->loop);
    assert_int_equal(sora_engine_kv_stats(fix->engine).blocks_used, 0);
    engine_loop_destroy(fix->loop);
    sora_engine_destroy(fix->engine);
    sora_model_close(fix->model);
}

struct job {
    int32_t prompt[TOKENS_MAX];
    int32_t prompt_count, choices, max_tokens;
    float temperature;
    bool score;
};

struct outcome {
    int32_t tokens[4][TOKENS_MAX];
    float logprobs[4][TOKENS_MAX];
    int32_t counts[4], prompt_events;
    enum event_finish finish[4];
};

static struct job make_job(uint64_t seed, int32_t vocab)
{
    struct job job = {.temperature = seed % 2 == 0 ? 0.0f : 1.0f};
    struct rng rng;
    rng_seed(&rng, seed);
    job.prompt_count = 1 + (int32_t)rng_below(&rng, TOKENS_MAX);
    for (int32_t i = 0; i < job.prompt_count; i++)
        job.prompt[i] = (int32_t)rng_below(&rng, (uint64_t)vocab);
    job.choices = 1 + (int32_t)rng_below(&rng, 3);
    job.max_tokens = 1 + (int32_t)rng_below(&rng, 40);
    job.score = rng_below(&rng, 2) == 0;
    return job;
}

static struct request *make_request(const struct fixture *fix, const struct job *job)
{
    struct sora_sampling sampling = sora_sampling_defaults();
    const int32_t *prompts[] = {job->prompt};
    struct request *request = NULL;
    sampling.temperature = job->temperature;
    sampling.seed = 11;
    struct request_spec spec = {.sampling = &sampling,
                                .prompts = prompts,
                                .prompt_token_counts = &job->prompt_count,
                                .prompt_count = 1,
                                .choices = job->choices,
                                .max_tokens = job->max_tokens,
                                .score_prompt = job->score,
                                .logprobs = 2,
                                .vocab_size = fix->vocab};
    assert_int_equal(request_create(&spec, &request, NULL), SORA_OK);
    return request;
}

static void collect(struct request *request, struct outcome *outcome)
{
    struct event event;
    memset(outcome, 0, sizeof *outcome);
    for (;;) {
        while (!event_ring_take(request->ring, &event, 10000000))
            continue;
        if (event.kind == EVENT_END)
            break;
        if (event.kind == EVENT_PROMPT) {
            outcome->prompt_events++;
        } else if (event.kind == EVENT_DONE) {
            outcome->finish[event.seq] = event.finish;
        } else {
            int32_t at = outcome->counts[event.seq]++;
            outcome->tokens[event.seq][at] = event.token;
            outcome->logprobs[event.seq][at] = event.logprob;
            assert_int_equal(event.top_count, 2);
        }
    }
    request_await(request);
    request_destroy(request);
}

static void check_same(const struct outcome *a, const struct outcome *b)
{
    assert_memory_equal(a, b, sizeof *a); // token by token and bit by bit
}

struct worker {
    struct fixture *fix;
    const struct job *jobs;
    struct outcome *outcomes;
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct request *requests[REQUESTS_EACH];
    for (int i = 0; i < REQUESTS_EACH; i++) {
        requests[i] = make_request(worker->fix, &worker->jobs[i]);
        assert_int_equal(engine_loop_submit(worker->fix->loop, requests[i], NULL), SORA_OK);
    }
    for (int i = 0; i < REQUESTS_EACH; i++)
        collect(requests[i], &worker->outcomes[i]);
    return NULL;
}

// Alone with plenty of memory; then all at once, where there is so little that sequences are put
// back and computed again: every token and log-probability must be the same.
static void together_and_preempted_requests_answer_as_they_do_alone(void **state)
{
    (void)state;
    static struct job jobs[THREADS * REQUESTS_EACH];
    static struct outcome alone[THREADS * REQUESTS_EACH], together[THREADS * REQUESTS_EACH];
    struct fixture fix;
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    open_fixture(&fix, 8, 0, 1000);
    for (int i = 0; i < THREADS * REQUESTS_EACH; i++) {
        jobs[i] = make_job((uint64_t)i, fix.vocab);
        struct request *request = make_request(&fix, &jobs[i]);
        assert_int_equal(engine_loop_submit(fix.loop, request, NULL), SORA_OK);
        collect(request, &alone[i]);
        assert_int_equal(alone[i].counts[0], jobs[i].max_tokens);
        assert_int_equal(alone[i].prompt_events,
                         jobs[i].score ? jobs[i].choices * (jobs[i].prompt_count - 1) : 0);
    }
    close_fixture(&fix);
    // 7 blocks: the longest sequence alone takes all, so any two that grow side by side meet the
    // bound, however slowly the requests arrive.
    open_fixture(&fix, 8, 7, 1000);
    assert_int_equal(engine_loop_tokens_max(fix.loop), 7 * SORA_KV_BLOCK_TOKENS);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){&fix, &jobs[i * REQUESTS_EACH], &together[i * REQUESTS_EACH]};
        pthread_create(&threads[i], NULL, work, &workers[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS * REQUESTS_EACH; i++)
        check_same(&alone[i], &together[i]);
    assert_true(atomic_load(&fix.metrics.counters[METRICS_PREEMPTIONS]) > 0);
    close_fixture(&fix);
}

static void the_comparison_sees_one_bit(void **state)
{
    (void)state;
    static struct outcome a, b;
    b.logprobs[1][3] = -0.0f;
    assert_int_not_equal(memcmp(&a, &b, sizeof a), 0);
}

static void a_cancelled_request_leaves_at_the_next_step(void **state)
{
    (void)state;
    struct fixture fix;
    static struct outcome outcome;
    struct event event;
    open_fixture(&fix, 4, 0, 10);
    struct job job = {.prompt = {1, 2, 3}, .prompt_count = 3, .choices = 2, .max_tokens = 60};
    struct request *request = make_request(&fix, &job);
    assert_int_equal(engine_loop_submit(fix.loop, request, NULL), SORA_OK);
    assert_true(event_ring_take(request->ring, &event, 10000000));
    request_cancel(request);
    collect(request, &outcome);
    for (int i = 0; i < 2; i++)
        assert_true(outcome.finish[i] == FINISH_CANCELLED || outcome.finish[i] == FINISH_LENGTH);
    close_fixture(&fix);
}

static void one_choice_can_end_without_the_others(void **state)
{
    (void)state;
    struct fixture fix;
    static struct outcome outcome;
    open_fixture(&fix, 4, 0, 10);
    struct job job = {.prompt = {1, 2, 3}, .prompt_count = 3, .choices = 2, .max_tokens = 50};
    struct request *request = make_request(&fix, &job);
    atomic_store(&request->seqs[0].cancel, true);
    assert_int_equal(engine_loop_submit(fix.loop, request, NULL), SORA_OK);
    collect(request, &outcome);
    assert_int_equal(outcome.finish[0], FINISH_CANCELLED);
    assert_int_equal(outcome.counts[0], 0);
    assert_int_equal(outcome.finish[1], FINISH_LENGTH);
    assert_int_equal(outcome.counts[1], 50);
    close_fixture(&fix);
}

static void end_tokens_stop_a_sequence_unless_it_is_too_early(void **state)
{
    (void)state;
    struct fixture fix;
    static struct outcome plain, stopped;
    open_fixture(&fix, 4, 0, 10);
    struct job job = {.prompt = {5, 6}, .prompt_count = 2, .choices = 1, .max_tokens = 20};
    struct request *request = make_request(&fix, &job);
    assert_int_equal(engine_loop_submit(fix.loop, request, NULL), SORA_OK);
    collect(request, &plain);
    // The third greedy token as a stop token: the answer ends with its first occurrence.
    int32_t end = plain.tokens[0][2], first = 0;
    while (plain.tokens[0][first] != end)
        first++;
    request = make_request(&fix, &job);
    request->stop_tokens[0] = end;
    request->stop_token_count = 1;
    assert_int_equal(engine_loop_submit(fix.loop, request, NULL), SORA_OK);
    collect(request, &stopped);
    assert_int_equal(stopped.finish[0], FINISH_STOP);
    assert_int_equal(stopped.counts[0], first + 1);
    // As an end token of the model it is not even chosen before min_tokens.
    request = make_request(&fix, &job);
    request->end_tokens = &end;
    request->end_token_count = 1;
    request->min_tokens = 20;
    assert_int_equal(engine_loop_submit(fix.loop, request, NULL), SORA_OK);
    collect(request, &stopped);
    assert_int_equal(stopped.counts[0], 20);
    for (int i = 0; i < 20; i++)
        assert_int_not_equal(stopped.tokens[0][i], end);
    close_fixture(&fix);
}

static void a_full_queue_refuses_and_shutdown_answers_everybody(void **state)
{
    (void)state;
    struct fixture fix;
    static struct outcome outcome;
    struct request *requests[40];
    struct sora_error err;
    int32_t accepted = 0, refused = 0;
    open_fixture(&fix, 1, 0, 3);
    struct job job = {.prompt = {1}, .prompt_count = 1, .choices = 1, .max_tokens = 60};
    for (int i = 0; i < 40; i++) {
        struct request *request = make_request(&fix, &job);
        if (engine_loop_submit(fix.loop, request, &err) == SORA_OK) {
            requests[accepted++] = request;
        } else {
            assert_int_equal(err.code, SORA_BUSY);
            request_destroy(request);
            refused++;
        }
    }
    assert_true(accepted >= 3);
    assert_true(refused > 0);
    engine_loop_stop(fix.loop);
    for (int32_t i = 0; i < accepted; i++) {
        collect(requests[i], &outcome);
        assert_true(outcome.finish[0] == FINISH_SHUTDOWN || outcome.finish[0] == FINISH_LENGTH);
    }
    struct request *late = make_request(&fix, &job);
    assert_int_equal(engine_loop_submit(fix.loop, late, &err), SORA_CANCELLED);
    request_destroy(late);
    close_fixture(&fix);
}

static void an_answer_too_large_for_the_ring_is_refused(void **state)
{
    (void)state;
    struct sora_sampling sampling = sora_sampling_defaults();
    struct request *request = NULL;
    struct sora_error err;
    int32_t token = 1, count = 1;
    const int32_t *prompts[] = {&token};
    struct request_spec spec = {.sampling = &sampling,
                                .prompts = prompts,
                                .prompt_token_counts = &count,
                                .prompt_count = 1,
                                .choices = 16,
                                .max_tokens = 131000,
                                .logprobs = 50,
                                .vocab_size = 10};
    assert_int_equal(request_create(&spec, &request, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "logprobs"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_and_preempted_requests_answer_as_they_do_alone),
        cmocka_unit_test(the_comparison_sees_one_bit),
        cmocka_unit_test(a_cancelled_request_leaves_at_the_next_step),
        cmocka_unit_test(one_choice_can_end_without_the_others),
        cmocka_unit_test(end_tokens_stop_a_sequence_unless_it_is_too_early),
        cmocka_unit_test(a_full_queue_refuses_and_shutdown_answers_everybody),
        cmocka_unit_test(an_answer_too_large_for_the_ring_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

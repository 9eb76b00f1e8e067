// SPDX-License-Identifier: Apache-2.0
// Tests of the fork-join pool and of the queue; also to be run under ThreadSanitizer.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/latch.h"
#include "base/pool.h"
#include "base/queue.h"
#include "sora/limits.h"

enum { INDICES = 1000 };

struct job {
    int seen[INDICES]; // plain: each index has one owner, which TSan checks
    int32_t threads;
    _Atomic int32_t bad_threads;
    int32_t slow_us;
};

static void mark(void *context, int32_t index, int32_t thread)
{
    struct job *job = context;
    ++job->seen[index];
    if (thread < 0 || thread >= job->threads)
        atomic_fetch_add(&job->bad_threads, 1);
    clock_sleep_us(job->slow_us);
}

static void check_job(const struct job *job, int32_t count, int times)
{
    for (int32_t i = 0; i < INDICES; ++i)
        assert_int_equal(job->seen[i], i < count ? times : 0);
    assert_int_equal(job->bad_threads, 0);
}

static void every_index_runs_once(void **state)
{
    (void)state;
    static const int32_t thread_counts[] = {1, 2, 3, 8};
    static const int32_t counts[] = {0, 1, 2, 3, 7, 64, INDICES};
    for (size_t t = 0; t < sizeof thread_counts / sizeof thread_counts[0]; ++t) {
        struct pool *pool = NULL;
        assert_int_equal(pool_create(thread_counts[t], &pool, NULL), SORA_OK);
        assert_int_equal(pool_threads(pool), thread_counts[t]);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; ++c) {
            struct job job = {.threads = thread_counts[t]};
            pool_run(pool, counts[c], mark, &job);
            check_job(&job, counts[c], 1);
        }
        pool_destroy(pool);
    }
}

static void jobs_follow_each_other_closely(void **state)
{
    (void)state;
    enum { RUNS = 3000 };
    struct pool *pool = NULL;
    assert_int_equal(pool_create(4, &pool, NULL), SORA_OK);
    struct job job = {.threads = 4};
    for (int run = 0; run < RUNS; ++run)
        pool_run(pool, 5, mark, &job);
    check_job(&job, 5, RUNS);
    pool_destroy(pool);
}

static void sleeping_workers_and_callers_wake(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(3, &pool, NULL), SORA_OK);
    struct job job = {.threads = 3, .slow_us = 1500}; // beyond the spin: the caller sleeps too
    for (int run = 0; run < 10; ++run) {
        clock_sleep_us(3000); // the workers sleep
        pool_run(pool, 4, mark, &job);
    }
    check_job(&job, 4, 10);
    pool_destroy(pool);
}

// Two indices wait for each other, so two threads must be at work at once.
static void meet(void *context, int32_t index, int32_t thread)
{
    (void)index;
    (void)thread;
    _Atomic int32_t *arrived = context;
    atomic_fetch_add(arrived, 1);
    int64_t deadline_us = clock_now_us() + 10000000;
    while (atomic_load(arrived) < 2 && clock_now_us() < deadline_us)
        clock_sleep_us(10);
}

static void indices_run_at_the_same_time(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(2, &pool, NULL), SORA_OK);
    _Atomic int32_t arrived = 0;
    int64_t start_us = clock_now_us();
    pool_run(pool, 2, meet, &arrived);
    assert_int_equal(arrived, 2);
    assert_true(clock_now_us() - start_us < 10000000);
    pool_destroy(pool);
}

static void without_a_pool_all_runs_inline(void **state)
{
    (void)state;
    struct job job = {.threads = 1};
    assert_int_equal(pool_threads(NULL), 1);
    pool_run(NULL, 10, mark, &job);
    check_job(&job, 10, 1);
    pool_destroy(NULL);
}

static void mark_rows(void *context, int32_t first, int32_t end, int32_t thread)
{
    struct job *job = context;
    if (first >= end || end - first > 4 || first % 4 != 0)
        atomic_fetch_add(&job->bad_threads, 1);
    for (int32_t row = first; row < end; ++row)
        mark(context, row, thread);
}

static void meet_rows(void *context, int32_t first, int32_t end, int32_t thread)
{
    (void)end;
    meet(context, first, thread);
}

static void rows_run_once_in_ranges_and_few_of_them_inline(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(3, &pool, NULL), SORA_OK);
    for (int32_t rows = 0; rows <= 13; ++rows) {
        struct job wide = {.threads = 3}, few = {.threads = 1}; // the caller's thread is 0
        pool_run_rows(pool, rows, 1 << 20, 4, mark_rows, &wide);
        check_job(&wide, rows, 1);
        pool_run_rows(pool, rows, 1, 4, mark_rows, &few);
        check_job(&few, rows, 1);
    }
    _Atomic int32_t arrived = 0;
    int64_t start_us = clock_now_us();
    pool_run_rows(pool, 6, 1 << 20, 3, meet_rows, &arrived);
    assert_int_equal(arrived, 2);
    assert_true(clock_now_us() - start_us < 10000000);
    pool_destroy(pool);
}

enum { MADE = 3, READERS = 5 };
struct made {
    struct latch latch;
    int64_t values[MADE];
    _Atomic int32_t wrong;
};

// Tasks of lower index write, slowly; the others wait and read.
static void make_or_read(void *context, int32_t index, int32_t thread)
{
    (void)thread;
    struct made *made = context;
    if (index < MADE) {
        struct timespec pause = {.tv_nsec = 2000000};
        nanosleep(&pause, NULL);
        made->values[index] = index + 1;
        latch_count_down(&made->latch);
        return;
    }
    latch_wait(&made->latch);
    for (int32_t i = 0; i < MADE; i++)
        if (made->values[i] != i + 1)
            atomic_fetch_add(&made->wrong, 1);
}

static void a_latch_holds_until_all_are_done(void **state)
{
    (void)state;
    for (int32_t threads = 1; threads <= 9; threads += 4) { // also more than processors
        struct pool *pool = NULL;
        assert_int_equal(pool_create(threads, &pool, NULL), SORA_OK);
        for (int round = 0; round < 5; ++round) {
            struct made made = {.values = {0}};
            latch_set(&made.latch, MADE);
            pool_run(pool, MADE + READERS, make_or_read, &made);
            assert_int_equal(made.wrong, 0);
            assert_int_equal(made.latch.left, 0);
        }
        pool_destroy(pool);
    }
}

static void a_pool_of_no_or_too_many_threads_is_refused(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    struct sora_error err;
    assert_int_equal(pool_create(0, &pool, &err), SORA_LIMIT);
    assert_int_equal(pool_create(SORA_THREADS_MAX + 1, &pool, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "threads 257"));
    assert_null(pool);
}

static void a_pool_that_never_ran_is_destroyed(void **state)
{
    (void)state;
    for (int i = 0; i < 20; ++i) {
        struct pool *pool = NULL;
        assert_int_equal(pool_create(4, &pool, NULL), SORA_OK);
        pool_destroy(pool);
    }
}

static void a_queue_keeps_order_and_bound(void **state)
{
    (void)state;
    struct queue *queue = NULL;
    int items[5];
    assert_int_equal(queue_create(3, &queue, NULL), SORA_OK);
    for (int round = 0; round < 4; ++round) { // the ring wraps
        for (int i = 0; i < 5; ++i)
            assert_int_equal(queue_put(queue, &items[i]), i < 3);
        assert_int_equal(queue_length(queue), 3);
        for (int i = 0; i < 3; ++i)
            assert_ptr_equal(queue_take(queue, 0), &items[i]);
        assert_null(queue_take(queue, 0));
    }
    queue_destroy(queue);
    queue_destroy(NULL);
}

static void a_take_waits_as_long_as_asked(void **state)
{
    (void)state;
    struct queue *queue = NULL;
    assert_int_equal(queue_create(1, &queue, NULL), SORA_OK);
    int64_t start_us = clock_now_us();
    assert_null(queue_take(queue, 5000));
    assert_true(clock_now_us() - start_us >= 5000);
    queue_destroy(queue);
}

static void a_closed_queue_drains_and_refuses(void **state)
{
    (void)state;
    struct queue *queue = NULL;
    int item;
    assert_int_equal(queue_create(2, &queue, NULL), SORA_OK);
    assert_true(queue_put(queue, &item));
    queue_close(queue);
    assert_false(queue_put(queue, &item));
    assert_ptr_equal(queue_take(queue, -1), &item);
    assert_null(queue_take(queue, -1));
    queue_destroy(queue);
}

enum { PER_PRODUCER = 2000, PRODUCERS = 2 };

struct traffic {
    struct queue *queue;
    int items[PRODUCERS][PER_PRODUCER];
    _Atomic int next_producer;
    _Atomic int taken;
};

static void *produce(void *argument)
{
    struct traffic *traffic = argument;
    int me = atomic_fetch_add(&traffic->next_producer, 1);
    for (int i = 0; i < PER_PRODUCER; ++i)
        while (!queue_put(traffic->queue, &traffic->items[me][i]))
            clock_sleep_us(10);
    return NULL;
}

static void *consume(void *argument)
{
    struct traffic *traffic = argument;
    for (int *item; (item = queue_take(traffic->queue, -1)) != NULL;) {
        ++*item;
        atomic_fetch_add(&traffic->taken, 1);
    }
    return NULL;
}

static void many_threads_lose_and_double_nothing(void **state)
{
    (void)state;
    struct traffic *traffic = calloc(1, sizeof *traffic);
    pthread_t producers[PRODUCERS], consumers[2];
    assert_int_equal(queue_create(8, &traffic->queue, NULL), SORA_OK);
    for (int i = 0; i < 2; ++i)
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, traffic), 0);
    for (int i = 0; i < PRODUCERS; ++i)
        assert_int_equal(pthread_create(&producers[i], NULL, produce, traffic), 0);
    for (int i = 0; i < PRODUCERS; ++i)
        pthread_join(producers[i], NULL);
    queue_close(traffic->queue); // wakes the waiting consumers
    for (int i = 0; i < 2; ++i)
        pthread_join(consumers[i], NULL);
    assert_int_equal(traffic->taken, PRODUCERS * PER_PRODUCER);
    for (int i = 0; i < PRODUCERS; ++i)
        for (int j = 0; j < PER_PRODUCER; ++j)
            assert_int_equal(traffic->items[i][j], 1);
    queue_destroy(traffic->queue);
    free(traffic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_runs_once),
        cmocka_unit_test(jobs_follow_each_other_closely),
        cmocka_unit_test(sleeping_workers_and_callers_wake),
        cmocka_unit_test(indices_run_at_the_same_time),
        cmocka_unit_test(without_a_pool_all_runs_inline),
        cmocka_unit_test(rows_run_once_in_ranges_and_few_of_them_inline),
        cmocka_unit_test(a_latch_holds_until_all_are_done),
        cmocka_unit_test(a_pool_of_no_or_too_many_threads_is_refused),
        cmocka_unit_test(a_pool_that_never_ran_is_destroyed),
        cmocka_unit_test(a_queue_keeps_order_and_bound),
        cmocka_unit_test(a_take_waits_as_long_as_asked),
        cmocka_unit_test(a_closed_queue_drains_and_refuses),
        cmocka_unit_test(many_threads_lose_and_double_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The fork-join pool. One thread at a time calls pool_run; the workers belong to the pool.
//
// A job is published by storing its count into `remaining`, after the plain fields of the job.
// A thread takes an index by decrementing `remaining` with compare-and-swap while it is positive,
// and only then reads the fields: a taken index keeps the job alive, because pool_run returns
// (and the fields may change) only when `unfinished` is zero. A worker that comes late finds
// nothing left and is not waited for.
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "sora/limits.h"

// Between two kernels of one forward pass lie a few microseconds; a sleep and a wake-up cost
// about ten. After the pure spin the thread yields to others between looks, then sleeps.
#define SPIN_US 20
#define SPIN_AND_YIELD_US 50
#define SPIN_LOOKS 64          // looks between two readings of the clock
#define SHARED_VALUES_MIN 8192 // fewer are done before another thread has begun

struct worker {
    struct pool *pool;
    pthread_t thread;
    int32_t index;
};

struct pool {
    alignas(64) _Atomic int32_t remaining;  // indices of the job not yet taken
    alignas(64) _Atomic int32_t unfinished; // indices not yet done
    alignas(64) _Atomic int32_t sleepers;   // workers at or near `work`
    _Atomic bool caller_sleeps;
    _Atomic bool busy; // pool_run is inside
    _Atomic bool stop;

    // The job; written by pool_run while no index is out.
    int32_t count;
    void (*task)(void *context, int32_t index, int32_t thread);
    void *context;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint64_t wake_count; // under lock

    int32_t threads; // the caller included
    int64_t spin_us;
    int32_t started;
    struct worker workers[];
};

int32_t pool_threads(const struct pool *pool)
{
    return pool != NULL ? pool->threads : 1;
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

// Takes one index; false when none is left.
static bool take_index(struct pool *pool, int32_t *index)
{
    int32_t left = atomic_load_explicit(&pool->remaining, memory_order_acquire);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&pool->remaining, &left, left - 1)) {
            *index = pool->count - left;
            return true;
        }
    }
    return false;
}

// Runs indices until none is left and signs them off together.
static void work_off(struct pool *pool, int32_t thread)
{
    int32_t index, finished = 0;
    while (take_index(pool, &index)) {
        pool->task(pool->context, index, thread);
        ++finished;
    }
    if (finished == 0)
        return;
    if (atomic_fetch_sub(&pool->unfinished, finished) != finished)
        return;
    if (atomic_load(&pool->caller_sleeps)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

static bool work_waits(struct pool *pool)
{
    return atomic_load(&pool->remaining) > 0 || atomic_load(&pool->stop);
}

static bool job_is_done(struct pool *pool)
{
    return atomic_load(&pool->unfinished) == 0;
}

// Looks for `ready` for a short while; false when it did not come true.
static bool spin(struct pool *pool, bool (*ready)(struct pool *pool))
{
    int64_t start_us = clock_now_us();
    for (;;) {
        for (int i = 0; i < SPIN_LOOKS; ++i) {
            if (ready(pool))
                return true;
            relax();
        }
        int64_t spent_us = clock_now_us() - start_us;
        if (spent_us >= SPIN_AND_YIELD_US)
            return false;
        if (spent_us >= pool->spin_us)
            sched_yield();
    }
}

static void sleep_until_work(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t seen = pool->wake_count;
    atomic_fetch_add(&pool->sleepers, 1); // before the look: pool_run stores, then reads it
    while (!work_waits(pool) && pool->wake_count == seen)
        pthread_cond_wait(&pool->work, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    while (!atomic_load(&pool->stop)) {
        work_off(pool, worker->index);
        if (!spin(pool, work_waits))
            sleep_until_work(pool);
    }
    return NULL;
}

static void wake_workers(struct pool *pool)
{
    if (atomic_load(&pool->sleepers) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    ++pool->wake_count;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_done(struct pool *pool)
{
    if (job_is_done(pool) || spin(pool, job_is_done))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_sleeps, true);
    while (!job_is_done(pool))
        pthread_cond_wait(&pool->done, &pool->lock);
    atomic_store(&pool->caller_sleeps, false);
    pthread_mutex_unlock(&pool->lock);
}

static void run_inline(int32_t count, void (*task)(void *context, int32_t index, int32_t thread),
                       void *context)
{
    for (int32_t i = 0; i < count; ++i)
        task(context, i, 0);
}

void pool_run(struct pool *pool, int32_t count,
              void (*task)(void *context, int32_t index, int32_t thread), void *context)
{
    if (pool == NULL || pool->threads == 1 || count <= 1) {
        run_inline(count, task, context);
        return;
    }
    bool was_busy = atomic_exchange(&pool->busy, true);
    ASSERT(!was_busy);
    pool->count = count;
    pool->task = task;
    pool->context = context;
    atomic_store_explicit(&pool->unfinished, count, memory_order_relaxed);
    atomic_store(&pool->remaining, count);
    wake_workers(pool);
    work_off(pool, 0);
    wait_done(pool);
    atomic_store_explicit(&pool->busy, false, memory_order_release);
}

struct rows_job {
    int32_t rows, each;
    void (*task)(void *context, int32_t first, int32_t end, int32_t thread);
    void *context;
};

static void run_range(void *context, int32_t index, int32_t thread)
{
    const struct rows_job *job = context;
    const int32_t first = index * job->each, left = job->rows - first;
    job->task(job->context, first, first + (left < job->each ? left : job->each), thread);
}

void pool_run_rows(struct pool *pool, int32_t rows, int32_t width, int32_t each,
                   void (*task)(void *context, int32_t first, int32_t end, int32_t thread),
                   void *context)
{
    ASSERT(rows >= 0 && each > 0);
    struct rows_job job = {rows, each, task, context};
    const bool few = (int64_t)rows * width < SHARED_VALUES_MIN;
    pool_run(few ? NULL : pool, rows / each + (rows % each > 0), run_range, &job);
}

// Starts the workers with all signals blocked: they belong to the main thread.
static bool start_workers(struct pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int32_t i = 1; i < pool->threads; ++i) {
        struct worker *worker = &pool->workers[i - 1];
        *worker = (struct worker){.pool = pool, .index = i};
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0)
            break;
        char name[16];
        snprintf(name, sizeof name, "sora-pool-%u", (unsigned)i & 1023u);
        pthread_setname_np(worker->thread, name);
        ++pool->started;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool->started == pool->threads - 1;
}

sora_status pool_create(int32_t threads, struct pool **pool, struct sora_error *err)
{
    if (threads < 1 || threads > SORA_THREADS_MAX)
        return sora_fail(err, SORA_LIMIT, "threads %d is not in [1, %d]", threads,
                         SORA_THREADS_MAX);
    size_t bytes = sizeof(struct pool) + (size_t)threads * sizeof(struct worker);
    struct pool *made = aligned_calloc(1, bytes);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a pool of %d threads", threads);
    made->threads = threads;
    // More threads than processors: spinning would take the time of the one that works.
    made->spin_us = threads <= cpu_count() ? SPIN_US : 0;
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->work, NULL);
    pthread_cond_init(&made->done, NULL);
    if (!start_workers(made)) {
        int32_t started = made->started;
        pool_destroy(made);
        return sora_fail(err, SORA_IO, "the system gave %d of %d threads", started + 1, threads);
    }
    *pool = made;
    return SORA_OK;
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL)
        return;
    ASSERT(!atomic_load(&pool->busy));
    atomic_store(&pool->stop, true);
    wake_workers(pool);
    for (int32_t i = 0; i < pool->started; ++i)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

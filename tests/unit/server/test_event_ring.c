// SPDX-License-Identifier: Apache-2.0
// The event ring with one producer and one consumer; run it under ThreadSanitizer too.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdbool.h>

#include "base/clock.h"
#include "server/event_ring.h"
#include "server/request.h"

enum { EVENTS = 20000, TOPS = 3 };

static void put_token(struct event_ring *ring, int32_t token)
{
    int32_t tops[TOPS] = {token, token + 1, token + 2};
    float scores[TOPS] = {(float)token, 1, 2};
    struct event event = {.kind = EVENT_TOKEN,
                          .token = token,
                          .top_count = TOPS,
                          .top_tokens = tops,
                          .top_logprobs = scores};
    event_ring_put(ring, &event);
}

static void *produce(void *context)
{
    for (int32_t i = 0; i < EVENTS; i++)
        put_token(context, i);
    return NULL;
}

static void events_arrive_whole_and_in_order_from_another_thread(void **state)
{
    (void)state;
    struct event_ring *ring;
    struct event event;
    pthread_t thread;
    assert_int_equal(event_ring_create(EVENTS, TOPS, &ring, NULL), SORA_OK);
    pthread_create(&thread, NULL, produce, ring);
    for (int32_t i = 0; i < EVENTS; i++) {
        while (!event_ring_take(ring, &event, 1000000))
            continue;
        assert_int_equal(event.token, i);
        assert_int_equal(event.top_count, TOPS);
        assert_int_equal(event.top_tokens[2], i + 2);
        assert_true(event.top_logprobs[0] == (float)i);
    }
    assert_false(event_ring_take(ring, &event, 0));
    pthread_join(thread, NULL);
    event_ring_destroy(ring);
}

static void a_small_ring_is_used_again_and_again(void **state)
{
    (void)state;
    struct event_ring *ring;
    struct event event;
    assert_int_equal(event_ring_create(3, TOPS, &ring, NULL), SORA_OK);
    for (int32_t i = 0; i < 50; i++) {
        put_token(ring, i);
        put_token(ring, i + 1000);
        assert_true(event_ring_take(ring, &event, 0));
        assert_int_equal(event.token, i);
        assert_true(event_ring_take(ring, &event, 0));
        assert_int_equal(event.top_tokens[0], i + 1000);
    }
    event_ring_destroy(ring);
}

static void a_take_without_events_ends_at_its_timeout(void **state)
{
    (void)state;
    struct event_ring *ring;
    struct event event;
    assert_int_equal(event_ring_create(1, 0, &ring, NULL), SORA_OK);
    int64_t begin_us = clock_now_us();
    assert_false(event_ring_take(ring, &event, 30000));
    assert_true(clock_now_us() - begin_us >= 30000);
    event_ring_destroy(ring);
}

static void *wake(void *context)
{
    clock_sleep_us(20000);
    event_ring_wake(context);
    return NULL;
}

static void a_wake_ends_a_wait_early(void **state)
{
    (void)state;
    struct event_ring *ring;
    struct event event;
    pthread_t thread;
    assert_int_equal(event_ring_create(1, 0, &ring, NULL), SORA_OK);
    int64_t begin_us = clock_now_us();
    pthread_create(&thread, NULL, wake, ring);
    assert_false(event_ring_take(ring, &event, 60000000));
    assert_true(clock_now_us() - begin_us < 30000000);
    pthread_join(thread, NULL);
    event_ring_destroy(ring);
}

static void an_absurd_size_is_seen_before_it_is_made(void **state)
{
    (void)state;
    assert_true(event_ring_bytes(SIZE_MAX / 2, 50) == SIZE_MAX);
    assert_true(event_ring_bytes(1000, 50) > 1000 * 50 * 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_arrive_whole_and_in_order_from_another_thread),
        cmocka_unit_test(a_small_ring_is_used_again_and_again),
        cmocka_unit_test(a_take_without_events_ends_at_its_timeout),
        cmocka_unit_test(a_wake_ends_a_wait_early),
        cmocka_unit_test(an_absurd_size_is_seen_before_it_is_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The search for the highest rate, against servers whose limit is known.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <math.h>

#include "loadtest/find_rate.h"
#include "sora/limits.h"

// Runs a search on a server that holds every rate up to `limit`; returns the tries.
static int search(struct find_rate *find, double first, double limit)
{
    double rate = 0;
    bool repeat = false;
    int tries = 0;
    find_rate_init(find, first, 0.05);
    for (; find_rate_next(find, &rate, &repeat); tries++) {
        assert_true(rate > 0 && tries < SORA_LOADTEST_POINTS_MAX);
        find_rate_tell(find, rate <= limit);
    }
    return tries;
}

static void the_limit_is_found_within_the_precision(void **state)
{
    (void)state;
    static const struct {
        double first, limit;
    } cases[] = {{1, 7.3}, {1, 1}, {1, 100}, {50, 3}, {0.5, 0.03}, {8, 8.01}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct find_rate find;
        int tries = search(&find, cases[i].first, cases[i].limit);
        assert_true(find.found <= cases[i].limit);
        assert_true(find.found * 1.05 * 1.001 >= cases[i].limit);
        assert_in_range(tries, 3, 20);
    }
}

static void a_server_that_holds_nothing_is_found_out(void **state)
{
    (void)state;
    struct find_rate find;
    assert_in_range(search(&find, 4, 0), 5, 15);
    assert_true(find.found == 0);
}

static void a_server_without_a_limit_ends_the_search(void **state)
{
    (void)state;
    struct find_rate find;
    search(&find, 1, 1e30);
    assert_true(find.found == SORA_LOADTEST_RATE_MAX);
}

static void a_winner_that_does_not_hold_again_gives_way(void **state)
{
    (void)state;
    struct find_rate find;
    double rate = 0, failed = 0;
    bool repeat = false;
    int tries = 0, repeats = 0;
    find_rate_init(&find, 1, 0.05);
    // The true limit is 5, but on first tries everything up to 6 seems to hold.
    for (; find_rate_next(&find, &rate, &repeat) && tries < 100; tries++) {
        bool held = rate <= (repeat || repeats > 0 ? 5 : 6);
        repeats += repeat;
        if (repeat && !held)
            failed = rate;
        find_rate_tell(&find, held);
    }
    assert_true(failed > 5 && repeats >= 2);
    assert_true(find.found <= 5 && find.found > 4.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_limit_is_found_within_the_precision),
        cmocka_unit_test(a_server_that_holds_nothing_is_found_out),
        cmocka_unit_test(a_server_without_a_limit_ends_the_search),
        cmocka_unit_test(a_winner_that_does_not_hold_again_gives_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

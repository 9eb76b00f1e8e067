// SPDX-License-Identifier: Apache-2.0
// Virtual token counters: order, lifting, two levels, a full table.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/fair.h"

static struct fair *fair_of(int32_t flows_max)
{
    struct fair *fair = NULL;
    assert_int_equal(fair_create(flows_max, &fair, NULL), SORA_OK);
    return fair;
}

static void who_has_had_less_goes_before(void **state)
{
    (void)state;
    struct fair *fair = fair_of(16);
    struct fair_flow *a = fair_enter(fair, 0, 1), *b = fair_enter(fair, 0, 2);
    assert_false(fair_before(a, b) || fair_before(b, a));
    fair_charge(a, 5);
    assert_true(fair_before(b, a) && !fair_before(a, b));
    fair_charge(b, 6);
    assert_true(fair_before(a, b));
    assert_ptr_equal(fair_enter(fair, 0, 1), a);
    fair_destroy(fair);
}

static void a_tenant_counts_before_its_adapters(void **state)
{
    (void)state;
    struct fair *fair = fair_of(16);
    struct fair_flow *many[3], *one = fair_enter(fair, 2, 1);
    for (uint64_t i = 0; i < 3; i++) {
        many[i] = fair_enter(fair, 1, i);
        fair_charge(many[i], 10);
    }
    fair_charge(one, 25); // more than any adapter of tenant 1, less than the tenant
    for (int i = 0; i < 3; i++)
        assert_true(fair_before(one, many[i]));
    fair_destroy(fair);
}

static void silence_saves_nothing_up(void **state)
{
    (void)state;
    struct fair *fair = fair_of(16);
    struct fair_flow *busy = fair_enter(fair, 1, 0);
    struct fair_flow *silent = fair_enter(fair, 2, 0);
    fair_charge(silent, 10);
    fair_leave(fair, silent);
    fair_charge(busy, 100000);
    silent = fair_enter(fair, 2, 0);
    assert_false(fair_before(silent, busy)); // lifted to it
    fair_charge(busy, 1);
    assert_true(fair_before(silent, busy));
    fair_destroy(fair);
}

static void leaving_forgives_nothing(void **state)
{
    (void)state;
    struct fair *fair = fair_of(16);
    struct fair_flow *modest = fair_enter(fair, 1, 0), *greedy = fair_enter(fair, 2, 0);
    fair_charge(modest, 10);
    fair_charge(greedy, 1000);
    fair_leave(fair, greedy);
    greedy = fair_enter(fair, 2, 0);
    assert_true(fair_before(modest, greedy));
    fair_leave(fair, greedy);
    fair_leave(fair, modest); // the last one: the next start where it stood
    struct fair_flow *fresh = fair_enter(fair, 3, 0);
    greedy = fair_enter(fair, 2, 0);
    assert_true(fair_before(fresh, greedy));
    fair_destroy(fair);
}

static void a_full_table_forgets_the_idle_and_shares_the_rest(void **state)
{
    (void)state;
    struct fair *fair = fair_of(8); // a tenant takes two of them: its own and its adapter's
    struct fair_flow *held[3];
    for (uint64_t i = 0; i < 3; i++)
        held[i] = fair_enter(fair, 100 + i, 0);
    for (uint64_t i = 0; i < 1000; i++) // one after another there is room for the fourth
        fair_leave(fair, fair_enter(fair, 200 + i, i));
    struct fair_flow *fourth = fair_enter(fair, 300, 0), *fifth = fair_enter(fair, 301, 0);
    assert_ptr_not_equal(fourth, fifth);
    assert_ptr_equal(fair_enter(fair, 302, 9), fifth); // what finds no place shares one flow
    fair_charge(fifth, 10);
    assert_true(fair_before(held[0], fifth) && !fair_before(fifth, held[0]));
    fair_leave(fair, fifth);
    fair_leave(fair, fifth);
    for (int i = 0; i < 3; i++)
        assert_ptr_equal(fair_enter(fair, 100 + (uint64_t)i, 0), held[i]); // the active are kept
    fair_destroy(fair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_had_less_goes_before),
        cmocka_unit_test(a_tenant_counts_before_its_adapters),
        cmocka_unit_test(silence_saves_nothing_up),
        cmocka_unit_test(leaving_forgives_nothing),
        cmocka_unit_test(a_full_table_forgets_the_idle_and_shares_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// Buckets by simulation: the time is an argument, so hours pass in no time.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "server/rate_limit.h"

#define S_US 1000000ll
#define START_US (77 * S_US)

static void a_minutes_worth_comes_at_once_and_then_evenly(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    int64_t wait_us = 0, now_us = START_US;
    for (int i = 0; i < 60; i++)
        assert_true(rate_bucket_take(&bucket, 60, 1, now_us, &wait_us));
    assert_false(rate_bucket_take(&bucket, 60, 1, now_us, &wait_us));
    assert_int_equal(wait_us, S_US);
    assert_false(rate_bucket_take(&bucket, 60, 1, now_us + wait_us - 10, &wait_us));
    for (int i = 1; i <= 200; i++) {
        assert_true(rate_bucket_take(&bucket, 60, 1, now_us + i * S_US, &wait_us));
        assert_false(rate_bucket_take(&bucket, 60, 1, now_us + i * S_US, &wait_us));
    }
}

static void it_never_holds_more_than_a_minutes_worth(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    int64_t wait_us;
    assert_true(rate_bucket_take(&bucket, 10, 1, START_US, &wait_us));
    int taken = 0;
    while (rate_bucket_take(&bucket, 10, 1, START_US + 3600 * S_US, &wait_us))
        taken++;
    assert_int_equal(taken, 10);
}

static void waiting_as_long_as_was_said_is_enough(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    for (int round = 0; round < 200; round++) {
        struct rate_bucket bucket = {0};
        int64_t per_minute = 1 + (int64_t)rng_below(&rng, 100000), now_us = START_US, wait_us;
        for (int i = 0; i < 50; i++) {
            double amount = (double)rng_below(&rng, (uint64_t)per_minute * 2);
            if (!rate_bucket_take(&bucket, per_minute, amount, now_us, &wait_us)) {
                assert_true(wait_us > 0);
                now_us += wait_us;
                assert_true(rate_bucket_take(&bucket, per_minute, amount, now_us, &wait_us));
            }
            now_us += (int64_t)rng_below(&rng, S_US);
        }
    }
}

// Whatever is asked for, and however much is only known afterwards: the mean is the limit.
static void the_mean_over_time_holds_with_debts_too(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 9);
    struct rate_bucket bucket = {0};
    int64_t now_us = START_US, wait_us;
    double spent = 0;
    const int64_t per_minute = 1000;
    while (now_us < START_US + 24ll * 3600 * S_US) {
        double prompt = 1 + (double)rng_below(&rng, 3000), answer = (double)rng_below(&rng, 2000);
        if (rate_bucket_take(&bucket, per_minute, prompt, now_us, &wait_us)) {
            rate_bucket_spend(&bucket, per_minute, answer, now_us);
            spent += prompt + answer;
        } else {
            now_us += wait_us;
        }
    }
    double allowed = 1000.0 * 24 * 60;
    assert_true(fabs(spent - allowed) < allowed * 0.01);
}

static void what_was_not_used_comes_back(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    int64_t wait_us;
    assert_true(rate_bucket_take(&bucket, 10, 10, START_US, &wait_us));
    assert_false(rate_bucket_take(&bucket, 10, 1, START_US, &wait_us));
    rate_bucket_spend(&bucket, 10, -10, START_US);
    assert_true(rate_bucket_take(&bucket, 10, 10, START_US, &wait_us));
}

static void no_limit_and_a_clock_that_stands_still_are_no_trouble(void **state)
{
    (void)state;
    struct rate_bucket bucket = {0};
    int64_t wait_us;
    for (int i = 0; i < 1000; i++)
        assert_true(rate_bucket_take(&bucket, 0, 1e9, START_US, &wait_us));
    assert_true(rate_bucket_take(&bucket, 5, 5, START_US, &wait_us));
    assert_false(rate_bucket_take(&bucket, 5, 1, START_US - S_US, &wait_us));
    assert_true(wait_us <= 12 * S_US);
}

static struct rate_tenant *tenant_with(struct rate_table *table, struct sora_tenant_limits limits)
{
    rate_table_init(table);
    struct rate_tenant *tenant = rate_table_tenant(table, limits.tenant);
    assert_non_null(tenant);
    rate_table_set_limits(table, &limits, 1);
    return tenant;
}

static void requests_at_once_are_counted(void **state)
{
    (void)state;
    struct rate_table table;
    struct api_error error;
    int32_t retry_s = 0;
    struct rate_tenant *tenant =
        tenant_with(&table, (struct sora_tenant_limits){.tenant = "t", .concurrent_requests = 2});
    assert_true(rate_enter(tenant, START_US, &retry_s, &error));
    assert_true(rate_enter(tenant, START_US, &retry_s, &error));
    assert_false(rate_enter(tenant, START_US, &retry_s, &error));
    assert_int_equal(error.http, API_TOO_MANY);
    assert_string_equal(error.code, "rate_limit_exceeded");
    assert_int_equal(retry_s, 1);
    rate_leave(tenant);
    assert_true(rate_enter(tenant, START_US, &retry_s, &error));
    rate_leave(tenant);
    rate_leave(tenant);
    rate_table_deinit(&table);
}

static void the_wait_is_told_in_whole_seconds(void **state)
{
    (void)state;
    struct rate_table table;
    struct api_error error;
    int32_t retry_s = 0;
    struct rate_tenant *tenant =
        tenant_with(&table, (struct sora_tenant_limits){
                                .tenant = "t", .requests_per_minute = 8, .tokens_per_minute = 100});
    for (int i = 0; i < 8; i++)
        assert_true(rate_enter(tenant, START_US, &retry_s, &error));
    assert_false(rate_enter(tenant, START_US, &retry_s, &error));
    assert_int_equal(retry_s, 8); // 7.5
    assert_non_null(strstr(error.message, "8 requests per minute"));
    assert_true(rate_take_tokens(tenant, 5000, START_US, &retry_s, &error)); // all at once, in debt
    assert_false(rate_take_tokens(tenant, 50, START_US, &retry_s, &error));
    assert_int_equal(retry_s, 2970);
    assert_true(rate_take_tokens(tenant, 50, START_US + 2970 * S_US, &retry_s, &error));
    for (int i = 0; i < 8; i++)
        rate_leave(tenant);
    rate_table_deinit(&table);
}

static void stored_bytes_have_a_limit(void **state)
{
    (void)state;
    struct rate_table table;
    struct api_error error;
    struct rate_tenant *tenant =
        tenant_with(&table, (struct sora_tenant_limits){.tenant = "t", .stored_bytes = 100});
    assert_true(rate_fits_bytes(tenant, 60, 40, &error));
    assert_false(rate_fits_bytes(tenant, 61, 40, &error));
    assert_int_equal(error.http, API_TOO_MANY);
    assert_string_equal(error.code, "storage_limit_exceeded");
    assert_non_null(strstr(error.message, "40 bytes"));
    assert_non_null(strstr(error.message, "61 of the 100 bytes"));
    assert_false(rate_fits_bytes(tenant, 200, 1, &error)); // lowered below what is there
    struct sora_tenant_limits none = {.tenant = "t"};
    rate_table_set_limits(&table, &none, 1);
    assert_true(rate_fits_bytes(tenant, 200, INT64_MAX, &error));
    rate_table_deinit(&table);
}

static void every_tenant_has_a_number_of_its_own(void **state)
{
    (void)state;
    struct rate_table table;
    bool seen[101] = {false};
    char name[16];
    rate_table_init(&table);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "t%d", (i * 37) % 100);
        struct rate_tenant *tenant = rate_table_tenant(&table, name);
        assert_string_equal(tenant->name, name);
        assert_in_range(tenant->id, 1, 100);
        assert_false(seen[tenant->id]);
        seen[tenant->id] = true;
        assert_ptr_equal(rate_table_tenant(&table, name), tenant);
    }
    struct sora_tenant_limits limits[3] = {
        {.tenant = "none"}, {.tenant = "t5", .requests_per_minute = 3}, {.tenant = "zzz"}};
    rate_table_set_limits(&table, limits, 3);
    assert_int_equal(rate_table_tenant(&table, "t5")->limits.requests_per_minute, 3);
    assert_int_equal(rate_table_tenant(&table, "t6")->limits.requests_per_minute, 0);
    rate_table_set_limits(&table, NULL, 0);
    assert_int_equal(rate_table_tenant(&table, "t5")->limits.requests_per_minute, 0);
    rate_table_deinit(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_minutes_worth_comes_at_once_and_then_evenly),
        cmocka_unit_test(it_never_holds_more_than_a_minutes_worth),
        cmocka_unit_test(waiting_as_long_as_was_said_is_enough),
        cmocka_unit_test(the_mean_over_time_holds_with_debts_too),
        cmocka_unit_test(what_was_not_used_comes_back),
        cmocka_unit_test(no_limit_and_a_clock_that_stands_still_are_no_trouble),
        cmocka_unit_test(requests_at_once_are_counted),
        cmocka_unit_test(the_wait_is_told_in_whole_seconds),
        cmocka_unit_test(stored_bytes_have_a_limit),
        cmocka_unit_test(every_tenant_has_a_number_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

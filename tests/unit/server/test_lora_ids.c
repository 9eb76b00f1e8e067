// SPDX-License-Identifier: Apache-2.0
// Numbers of adapters: given once, never to another name, up to their bound; scales of a tenant.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "server/lora_ids.h"

static void open_ids(struct lora_ids *ids)
{
    struct sora_error err;
    assert_int_equal(lora_ids_init(ids, &err), SORA_OK);
}

static void a_name_has_one_number_for_ever(void **state)
{
    (void)state;
    struct lora_ids ids;
    char name[SORA_STORED_NAME_BYTES_MAX + 1];
    open_ids(&ids);
    assert_false(lora_ids_name(&ids, 0, name));
    assert_int_equal(lora_ids_of(&ids, "b"), 0);
    assert_int_equal(lora_ids_of(&ids, "acme~b"), 1);
    assert_int_equal(lora_ids_of(&ids, "b"), 0);
    assert_true(lora_ids_name(&ids, 1, name));
    assert_string_equal(name, "acme~b");
    assert_false(lora_ids_name(&ids, 2, name));
    assert_false(lora_ids_name(&ids, -1, name));
    assert_false(lora_ids_name(&ids, INT32_MAX, name));
    lora_ids_deinit(&ids);
}

static void there_is_a_bound_and_all_are_found_at_it(void **state)
{
    (void)state;
    struct lora_ids ids;
    char name[32];
    open_ids(&ids);
    for (int32_t round = 0; round < 2; round++)
        for (int32_t i = 0; i < SORA_ADAPTER_COUNT_MAX; i++) {
            snprintf(name, sizeof name, "adapter-%d", (int)i);
            assert_int_equal(lora_ids_of(&ids, name), i);
        }
    assert_int_equal(lora_ids_of(&ids, "one more"), -1);
    assert_int_equal(lora_ids_of(&ids, "adapter-7"), 7);
    lora_ids_deinit(&ids);
}

static void scales_are_of_one_tenant(void **state)
{
    (void)state;
    struct lora_ids ids;
    struct lora_scales found;
    struct sora_error err;
    const struct lora_scales none = {.count = 0};
    const struct lora_scales two = {{{3, 0.5f}, {1, -1.0f}}, 2};
    const struct lora_scales one = {{{2, 1.0f}}, 1};
    open_ids(&ids);
    lora_ids_scales(&ids, "acme", &found);
    assert_int_equal(found.count, 0);
    assert_int_equal(lora_ids_set_scales(&ids, "acme", &two, &err), SORA_OK);
    assert_int_equal(lora_ids_set_scales(&ids, "", &one, &err), SORA_OK);
    lora_ids_scales(&ids, "acme", &found);
    assert_int_equal(found.count, 2);
    assert_true(found.items[0].id == 3 && found.items[1].scale == -1.0f);
    lora_ids_scales(&ids, "", &found);
    assert_true(found.count == 1 && found.items[0].id == 2);
    lora_ids_scales(&ids, "bolt", &found);
    assert_int_equal(found.count, 0);
    assert_int_equal(lora_ids_set_scales(&ids, "acme", &none, &err), SORA_OK);
    lora_ids_scales(&ids, "acme", &found);
    assert_int_equal(found.count, 0);
    lora_ids_scales(&ids, "", &found);
    assert_int_equal(found.count, 1);
    assert_int_equal(atomic_load(&ids.tenant_count), 1);
    lora_ids_deinit(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_has_one_number_for_ever),
        cmocka_unit_test(there_is_a_bound_and_all_are_found_at_it),
        cmocka_unit_test(scales_are_of_one_tenant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

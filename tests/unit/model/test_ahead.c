// SPDX-License-Identifier: Apache-2.0
// What a layer asks to be fetched: the modules that come next at their exact ranks, the keys and
// values of its rows, and no more than the caches hold.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/ahead.h"

enum { LAYERS = 2, HIDDEN = 32, WIDE = 64 };

static const struct sora_base base = {
    .layer_count = LAYERS,
    .d_in = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, WIDE},
    .d_out = {HIDDEN, 16, 16, HIDDEN, WIDE, WIDE, HIDDEN}};

// Only addresses and sizes are looked at.
static char memory[LAYERS * SORA_PROJ_COUNT][2];
static struct sora_lora_module modules[LAYERS * SORA_PROJ_COUNT];
static const struct sora_lora lora = {LAYERS, modules};

static void fill_modules(void)
{
    for (int i = 0; i < LAYERS * SORA_PROJ_COUNT; i++)
        modules[i] = (struct sora_lora_module){
            .rank = i + 1, .scale = 1, .dtype = SORA_BF16, .a = &memory[i][0], .bt = &memory[i][1]};
}

static void expect(const struct ahead *ahead, int32_t at, int32_t module, int32_t rank,
                   int32_t d_in, int32_t d_out)
{
    assert_true(at + 1 < ahead->list.region_count);
    const struct matmul_region *a = &ahead->regions[at], *bt = &ahead->regions[at + 1];
    assert_ptr_equal(a->first, &memory[module][0]);
    assert_ptr_equal(bt->first, &memory[module][1]);
    assert_int_equal(a->bytes, 2 * rank * d_in);
    assert_int_equal(bt->bytes, 2 * rank * d_out);
}

static void the_modules_that_come_next_are_listed(void **state)
{
    (void)state;
    static struct ahead ahead;
    fill_modules();
    const struct lora_group group = {.lora = &lora, .scale = 1, .row_count = 1};
    ahead_clear(&ahead);
    ahead_add_adapters(&ahead, &base, &group, 1, 0, SORA_PROJ_O);
    assert_int_equal(ahead.list.region_count, 4);
    expect(&ahead, 0, SORA_PROJ_GATE, SORA_PROJ_GATE + 1, HIDDEN, WIDE);
    expect(&ahead, 2, SORA_PROJ_UP, SORA_PROJ_UP + 1, HIDDEN, WIDE);
    ahead_clear(&ahead);
    ahead_add_adapters(&ahead, &base, &group, 1, 0, SORA_PROJ_DOWN); // the next layer's q, k, v
    assert_int_equal(ahead.list.region_count, 6);
    expect(&ahead, 0, SORA_PROJ_COUNT, SORA_PROJ_COUNT + 1, HIDDEN, HIDDEN);
    size_t bytes = 0;
    for (int32_t i = 0; i < ahead.list.region_count; i++) {
        assert_int_equal(ahead.regions[i].before, bytes);
        bytes += ahead.regions[i].bytes;
    }
    assert_int_equal(ahead.list.bytes, bytes);
    ahead_clear(&ahead);
    ahead_add_adapters(&ahead, &base, &group, 1, LAYERS - 1, SORA_PROJ_DOWN);
    assert_int_equal(ahead.list.region_count, 0); // no layer after the last
}

// Their products ask for the columns themselves.
static void of_modules_in_8_bits_only_a_is_listed(void **state)
{
    (void)state;
    static struct ahead ahead;
    fill_modules();
    modules[SORA_PROJ_GATE].dtype = modules[SORA_PROJ_UP].dtype = SORA_I8;
    const struct lora_group group = {.lora = &lora, .scale = 1, .row_count = 1};
    ahead_clear(&ahead);
    ahead_add_adapters(&ahead, &base, &group, 1, 0, SORA_PROJ_O);
    assert_int_equal(ahead.list.region_count, 2);
    for (int32_t i = 0; i < 2; i++) {
        assert_ptr_equal(ahead.regions[i].first, &memory[SORA_PROJ_GATE + i][0]);
        assert_int_equal(ahead.regions[i].bytes, (SORA_PROJ_GATE + i + 1) * HIDDEN);
    }
}

static void only_the_ranks_in_use_are_listed(void **state)
{
    (void)state;
    static struct ahead ahead;
    fill_modules();
    modules[SORA_PROJ_GATE].rank = 0;
    const struct lora_group group = {.lora = &lora, .scale = 1, .rank_max = 2, .row_count = 1};
    ahead_clear(&ahead);
    ahead_add_adapters(&ahead, &base, &group, 1, 0, SORA_PROJ_O);
    assert_int_equal(ahead.list.region_count, 2);
    expect(&ahead, 0, SORA_PROJ_UP, 2, HIDDEN, WIDE);
}

static void a_sequence_is_listed_once_and_the_caches_bound_it(void **state)
{
    (void)state;
    static struct ahead ahead;
    static uint8_t keys[1], values[1];
    const size_t bytes = 6144;
    const struct kvcache cache = {.layer_count = LAYERS,
                                  .dtype = SORA_F16,
                                  .block_stride = LAYERS * bytes / 2,
                                  .layer_bytes = bytes,
                                  .keys = keys,
                                  .values = values};
    int32_t first[] = {5, 3}, second[200];
    for (int32_t i = 0; i < 200; i++)
        second[i] = 10 + i;
    const struct attention_row rows[] = {
        {first, SORA_KV_BLOCK_TOKENS}, {first, SORA_KV_BLOCK_TOKENS + 1}, {second, 0}};
    ahead_clear(&ahead);
    ahead_add_cache(&ahead, &cache, rows, 3, 1);
    assert_int_equal(ahead.list.region_count, 6);
    assert_int_equal((uintptr_t)ahead.regions[0].first - (uintptr_t)keys, (5 * LAYERS + 1) * bytes);
    assert_int_equal((uintptr_t)ahead.regions[3].first - (uintptr_t)values,
                     (3 * LAYERS + 1) * bytes);
    assert_int_equal((uintptr_t)ahead.regions[4].first - (uintptr_t)keys,
                     (10 * LAYERS + 1) * bytes);
    const struct attention_row deep = {second, 200 * SORA_KV_BLOCK_TOKENS - 1};
    ahead_add_cache(&ahead, &cache, &deep, 1, 0);
    assert_true(ahead.list.bytes <= AHEAD_BYTES_MAX);
    assert_true(ahead.list.bytes > AHEAD_BYTES_MAX - bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_modules_that_come_next_are_listed),
        cmocka_unit_test(of_modules_in_8_bits_only_a_is_listed),
        cmocka_unit_test(only_the_ranks_in_use_are_listed),
        cmocka_unit_test(a_sequence_is_listed_once_and_the_caches_bound_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

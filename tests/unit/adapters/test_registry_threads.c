// SPDX-License-Identifier: Apache-2.0
// Many threads pin while others publish, roll back and remove: every pin sees one whole adapter,
// the one that its digest says. Build with SORA_TSAN to look for races as well.
#include "adapter_fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "sora/registry.h"

#define PINNERS 4
#define CHANGES 300
#define FILES 4
#define NAMES 3

// File i is the adapter whose every value is i + 1, so that a mix of two would be seen.
static struct {
    struct sora_base base;
    sora_store *store;
    sora_registry *registry;
    uint8_t *bytes[FILES];
    size_t byte_counts[FILES];
    char digests[FILES][65];
    atomic_bool stop;
    atomic_llong pins, missing;
} shared;

static const char *const names[NAMES] = {"a", "b", "c"};

static void make_file(int i)
{
    static float values[16 * 24];
    struct sora_error err = {SORA_OK, ""};
    struct sora_adapter_tensor_pair pairs[3 * SORA_PROJ_COUNT];
    sora_adapter *adapter;
    for (size_t k = 0; k < sizeof values / sizeof values[0]; k++)
        values[k] = (float)(i + 1);
    for (int p = 0; p < 3 * SORA_PROJ_COUNT; p++)
        pairs[p] = (struct sora_adapter_tensor_pair){p / SORA_PROJ_COUNT,
                                                     (enum sora_proj)(p % SORA_PROJ_COUNT),
                                                     i + 1,
                                                     i + 1,
                                                     values,
                                                     values};
    struct sora_adapter_source source = {.base = &shared.base,
                                         .base_name = "b",
                                         .r_max = 8,
                                         .alpha = 8,
                                         .pairs = pairs,
                                         .pair_count = 3 * SORA_PROJ_COUNT};
    assert_ok(sora_adapter_encode(&source, &shared.bytes[i], &shared.byte_counts[i], &err));
    assert_ok(sora_adapter_parse(shared.bytes[i], shared.byte_counts[i], NULL, &adapter, &err));
    memcpy(shared.digests[i], sora_adapter_get_info(adapter)->digest, 65);
    sora_adapter_destroy(adapter);
}

// Whether the pin is file i, whole, for the i of its digest.
static bool pin_is_whole(const sora_pin *pin)
{
    const char *digest = sora_pin_info(pin)->digest;
    int i = 0;
    while (i < FILES && strcmp(shared.digests[i], digest) != 0)
        i++;
    if (i == FILES)
        return false;
    const struct sora_lora *lora = sora_pin_lora(pin);
    for (int m = 0; m < 3 * SORA_PROJ_COUNT; m++) {
        const struct sora_lora_module *module = &lora->modules[m];
        const float *a = module->a, *bt = module->bt;
        int p = m % SORA_PROJ_COUNT;
        float want = (float)(i + 1);
        if (module->rank != i + 1 || module->scale != want || a[0] != want || bt[0] != want ||
            a[module->rank * shared.base.d_in[p] - 1] != want ||
            bt[module->rank * shared.base.d_out[p] - 1] != want)
            return false;
    }
    return true;
}

static void *pin_all_the_time(void *seed)
{
    struct rng rng;
    struct sora_error err;
    bool whole = true;
    rng_seed(&rng, (uint64_t)(uintptr_t)seed);
    while (whole && !atomic_load(&shared.stop)) {
        char name[16];
        sora_pin *held[3];
        int count = 0;
        for (int i = 0; i < 3; i++) {
            int version = (int)rng_below(&rng, 8);
            snprintf(name, sizeof name, version ? "%s@%d" : "%s", names[rng_below(&rng, NAMES)],
                     version);
            sora_status status = sora_registry_pin(shared.registry, name, &held[count], &err);
            if (status == SORA_OK)
                count++;
            else if (status == SORA_NOT_FOUND)
                atomic_fetch_add(&shared.missing, 1);
            else
                whole = false;
        }
        for (int i = 0; i < count; i++) {
            whole = whole && pin_is_whole(held[i]);
            sora_registry_count_tokens(shared.registry, held[i], 1);
            sora_registry_unpin(shared.registry, held[i]);
            atomic_fetch_add(&shared.pins, 1);
        }
    }
    return whole ? NULL : "a pin was not one whole adapter";
}

static void *change_all_the_time(void *seed)
{
    struct rng rng;
    struct sora_error err;
    rng_seed(&rng, (uint64_t)(uintptr_t)seed);
    for (int i = 0; i < CHANGES; i++) {
        struct sora_registry_card card;
        bool created;
        size_t freed, file = rng_below(&rng, FILES);
        const char *name = names[rng_below(&rng, NAMES)];
        uint64_t what = rng_below(&rng, 10);
        sora_status status;
        if (what < 6)
            status = sora_registry_publish(shared.registry, name, shared.bytes[file],
                                           shared.byte_counts[file], NULL, what < 5, &card,
                                           &created, &err);
        else if (what < 9)
            status = sora_registry_rollback(shared.registry, name, 1 + (int32_t)rng_below(&rng, 8),
                                            &card, &err);
        else
            status = sora_registry_remove(shared.registry, name, &freed, &err);
        if (status != SORA_OK && (status != SORA_NOT_FOUND || what < 6))
            return "a change failed";
    }
    return NULL;
}

static void *read_cards_all_the_time(void *unused)
{
    struct sora_error err;
    (void)unused;
    while (!atomic_load(&shared.stop)) {
        struct sora_registry_card *cards;
        int32_t count;
        if (sora_registry_list(shared.registry, &cards, &count, &err) != SORA_OK || count > NAMES)
            return "the list failed";
        free(cards);
        if (sora_registry_versions(shared.registry, "a", &cards, &count, &err) == SORA_OK)
            free(cards);
        struct sora_registry_stats stats = sora_registry_get_stats(shared.registry);
        if (stats.resident < 0 || stats.resident > FILES || stats.registered > NAMES)
            return "the counts are off";
    }
    return NULL;
}

static void join(pthread_t thread)
{
    void *fault = NULL;
    assert_int_equal(pthread_join(thread, &fault), 0);
    if (fault)
        fail_msg("%s", (const char *)fault);
}

static void every_pin_is_one_whole_adapter_whatever_changes(void **state)
{
    (void)state;
    struct sora_error err = {SORA_OK, ""};
    pthread_t pinners[PINNERS], changers[2], reader;
    char *folder = fixture_folder_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    shared.base = fixture_base();
    for (int i = 0; i < FILES; i++)
        make_file(i);
    assert_ok(sora_store_open(folder, &shared.store, &err));
    assert_ok(sora_registry_create(shared.store, &shared.base, "base", &shared.registry, &err));
    for (uintptr_t i = 0; i < PINNERS; i++)
        assert_int_equal(pthread_create(&pinners[i], NULL, pin_all_the_time, (void *)(i + 1)), 0);
    for (uintptr_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&changers[i], NULL, change_all_the_time, (void *)(i + 99)),
                         0);
    assert_int_equal(pthread_create(&reader, NULL, read_cards_all_the_time, NULL), 0);
    join(changers[0]);
    join(changers[1]);
    atomic_store(&shared.stop, true);
    for (int i = 0; i < PINNERS; i++)
        join(pinners[i]);
    join(reader);
    struct sora_registry_stats stats = sora_registry_get_stats(shared.registry);
    printf("%lld pins, %lld not found, %lld loads, %lld evictions\n", atomic_load(&shared.pins),
           atomic_load(&shared.missing), (long long)stats.loads, (long long)stats.evictions);
    assert_true(atomic_load(&shared.pins) > 0);
    assert_true(stats.resident <= FILES); // each distinct file once
    sora_registry_destroy(shared.registry);
    sora_store_close(shared.store);
    for (int i = 0; i < FILES; i++)
        free(shared.bytes[i]);
    fixture_folder_remove(folder);
}

// Waiters of one load get its one result.
struct herd {
    sora_registry *registry;
    sora_pin *pin;
};

static void *pin_once(void *context)
{
    struct herd *herd = context;
    struct sora_error err;
    return sora_registry_pin(herd->registry, "a", &herd->pin, &err) == SORA_OK ? NULL : "no pin";
}

static void a_herd_loads_an_adapter_once(void **state)
{
    (void)state;
    struct sora_error err = {SORA_OK, ""};
    struct sora_base base = fixture_smollm();
    struct sora_registry_card card;
    struct herd herd[8];
    pthread_t threads[8];
    sora_store *store;
    sora_registry *registry;
    uint8_t *bytes;
    size_t byte_count;
    bool created;
    char *folder = fixture_folder();
    fixture_file(&base, 1, &bytes, &byte_count);
    assert_ok(sora_store_open(folder, &store, &err));
    assert_ok(sora_registry_create(store, &base, "base", &registry, &err));
    assert_ok(
        sora_registry_publish(registry, "a", bytes, byte_count, NULL, true, &card, &created, &err));
    free(bytes);
    sora_registry_destroy(registry);
    assert_ok(sora_registry_create(store, &base, "base", &registry, &err));
    for (int i = 0; i < 8; i++) {
        herd[i] = (struct herd){registry, NULL};
        assert_int_equal(pthread_create(&threads[i], NULL, pin_once, &herd[i]), 0);
    }
    for (int i = 0; i < 8; i++)
        join(threads[i]);
    assert_int_equal(sora_registry_get_stats(registry).loads, 1);
    for (int i = 7; i >= 0; i--) {
        assert_true(sora_pin_lora(herd[i].pin) == sora_pin_lora(herd[0].pin));
        sora_registry_unpin(registry, herd[i].pin);
    }
    sora_registry_destroy(registry);
    sora_store_close(store);
    fixture_folder_remove(folder);
}

// --- less memory than there are adapters ---

#define CROWD_THREADS 6
#define CROWD_NAMES 8
#define CROWD_ROUNDS 400

static struct {
    struct sora_base base;
    sora_registry *registry;
    size_t bytes_max;
    atomic_bool stop;
    atomic_llong pins;
} crowd;

// A registry with memory for `room` of the adapters "0" to "7", of which number i has rank 2 and
// every value i + 1.
static sora_store *open_crowd(const char *folder, size_t room, int64_t patience_us)
{
    static float values[2 * 24];
    struct sora_error err = {SORA_OK, ""};
    sora_store *store;
    crowd.base = fixture_base();
    assert_ok(sora_store_open(folder, &store, &err));
    assert_ok(sora_registry_create(store, &crowd.base, "base", &crowd.registry, &err));
    for (int i = 0; i < CROWD_NAMES; i++) {
        struct sora_adapter_tensor_pair pairs[3 * SORA_PROJ_COUNT];
        struct sora_registry_card card;
        uint8_t *bytes;
        size_t byte_count;
        bool created;
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++)
            values[k] = (float)(i + 1);
        for (int p = 0; p < 3 * SORA_PROJ_COUNT; p++)
            pairs[p] = (struct sora_adapter_tensor_pair){
                p / SORA_PROJ_COUNT, (enum sora_proj)(p % SORA_PROJ_COUNT), 2, 1.0, values, values};
        struct sora_adapter_source source = {.base = &crowd.base,
                                             .base_name = "b",
                                             .r_max = 8,
                                             .alpha = 8,
                                             .pairs = pairs,
                                             .pair_count = 3 * SORA_PROJ_COUNT};
        assert_ok(sora_adapter_encode(&source, &bytes, &byte_count, &err));
        assert_ok(sora_registry_publish(crowd.registry, (char[]){(char)('0' + i), 0}, bytes,
                                        byte_count, NULL, true, &card, &created, &err));
        free(bytes);
    }
    size_t packed = sora_registry_get_stats(crowd.registry).resident_bytes / CROWD_NAMES;
    sora_registry_destroy(crowd.registry);
    assert_ok(sora_registry_create(store, &crowd.base, "base", &crowd.registry, &err));
    crowd.bytes_max = room * packed;
    struct sora_registry_memory memory = {
        .bytes_max = crowd.bytes_max, .wait_us = 60000000, .patience_us = patience_us};
    sora_registry_set_memory(crowd.registry, &memory);
    atomic_store(&crowd.stop, false);
    return store;
}

static void close_crowd(sora_store *store)
{
    sora_registry_destroy(crowd.registry);
    sora_store_close(store);
}

static bool is_number(const sora_pin *pin, int i)
{
    const struct sora_lora *lora = sora_pin_lora(pin);
    for (int m = 0; m < 3 * SORA_PROJ_COUNT; m++) {
        const float *a = lora->modules[m].a, *bt = lora->modules[m].bt;
        if (lora->modules[m].rank != 2 || a[3] != (float)(i + 1) || bt[3] != (float)(i + 1))
            return false;
    }
    return true;
}

static void *crowd_in(void *seed)
{
    struct rng rng;
    struct sora_error err;
    rng_seed(&rng, (uint64_t)(uintptr_t)seed);
    for (int round = 0; round < CROWD_ROUNDS; round++) {
        int i = (int)rng_below(&rng, CROWD_NAMES);
        sora_pin *pin;
        if (sora_registry_pin(crowd.registry, (char[]){(char)('0' + i), 0}, &pin, &err) != SORA_OK)
            return "a pin failed though it only had to wait";
        bool right = is_number(pin, i);
        if (round % 8 == 0)
            sched_yield();
        right = right && is_number(pin, i);
        sora_registry_unpin(crowd.registry, pin);
        atomic_fetch_add(&crowd.pins, 1);
        if (!right)
            return "a pin was another adapter, or left while it was held";
    }
    return NULL;
}

static void *pin_and_unpin_by_order(void *unused)
{
    struct sora_error err;
    struct sora_registry_card card;
    (void)unused;
    for (int i = 0; !atomic_load(&crowd.stop); i++) {
        char name[] = {(char)('0' + i / 2 % CROWD_NAMES), 0};
        size_t freed;
        if (sora_registry_set_pinned(crowd.registry, name, i % 2 == 0, &card, &err) != SORA_OK)
            return "a pin by order failed";
        if (i % 2 == 1 && sora_registry_unload(crowd.registry, name, &freed, &err) != SORA_OK)
            return "an unload failed";
        if (sora_registry_get_stats(crowd.registry).resident_bytes > crowd.bytes_max)
            return "more memory than allowed";
    }
    return NULL;
}

static void a_crowd_shares_little_memory_and_nobody_fails(void **state)
{
    (void)state;
    pthread_t threads[CROWD_THREADS], orders;
    char *folder = fixture_folder_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    sora_store *store = open_crowd(folder, 3, 1000);
    for (uintptr_t i = 0; i < CROWD_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_in, (void *)(i + 1)), 0);
    assert_int_equal(pthread_create(&orders, NULL, pin_and_unpin_by_order, NULL), 0);
    for (int i = 0; i < CROWD_THREADS; i++)
        join(threads[i]);
    atomic_store(&crowd.stop, true);
    join(orders);
    struct sora_registry_stats stats = sora_registry_get_stats(crowd.registry);
    printf("%lld pins, %lld loads, %lld evictions\n", atomic_load(&crowd.pins),
           (long long)stats.loads, (long long)stats.evictions);
    assert_int_equal(atomic_load(&crowd.pins), CROWD_THREADS * CROWD_ROUNDS);
    assert_true(stats.evictions > CROWD_NAMES && stats.resident <= 3);
    close_crowd(store);
    fixture_folder_remove(folder);
}

static void *hog(void *unused)
{
    struct sora_error err;
    (void)unused;
    while (!atomic_load(&crowd.stop)) {
        sora_pin *pin;
        if (sora_registry_pin(crowd.registry, "0", &pin, &err) != SORA_OK)
            return "the hog's pin failed";
        clock_sleep_us(2000);
        sora_registry_unpin(crowd.registry, pin);
    }
    return NULL;
}

static bool is_resident(const char *name)
{
    struct sora_registry_card *cards;
    struct sora_error err = {SORA_OK, ""};
    int32_t count;
    assert_ok(sora_registry_versions(crowd.registry, name, &cards, &count, &err));
    bool resident = cards[0].resident;
    free(cards);
    return resident;
}

// Room for one: requests for "0" follow each other so closely that it is never idle, and "1" still
// gets its turn, again and again.
static void an_adapter_in_constant_use_does_not_starve_the_others(void **state)
{
    (void)state;
    struct sora_error err;
    pthread_t hogs[4];
    sora_pin *pin;
    char *folder = fixture_folder_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    sora_store *store = open_crowd(folder, 1, 5000);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&hogs[i], NULL, hog, NULL), 0);
    clock_sleep_us(20000);
    for (int turn = 0; turn < 10; turn++) {
        if (sora_registry_pin(crowd.registry, "1", &pin, &err) != SORA_OK)
            fail_msg("turn %d: %s", turn, err.text);
        assert_true(is_number(pin, 1));
        sora_registry_unpin(crowd.registry, pin);
        while (is_resident("1")) // nor do the others starve
            clock_sleep_us(500);
    }
    atomic_store(&crowd.stop, true);
    for (int i = 0; i < 4; i++)
        join(hogs[i]);
    assert_true(sora_registry_get_stats(crowd.registry).loads >= 20);
    close_crowd(store);
    fixture_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pin_is_one_whole_adapter_whatever_changes),
        cmocka_unit_test(a_herd_loads_an_adapter_once),
        cmocka_unit_test(a_crowd_shares_little_memory_and_nobody_fails),
        cmocka_unit_test(an_adapter_in_constant_use_does_not_starve_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

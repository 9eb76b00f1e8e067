// SPDX-License-Identifier: Apache-2.0
// Memory for adapters: who leaves, who comes back, who never leaves, and what cannot be. One
// thread, or a second one that waits for the first.
#include "adapter_fixture.h"

#include <pthread.h>

#include "base/clock.h"
#include "sora/registry.h"

#define WAIT_US 40000

struct fixture {
    char *folder;
    struct sora_base base;
    sora_store *store;
    sora_registry *registry;
    size_t packed; // of every adapter of these tests
    struct sora_error err;
};

// Every module of rank 2, every value i: all of one size.
static void make_file(const struct sora_base *base, int i, uint8_t **bytes, size_t *byte_count)
{
    static float values[2 * 24];
    struct sora_adapter_tensor_pair pairs[3 * SORA_PROJ_COUNT];
    struct sora_error err = {SORA_OK, ""};
    for (size_t k = 0; k < sizeof values / sizeof values[0]; k++)
        values[k] = (float)i;
    for (int p = 0; p < 3 * SORA_PROJ_COUNT; p++)
        pairs[p] = (struct sora_adapter_tensor_pair){
            p / SORA_PROJ_COUNT, (enum sora_proj)(p % SORA_PROJ_COUNT), 2, 1.0, values, values};
    struct sora_adapter_source source = {.base = base,
                                         .base_name = "b",
                                         .r_max = 8,
                                         .alpha = 8,
                                         .pairs = pairs,
                                         .pair_count = 3 * SORA_PROJ_COUNT};
    assert_ok(sora_adapter_encode(&source, bytes, byte_count, &err));
}

static void open_all(struct fixture *f, size_t bytes_max)
{
    struct sora_registry_memory memory = {
        .bytes_max = bytes_max, .wait_us = WAIT_US, .patience_us = WAIT_US / 4};
    struct sora_error err = {SORA_OK, ""};
    assert_ok(sora_store_open(f->folder, &f->store, &err));
    assert_ok(sora_registry_create(f->store, &f->base, "base-model", &f->registry, &err));
    sora_registry_set_memory(f->registry, &memory);
    sora_registry_load_pinned(f->registry);
}

static void restart(struct fixture *f, size_t bytes_max)
{
    sora_registry_destroy(f->registry);
    sora_store_close(f->store);
    open_all(f, bytes_max);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    struct sora_error err = {SORA_OK, ""};
    sora_adapter *adapter;
    uint8_t *bytes;
    size_t byte_count;
    f->folder = fixture_folder_in(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : NULL);
    f->base = fixture_base();
    make_file(&f->base, 1, &bytes, &byte_count);
    assert_ok(sora_adapter_parse(bytes, byte_count, &f->base, &adapter, &err));
    f->packed = sora_adapter_get_info(adapter)->packed_bytes;
    sora_adapter_destroy(adapter);
    free(bytes);
    open_all(f, 2 * f->packed);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sora_registry_destroy(f->registry);
    sora_store_close(f->store);
    fixture_folder_remove(f->folder);
    free(f);
    return 0;
}

static sora_status publish(struct fixture *f, const char *name, int i,
                           struct sora_registry_card *card)
{
    uint8_t *bytes;
    size_t byte_count;
    bool created;
    make_file(&f->base, i, &bytes, &byte_count);
    sora_status status = sora_registry_publish(f->registry, name, bytes, byte_count, NULL, true,
                                               card, &created, &f->err);
    free(bytes);
    return status;
}

static struct sora_registry_card publish_ok(struct fixture *f, const char *name, int i)
{
    struct sora_registry_card card;
    if (publish(f, name, i, &card) != SORA_OK)
        fail_msg("publish %s: %s", name, f->err.text);
    return card;
}

static sora_pin *pin_ok(struct fixture *f, const char *name)
{
    sora_pin *pin;
    if (sora_registry_pin(f->registry, name, &pin, &f->err) != SORA_OK)
        fail_msg("pin %s: %s", name, f->err.text);
    return pin;
}

// Whether the pin is the file of number i.
static bool pin_is(const sora_pin *pin, int i)
{
    const struct sora_lora_module *module = &sora_pin_lora(pin)->modules[20];
    return ((const float *)module->a)[1] == (float)i && ((const float *)module->bt)[1] == (float)i;
}

// A request that is over at once; the adapter must be that of number i.
static void use(struct fixture *f, const char *name, int i)
{
    sora_pin *pin = pin_ok(f, name);
    assert_true(pin_is(pin, i));
    sora_registry_unpin(f->registry, pin);
}

static struct sora_registry_card card_of(struct fixture *f, const char *name)
{
    struct sora_registry_card *cards, found = {.resident = false};
    int32_t count;
    if (sora_registry_versions(f->registry, name, &cards, &count, &f->err) != SORA_OK)
        fail_msg("card %s: %s", name, f->err.text);
    for (int32_t i = 0; i < count; i++)
        if (cards[i].entry.active)
            found = cards[i];
    free(cards);
    return found;
}

// The names in memory, each one letter, in order.
static const char *resident_names(struct fixture *f)
{
    static char names[32];
    struct sora_registry_card *cards;
    int32_t count, used = 0;
    assert_int_equal(sora_registry_list(f->registry, &cards, &count, &f->err), SORA_OK);
    for (int32_t i = 0; i < count; i++)
        if (cards[i].resident)
            names[used++] = cards[i].entry.name[0];
    names[used] = 0;
    free(cards);
    struct sora_registry_stats stats = sora_registry_get_stats(f->registry);
    assert_true(stats.bytes_max == 0 || stats.resident_bytes <= stats.bytes_max);
    return names;
}

static void the_least_recently_used_leaves_and_comes_back_the_same(void **state)
{
    struct fixture *f = *state;
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    assert_false(publish_ok(f, "c", 3).resident); // an upload drives nobody out
    assert_string_equal(resident_names(f), "ab");
    use(f, "a", 1);
    use(f, "c", 3);
    assert_string_equal(resident_names(f), "ac");
    use(f, "b", 2);
    assert_string_equal(resident_names(f), "bc");
    use(f, "c", 3);
    use(f, "a", 1);
    assert_string_equal(resident_names(f), "ac");
    struct sora_registry_stats stats = sora_registry_get_stats(f->registry);
    assert_int_equal(stats.loads, 5);
    assert_int_equal(stats.evictions, 3);
    assert_int_equal(stats.resident_bytes, 2 * f->packed);
    assert_true(card_of(f, "a").load_ms > 0);
}

// Every bit of it: what was evicted and read again is what was uploaded.
static void what_comes_back_is_bit_for_bit_what_was_there(void **state)
{
    struct fixture *f = *state;
    uint8_t *bytes;
    size_t byte_count;
    bool created;
    struct sora_registry_card card;
    sora_adapter *fresh;
    struct sora_error err = {SORA_OK, ""};
    restart(f, 8 * f->packed);
    fixture_file(&f->base, 7, &bytes, &byte_count);
    assert_ok(sora_registry_publish(f->registry, "r", bytes, byte_count, NULL, true, &card,
                                    &created, &err));
    assert_ok(sora_adapter_parse(bytes, byte_count, &f->base, &fresh, &err));
    free(bytes);
    size_t freed;
    assert_ok(sora_registry_unload(f->registry, "r", &freed, &err));
    assert_int_equal(freed, sora_adapter_get_info(fresh)->packed_bytes);
    assert_false(card_of(f, "r").resident);
    sora_pin *pin = pin_ok(f, "r");
    const struct sora_lora *x = sora_pin_lora(pin), *y = sora_adapter_get_lora(fresh);
    for (int i = 0; i < 3 * SORA_PROJ_COUNT; i++) {
        const struct sora_lora_module *p = &x->modules[i], *q = &y->modules[i];
        size_t rank = (size_t)p->rank;
        assert_int_equal(p->rank, q->rank);
        assert_true(p->scale == q->scale && p->dtype == q->dtype);
        if (rank > 0) {
            assert_memory_equal(p->a, q->a, rank * 4 * (size_t)f->base.d_in[i % SORA_PROJ_COUNT]);
            assert_memory_equal(p->bt, q->bt,
                                rank * 4 * (size_t)f->base.d_out[i % SORA_PROJ_COUNT]);
        }
    }
    sora_registry_unpin(f->registry, pin);
    sora_adapter_destroy(fresh);
}

static void what_is_in_use_does_not_leave_and_others_wait_for_it(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_pin *none;
    char text[32];
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    publish_ok(f, "c", 3);
    sora_pin *a = pin_ok(f, "a"), *b = pin_ok(f, "b");
    int64_t start_us = clock_now_us();
    snprintf(text, sizeof text, "%zu", 2 * f->packed);
    assert_refused(sora_registry_pin(f->registry, "c", &none, &err), SORA_BUSY, text);
    assert_true(clock_now_us() - start_us >= WAIT_US);
    assert_null(none);
    assert_true(pin_is(a, 1) && pin_is(b, 2));
    assert_string_equal(resident_names(f), "ab");
    use(f, "b", 2); // nobody waits any more
    sora_registry_unpin(f->registry, b);
    use(f, "c", 3);
    assert_string_equal(resident_names(f), "ac");
    sora_registry_unpin(f->registry, a);
    assert_int_equal(card_of(f, "c").in_flight, 0);
}

static void what_can_never_fit_is_refused_with_the_numbers(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_registry_card card;
    struct sora_store_entry *entries;
    int32_t count;
    sora_pin *pin;
    char need[32], have[32];
    publish_ok(f, "a", 1);
    restart(f, f->packed - 1);
    snprintf(need, sizeof need, "%zu", f->packed);
    snprintf(have, sizeof have, "%zu", f->packed - 1);
    assert_refused(sora_registry_pin(f->registry, "a", &pin, &err), SORA_LIMIT, need);
    assert_non_null(strstr(err.text, have));
    assert_int_equal(publish(f, "b", 2, &card), SORA_LIMIT);
    assert_non_null(strstr(f->err.text, need));
    assert_non_null(strstr(f->err.text, have));
    assert_ok(sora_store_list(f->store, NULL, &entries, &count, &err));
    assert_int_equal(count, 1); // refused whole: the store has not got it
    free(entries);
    restart(f, f->packed);
    use(f, "a", 1);
}

static sora_status set_pinned(struct fixture *f, const char *name, bool pinned)
{
    struct sora_registry_card card;
    sora_status status = sora_registry_set_pinned(f->registry, name, pinned, &card, &f->err);
    if (status == SORA_OK)
        assert_true(card.entry.pinned == pinned);
    return status;
}

static void a_pinned_adapter_stays_and_pins_keep_to_the_memory(void **state)
{
    struct fixture *f = *state;
    char text[32];
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    publish_ok(f, "c", 3);
    assert_int_equal(set_pinned(f, "x", true), SORA_NOT_FOUND);
    assert_int_equal(set_pinned(f, "a", true), SORA_OK);
    assert_int_equal(set_pinned(f, "a", true), SORA_OK); // twice is once
    assert_int_equal(sora_registry_get_stats(f->registry).pinned_bytes, f->packed);
    use(f, "b", 2);
    use(f, "c", 3);
    use(f, "b", 2);
    assert_string_equal(resident_names(f), "ab");
    assert_int_equal(set_pinned(f, "b", true), SORA_OK);
    // Full of pins: the next can neither be pinned nor used, and is told why.
    snprintf(text, sizeof text, "%zu", 2 * f->packed);
    assert_int_equal(set_pinned(f, "c", true), SORA_LIMIT);
    assert_non_null(strstr(f->err.text, text));
    sora_pin *pin;
    struct sora_error err;
    assert_refused(sora_registry_pin(f->registry, "c", &pin, &err), SORA_LIMIT, "pinned");
    assert_int_equal(set_pinned(f, "b", false), SORA_OK);
    use(f, "c", 3);
    assert_string_equal(resident_names(f), "ac");
    size_t freed;
    assert_refused(sora_registry_unload(f->registry, "a", &freed, &err), SORA_PRECONDITION,
                   "pinned");
}

static void pins_outlive_a_restart_while_there_is_room(void **state)
{
    struct fixture *f = *state;
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    assert_int_equal(set_pinned(f, "a", true), SORA_OK);
    assert_int_equal(set_pinned(f, "b", true), SORA_OK);
    restart(f, 2 * f->packed);
    assert_string_equal(resident_names(f), "ab"); // before anybody asks
    // Less memory: the first by name is pinned, and the other is not forgotten.
    restart(f, f->packed);
    assert_string_equal(resident_names(f), "a");
    assert_true(card_of(f, "a").entry.pinned && !card_of(f, "b").entry.pinned);
    restart(f, 2 * f->packed);
    assert_true(card_of(f, "a").entry.pinned && card_of(f, "b").entry.pinned);
    assert_int_equal(set_pinned(f, "a", false), SORA_OK);
    restart(f, 2 * f->packed);
    assert_string_equal(resident_names(f), "b");
}

static void a_pin_follows_the_name_through_update_rollback_and_removal(void **state)
{
    struct fixture *f = *state;
    struct sora_registry_card card;
    size_t freed;
    struct sora_error err = {SORA_OK, ""};
    publish_ok(f, "a", 1);
    assert_int_equal(set_pinned(f, "a", true), SORA_OK);
    sora_pin *old = pin_ok(f, "a");
    card = publish_ok(f, "a", 2);
    assert_true(card.resident && card.entry.pinned);
    assert_int_equal(sora_registry_get_stats(f->registry).pinned_bytes, f->packed);
    sora_registry_unpin(f->registry, old);
    publish_ok(f, "b", 3);
    publish_ok(f, "c", 4);
    use(f, "b", 3);
    use(f, "c", 4);
    assert_string_equal(resident_names(f), "ac");
    // Version 1 has left; it comes back before the rollback is answered.
    assert_ok(sora_registry_rollback(f->registry, "a", 1, &card, &err));
    assert_true(card.resident && card.entry.pinned);
    use(f, "a", 1);
    restart(f, 2 * f->packed);
    assert_ok(sora_registry_rollback(f->registry, "a", 2, &card, &err)); // never loaded here
    assert_true(card.resident);
    assert_int_equal(sora_registry_get_stats(f->registry).pinned_bytes, f->packed);
    // The same file under another pinned name counts once.
    publish_ok(f, "d", 2);
    assert_int_equal(set_pinned(f, "d", true), SORA_OK);
    assert_int_equal(sora_registry_get_stats(f->registry).pinned_bytes, f->packed);
    assert_ok(sora_registry_remove(f->registry, "a", &freed, &err));
    assert_int_equal(sora_registry_get_stats(f->registry).pinned_bytes, f->packed);
    assert_ok(sora_registry_remove(f->registry, "d", &freed, &err));
    assert_true(freed > f->packed); // its memory and its file
    assert_int_equal(sora_registry_get_stats(f->registry).pinned_bytes, 0);
    assert_false(publish_ok(f, "a", 5).entry.pinned);
}

static void a_pinned_name_takes_no_version_that_does_not_fit(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_registry_card card;
    uint8_t *bytes;
    size_t byte_count;
    bool created;
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    assert_int_equal(set_pinned(f, "a", true), SORA_OK);
    assert_int_equal(set_pinned(f, "b", true), SORA_OK);
    // Ranks up to 4: larger than those of the others, though smaller than both together.
    fixture_file(&f->base, 3, &bytes, &byte_count);
    assert_refused(sora_registry_publish(f->registry, "a", bytes, byte_count, NULL, true, &card,
                                         &created, &err),
                   SORA_LIMIT, "pinned");
    assert_int_equal(card_of(f, "a").entry.version, 1);
    // Stored for later it harms nobody; a rollback to it does.
    assert_ok(sora_registry_publish(f->registry, "a", bytes, byte_count, NULL, false, &card,
                                    &created, &err));
    assert_refused(sora_registry_rollback(f->registry, "a", 2, &card, &err), SORA_LIMIT, "pinned");
    free(bytes);
    use(f, "a", 1);
    assert_string_equal(resident_names(f), "ab");
}

static void an_unloaded_adapter_goes_with_its_last_request_and_comes_back(void **state)
{
    struct fixture *f = *state;
    struct sora_error err = {SORA_OK, ""};
    size_t freed;
    publish_ok(f, "a", 1);
    sora_pin *pin = pin_ok(f, "a");
    assert_ok(sora_registry_unload(f->registry, "a", &freed, &err));
    assert_int_equal(freed, 0);
    assert_true(pin_is(pin, 1) && card_of(f, "a").resident);
    sora_registry_unpin(f->registry, pin);
    assert_false(card_of(f, "a").resident);
    assert_int_equal(sora_registry_get_stats(f->registry).resident_bytes, 0);
    use(f, "a", 1);
    assert_true(card_of(f, "a").resident);
    assert_refused(sora_registry_unload(f->registry, "x", &freed, &err), SORA_NOT_FOUND, "\"x\"");
}

// A version that clients ask for by its number is not read anew for each of them.
static void a_version_asked_for_by_number_stays_like_any_other(void **state)
{
    struct fixture *f = *state;
    publish_ok(f, "a", 1);
    publish_ok(f, "a", 2);
    for (int i = 0; i < 3; i++)
        use(f, "a@1", 1);
    assert_int_equal(sora_registry_get_stats(f->registry).loads, 3);
    publish_ok(f, "b", 3);
    use(f, "a", 2);
    use(f, "b", 3); // the least recently used is a@1
    assert_string_equal(resident_names(f), "ab");
    size_t freed;
    use(f, "a@1", 1);
    assert_int_equal(sora_registry_remove(f->registry, "a", &freed, &f->err), SORA_OK);
    assert_int_equal(sora_registry_remove(f->registry, "b", &freed, &f->err), SORA_OK);
    assert_int_equal(sora_registry_get_stats(f->registry).resident_bytes, 0);
}

struct waiter {
    struct fixture *f;
    sora_pin *pin;
    sora_status status;
};

static void *pin_c(void *context)
{
    struct waiter *w = context;
    struct sora_error err;
    w->status = sora_registry_pin(w->f->registry, "c", &w->pin, &err);
    return NULL;
}

static void wait_for_waiting(struct fixture *f, int32_t count)
{
    while (sora_registry_get_stats(f->registry).waiting < count)
        clock_sleep_us(500);
}

// While one waits with an answer at hand, whoever needs no room passes by.
static void a_wait_for_room_ends_with_the_request_that_gives_it(void **state)
{
    struct fixture *f = *state;
    struct sora_registry_memory memory = {
        .bytes_max = 2 * f->packed, .wait_us = 60000000, .patience_us = 60000000};
    sora_registry_set_memory(f->registry, &memory);
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    publish_ok(f, "c", 3);
    sora_pin *a = pin_ok(f, "a"), *b = pin_ok(f, "b");
    struct waiter waiter = {.f = f};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, pin_c, &waiter), 0);
    wait_for_waiting(f, 1);
    use(f, "a", 1);
    use(f, "b", 2);
    assert_false(card_of(f, "c").resident);
    sora_registry_unpin(f->registry, b);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(waiter.status, SORA_OK);
    assert_true(pin_is(waiter.pin, 3) && pin_is(a, 1));
    assert_string_equal(resident_names(f), "ac");
    sora_registry_unpin(f->registry, waiter.pin);
    sora_registry_unpin(f->registry, a);
}

// The row is bounded: one more is refused at once, and all in it are served.
static void the_row_of_those_who_wait_is_bounded(void **state)
{
    struct fixture *f = *state;
    static struct waiter waiters[SORA_ADAPTER_WAITERS_MAX];
    pthread_t threads[SORA_ADAPTER_WAITERS_MAX];
    struct sora_registry_memory memory = {
        .bytes_max = 2 * f->packed, .wait_us = 60000000, .patience_us = 60000000};
    struct sora_error err;
    sora_pin *none;
    sora_registry_set_memory(f->registry, &memory);
    publish_ok(f, "a", 1);
    publish_ok(f, "b", 2);
    publish_ok(f, "c", 3);
    publish_ok(f, "d", 4);
    sora_pin *a = pin_ok(f, "a"), *b = pin_ok(f, "b");
    for (int i = 0; i < SORA_ADAPTER_WAITERS_MAX; i++) {
        waiters[i] = (struct waiter){.f = f};
        assert_int_equal(pthread_create(&threads[i], NULL, pin_c, &waiters[i]), 0);
    }
    wait_for_waiting(f, SORA_ADAPTER_WAITERS_MAX);
    assert_refused(sora_registry_pin(f->registry, "c", &none, &err), SORA_BUSY, "64 requests wait");
    assert_refused(sora_registry_pin(f->registry, "d", &none, &err), SORA_BUSY, "64 requests wait");
    use(f, "a", 1);
    sora_registry_unpin(f->registry, b);
    for (int i = 0; i < SORA_ADAPTER_WAITERS_MAX; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(waiters[i].status, SORA_OK);
        assert_true(pin_is(waiters[i].pin, 3));
        sora_registry_unpin(f->registry, waiters[i].pin);
    }
    assert_int_equal(sora_registry_get_stats(f->registry).loads, 3); // a, b, and c once
    sora_registry_unpin(f->registry, a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_least_recently_used_leaves_and_comes_back_the_same),
        TEST(what_comes_back_is_bit_for_bit_what_was_there),
        TEST(what_is_in_use_does_not_leave_and_others_wait_for_it),
        TEST(what_can_never_fit_is_refused_with_the_numbers),
        TEST(a_pinned_adapter_stays_and_pins_keep_to_the_memory),
        TEST(pins_outlive_a_restart_while_there_is_room),
        TEST(a_pin_follows_the_name_through_update_rollback_and_removal),
        TEST(a_pinned_name_takes_no_version_that_does_not_fit),
        TEST(an_unloaded_adapter_goes_with_its_last_request_and_comes_back),
        TEST(a_version_asked_for_by_number_stays_like_any_other),
        TEST(a_wait_for_room_ends_with_the_request_that_gives_it),
        TEST(the_row_of_those_who_wait_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

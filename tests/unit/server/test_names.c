// SPDX-License-Identifier: Apache-2.0
// What a name means to whom, over a registry with adapters of two tenants and a shared one.
#include "tests/unit/adapters/adapter_fixture.h"

#include "server/names.h"
#include "sora/registry.h"

struct fixture {
    char *folder;
    sora_store *store;
    sora_registry *registry;
};

static const struct auth_caller acme = {.tenant = "acme", .scopes = SORA_SCOPE_ADAPTERS};
static const struct auth_caller bolt = {.tenant = "bolt", .scopes = SORA_SCOPE_ADAPTERS};
static const struct auth_caller nobody = {.scopes = SORA_SCOPE_ADAPTERS};
static const struct auth_caller admin = {.scopes = SORA_SCOPE_ADMIN};
static const struct auth_caller held = {
    .tenant = "acme", .scopes = SORA_SCOPE_ADAPTERS, .adapters = "own,new"};

static void publish(struct fixture *f, const struct sora_base *base, const char *stored)
{
    struct fixture_pairs *pairs = fixture_pairs_make(base, 1);
    struct sora_registry_card card;
    struct sora_error err;
    uint8_t *bytes;
    size_t byte_count;
    bool created;
    fixture_file_of(base, pairs, SORA_F32, &bytes, &byte_count);
    assert_ok(sora_registry_publish(f->registry, stored, bytes, byte_count, NULL, true, &card,
                                    &created, &err));
    free(bytes);
    fixture_pairs_free(pairs);
}

static int setup(void **state)
{
    static const char *const names[] = {"acme~own", "bolt~own", "bolt~secret",
                                        "shared",   "twice",    "acme~twice"};
    struct fixture *f = calloc(1, sizeof *f);
    struct sora_base base = fixture_base();
    struct sora_error err;
    assert_non_null(f);
    f->folder = fixture_folder();
    *state = f;
    assert_ok(sora_store_open(f->folder, &f->store, &err));
    assert_ok(sora_registry_create(f->store, &base, "base", &f->registry, &err));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        publish(f, &base, names[i]);
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

static void a_name_means_ones_own_then_the_shared_one(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const struct auth_caller *caller;
        const char *name, *stored; // stored NULL: there is none
        bool changeable;
    } cases[] = {
        {&acme, "own", "acme~own", true},
        {&acme, "own@3", "acme~own@3", true},
        {&bolt, "own", "bolt~own", true},
        {&nobody, "own", NULL, false},
        {&admin, "own", NULL, false},
        {&admin, "bolt~own@1", "bolt~own@1", true},
        {&acme, "secret", NULL, false},
        {&acme, "bolt~secret", NULL, false},
        {&acme, "acme~own", NULL, false},
        {&bolt, "secret", "bolt~secret", true},
        {&acme, "shared", "shared", false},
        {&nobody, "shared", "shared", true},
        {&admin, "shared", "shared", true},
        {&acme, "twice", "acme~twice", true},
        {&bolt, "twice", "twice", false},
        {&held, "own", "acme~own", true},
        {&held, "twice", NULL, false},
        {&held, "shared", NULL, false},
        {&acme, "", NULL, false},
        {&acme, "@1", NULL, false},
        {&acme, "own@1234567890123456", NULL, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char stored[NAMES_BYTES];
        bool changeable = false;
        bool found =
            names_resolve(f->registry, cases[i].caller, cases[i].name, stored, &changeable);
        if (found != (cases[i].stored != NULL))
            fail_msg("case %zu, \"%s\": found is %d", i, cases[i].name, found);
        assert_string_equal(stored, cases[i].stored != NULL ? cases[i].stored : "");
        assert_int_equal(changeable, cases[i].changeable);
    }
}

static void an_upload_goes_to_ones_own_names(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const struct auth_caller *caller;
        const char *name, *stored;
        enum api_code code;
    } cases[] = {
        {&acme, "own", "acme~own", API_OK},         {&acme, "secret", "acme~secret", API_OK},
        {&acme, "shared", NULL, API_FORBIDDEN},     {&acme, "twice", "acme~twice", API_OK},
        {&bolt, "twice", NULL, API_FORBIDDEN},      {&acme, "bolt~secret", NULL, API_BAD_REQUEST},
        {&acme, "acme~own", NULL, API_BAD_REQUEST}, {&acme, "x@1", NULL, API_BAD_REQUEST},
        {&nobody, "shared", "shared", API_OK},      {&nobody, "own", "own", API_OK},
        {&admin, "shared", "shared", API_OK},       {&admin, "acme~fresh", "acme~fresh", API_OK},
        {&admin, "~x", NULL, API_BAD_REQUEST},      {&held, "new", "acme~new", API_OK},
        {&held, "other", NULL, API_FORBIDDEN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char stored[NAMES_BYTES];
        struct api_error error = {.http = API_OK};
        sora_status status =
            names_target(f->registry, cases[i].caller, cases[i].name, stored, &error);
        if ((status == SORA_OK) != (cases[i].stored != NULL) || error.http != cases[i].code)
            fail_msg("case %zu, \"%s\": %s", i, cases[i].name, error.message);
        if (status == SORA_OK)
            assert_string_equal(stored, cases[i].stored);
    }
}

static void lists_hold_what_a_name_would_find(void **state)
{
    struct fixture *f = *state;
    static const char *const seen_by_acme[] = {"acme~own", "acme~twice", "shared"};
    struct sora_registry_card *cards;
    struct sora_error err;
    int32_t count, seen = 0;
    assert_ok(sora_registry_list(f->registry, &cards, &count, &err));
    assert_int_equal(count, 6);
    for (int32_t i = 0; i < count; i++) {
        const char *name = cards[i].entry.name;
        assert_true(names_visible(f->registry, &admin, name));
        assert_int_equal(names_visible(f->registry, &held, name), strcmp(name, "acme~own") == 0);
        if (names_visible(f->registry, &acme, name))
            assert_string_equal(name, seen_by_acme[seen++]);
    }
    assert_int_equal(seen, 3);
    free(cards);
}

static void a_tenant_reads_its_names_without_the_mark(void **state)
{
    (void)state;
    char text[] = "adapter \"acme~own\": not \"bolt~x\" nor \"acme~\" or acme~y";
    assert_string_equal(names_shown(&acme, "acme~own"), "own");
    assert_string_equal(names_shown(&admin, "acme~own"), "acme~own");
    assert_string_equal(names_shown(&acme, "shared"), "shared");
    names_show_in(&acme, text);
    assert_string_equal(text, "adapter \"own\": not \"bolt~x\" nor \"\" or acme~y");
}

static void a_card_tells_nothing_of_others(void **state)
{
    (void)state;
    struct sora_registry_card card = {.resident = true, .requests = 5, .load_ms = 2.0};
    struct sora_registry_card same = card;
    card.entry = same.entry = (struct sora_store_entry){.name = "shared", .created_s = 10};
    names_mask(&admin, 100, &card);
    assert_memory_equal(&card, &same, sizeof card);
    names_mask(&acme, 100, &card);
    assert_int_equal(card.requests, 0);
    assert_false(card.resident);
    struct sora_registry_card own = {.resident = true, .last_used_s = 7, .requests = 5};
    own.entry = (struct sora_store_entry){.name = "acme~own"};
    names_mask(&acme, 100, &own);
    assert_true(own.resident); // it has used it itself
    assert_int_equal(own.requests, 5);
    own.last_used_s = 0;
    names_mask(&acme, 100, &own);
    assert_false(own.resident);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_means_ones_own_then_the_shared_one),
        cmocka_unit_test(an_upload_goes_to_ones_own_names),
        cmocka_unit_test(lists_hold_what_a_name_would_find),
        cmocka_unit_test(a_tenant_reads_its_names_without_the_mark),
        cmocka_unit_test(a_card_tells_nothing_of_others),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

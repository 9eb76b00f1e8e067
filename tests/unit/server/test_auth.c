// SPDX-License-Identifier: Apache-2.0
// Key files, and who a key is while the catalog changes under it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/secret.h"
#include "server/auth.h"
#include "server/auth_file.h"
#include "temp_folder.h"

#define PATIENCE_US 5000000

static sora_status parse(const char *text, struct sora_key **keys, int32_t *count,
                         struct sora_error *err)
{
    return auth_file_parse(text, strlen(text), keys, count, err);
}

static void a_file_has_one_key_a_line(void **state)
{
    (void)state;
    struct sora_key *keys;
    struct sora_error err;
    int32_t count;
    assert_int_equal(parse("# ours\n\n  0123456789abcdef\r\nfor-acme-0123456\tacme  infer # hers\n"
                           "the-boss-01234567 - admin,infer",
                           &keys, &count, &err),
                     SORA_OK);
    assert_int_equal(count, 3);
    assert_string_equal(keys[0].tenant, "");
    assert_int_equal(keys[0].scopes, SORA_SCOPE_INFER | SORA_SCOPE_ADAPTERS);
    assert_string_equal(keys[1].tenant, "acme");
    assert_int_equal(keys[1].scopes, SORA_SCOPE_INFER);
    assert_string_equal(keys[2].tenant, "");
    assert_int_equal(keys[2].scopes, SORA_SCOPE_ADMIN | SORA_SCOPE_INFER);
    struct sora_key same;
    assert_int_equal(sora_key_identify("0123456789abcdef", 16, &same, &err), SORA_OK);
    assert_string_equal(keys[0].hash, same.hash);
    assert_string_equal(keys[0].id, same.id);
    free(keys);
    assert_int_equal(parse("", &keys, &count, &err), SORA_OK);
    assert_int_equal(count, 0);
    free(keys);
}

static void a_bad_line_is_named_without_its_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"0123456789abcdef\nhunter2\n", "line 2: the key has 7 bytes"},
        {"0123456789abcde\x7f\n", "line 1: byte 16"},
        {"0123456789abcdef a~b", "line 1: tenant"},
        {"0123456789abcdef acme root", "line 1: scope"},
        {"0123456789abcdef acme infer,", "line 1: scope"},
        {"0123456789abcdef acme infer admin", "line 1: 4 words"},
        {"0123456789abcdef acme a-list-of-scopes-that-is-far-too-long", "line 1: the scopes"},
        {"0123456789abcdef\nxxxxxxxxxxxxxxxx\n0123456789abcdef t\n", "is there twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sora_key *keys;
        struct sora_error err;
        int32_t count;
        assert_int_equal(parse(cases[i].text, &keys, &count, &err), SORA_MALFORMED);
        assert_non_null(strstr(err.text, cases[i].part));
        assert_null(strstr(err.text, "0123456789abcde"));
        assert_null(strstr(err.text, "hunter2"));
        assert_null(keys);
    }
}

static void secrets_are_compared_whole(void **state)
{
    (void)state;
    char a[] = "abcdef", b[] = "abcdeg";
    assert_true(secret_equal(a, b, 5));
    assert_false(secret_equal(a, b, 6));
    secret_wipe(a, 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(a[i], 0);
}

// --- a running one ---

struct fixture {
    atomic_bool reload;
    char *folder;
    sora_access *access; // as `sora-server keys` has it
    struct auth *auth;
};

static struct auth *start_ok(struct fixture *f, const char *key_file)
{
    struct auth_options options = {
        .store_path = f->folder, .key_file = key_file, .loopback = true, .reload = &f->reload};
    struct sora_error err;
    struct auth *auth = NULL;
    if (auth_start(&options, &auth, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return auth;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sora_error err;
    assert_non_null(f);
    f->folder = temp_folder_create();
    *state = f;
    log_set_level(LOG_NONE);
    return sora_access_open(f->folder, true, &f->access, &err);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    auth_stop(f->auth);
    sora_access_close(f->access);
    temp_folder_remove(f->folder);
    free(f);
    return 0;
}

static bool knows(struct fixture *f, const char *text, struct auth_caller *caller)
{
    char header[128];
    struct api_error error;
    snprintf(header, sizeof header, "Bearer %s", text);
    sora_status status = auth_identify(f->auth, header, NULL, caller, &error);
    if (status != SORA_OK) {
        assert_int_equal(error.http, API_UNAUTHORIZED);
        assert_null(strstr(error.message, text));
    }
    return status == SORA_OK;
}

static void await(struct fixture *f, const char *text, bool known)
{
    struct auth_caller caller;
    int64_t until_us = clock_now_us() + PATIENCE_US;
    while (knows(f, text, &caller) != known) {
        assert_true(clock_now_us() < until_us);
        clock_sleep_us(10000);
    }
}

static void make_ok(struct fixture *f, const char *tenant, struct sora_key *key,
                    char text[SORA_KEY_TEXT_BYTES])
{
    struct sora_error err;
    *key = (struct sora_key){.scopes = SORA_SCOPE_INFER};
    snprintf(key->tenant, sizeof key->tenant, "%s", tenant);
    assert_int_equal(sora_access_make_key(f->access, key, text, &err), SORA_OK);
}

static void without_keys_everyone_is_let_in(void **state)
{
    struct fixture *f = *state;
    struct auth_caller caller;
    struct api_error error;
    f->auth = start_ok(f, NULL);
    assert_int_equal(auth_identify(f->auth, NULL, NULL, &caller, &error), SORA_OK);
    assert_true(auth_is_admin(&caller));
    assert_string_equal(caller.key_id, "");
    assert_non_null(caller.rate);
    assert_true(knows(f, "whatever", &caller));
}

static void a_key_is_its_tenants_and_only_when_it_is_whole(void **state)
{
    struct fixture *f = *state;
    struct sora_key key, other;
    char text[SORA_KEY_TEXT_BYTES], second[SORA_KEY_TEXT_BYTES];
    struct auth_caller caller;
    struct api_error error;
    make_ok(f, "acme", &key, text);
    make_ok(f, "bolt", &other, second);
    f->auth = start_ok(f, NULL);
    assert_true(knows(f, text, &caller));
    assert_string_equal(caller.key_id, key.id);
    assert_string_equal(caller.tenant, "acme");
    assert_int_equal(caller.scopes, SORA_SCOPE_INFER);
    int32_t acme = caller.rate->id;
    assert_true(knows(f, second, &caller));
    assert_int_not_equal(caller.rate->id, acme);
    assert_int_equal(auth_identify(f->auth, NULL, text, &caller, &error), SORA_OK);
    assert_int_equal(auth_identify(f->auth, NULL, NULL, &caller, &error), SORA_MALFORMED);
    assert_string_equal(error.code, "missing_api_key");
    assert_int_equal(auth_identify(f->auth, text, NULL, &caller, &error), SORA_MALFORMED);
    text[SORA_KEY_TEXT_BYTES - 3] ^= 1;
    assert_false(knows(f, text, &caller));
    text[SORA_KEY_TEXT_BYTES - 3] ^= 1;
    text[SORA_KEY_TEXT_BYTES - 2] = '\0';
    assert_false(knows(f, text, &caller));
    assert_int_equal(auth_identify(f->auth, "Bearer ", NULL, &caller, &error), SORA_MALFORMED);
}

static void keys_come_and_go_while_it_runs(void **state)
{
    struct fixture *f = *state;
    struct sora_key first, second;
    char one[SORA_KEY_TEXT_BYTES], two[SORA_KEY_TEXT_BYTES];
    struct auth_caller caller;
    struct sora_error err;
    f->auth = start_ok(f, NULL);
    assert_true(knows(f, "no-key-at-all", &caller)); // open
    make_ok(f, "acme", &first, one);
    await(f, "no-key-at-all", false);
    assert_true(knows(f, one, &caller));
    int32_t id = caller.rate->id;
    make_ok(f, "acme", &second, two);
    await(f, two, true);
    assert_true(knows(f, two, &caller));
    assert_int_equal(caller.rate->id, id); // the tenant stays the same one
    struct sora_tenant_limits limits = {.tenant = "acme", .stored_bytes = 5};
    assert_int_equal(sora_access_set_limits(f->access, &limits, &err), SORA_OK);
    for (int64_t until_us = clock_now_us() + PATIENCE_US; rate_stored_limit(caller.rate) != 5;)
        assert_true(clock_now_us() < until_us);
    assert_int_equal(sora_access_revoke_key(f->access, first.id, &err), SORA_OK);
    await(f, one, false);
    assert_int_equal(sora_access_revoke_key(f->access, second.id, &err), SORA_OK);
    await(f, two, false);
    assert_false(knows(f, "no-key-at-all", &caller)); // and not open again
}

static void a_file_is_read_anew_when_it_changes_and_kept_when_it_breaks(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct auth_caller caller;
    char *path = file_join(f->folder, "keys");
    assert_int_equal(file_write_atomic(path, "0123456789abcdef acme\n", 22, &err), SORA_OK);
    f->auth = start_ok(f, path);
    assert_true(knows(f, "0123456789abcdef", &caller));
    assert_string_equal(caller.tenant, "acme");
    assert_false(knows(f, "another-one-of-ours", &caller));
    assert_int_equal(file_write_atomic(path, "another-one-of-ours\n", 20, &err), SORA_OK);
    await(f, "another-one-of-ours", true);
    assert_false(knows(f, "0123456789abcdef", &caller));
    assert_int_equal(file_write_atomic(path, "short\n", 6, &err), SORA_OK);
    atomic_store(&f->reload, true);
    clock_sleep_us(2 * SORA_ACCESS_POLL_US);
    assert_true(knows(f, "another-one-of-ours", &caller));
    assert_int_equal(file_write_atomic(path, "\n", 1, &err), SORA_OK);
    await(f, "another-one-of-ours", false); // an empty file lets nobody in
    free(path);
}

static void a_revoked_key_is_not_let_in_by_the_file(void **state)
{
    struct fixture *f = *state;
    struct sora_key gone, kept;
    struct sora_error err;
    struct auth_caller caller;
    char one[SORA_KEY_TEXT_BYTES], two[SORA_KEY_TEXT_BYTES], lines[256];
    char *path = file_join(f->folder, "keys");
    make_ok(f, "acme", &gone, one);
    make_ok(f, "acme", &kept, two);
    assert_int_equal(sora_access_revoke_key(f->access, gone.id, &err), SORA_OK);
    int bytes = snprintf(lines, sizeof lines, "%s - admin\n%s - admin\n", one, two);
    assert_int_equal(file_write_atomic(path, lines, (size_t)bytes, &err), SORA_OK);
    f->auth = start_ok(f, path);
    assert_false(knows(f, one, &caller));
    assert_true(knows(f, two, &caller));
    assert_false(auth_is_admin(&caller)); // what the catalog says of it holds
    assert_string_equal(caller.tenant, "acme");
    free(path);
}

static void a_file_that_is_not_there_stops_the_start(void **state)
{
    struct fixture *f = *state;
    struct auth_options options = {.store_path = f->folder, .key_file = "/nowhere/keys"};
    struct sora_error err;
    assert_int_not_equal(auth_start(&options, &f->auth, &err), SORA_OK);
    assert_non_null(strstr(err.text, "--api-key-file /nowhere/keys"));
    assert_null(f->auth);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_has_one_key_a_line),
        cmocka_unit_test(a_bad_line_is_named_without_its_key),
        cmocka_unit_test(secrets_are_compared_whole),
        TEST(without_keys_everyone_is_let_in),
        TEST(a_key_is_its_tenants_and_only_when_it_is_whole),
        TEST(keys_come_and_go_while_it_runs),
        TEST(a_file_is_read_anew_when_it_changes_and_kept_when_it_breaks),
        TEST(a_revoked_key_is_not_let_in_by_the_file),
        TEST(a_file_that_is_not_there_stops_the_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

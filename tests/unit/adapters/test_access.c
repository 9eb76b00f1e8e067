// SPDX-License-Identifier: Apache-2.0
// Keys, limits and the record of changes in either catalog, and whose a stored name is.
#include "catalog_fixture.h"

#include <sqlite3.h>

#include "base/file.h"
#include "base/sha256.h"
#include "sora/access.h"
#include "sora/store.h"
#include "sora/tenant.h"

struct fixture {
    char *folder;
    sora_access *access;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct sora_error err;
    assert_non_null(f);
    f->folder = fixture_folder();
    fixture_new_catalog();
    *state = f;
    if (fixture_open_access(f->folder, true, &f->access, &err) != SORA_OK)
        fail_msg("%s", err.text);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sora_access_close(f->access);
    fixture_folder_remove(f->folder);
    free(f);
    return 0;
}

static struct sora_key make_ok(struct fixture *f, const char *tenant, uint32_t scopes,
                               char text[SORA_KEY_TEXT_BYTES])
{
    struct sora_key key = {.scopes = scopes};
    struct sora_error err;
    snprintf(key.tenant, sizeof key.tenant, "%s", tenant);
    assert_ok(sora_access_make_key(f->access, &key, text, &err));
    return key;
}

static int64_t stamp(sora_access *access)
{
    struct sora_error err;
    int64_t value = -1;
    assert_ok(sora_access_stamp(access, &value, &err));
    return value;
}

static void a_key_is_kept_as_its_hash_alone(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_key *keys;
    int32_t count;
    char text[SORA_KEY_TEXT_BYTES], other[SORA_KEY_TEXT_BYTES], digest[65];
    struct sora_key key = make_ok(f, "acme", SORA_SCOPE_INFER | SORA_SCOPE_ADAPTERS, text);
    (void)make_ok(f, "", SORA_SCOPE_ADMIN, other);
    assert_int_equal(strlen(text), SORA_KEY_TEXT_BYTES - 1);
    assert_memory_equal(text, "sora-", 5);
    assert_string_not_equal(text, other);
    assert_ok(sha256_of(text, strlen(text), digest, &err));
    assert_string_equal(key.hash, digest);
    assert_ok(sora_access_list_keys(f->access, &keys, &count, &err));
    assert_int_equal(count, 2);
    const struct sora_key *found = strcmp(keys[0].id, key.id) == 0 ? &keys[0] : &keys[1];
    assert_string_equal(found->hash, digest);
    assert_string_equal(found->tenant, "acme");
    assert_int_equal(found->scopes, SORA_SCOPE_INFER | SORA_SCOPE_ADAPTERS);
    assert_int_equal(found->revoked_s, 0);
    assert_null(memmem(keys, (size_t)count * sizeof *keys, text + 5, 8));
    free(keys);
}

static void a_revoked_key_stays_in_the_list(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_key *keys;
    int32_t count;
    char text[SORA_KEY_TEXT_BYTES];
    struct sora_key key = make_ok(f, "acme", SORA_SCOPE_INFER, text);
    assert_ok(sora_access_revoke_key(f->access, key.id, &err));
    int64_t after = stamp(f->access);
    assert_ok(sora_access_revoke_key(f->access, key.id, &err)); // twice is no error
    assert_int_equal(stamp(f->access), after);
    assert_refused(sora_access_revoke_key(f->access, "key-0", &err), SORA_NOT_FOUND, "key-0");
    assert_ok(sora_access_list_keys(f->access, &keys, &count, &err));
    assert_int_equal(count, 1);
    assert_true(keys[0].revoked_s >= keys[0].created_s);
    free(keys);
}

static void keys_that_make_no_sense_are_refused(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    char text[SORA_KEY_TEXT_BYTES];
    struct sora_key none = {.scopes = 0}, odd = {.scopes = 8};
    struct sora_key tenant = {.scopes = 1, .tenant = "a~b"}, list = {.scopes = 1, .adapters = "a,"};
    assert_refused(sora_access_make_key(f->access, &none, text, &err), SORA_MALFORMED, "scope");
    assert_refused(sora_access_make_key(f->access, &odd, text, &err), SORA_MALFORMED, "scope");
    assert_refused(sora_access_make_key(f->access, &tenant, text, &err), SORA_MALFORMED, "a~b");
    assert_refused(sora_access_make_key(f->access, &list, text, &err), SORA_MALFORMED, "comma");
    assert_string_equal(text, "");
}

static void another_connection_sees_changes_by_the_stamp(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_access *other;
    sora_store *store;
    char text[SORA_KEY_TEXT_BYTES];
    assert_ok(fixture_open_store(f->folder, &store, &err)); // a server has the store
    assert_ok(fixture_open_access(f->folder, false, &other, &err));
    int64_t before = stamp(other);
    struct sora_key key = make_ok(f, "", SORA_SCOPE_INFER, text);
    int64_t made = stamp(other);
    assert_true(made != before);
    assert_ok(sora_access_revoke_key(other, key.id, &err));
    assert_true(stamp(f->access) != made);
    struct sora_tenant_limits limits = {.tenant = "acme", .requests_per_minute = 5};
    made = stamp(other);
    assert_ok(sora_access_set_limits(f->access, &limits, &err));
    assert_true(stamp(other) != made);
    sora_access_close(other);
    sora_store_close(store);
}

static void a_folder_without_a_catalog_is_made_only_when_asked(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_access *access;
    char *folder = file_join(f->folder, "deep/er");
    assert_refused(sora_access_open(folder, false, &access, &err), SORA_NOT_FOUND, "deep/er");
    assert_false(file_is_folder(folder));
    assert_ok(sora_access_open(folder, true, &access, &err));
    sora_access_close(access);
    assert_ok(sora_access_open(folder, false, &access, &err));
    sora_access_close(access);
    free(folder);
}

static void limits_are_kept_by_tenant(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_tenant_limits *all;
    int32_t count;
    struct sora_tenant_limits b = {.tenant = "b", .tokens_per_minute = 7, .stored_bytes = 9};
    struct sora_tenant_limits a = {.tenant = "a", .concurrent_requests = 2};
    assert_ok(sora_access_set_limits(f->access, &b, &err));
    assert_ok(sora_access_set_limits(f->access, &a, &err));
    b.tokens_per_minute = 8;
    assert_ok(sora_access_set_limits(f->access, &b, &err));
    assert_ok(sora_access_list_limits(f->access, &all, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(all[0].tenant, "a");
    assert_int_equal(all[0].concurrent_requests, 2);
    assert_int_equal(all[1].tokens_per_minute, 8);
    assert_int_equal(all[1].stored_bytes, 9);
    free(all);
    b.stored_bytes = -1;
    assert_refused(sora_access_set_limits(f->access, &b, &err), SORA_LIMIT, "tenant b");
    snprintf(b.tenant, sizeof b.tenant, "..");
    assert_refused(sora_access_set_limits(f->access, &b, &err), SORA_MALFORMED, "tenant");
}

static void try_to_change_records(const char *folder)
{
    if (fixture_url != NULL) {
        fixture_sql("DELETE FROM sora_audit", "append-only");
        fixture_sql("UPDATE sora_audit SET outcome = ''", "append-only");
        fixture_sql("TRUNCATE sora_audit", "append-only");
        return;
    }
    char *path = file_join(folder, "catalog.sqlite");
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DELETE FROM audit", NULL, NULL, NULL), SQLITE_CONSTRAINT);
    assert_int_equal(sqlite3_exec(db, "UPDATE audit SET outcome = ''", NULL, NULL, NULL),
                     SQLITE_CONSTRAINT);
    sqlite3_close(db);
    free(path);
}

static void records_come_back_in_order_and_cannot_be_changed(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_audit *records;
    int32_t count;
    for (int i = 0; i < 5; i++) {
        struct sora_audit record = {.version = i, .key_id = "key-1", .outcome = "done"};
        snprintf(record.action, sizeof record.action, "test.%d", i);
        assert_ok(sora_access_add_audit(f->access, &record, &err));
        assert_int_equal(record.number, i + 1);
    }
    assert_ok(sora_access_list_audit(f->access, 2, 2, &records, &count, &err));
    assert_int_equal(count, 2);
    assert_string_equal(records[0].action, "test.2");
    assert_int_equal(records[1].number, 4);
    assert_int_equal(records[1].version, 3);
    assert_true(records[1].time_s > 0);
    free(records);
    assert_refused(sora_access_list_audit(f->access, 0, 0, &records, &count, &err), SORA_LIMIT,
                   "limit 0");
    try_to_change_records(f->folder);
    assert_ok(sora_access_list_audit(f->access, 0, 100, &records, &count, &err));
    assert_int_equal(count, 5);
    free(records);
}

static void put_ok(sora_store *store, const char *name, const char *text, char digest[65])
{
    struct sora_error err;
    struct sora_store_entry entry;
    bool created;
    assert_ok(sha256_of(text, strlen(text), digest, &err));
    assert_ok(sora_store_put(store, name, text, strlen(text), digest, NULL, true, &entry, &created,
                             &err));
}

static void stored_bytes_count_a_tenants_distinct_files(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_store *store;
    char one[65], two[65];
    int64_t bytes;
    bool there;
    assert_ok(fixture_open_store(f->folder, &store, &err));
    put_ok(store, "acme~a", "four", one);
    put_ok(store, "acme~a", "seventy", two);
    put_ok(store, "acme~b", "four", one);
    put_ok(store, "acm~a", "x", two);
    put_ok(store, "acme.~a", "yy", two);
    put_ok(store, "acmez", "zzz", two);
    put_ok(store, "a", "shared", two);
    assert_ok(sora_access_stored(f->access, "acme", one, &bytes, &there, &err));
    assert_int_equal(bytes, 11);
    assert_true(there);
    assert_ok(sora_access_stored(f->access, "acme", two, &bytes, &there, &err));
    assert_false(there);
    assert_ok(sora_access_stored(f->access, "", two, &bytes, &there, &err));
    assert_int_equal(bytes, 9);
    assert_true(there);
    assert_ok(sora_access_stored(f->access, "nobody", NULL, &bytes, NULL, &err));
    assert_int_equal(bytes, 0);
    sora_store_close(store);
}

// The schema of version 1, as stores in use have it.
static void a_store_of_the_first_schema_gets_the_tables(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_access *access;
    struct sora_store_entry *entries;
    sora_store *store;
    int32_t count;
    char *folder = file_join(f->folder, "old"), *path = file_join(f->folder, "old/catalog.sqlite");
    sqlite3 *db;
    assert_ok(file_make_folder(folder, &err));
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(db,
                     "CREATE TABLE adapter (name TEXT NOT NULL PRIMARY KEY, next_version INTEGER"
                     " NOT NULL, active INTEGER NOT NULL) WITHOUT ROWID;"
                     "CREATE TABLE version (name TEXT NOT NULL, version INTEGER NOT NULL, digest"
                     " TEXT NOT NULL, bytes INTEGER NOT NULL, created_s INTEGER NOT NULL, PRIMARY"
                     " KEY (name, version)) WITHOUT ROWID;"
                     "CREATE INDEX version_digest ON version (digest);"
                     "INSERT INTO adapter VALUES ('kept', 2, 1);"
                     "INSERT INTO version VALUES ('kept', 1, 'aa', 5, 6);"
                     "PRAGMA user_version = 1;",
                     NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    assert_ok(sora_access_open(folder, true, &access, &err));
    assert_int_equal(stamp(access), 0);
    assert_ok(sora_store_open(folder, &store, &err));
    assert_ok(sora_store_list(store, NULL, &entries, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(entries[0].name, "kept");
    free(entries);
    sora_store_close(store);
    sora_access_close(access);
    free(path);
    free(folder);
}

static void scopes_are_read_and_printed(void **state)
{
    (void)state;
    struct sora_error err;
    uint32_t scopes = 0;
    char text[SORA_SCOPES_BYTES];
    assert_ok(sora_scopes_parse("adapters,infer", &scopes, &err));
    assert_int_equal(scopes, SORA_SCOPE_INFER | SORA_SCOPE_ADAPTERS);
    assert_string_equal(sora_scopes_print(scopes, text), "infer,adapters");
    assert_string_equal(sora_scopes_print(SORA_SCOPE_ALL, text), "infer,adapters,admin");
    static const char *const bad[] = {"", "root", "infer,", ",infer", "infer adapters", "Infer"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused(sora_scopes_parse(bad[i], &scopes, &err), SORA_MALFORMED, "expected infer");
}

static void a_key_allows_the_names_on_its_list(void **state)
{
    (void)state;
    assert_true(sora_key_allows("", "any"));
    assert_true(sora_key_allows("a,bb,c", "bb"));
    assert_true(sora_key_allows("a,bb,c", "c"));
    assert_false(sora_key_allows("a,bb,c", "b"));
    assert_false(sora_key_allows("a,bb,c", "bb,c"));
    assert_false(sora_key_allows("a", ""));
}

static void a_stored_name_is_a_tenants_or_everyones(void **state)
{
    (void)state;
    struct sora_error err;
    char out[SORA_STORED_NAME_BYTES_MAX + 1], tenant[SORA_TENANT_BYTES_MAX + 1];
    assert_true(sora_tenant_join("acme", "x/y", out));
    assert_string_equal(out, "acme~x/y");
    assert_string_equal(sora_tenant_bare(out), "x/y");
    sora_tenant_of(out, tenant);
    assert_string_equal(tenant, "acme");
    assert_true(sora_tenant_owns("acme", out));
    assert_false(sora_tenant_owns("acm", out));
    assert_false(sora_tenant_owns("acme~", out));
    assert_false(sora_tenant_owns("", out));
    assert_true(sora_tenant_owns("", "x"));
    assert_false(sora_tenant_owns("x", "x"));
    assert_true(sora_tenant_join("", "x", out));
    assert_string_equal(out, "x");
    char longest[SORA_STORED_NAME_BYTES_MAX + 2];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_false(sora_tenant_join("t", longest, out));
    assert_ok(sora_tenant_check_stored("acme~x", &err));
    static const char *const bad[] = {"~x", "acme~", "a~b~c", "-a~x", "a b~x", "acme~../x", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused(sora_tenant_check_stored(bad[i], &err), SORA_MALFORMED, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest both[] = {
        TEST(a_key_is_kept_as_its_hash_alone),
        TEST(a_revoked_key_stays_in_the_list),
        TEST(keys_that_make_no_sense_are_refused),
        TEST(another_connection_sees_changes_by_the_stamp),
        TEST(limits_are_kept_by_tenant),
        TEST(records_come_back_in_order_and_cannot_be_changed),
        TEST(stored_bytes_count_a_tenants_distinct_files),
    };
    const struct CMUnitTest own[] = {
        TEST(a_folder_without_a_catalog_is_made_only_when_asked),
        TEST(a_store_of_the_first_schema_gets_the_tables),
        cmocka_unit_test(scopes_are_read_and_printed),
        cmocka_unit_test(a_key_allows_the_names_on_its_list),
        cmocka_unit_test(a_stored_name_is_a_tenants_or_everyones),
    };
    int failed = cmocka_run_group_tests_name("SQLite", both, NULL, NULL);
    failed += cmocka_run_group_tests(own, NULL, NULL);
    if (fixture_start_postgres("access_on_postgresql"))
        failed += cmocka_run_group_tests_name("PostgreSQL", both, NULL, NULL);
    fixture_stop_postgres();
    return failed;
}

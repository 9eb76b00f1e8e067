// SPDX-License-Identifier: Apache-2.0
// The store with either catalog: names, versions, files, and what it does when the disk says no.
// One thread.
#include "catalog_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "base/sha256.h"
#include "sora/store.h"

struct fixture {
    char *folder;
    sora_store *store;
    struct sora_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->folder = fixture_folder();
    fixture_new_catalog();
    *state = f;
    if (fixture_open_store(f->folder, &f->store, &f->err) != SORA_OK)
        fail_msg("%s", f->err.text);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sora_store_close(f->store);
    fixture_folder_remove(f->folder);
    free(f);
    return 0;
}

static void reopen(struct fixture *f)
{
    struct sora_error err = {SORA_OK, ""};
    sora_store_close(f->store);
    assert_ok(fixture_open_store(f->folder, &f->store, &err));
}

static sora_status put(struct fixture *f, const char *name, const char *text, const char *if_match,
                       bool activate, struct sora_store_entry *entry, bool *created)
{
    char digest[65];
    assert_int_equal(sha256_of(text, strlen(text), digest, NULL), SORA_OK);
    return sora_store_put(f->store, name, text, strlen(text), digest, if_match, activate, entry,
                          created, &f->err);
}

static struct sora_store_entry put_ok(struct fixture *f, const char *name, const char *text)
{
    struct sora_store_entry entry;
    bool created;
    if (put(f, name, text, NULL, true, &entry, &created) != SORA_OK)
        fail_msg("put %s: %s", name, f->err.text);
    return entry;
}

static int32_t count_versions(struct fixture *f, const char *name)
{
    struct sora_store_entry *entries;
    int32_t count;
    assert_int_equal(sora_store_list(f->store, name, &entries, &count, &f->err), SORA_OK);
    free(entries);
    return count;
}

static void check_content(struct fixture *f, const struct sora_store_entry *entry, const char *text)
{
    uint8_t *bytes;
    size_t byte_count;
    if (sora_store_read(f->store, entry->digest, &bytes, &byte_count, &f->err) != SORA_OK)
        fail_msg("read: %s", f->err.text);
    assert_int_equal(byte_count, strlen(text));
    assert_memory_equal(bytes, text, byte_count);
    free(bytes);
}

static char *blob_path(struct fixture *f, const char *digest)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/blobs/%.2s/%s.safetensors", f->folder, digest, digest) > 0);
    return path;
}

static void names_are_checked(void **state)
{
    (void)state;
    struct sora_error err;
    char longest[SORA_ADAPTER_NAME_BYTES_MAX + 2];
    static const char *const good[] = {"a", "org/name", "a.b_c:d-e", "9", "-", "a/b/c", "A.1"};
    static const char *const bad[] = {"",       ".",   ".a",   "/a",   "a..b", "..",  "a@1",
                                      "a b",    "a\n", "\x80", "a\\b", "a%",   "a?b", "a#",
                                      "a/../b", "ä",   "a*",   "a\"b", "a,b"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(sora_store_check_name(good[i], &err), SORA_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused(sora_store_check_name(bad[i], &err), SORA_MALFORMED, "adapter name");
    memset(longest, 'a', sizeof longest);
    longest[SORA_ADAPTER_NAME_BYTES_MAX + 1] = 0;
    assert_refused(sora_store_check_name(longest, &err), SORA_MALFORMED, "129 bytes");
    longest[SORA_ADAPTER_NAME_BYTES_MAX] = 0;
    assert_int_equal(sora_store_check_name(longest, &err), SORA_OK);
}

static void versions_count_up_and_survive_a_reopen(void **state)
{
    struct fixture *f = *state;
    struct sora_store_entry entry, *entries;
    bool created;
    int32_t count;
    assert_int_equal(put_ok(f, "a", "one").version, 1);
    assert_int_equal(put_ok(f, "a", "two").version, 2);
    assert_int_equal(put_ok(f, "b", "one").version, 1);
    // The newest bytes again: nothing new.
    assert_int_equal(put(f, "a", "two", NULL, true, &entry, &created), SORA_OK);
    assert_false(created);
    assert_int_equal(entry.version, 2);
    // Older bytes again: a version of their own.
    assert_int_equal(put(f, "a", "one", NULL, false, &entry, &created), SORA_OK);
    assert_true(created);
    assert_false(entry.active);
    assert_int_equal(entry.version, 3);
    reopen(f);
    assert_int_equal(sora_store_list(f->store, NULL, &entries, &count, &f->err), SORA_OK);
    assert_int_equal(count, 4);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(entries[i].name, "a");
        assert_int_equal(entries[i].version, i + 1);
        assert_int_equal(entries[i].active, i == 1);
        assert_int_equal(entries[i].bytes, 3);
        assert_true(entries[i].created_s > 1600000000);
        check_content(f, &entries[i], i == 1 ? "two" : "one");
    }
    assert_string_equal(entries[3].name, "b");
    free(entries);
    assert_int_equal(count_versions(f, "b"), 1);
    assert_int_equal(count_versions(f, "nobody"), 0);
}

static void the_same_bytes_are_on_disk_once(void **state)
{
    struct fixture *f = *state;
    struct stat before, after;
    struct sora_store_entry entry = put_ok(f, "a", "same bytes");
    char *path = blob_path(f, entry.digest);
    assert_int_equal(stat(path, &before), 0);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        put_ok(f, name, "same bytes");
    }
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino);
    free(path);
}

static void activate_moves_the_bare_name(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_store_entry entry;
    put_ok(f, "a", "one");
    put_ok(f, "a", "two");
    assert_int_equal(sora_store_activate(f->store, "a", 1, &entry, &err), SORA_OK);
    assert_int_equal(entry.version, 1);
    assert_true(entry.active);
    assert_refused(sora_store_activate(f->store, "a", 3, &entry, &err), SORA_NOT_FOUND,
                   "version 3");
    assert_refused(sora_store_activate(f->store, "z", 1, &entry, &err), SORA_NOT_FOUND, "\"z\"");
    // The newest bytes once more make the newest version active again.
    bool created;
    assert_int_equal(put(f, "a", "two", NULL, true, &entry, &created), SORA_OK);
    assert_false(created);
    assert_true(entry.active && entry.version == 2);
}

static void if_match_guards_an_update(void **state)
{
    struct fixture *f = *state;
    struct sora_store_entry one = put_ok(f, "a", "one"), entry;
    char wrong[65], *path;
    bool created;
    memset(wrong, 'f', 64);
    wrong[64] = 0;
    assert_int_equal(put(f, "a", "two", wrong, true, &entry, &created), SORA_PRECONDITION);
    assert_non_null(strstr(f->err.text, one.digest));
    assert_int_equal(put(f, "new", "two", wrong, true, &entry, &created), SORA_PRECONDITION);
    assert_int_equal(count_versions(f, NULL), 1);
    // The refused bytes left no file behind.
    assert_int_equal(sha256_of("two", 3, wrong, NULL), SORA_OK);
    path = blob_path(f, wrong);
    assert_false(file_exists(path));
    free(path);
    assert_int_equal(put(f, "a", "two", one.digest, true, &entry, &created), SORA_OK);
    assert_int_equal(entry.version, 2);
}

static void remove_frees_files_and_never_reuses_a_version(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    size_t freed;
    struct sora_store_entry shared = put_ok(f, "a", "shared"), own = put_ok(f, "a", "only a's");
    put_ok(f, "b", "shared");
    char *shared_path = blob_path(f, shared.digest), *own_path = blob_path(f, own.digest);
    assert_int_equal(sora_store_remove(f->store, "a", &freed, &err), SORA_OK);
    assert_int_equal(freed, strlen("only a's"));
    assert_false(file_exists(own_path));
    assert_true(file_exists(shared_path));
    assert_refused(sora_store_remove(f->store, "a", &freed, &err), SORA_NOT_FOUND, "\"a\"");
    reopen(f);
    assert_int_equal(put_ok(f, "a", "only a's").version, 3);
    assert_int_equal(count_versions(f, "a"), 1);
    free(shared_path);
    free(own_path);
}

static void a_second_opener_is_told_to_wait(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_store *second = NULL;
    assert_refused(fixture_open_store(f->folder, &second, &err), SORA_BUSY, "/lock");
    assert_null(second);
}

static void leftovers_of_a_crash_are_swept_and_strangers_are_left(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_store_entry entry = put_ok(f, "a", "kept");
    char *kept = blob_path(f, entry.digest), orphan_digest[65], *temporary = NULL;
    assert_int_equal(sha256_of("orphan", 6, orphan_digest, NULL), SORA_OK);
    char *orphan = blob_path(f, orphan_digest), *folder = strndup(orphan, strlen(orphan) - 77);
    char *stranger = file_join(folder, "notes.txt");
    assert_true(asprintf(&temporary, "%s.0123.tmp", orphan) > 0);
    assert_ok(file_make_folder(folder, &err));
    assert_ok(file_write_atomic(orphan, "orphan", 6, &err));
    assert_ok(file_write_atomic(temporary, "orp", 3, &err));
    assert_ok(file_write_atomic(stranger, "hello", 5, &err));
    reopen(f);
    assert_false(file_exists(orphan));
    assert_false(file_exists(temporary));
    assert_true(file_exists(stranger));
    assert_true(file_exists(kept));
    free(kept);
    free(orphan);
    free(folder);
    free(stranger);
    free(temporary);
}

static bool is_pinned(struct fixture *f, const char *name)
{
    struct sora_store_entry *entries;
    int32_t count;
    struct sora_error err = {SORA_OK, ""};
    assert_ok(sora_store_list(f->store, name, &entries, &count, &err));
    bool pinned = count > 0 && entries[0].pinned;
    for (int32_t i = 0; i < count; i++)
        assert_int_equal(entries[i].pinned, pinned);
    free(entries);
    return pinned;
}

static void a_pin_is_the_name_s_and_lasts_until_it_is_removed(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    size_t freed;
    assert_refused(sora_store_pin(f->store, "a", true, &err), SORA_NOT_FOUND, "\"a\"");
    assert_false(put_ok(f, "a", "one").pinned);
    put_ok(f, "b", "one");
    assert_ok(sora_store_pin(f->store, "a", true, &err));
    reopen(f);
    assert_true(is_pinned(f, "a") && !is_pinned(f, "b"));
    assert_true(put_ok(f, "a", "two").pinned);
    assert_ok(sora_store_pin(f->store, "a", false, &err));
    assert_false(is_pinned(f, "a"));
    assert_ok(sora_store_pin(f->store, "a", true, &err));
    assert_ok(sora_store_remove(f->store, "a", &freed, &err));
    assert_refused(sora_store_pin(f->store, "a", true, &err), SORA_NOT_FOUND, "\"a\"");
    assert_false(put_ok(f, "a", "three").pinned);
}

static void run_sql(struct fixture *f, const char *sql)
{
    sqlite3 *db;
    char *path = file_join(f->folder, "catalog.sqlite");
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    free(path);
}

static void a_store_from_before_there_were_pins_goes_on(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    put_ok(f, "a", "one");
    sora_store_close(f->store);
    f->store = NULL;
    run_sql(f, "ALTER TABLE adapter DROP COLUMN pinned; PRAGMA user_version = 2");
    assert_ok(sora_store_open(f->folder, &f->store, &err));
    assert_int_equal(count_versions(f, "a"), 1);
    assert_false(is_pinned(f, "a"));
    assert_ok(sora_store_pin(f->store, "a", true, &err));
    reopen(f);
    assert_true(is_pinned(f, "a"));
}

static void a_newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_store_close(f->store);
    f->store = NULL;
    run_sql(f, "PRAGMA user_version = 9");
    assert_refused(sora_store_open(f->folder, &f->store, &err), SORA_UNSUPPORTED,
                   "schema version 9");
}

static void a_catalog_that_is_none_is_refused(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    char *path = file_join(f->folder, "catalog.sqlite"), noise[4096];
    sora_store_close(f->store);
    f->store = NULL;
    memset(noise, 'x', sizeof noise);
    assert_ok(file_write_atomic(path, noise, sizeof noise, &err));
    assert_refused(sora_store_open(f->folder, &f->store, &err), SORA_MALFORMED, path);
    free(path);
}

static void a_damaged_or_missing_file_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    uint8_t *bytes;
    size_t byte_count;
    struct sora_store_entry entry = put_ok(f, "a", "content");
    char *path = blob_path(f, entry.digest);
    assert_ok(file_write_atomic(path, "kontent", 7, &err));
    if (fixture_url == NULL)
        assert_refused(sora_store_read(f->store, entry.digest, &bytes, &byte_count, &err), SORA_IO,
                       "damaged");
    else // it is brought from the catalog
        check_content(f, &entry, "content");
    // Putting the right bytes again mends it.
    put_ok(f, "a", "content");
    check_content(f, &entry, "content");
    assert_int_equal(unlink(path), 0);
    if (fixture_url == NULL)
        assert_refused(sora_store_read(f->store, entry.digest, &bytes, &byte_count, &err),
                       SORA_NOT_FOUND, path);
    else
        check_content(f, &entry, "content");
    assert_refused(sora_store_read(f->store, "../../etc/passwd", &bytes, &byte_count, &err),
                   SORA_MALFORMED, "SHA-256");
    free(path);
}

static void a_place_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    struct sora_error err;
    sora_store *store = NULL;
    char *folder = fixture_folder(), *file = file_join(folder, "file");
    assert_ok(file_write_atomic(file, "x", 1, &err));
    char *inside = file_join(file, "store");
    assert_refused(sora_store_open(inside, &store, &err), SORA_IO, inside);
    assert_refused(sora_store_open("/proc/no/store", &store, &err), SORA_IO, "/proc/no/store");
    free(file);
    free(inside);
    fixture_folder_remove(folder);
}

// In a child with a small file system of its own. 77: not permitted here. Anything else but 0 is
// the line that failed.
static int fill_small_disk(const char *folder)
{
    sora_store *store = NULL;
    struct sora_error err;
    struct sora_store_entry entry;
    bool created;
    char digest[65];
    uint8_t *bytes;
    size_t byte_count, acknowledged = 0;
    static uint8_t big[100000];
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", folder, "tmpfs", 0, "size=1m") != 0)
        return 77;
    if (sora_store_open(folder, &store, &err) != SORA_OK)
        return 84;
    for (int i = 0; i < 40; i++) {
        memset(big, i, sizeof big);
        (void)!sha256_of(big, sizeof big, digest, NULL);
        sora_status status =
            sora_store_put(store, "a", big, sizeof big, digest, NULL, true, &entry, &created, &err);
        if (status == SORA_OK)
            acknowledged++;
        else if (status != SORA_FULL)
            return 78;
    }
    if (acknowledged == 0 || acknowledged >= 11)
        return 79;
    sora_store_close(store);
    if (sora_store_open(folder, &store, &err) != SORA_OK)
        return 80;
    for (size_t i = 0; i < acknowledged; i++) {
        memset(big, (int)i, sizeof big);
        (void)!sha256_of(big, sizeof big, digest, NULL);
        if (sora_store_read(store, digest, &bytes, &byte_count, &err) != SORA_OK ||
            byte_count != sizeof big)
            return 81;
        free(bytes);
    }
    // And there is room again after a removal.
    if (sora_store_remove(store, "a", &byte_count, &err) != SORA_OK ||
        byte_count != acknowledged * sizeof big)
        return 82;
    if (sora_store_put(store, "b", big, sizeof big, digest, NULL, true, &entry, &created, &err) !=
        SORA_OK)
        return 83;
    sora_store_close(store);
    return 0;
}

// As above, on a file system that turns read-only under the store.
static int write_to_read_only_disk(const char *folder)
{
    sora_store *store = NULL;
    struct sora_error err;
    struct sora_store_entry entry;
    bool created;
    char digest[65], other[65];
    size_t byte_count;
    uint8_t *bytes;
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", folder, "tmpfs", 0, "size=1m") != 0)
        return 77;
    (void)!sha256_of("one", 3, digest, NULL);
    (void)!sha256_of("two", 3, other, NULL);
    if (sora_store_open(folder, &store, &err) != SORA_OK ||
        sora_store_put(store, "a", "one", 3, digest, NULL, true, &entry, &created, &err) != SORA_OK)
        return 78;
    sora_store_close(store);
    if (mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        return 77;
    if (sora_store_open(folder, &store, &err) != SORA_IO || !strstr(err.text, folder))
        return 79;
    if (mount(NULL, folder, NULL, MS_REMOUNT, NULL) != 0 ||
        sora_store_open(folder, &store, &err) != SORA_OK)
        return 80;
    if (sora_store_read(store, digest, &bytes, &byte_count, &err) != SORA_OK)
        return 81;
    free(bytes);
    if (sora_store_put(store, "a", "two", 3, other, NULL, true, &entry, &created, &err) != SORA_OK)
        return 82;
    sora_store_close(store);
    return 0;
}

static void a_read_only_disk_is_named_and_nothing_is_lost(void **state)
{
    (void)state;
    char *folder = fixture_folder();
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(write_to_read_only_disk(folder));
    assert_int_equal(waitpid(child, &status, 0), child);
    fixture_folder_remove(folder);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("SKIPPED a_read_only_disk_is_named_and_nothing_is_lost: mounting a small file "
               "system is not permitted\n");
        skip();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_full_disk_loses_nothing(void **state)
{
    (void)state;
    char *folder = fixture_folder();
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(fill_small_disk(folder));
    assert_int_equal(waitpid(child, &status, 0), child);
    fixture_folder_remove(folder);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf(
            "SKIPPED a_full_disk_loses_nothing: mounting a small file system is not permitted\n");
        skip();
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest both[] = {
        TEST(versions_count_up_and_survive_a_reopen),
        TEST(the_same_bytes_are_on_disk_once),
        TEST(activate_moves_the_bare_name),
        TEST(if_match_guards_an_update),
        TEST(remove_frees_files_and_never_reuses_a_version),
        TEST(a_second_opener_is_told_to_wait),
        TEST(leftovers_of_a_crash_are_swept_and_strangers_are_left),
        TEST(a_pin_is_the_name_s_and_lasts_until_it_is_removed),
        TEST(a_damaged_or_missing_file_is_noticed),
    };
    const struct CMUnitTest own[] = {
        cmocka_unit_test(names_are_checked),
        TEST(a_store_from_before_there_were_pins_goes_on),
        TEST(a_newer_schema_is_refused),
        TEST(a_catalog_that_is_none_is_refused),
        cmocka_unit_test(a_place_that_cannot_be_written_is_named),
        cmocka_unit_test(a_full_disk_loses_nothing),
        cmocka_unit_test(a_read_only_disk_is_named_and_nothing_is_lost),
    };
    int failed = cmocka_run_group_tests_name("SQLite", both, NULL, NULL);
    failed += cmocka_run_group_tests(own, NULL, NULL);
    if (fixture_start_postgres("store_on_postgresql"))
        failed += cmocka_run_group_tests_name("PostgreSQL", both, NULL, NULL);
    fixture_stop_postgres();
    return failed;
}

// SPDX-License-Identifier: Apache-2.0
// Several stores and registries on one PostgreSQL: who learns what, whose change stands, and what
// happens without the database. A second thread only where a test says so.
#include "catalog_fixture.h"

#include <pthread.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/sha256.h"
#include "sora/registry.h"

// Two servers' stores with folders of their own.
struct fixture {
    char *folders[2];
    sora_store *stores[2];
    struct sora_error err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    fixture_new_catalog();
    for (int i = 0; i < 2; i++) {
        f->folders[i] = fixture_folder();
        if (fixture_open_store(f->folders[i], &f->stores[i], &f->err) != SORA_OK)
            fail_msg("%s", f->err.text);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        sora_store_close(f->stores[i]);
        fixture_folder_remove(f->folders[i]);
    }
    free(f);
    return 0;
}

static sora_status put(sora_store *store, const char *name, const void *data, size_t bytes,
                       const char *if_match, struct sora_store_entry *entry, struct sora_error *err)
{
    char digest[65];
    bool created;
    assert_int_equal(sha256_of(data, bytes, digest, NULL), SORA_OK);
    return sora_store_put(store, name, data, bytes, digest, if_match, true, entry, &created, err);
}

static struct sora_store_entry put_ok(sora_store *store, const char *name, const char *text)
{
    struct sora_store_entry entry;
    struct sora_error err;
    assert_ok(put(store, name, text, strlen(text), NULL, &entry, &err));
    return entry;
}

static void check_content(sora_store *store, const char *digest, const void *data, size_t size)
{
    struct sora_error err;
    uint8_t *bytes;
    size_t byte_count;
    assert_ok(sora_store_read(store, digest, &bytes, &byte_count, &err));
    assert_int_equal(byte_count, size);
    assert_memory_equal(bytes, data, size);
    free(bytes);
}

static char *copy_path(const struct fixture *f, int store, const char *digest)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/blobs/%.2s/%s.safetensors", f->folders[store], digest, digest) >
                0);
    return path;
}

static void a_file_is_brought_from_the_catalog_and_kept(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_store_entry entry;
    size_t size = 2 * SORA_CATALOG_PART_BYTES + 12345; // parts, the last one short
    uint8_t *data = malloc(size);
    struct rng rng;
    assert_non_null(data);
    rng_seed(&rng, 1);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)rng_u64(&rng);
    assert_ok(put(f->stores[0], "large", data, size, NULL, &entry, &err));
    char *path = copy_path(f, 1, entry.digest);
    assert_false(file_exists(path));
    check_content(f->stores[1], entry.digest, data, size);
    assert_true(file_exists(path));
    sora_store_drop_copy(f->stores[1], entry.digest);
    assert_false(file_exists(path));
    assert_ok(sora_store_fetch(f->stores[1], entry.digest, &err));
    assert_true(file_exists(path));
    free(path);
    free(data);
}

static void a_file_damaged_in_the_catalog_is_refused(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    uint8_t *bytes;
    size_t byte_count;
    struct sora_store_entry entry = put_ok(f->stores[0], "a", "content");
    fixture_sql("UPDATE sora_blob_part SET content = 'kontent'", NULL);
    assert_refused(sora_store_read(f->stores[1], entry.digest, &bytes, &byte_count, &err), SORA_IO,
                   "damaged in the catalog");
    fixture_sql("UPDATE sora_blob SET bytes = 6", NULL);
    assert_refused(sora_store_read(f->stores[1], entry.digest, &bytes, &byte_count, &err),
                   SORA_MALFORMED, "has 7 bytes");
    char *path = copy_path(f, 1, entry.digest);
    assert_false(file_exists(path));
    free(path);
    check_content(f->stores[0], entry.digest, "content", 7); // which has a copy
}

static struct sora_store_changes changes_ok(sora_store *store, int64_t since)
{
    struct sora_store_changes changes;
    struct sora_error err;
    assert_ok(sora_store_read_changes(store, since, &changes, &err));
    return changes;
}

static void changes_are_told_by_name_since_a_revision(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    size_t freed;
    put_ok(f->stores[0], "a", "one");
    put_ok(f->stores[0], "b", "two");
    struct sora_store_changes all = changes_ok(f->stores[1], 0);
    assert_true(all.full);
    assert_int_equal(all.name_count, 2);
    put_ok(f->stores[0], "b", "three");
    assert_ok(sora_store_remove(f->stores[0], "a", &freed, &err));
    struct sora_store_changes some = changes_ok(f->stores[1], all.revision);
    assert_false(some.full);
    assert_int_equal(some.revision, all.revision + 2);
    assert_int_equal(some.name_count, 2);
    assert_string_equal(some.names[0].text, "a");
    assert_int_equal(some.entry_count, 2); // a has none
    assert_string_equal(some.entries[1].name, "b");
    assert_true(some.entries[1].version == 2 && some.entries[1].active);
    struct sora_store_changes none = changes_ok(f->stores[1], some.revision);
    assert_true(none.name_count == 0 && none.revision == some.revision);
    // A database that was taken back to an earlier state: all that is known counts for nothing.
    fixture_sql("UPDATE sora_state SET revision = 2", NULL);
    struct sora_store_changes back = changes_ok(f->stores[1], some.revision);
    assert_true(back.full && back.revision == 2);
    sora_store_changes_free(&all);
    sora_store_changes_free(&some);
    sora_store_changes_free(&none);
    sora_store_changes_free(&back);
}

static void a_change_wakes_those_who_wait(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    bool changed = false;
    assert_ok(sora_store_wait(f->stores[1], 0, &changed, &err));
    assert_true(changed); // what came before it listened, nobody told
    assert_ok(sora_store_wait(f->stores[1], 50, &changed, &err));
    assert_false(changed);
    put_ok(f->stores[0], "a", "one");
    int64_t start_us = clock_now_us();
    while (!changed && clock_now_us() < start_us + 5000000)
        assert_ok(sora_store_wait(f->stores[1], 1000, &changed, &err));
    assert_true(changed);
    assert_true(clock_now_us() - start_us < 1000000);
}

struct writer {
    sora_store *store;
    const char *if_match;
    int32_t versions[20];
    int32_t done, refused, seed;
};

static void *write_versions(void *context)
{
    struct writer *w = context;
    for (int i = 0; i < 20; i++) {
        char text[32];
        struct sora_store_entry entry;
        struct sora_error err;
        snprintf(text, sizeof text, "%d-%d", (int)w->seed, i);
        sora_status status = put(w->store, "same", text, strlen(text), w->if_match, &entry, &err);
        if (status == SORA_OK)
            w->versions[w->done++] = entry.version;
        else
            w->refused += status == SORA_PRECONDITION;
    }
    return NULL;
}

// Two threads, each with a server's store.
static void run_writers(struct fixture *f, struct writer writers[2], const char *if_match)
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        writers[i] = (struct writer){.store = f->stores[i], .if_match = if_match, .seed = i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_versions, &writers[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void two_servers_never_give_one_number_twice(void **state)
{
    struct fixture *f = *state;
    struct writer writers[2];
    bool seen[41] = {false};
    run_writers(f, writers, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(writers[i].done, 20);
        for (int k = 0; k < 20; k++) {
            int32_t version = writers[i].versions[k];
            assert_true(version >= 1 && version <= 40 && !seen[version]);
            seen[version] = true;
        }
    }
}

static void one_of_two_servers_wins_an_if_match(void **state)
{
    struct fixture *f = *state;
    struct writer writers[2];
    struct sora_store_entry entry = put_ok(f->stores[0], "same", "start");
    run_writers(f, writers, entry.digest);
    assert_int_equal(writers[0].done + writers[1].done, 1);
    assert_int_equal(writers[0].refused + writers[1].refused, 39);
    // Files that were refused are not kept.
    fixture_sql("SELECT 1 / (CASE WHEN count(*) = 2 THEN 1 ELSE 0 END) FROM sora_blob", NULL);
}

static void files_of_uploads_cut_off_are_swept_when_they_are_old(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    size_t freed;
    fixture_sql("INSERT INTO sora_blob VALUES ('old', 1, 5),"
                " ('new', 1, extract(epoch FROM now())::bigint)",
                NULL);
    put_ok(f->stores[0], "a", "one");
    assert_ok(sora_store_remove(f->stores[1], "a", &freed, &err));
    fixture_sql("SELECT 1 / (CASE WHEN count(*) = 1 AND min(digest) = 'new' THEN 1 ELSE 0 END)"
                " FROM sora_blob",
                NULL);
}

static void a_newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_access *access;
    fixture_sql("UPDATE sora_schema SET version = 9", NULL);
    assert_refused(sora_access_open_shared(fixture_url, true, &access, &err), SORA_UNSUPPORTED,
                   "schema version 9");
    (void)f;
}

static void a_password_is_in_no_text(void **state)
{
    (void)state;
    struct sora_error err;
    sora_access *access;
    static const char *const bad[] = {"postgresql://u:s3cret-w0rd@[h/d",
                                      "mysql://u:s3cret-w0rd@h/d",
                                      "postgresql://u:s3cret-w0rd@h/d?no=1", "s3cret-w0rd", ""};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_refused(sora_access_open_shared(bad[i], true, &access, &err), SORA_MALFORMED,
                       "URL cannot be read");
        assert_null(strstr(err.text, "s3cret-w0rd"));
    }
    // Nor when a host's name or a database's happens to be the same.
    assert_refused(
        sora_access_open_shared("postgresql://u:s3cret-w0rd@127.0.0.1:1/d", true, &access, &err),
        SORA_UNAVAILABLE, "postgresql://u@127.0.0.1:1/d: cannot connect");
    assert_null(strstr(err.text, "s3cret-w0rd"));
}

static void a_record_cut_in_a_character_is_kept(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    sora_access *access;
    struct sora_audit record = {.action = "test", .outcome = "caf\xc3"}, *records;
    int32_t count;
    assert_ok(fixture_open_access(f->folders[0], true, &access, &err));
    assert_ok(sora_access_add_audit(access, &record, &err));
    assert_ok(sora_access_list_audit(access, 0, 10, &records, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(records[0].outcome, "caf?");
    free(records);
    sora_access_close(access);
}

static void without_the_database_copies_are_read_and_changes_wait(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_store_entry entry = put_ok(f->stores[0], "a", "content"), other, *entries;
    uint8_t *bytes;
    size_t byte_count;
    int32_t count;
    bool changed;
    postgres_stop(fixture_postgres);
    assert_refused(put(f->stores[0], "b", "x", 1, NULL, &other, &err), SORA_UNAVAILABLE, "catalog");
    assert_refused(sora_store_list(f->stores[0], NULL, &entries, &count, &err), SORA_UNAVAILABLE,
                   "catalog");
    assert_refused(sora_store_wait(f->stores[0], 10, &changed, &err), SORA_UNAVAILABLE, "catalog");
    check_content(f->stores[0], entry.digest, "content", 7);
    assert_refused(sora_store_read(f->stores[1], entry.digest, &bytes, &byte_count, &err),
                   SORA_UNAVAILABLE, "catalog");
    postgres_start(fixture_postgres);
    int64_t until_us = clock_now_us() + 5000000;
    while (put(f->stores[0], "b", "x", 1, NULL, &other, &err) != SORA_OK)
        assert_true(clock_now_us() < until_us);
    check_content(f->stores[1], entry.digest, "content", 7);
}

// A database that was restarted while nobody asked is no failure at all.
static void a_restart_between_two_calls_is_not_noticed(void **state)
{
    struct fixture *f = *state;
    put_ok(f->stores[0], "a", "one");
    postgres_stop(fixture_postgres);
    postgres_start(fixture_postgres);
    assert_int_equal(put_ok(f->stores[0], "a", "two").version, 2);
}

// --- registries ---

static struct sora_registry_card publish_ok(sora_registry *registry, const struct sora_base *base,
                                            const char *name, uint64_t seed)
{
    struct sora_registry_card card;
    struct sora_error err;
    uint8_t *bytes;
    size_t byte_count;
    bool created;
    fixture_file(base, seed, &bytes, &byte_count);
    assert_ok(sora_registry_publish(registry, name, bytes, byte_count, NULL, true, &card, &created,
                                    &err));
    free(bytes);
    return card;
}

static void open_registries(struct fixture *f, const struct sora_base *base,
                            sora_registry *registries[2])
{
    struct sora_error err;
    for (int i = 0; i < 2; i++)
        assert_ok(sora_registry_create(f->stores[i], base, "base", &registries[i], &err));
}

static void a_registry_takes_over_what_others_did(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_base base = fixture_base();
    sora_registry *r[2];
    sora_pin *pin, *other;
    struct sora_registry_card *cards, card;
    int32_t count;
    size_t freed;
    open_registries(f, &base, r);
    publish_ok(r[0], &base, "a", 1);
    // The second has not heard of version 1 when it makes version 2, and runs a request on it.
    assert_int_equal(publish_ok(r[1], &base, "a", 2).entry.version, 2);
    assert_ok(sora_registry_pin(r[1], "a", &pin, &err));
    assert_ok(sora_registry_follow(r[1], &err));
    assert_ok(sora_registry_versions(r[1], "a", &cards, &count, &err));
    assert_int_equal(count, 2);
    assert_int_equal(cards[0].entry.version, 1);
    assert_true(cards[1].entry.active && cards[1].in_flight == 1);
    free(cards);
    assert_ok(sora_registry_pin(r[1], "a@1", &other, &err)); // its file is brought
    sora_registry_unpin(r[1], other);
    // Rolled back and removed by the first, while the request runs.
    assert_ok(sora_registry_follow(r[0], &err));
    assert_ok(sora_registry_rollback(r[0], "a", 1, &card, &err));
    assert_ok(sora_registry_follow(r[1], &err));
    assert_ok(sora_registry_pin(r[1], "a", &other, &err));
    assert_int_equal(sora_pin_version(other), 1);
    sora_registry_unpin(r[1], other);
    assert_ok(sora_registry_remove(r[0], "a", &freed, &err));
    assert_ok(sora_registry_follow(r[1], &err));
    assert_refused(sora_registry_pin(r[1], "a", &other, &err), SORA_NOT_FOUND, "\"a\"");
    assert_int_equal(sora_pin_version(pin), 2);
    sora_registry_unpin(r[1], pin);
    // Removed and made anew between two looks.
    publish_ok(r[0], &base, "b", 1);
    assert_ok(sora_registry_follow(r[1], &err));
    assert_ok(sora_registry_remove(r[0], "b", &freed, &err));
    assert_int_equal(publish_ok(r[0], &base, "b", 3).entry.version, 2);
    assert_ok(sora_registry_follow(r[1], &err));
    assert_ok(sora_registry_versions(r[1], "b", &cards, &count, &err));
    assert_true(count == 1 && cards[0].entry.version == 2 && cards[0].entry.active);
    free(cards);
    for (int i = 0; i < 2; i++)
        sora_registry_destroy(r[i]);
}

static void a_registry_drops_what_another_database_does_not_have(void **state)
{
    struct fixture *f = *state;
    struct sora_error err;
    struct sora_base base = fixture_base();
    sora_registry *r[2];
    open_registries(f, &base, r);
    publish_ok(r[0], &base, "a", 1);
    struct sora_registry_card gone = publish_ok(r[0], &base, "gone", 2);
    assert_ok(sora_registry_follow(r[1], &err));
    assert_ok(sora_store_fetch(f->stores[1], gone.entry.digest, &err));
    char *path = copy_path(f, 1, gone.entry.digest);
    assert_true(file_exists(path));
    // Taken back to before "gone" was made, by a backup.
    fixture_sql("DELETE FROM sora_version WHERE name = 'gone'; DELETE FROM sora_adapter WHERE"
                " name = 'gone'; UPDATE sora_state SET revision = 2",
                NULL);
    assert_ok(sora_registry_follow(r[1], &err));
    assert_true(sora_registry_has(r[1], "a"));
    assert_false(sora_registry_has(r[1], "gone"));
    assert_false(file_exists(path));
    free(path);
    // A name that means this server's base is another server's business.
    put_ok(f->stores[0], "base", "not for us");
    assert_ok(sora_registry_follow(r[1], &err));
    assert_false(sora_registry_has(r[1], "base"));
    for (int i = 0; i < 2; i++)
        sora_registry_destroy(r[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_brought_from_the_catalog_and_kept),
        TEST(a_file_damaged_in_the_catalog_is_refused),
        TEST(changes_are_told_by_name_since_a_revision),
        TEST(a_change_wakes_those_who_wait),
        TEST(two_servers_never_give_one_number_twice),
        TEST(one_of_two_servers_wins_an_if_match),
        TEST(files_of_uploads_cut_off_are_swept_when_they_are_old),
        TEST(a_newer_schema_is_refused),
        TEST(a_password_is_in_no_text),
        TEST(a_record_cut_in_a_character_is_kept),
        TEST(without_the_database_copies_are_read_and_changes_wait),
        TEST(a_restart_between_two_calls_is_not_noticed),
        TEST(a_registry_takes_over_what_others_did),
        TEST(a_registry_drops_what_another_database_does_not_have),
    };
    if (!fixture_start_postgres("catalog_shared"))
        return 0;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fixture_stop_postgres();
    return failed;
}

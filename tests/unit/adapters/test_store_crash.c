// SPDX-License-Identifier: Apache-2.0
// A process that is killed at any moment loses nothing that it acknowledged. The test forks
// writers, one after another, and kills each; nothing else runs in it.
#include "adapter_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/sha256.h"
#include "sora/store.h"

#define ROUNDS 25
#define BLOB_BYTES 20000

// What the writer reports over its pipe after each acknowledged put.
struct report {
    char name[16];
    char digest[65];
    int32_t version;
};

static void make_blob(uint64_t seed, uint8_t *blob, char digest[65])
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (size_t i = 0; i < BLOB_BYTES; i++)
        blob[i] = (uint8_t)rng_u64(&rng);
    if (sha256_of(blob, BLOB_BYTES, digest, NULL) != SORA_OK)
        _exit(3);
}

// The writer: puts until it is killed.
static void write_for_ever(const char *folder, int pipe_fd, uint64_t seed)
{
    sora_store *store;
    struct sora_error err;
    static uint8_t blob[BLOB_BYTES];
    if (sora_store_open(folder, &store, &err) != SORA_OK)
        _exit(2);
    for (uint64_t i = 0;; i++) {
        struct report report = {0};
        struct sora_store_entry entry;
        bool created;
        make_blob(seed * 1000003 + i, blob, report.digest);
        snprintf(report.name, sizeof report.name, "n%u", (unsigned)(i % 5));
        if (sora_store_put(store, report.name, blob, BLOB_BYTES, report.digest, NULL, true, &entry,
                           &created, &err) != SORA_OK)
            _exit(4);
        report.version = entry.version;
        if (write(pipe_fd, &report, sizeof report) != (ssize_t)sizeof report)
            _exit(5);
    }
}

// Every report is in the catalog, and every entry of the catalog reads back.
static int32_t check_store(const char *folder, const struct report *reports, int32_t report_count)
{
    sora_store *store;
    struct sora_error err = {SORA_OK, ""};
    struct sora_store_entry *entries;
    int32_t entry_count;
    assert_ok(sora_store_open(folder, &store, &err));
    assert_ok(sora_store_list(store, NULL, &entries, &entry_count, &err));
    for (int32_t i = 0; i < report_count; i++) {
        bool found = false;
        for (int32_t j = 0; j < entry_count && !found; j++)
            found = strcmp(entries[j].name, reports[i].name) == 0 &&
                    entries[j].version == reports[i].version &&
                    strcmp(entries[j].digest, reports[i].digest) == 0;
        if (!found)
            fail_msg("acknowledged %s@%d is lost", reports[i].name, (int)reports[i].version);
    }
    for (int32_t j = 0; j < entry_count; j++) {
        uint8_t *bytes;
        size_t byte_count;
        assert_ok(sora_store_read(store, entries[j].digest, &bytes, &byte_count, &err));
        assert_int_equal(byte_count, BLOB_BYTES);
        free(bytes);
    }
    free(entries);
    sora_store_close(store);
    return entry_count;
}

static void what_was_acknowledged_survives_a_kill(void **state)
{
    (void)state;
    static struct report reports[100000];
    int32_t report_count = 0;
    struct rng rng;
    char *folder = fixture_folder();
    rng_seed(&rng, 5);
    for (int round = 0; round < ROUNDS; round++) {
        int fds[2], status;
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            write_for_ever(folder, fds[1], (uint64_t)round);
        close(fds[1]);
        int64_t wanted = 1 + (int64_t)rng_below(&rng, 12), got = 0;
        while (got < wanted && report_count < 100000 &&
               read(fds[0], &reports[report_count], sizeof reports[0]) == sizeof reports[0])
            report_count++, got++;
        usleep((useconds_t)rng_below(&rng, 4000));
        kill(child, SIGKILL);
        // What it managed to say before it died counts too.
        while (report_count < 100000 &&
               read(fds[0], &reports[report_count], sizeof reports[0]) == sizeof reports[0])
            report_count++;
        close(fds[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
    }
    int32_t entries = check_store(folder, reports, report_count);
    printf("%d acknowledged, %d in the catalog after %d kills\n", (int)report_count, (int)entries,
           ROUNDS);
    assert_true(report_count >= ROUNDS && entries >= report_count);
    assert_true(entries <= report_count + ROUNDS);
    fixture_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_acknowledged_survives_a_kill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

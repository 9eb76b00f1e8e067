// SPDX-License-Identifier: Apache-2.0
// Tests of mapping, reading and durable writing of files.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "temp_folder.h"

struct fixture {
    char *folder, *path;
};

static int make_fixture(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    fixture->folder = temp_folder_create();
    fixture->path = file_join(fixture->folder, "file");
    *state = fixture;
    return 0;
}

static int remove_fixture(void **state)
{
    struct fixture *fixture = *state;
    temp_folder_remove(fixture->folder);
    free(fixture->path);
    free(fixture);
    return 0;
}

static void what_is_written_is_read(void **state)
{
    const struct fixture *fixture = *state;
    char *data = NULL;
    size_t bytes = 0;
    for (size_t size = 0; size < 300000; size = size * 3 + 1) {
        char *content = malloc(size + 1);
        memset(content, 'a' + (int)(size % 7), size);
        assert_int_equal(file_write_atomic(fixture->path, content, size, NULL), SORA_OK);
        assert_int_equal(file_read(fixture->path, size, &data, &bytes, NULL), SORA_OK);
        assert_int_equal(bytes, size);
        assert_memory_equal(data, content, size);
        assert_int_equal(data[size], 0);
        free(data);
        free(content);
    }
    assert_int_equal(temp_folder_entries(fixture->folder), 1);
}

static void reading_is_bounded(void **state)
{
    const struct fixture *fixture = *state;
    char *data = NULL;
    size_t bytes = 0;
    struct sora_error err;
    assert_int_equal(file_write_atomic(fixture->path, "12345", 5, NULL), SORA_OK);
    assert_int_equal(file_read(fixture->path, 4, &data, &bytes, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "5 bytes exceed the bound of 4"));
    // These files say that they have 0 bytes.
    assert_int_equal(file_read("/proc/self/status", 1u << 20, &data, &bytes, &err), SORA_OK);
    assert_true(bytes > 100);
    free(data);
    assert_int_equal(file_read("/proc/self/status", 20, &data, &bytes, &err), SORA_LIMIT);
}

static void what_cannot_be_read_is_named(void **state)
{
    const struct fixture *fixture = *state;
    struct sora_error err;
    struct file_map map;
    char *data = NULL;
    size_t bytes = 0;
    assert_int_equal(file_map_open(fixture->path, &map, &err), SORA_NOT_FOUND);
    assert_non_null(strstr(err.text, fixture->path));
    assert_non_null(strstr(err.text, "No such file"));
    assert_int_equal(file_map_open(fixture->folder, &map, &err), SORA_IO);
    assert_non_null(strstr(err.text, "folder"));
    assert_int_equal(file_read(fixture->folder, 10, &data, &bytes, &err), SORA_IO);
    assert_int_equal(file_read("/dev/null", 10, &data, &bytes, &err), SORA_IO);
    assert_int_equal(file_read("/dev/null/x", 10, &data, &bytes, &err), SORA_NOT_FOUND);
    assert_int_equal(mkfifo(fixture->path, 0600), 0); // must not wait for a writer
    assert_int_equal(file_read(fixture->path, 10, &data, &bytes, &err), SORA_IO);
    assert_null(map.data);
    assert_null(data);
}

static void a_file_is_mapped(void **state)
{
    const struct fixture *fixture = *state;
    struct file_map map;
    size_t size = 5 * 4096 + 17;
    char *content = malloc(size);
    for (size_t i = 0; i < size; ++i)
        content[i] = (char)(i * 31);
    assert_int_equal(file_write_atomic(fixture->path, content, size, NULL), SORA_OK);
    assert_int_equal(file_map_open(fixture->path, &map, NULL), SORA_OK);
    assert_int_equal(map.bytes, size);
    assert_memory_equal(map.data, content, size);
    file_map_forget(&map, map.data, map.bytes);
    file_map_forget(&map, map.data + 5, 10000);
    file_map_forget(&map, map.data, map.bytes + 1); // outside: ignored
    file_map_forget(&map, content, 4096);
    assert_memory_equal(map.data, content, size); // read again from the file
    file_map_close(&map);
    assert_null(map.data);
    file_map_close(&map);
    free(content);
}

static void an_empty_file_maps_to_nothing(void **state)
{
    const struct fixture *fixture = *state;
    struct file_map map;
    assert_int_equal(file_write_atomic(fixture->path, NULL, 0, NULL), SORA_OK);
    assert_int_equal(file_map_open(fixture->path, &map, NULL), SORA_OK);
    assert_null(map.data);
    assert_int_equal(map.bytes, 0);
    file_map_close(&map);
}

static void a_mapping_outlives_the_replacement(void **state)
{
    const struct fixture *fixture = *state;
    struct file_map map;
    assert_int_equal(file_write_atomic(fixture->path, "old", 3, NULL), SORA_OK);
    assert_int_equal(file_map_open(fixture->path, &map, NULL), SORA_OK);
    assert_int_equal(file_write_atomic(fixture->path, "new", 3, NULL), SORA_OK);
    assert_memory_equal(map.data, "old", 3);
    file_map_close(&map);
}

// What `call` returns in a child process, 255 when it died.
static int in_child(int (*call)(const struct fixture *), const struct fixture *fixture)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(call(fixture));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int write_over_file_limit(const struct fixture *fixture)
{
    struct rlimit limit = {1000, 1000};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    char content[5000] = {0};
    sigaction(SIGXFSZ, &ignore, NULL);
    setrlimit(RLIMIT_FSIZE, &limit);
    return (int)file_write_atomic(fixture->path, content, sizeof content, NULL);
}

static void a_failed_write_keeps_the_old_file_and_leaves_nothing(void **state)
{
    const struct fixture *fixture = *state;
    char *data = NULL;
    size_t bytes;
    assert_int_equal(file_write_atomic(fixture->path, "old", 3, NULL), SORA_OK);
    assert_int_equal(in_child(write_over_file_limit, fixture), SORA_IO);
    assert_int_equal(temp_folder_entries(fixture->folder), 1);
    assert_int_equal(file_read(fixture->path, 10, &data, &bytes, NULL), SORA_OK);
    assert_string_equal(data, "old");
    free(data);
}

enum { NO_MOUNT = 100 };

// On a file system of 64 KB of its own.
static int write_to_full_disk(const struct fixture *fixture)
{
    size_t size = 200000;
    char *content = calloc(1, size);
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return NO_MOUNT;
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", fixture->folder, "tmpfs", 0, "size=64k") != 0)
        return NO_MOUNT;
    sora_status status = file_write_atomic(fixture->path, content, size, NULL);
    free(content);
    return temp_folder_entries(fixture->folder) == 0 ? (int)status : NO_MOUNT + 1;
}

static void a_stream_takes_the_place_of_the_file_when_it_is_whole(void **state)
{
    const struct fixture *fixture = *state;
    struct file_stream *stream = NULL;
    char piece[1000], *data = NULL;
    size_t bytes;
    assert_int_equal(file_write_atomic(fixture->path, "old", 3, NULL), SORA_OK);
    for (int round = 0; round < 2; round++) { // without a commit, then with one
        assert_int_equal(file_stream_open(fixture->path, &stream, NULL), SORA_OK);
        for (int i = 0; i < 200; i++) { // more than a buffer of 64 KiB
            memset(piece, 'a' + i % 26, sizeof piece);
            assert_int_equal(file_stream_write(stream, piece, sizeof piece, NULL), SORA_OK);
        }
        assert_int_equal(file_read(fixture->path, 10, &data, &bytes, NULL), SORA_OK);
        assert_string_equal(data, "old");
        free(data);
        if (round == 1)
            assert_int_equal(file_stream_commit(stream, NULL), SORA_OK);
        file_stream_close(stream);
        assert_int_equal(temp_folder_entries(fixture->folder), 1);
    }
    assert_int_equal(file_read(fixture->path, 1 << 20, &data, &bytes, NULL), SORA_OK);
    assert_int_equal(bytes, 200 * sizeof piece);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(data[i], 'a' + (int)(i / sizeof piece) % 26);
    free(data);
}

static void a_full_disk_is_full(void **state)
{
    int result = in_child(write_to_full_disk, *state);
    if (result == NO_MOUNT) {
        print_message("SKIPPED a_full_disk_is_full: no right to mount a file system\n");
        skip();
    }
    assert_int_equal(result, SORA_FULL);
}

static void writing_into_a_missing_folder_fails(void **state)
{
    const struct fixture *fixture = *state;
    char *path = file_join(fixture->path, "x");
    assert_int_equal(file_write_atomic(path, "a", 1, NULL), SORA_NOT_FOUND);
    assert_int_equal(file_sync_folder(fixture->path, NULL), SORA_NOT_FOUND);
    assert_int_equal(file_sync_folder(fixture->folder, NULL), SORA_OK);
    free(path);
}

static void a_bare_name_is_written_here(void **state)
{
    const struct fixture *fixture = *state;
    int before = open(".", O_RDONLY | O_DIRECTORY);
    assert_int_equal(chdir(fixture->folder), 0);
    assert_int_equal(file_write_atomic("bare", "a", 1, NULL), SORA_OK);
    assert_true(file_exists("bare"));
    assert_int_equal(fchdir(before), 0);
    close(before);
}

static void folders_are_made_with_their_parents(void **state)
{
    const struct fixture *fixture = *state;
    char *deep = file_join(fixture->folder, "a//b/c/");
    assert_int_equal(file_make_folder(deep, NULL), SORA_OK);
    assert_true(file_is_folder(deep));
    assert_int_equal(file_make_folder(deep, NULL), SORA_OK);
    assert_int_equal(file_write_atomic(fixture->path, "a", 1, NULL), SORA_OK);
    assert_int_equal(file_make_folder(fixture->path, NULL), SORA_IO); // a file is in the way
    assert_false(file_is_folder(fixture->path));
    assert_true(file_exists(fixture->path));
    assert_false(file_exists("/no/such/thing"));
    assert_int_equal(file_make_folder("/", NULL), SORA_OK);
    free(deep);
}

static void paths_are_joined_and_cut(void **state)
{
    (void)state;
    static const struct {
        const char *path, *stem;
    } cases[] = {
        {"/a/x.gguf", "x"},
        {"/a/x/", "x"},
        {"x", "x"},
        {"/a/x.y.gguf", "x.y"},
        {".hidden", ".hidden"},
        {"", ""},
        {"/", ""},
        {"a.b/x", "x"},
        {"/a/x.d/", "x"},
        {"x.", "x"},
        {"long-name.x", "long-na"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char out[8];
        file_stem(cases[i].path, out, sizeof out);
        assert_string_equal(out, cases[i].stem);
    }
    char *joined = file_join("a", "b"), *slashed = file_join("a/", "b");
    assert_string_equal(joined, "a/b");
    assert_string_equal(slashed, "a/b");
    free(joined);
    free(slashed);
}

#define FILE_TEST(name) cmocka_unit_test_setup_teardown(name, make_fixture, remove_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(what_is_written_is_read),
        FILE_TEST(reading_is_bounded),
        FILE_TEST(what_cannot_be_read_is_named),
        FILE_TEST(a_file_is_mapped),
        FILE_TEST(an_empty_file_maps_to_nothing),
        FILE_TEST(a_mapping_outlives_the_replacement),
        FILE_TEST(a_failed_write_keeps_the_old_file_and_leaves_nothing),
        FILE_TEST(a_stream_takes_the_place_of_the_file_when_it_is_whole),
        FILE_TEST(a_full_disk_is_full),
        FILE_TEST(writing_into_a_missing_folder_fails),
        FILE_TEST(a_bare_name_is_written_here),
        FILE_TEST(folders_are_made_with_their_parents),
        cmocka_unit_test(paths_are_joined_and_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

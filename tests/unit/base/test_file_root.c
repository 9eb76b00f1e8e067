// SPDX-License-Identifier: Apache-2.0
// Files under a root: what is inside opens, through links too; what is not never does.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "base/file_root.h"
#include "temp_folder.h"

// parent/root/{file,folder/inner,...}, parent/secret, parent/root-2/file
struct fixture {
    char *parent, *root;
};

static void write_text(const char *folder, const char *name, const char *text)
{
    struct sora_error err;
    char *path = file_join(folder, name);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &err), SORA_OK);
    free(path);
}

static void link_to(const struct fixture *fix, const char *target, const char *name)
{
    char *path = file_join(fix->root, name);
    assert_int_equal(symlink(target, path), 0);
    free(path);
}

static int make_fixture(void **state)
{
    struct sora_error err;
    struct fixture *fix = calloc(1, sizeof *fix);
    fix->parent = temp_folder_create();
    char *root = file_join(fix->parent, "root"), *inner = file_join(root, "folder");
    char *beside = file_join(fix->parent, "root-2");
    assert_int_equal(file_make_folder(inner, &err), SORA_OK);
    assert_int_equal(file_make_folder(beside, &err), SORA_OK);
    assert_int_equal(file_root_resolve(root, &fix->root, &err), SORA_OK);
    write_text(fix->parent, "secret", "hidden");
    write_text(beside, "file", "hidden");
    write_text(root, "file", "of the root");
    write_text(inner, "inner", "inside");
    free(root);
    free(inner);
    free(beside);
    *state = fix;
    return 0;
}

static int remove_fixture(void **state)
{
    struct fixture *fix = *state;
    free(fix->root);
    temp_folder_remove(fix->parent);
    free(fix);
    return 0;
}

static void expect_text(const struct fixture *fix, const char *path, const char *text)
{
    struct file_under file;
    struct sora_error err;
    char *data;
    size_t bytes;
    if (file_root_open(fix->root, path, &file, &err) != SORA_OK)
        fail_msg("%s: %s", path, err.text);
    assert_false(file.is_folder);
    assert_int_equal(file.bytes, strlen(text));
    assert_int_equal(file_root_read(&file, path, 100, &data, &bytes, &err), SORA_OK);
    assert_string_equal(data, text);
    assert_int_equal(bytes, strlen(text));
    free(data);
    file_root_close(&file);
    assert_int_equal(file.fd, -1);
}

static void expect_refusal(const struct fixture *fix, const char *path, sora_status status,
                           const char *word)
{
    struct file_under file;
    struct sora_error err;
    sora_status found = file_root_open(fix->root, path, &file, &err);
    if (found != status || strstr(err.text, word) == NULL)
        fail_msg("%s: %d %s", path, (int)found, err.text);
    assert_int_equal(file.fd, -1);
}

static void what_is_inside_opens(void **state)
{
    const struct fixture *fix = *state;
    struct sora_error err;
    struct file_under file;
    char *absolute = file_join(fix->root, "folder/inner");
    expect_text(fix, "file", "of the root");
    expect_text(fix, "./folder//inner", "inside");
    expect_text(fix, absolute, "inside");
    link_to(fix, "folder/inner", "near");
    link_to(fix, absolute, "far");
    link_to(fix, "folder", "also");
    expect_text(fix, "near", "inside");
    expect_text(fix, "far", "inside");
    expect_text(fix, "also/inner", "inside");
    const char *const folders[] = {"folder", "also", ".", fix->root, "folder/"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        assert_int_equal(file_root_open(fix->root, folders[i], &file, &err), SORA_OK);
        assert_true(file.is_folder);
        file_root_close(&file);
    }
    free(absolute);
}

static void what_is_outside_does_not(void **state)
{
    const struct fixture *fix = *state;
    char *secret = file_join(fix->parent, "secret"),
         *beside = file_join(fix->parent, "root-2/file");
    char long_path[8192];
    memset(long_path, 'a', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    expect_refusal(fix, secret, SORA_MALFORMED, "inside the root");
    expect_refusal(fix, beside, SORA_MALFORMED, "inside the root"); // begins with the same letters
    expect_refusal(fix, "/nowhere/at/all", SORA_MALFORMED, "inside the root");
    expect_refusal(fix, fix->parent, SORA_MALFORMED, "inside the root");
    expect_refusal(fix, "../secret", SORA_MALFORMED, "\"..\"");
    expect_refusal(fix, "folder/../file", SORA_MALFORMED, "\"..\"");
    expect_refusal(fix, "..", SORA_MALFORMED, "\"..\"");
    expect_refusal(fix, "", SORA_MALFORMED, "1 to");
    expect_refusal(fix, long_path, SORA_MALFORMED, "1 to");
    expect_refusal(fix, "nothing", SORA_NOT_FOUND, "nothing");
    expect_refusal(fix, "file/below", SORA_NOT_FOUND, "below");
    link_to(fix, secret, "absolute-out");
    link_to(fix, "../secret", "relative-out");
    link_to(fix, "..", "up");
    link_to(fix, "/proc/self/root", "proc");
    link_to(fix, "loop", "loop");
    expect_refusal(fix, "absolute-out", SORA_MALFORMED, "inside the root");
    expect_refusal(fix, "relative-out", SORA_MALFORMED, "inside the root");
    expect_refusal(fix, "up/secret", SORA_MALFORMED, "inside the root");
    expect_refusal(fix, "up", SORA_MALFORMED, "inside the root");
    expect_refusal(fix, "proc/etc/passwd", SORA_MALFORMED, "inside the root");
    expect_refusal(fix, "loop", SORA_IO, "loop");
    free(secret);
    free(beside);
}

// A pipe without a writer would wait for ever, a device may do something when it is opened.
static void only_files_and_folders_open(void **state)
{
    const struct fixture *fix = *state;
    char *pipe = file_join(fix->root, "pipe"), *path = file_join(fix->root, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    link_to(fix, "pipe", "to-pipe");
    expect_refusal(fix, "pipe", SORA_MALFORMED, "neither");
    expect_refusal(fix, "to-pipe", SORA_MALFORMED, "neither");
    expect_refusal(fix, "socket", SORA_MALFORMED, "neither");
    close(fd);
    free(pipe);
    free(path);
}

static void a_file_over_the_bound_is_not_read(void **state)
{
    const struct fixture *fix = *state;
    struct file_under file;
    struct sora_error err;
    char *data;
    size_t bytes;
    assert_int_equal(file_root_open(fix->root, "file", &file, &err), SORA_OK);
    assert_int_equal(file_root_read(&file, "file", 10, &data, &bytes, &err), SORA_LIMIT);
    assert_null(data);
    assert_non_null(strstr(err.text, "11 bytes"));
    file_root_close(&file);
}

static void a_root_must_be_a_folder(void **state)
{
    const struct fixture *fix = *state;
    struct sora_error err;
    char *root, *path = file_join(fix->root, "file");
    assert_int_equal(file_root_resolve(path, &root, &err), SORA_NOT_FOUND);
    assert_null(root);
    assert_int_equal(file_root_resolve("/nowhere/at/all", &root, &err), SORA_NOT_FOUND);
    assert_null(root);
    free(path);
}

struct swapping {
    const struct fixture *fix;
    atomic_bool stop;
};

// Turns "way" from the folder into a link out of the root and back, as fast as it can.
static void *swap(void *context)
{
    struct swapping *swapping = context;
    char *way = file_join(swapping->fix->root, "way"),
         *kept = file_join(swapping->fix->root, "kept");
    while (!atomic_load(&swapping->stop)) {
        assert_int_equal(rename(way, kept), 0);
        assert_int_equal(symlink("../root-2", way), 0);
        assert_int_equal(unlink(way), 0);
        assert_int_equal(rename(kept, way), 0);
    }
    free(way);
    free(kept);
    return NULL;
}

static void a_link_that_comes_in_between_is_not_followed(void **state)
{
    const struct fixture *fix = *state;
    struct sora_error err;
    struct swapping swapping = {.fix = fix};
    pthread_t thread;
    char *way = file_join(fix->root, "way");
    int opened = 0;
    assert_int_equal(file_make_folder(way, &err), SORA_OK);
    write_text(way, "file", "inside");
    assert_int_equal(pthread_create(&thread, NULL, swap, &swapping), 0);
    for (int i = 0; i < 20000; i++) {
        struct file_under file;
        char *data;
        size_t bytes;
        if (file_root_open(fix->root, "way/file", &file, &err) != SORA_OK)
            continue;
        assert_int_equal(file_root_read(&file, "file", 100, &data, &bytes, &err), SORA_OK);
        assert_string_equal(data, "inside");
        opened++;
        free(data);
        file_root_close(&file);
    }
    atomic_store(&swapping.stop, true);
    pthread_join(thread, NULL);
    assert_true(opened > 0);
    free(way);
}

int main(void)
{
#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, make_fixture, remove_fixture)
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(what_is_inside_opens),
        WITH_FIXTURE(what_is_outside_does_not),
        WITH_FIXTURE(only_files_and_folders_open),
        WITH_FIXTURE(a_file_over_the_bound_is_not_read),
        WITH_FIXTURE(a_root_must_be_a_folder),
        WITH_FIXTURE(a_link_that_comes_in_between_is_not_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

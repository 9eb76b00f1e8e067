// SPDX-License-Identifier: Apache-2.0
// See postgres.h. One thread.
#include "postgres.h"

#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "temp_folder.h"

#define START_US 60000000 // initdb and start on a busy machine

struct postgres {
    char *folder, *programs; // programs: where initdb and postgres are
    char data[256];
    uid_t user;
    gid_t group;
    pid_t pid;
};

// The newest that Debian has installed, malloc'ed; NULL: none.
static char *find_programs(void)
{
    glob_t found;
    char *folder = NULL;
    if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found) != 0)
        return NULL;
    const char *last = found.gl_pathv[found.gl_pathc - 1];
    folder = strndup(last, strlen(last) - strlen("/initdb"));
    globfree(&found);
    return folder;
}

static void become_user(const struct postgres *postgres)
{
    if (geteuid() == 0 &&
        (setgroups(0, NULL) != 0 || setgid(postgres->group) != 0 || setuid(postgres->user) != 0))
        _exit(120);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
}

// Starts a program with its output in the folder's log.
static pid_t run(const struct postgres *postgres, char *const arguments[])
{
    char log[300], program[300];
    snprintf(log, sizeof log, "%s/log", postgres->folder);
    snprintf(program, sizeof program, "%s/%s", postgres->programs, arguments[0]);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    setpgid(0, 0);
    become_user(postgres);
    if (freopen(log, "a", stdout) == NULL || freopen(log, "a", stderr) == NULL)
        _exit(121);
    if (chdir(postgres->folder) == 0)
        execv(program, arguments);
    _exit(122);
}

static int is_ready(const struct postgres *postgres)
{
    char path[300], text[512] = "";
    snprintf(path, sizeof path, "%s/postmaster.pid", postgres->data);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = '\0';
    fclose(file);
    return strstr(text, "ready") != NULL;
}

void postgres_start(struct postgres *postgres)
{
    char sockets[300];
    snprintf(sockets, sizeof sockets, "unix_socket_directories=%s", postgres->folder);
    char *const arguments[] = {"postgres",          "-D", postgres->data, "-c", sockets, "-c",
                               "listen_addresses=", "-c", "fsync=off",    NULL};
    assert_int_equal(postgres->pid, 0);
    postgres->pid = run(postgres, arguments);
    int64_t until_us = clock_now_us() + START_US;
    while (!is_ready(postgres)) {
        if (clock_now_us() > until_us || waitpid(postgres->pid, NULL, WNOHANG) != 0)
            fail_msg("PostgreSQL did not start: see %s/log", postgres->folder);
        clock_sleep_us(20000);
    }
}

void postgres_stop(struct postgres *postgres)
{
    if (postgres->pid == 0)
        return;
    kill(postgres->pid, SIGINT); // "fast": connections are closed
    waitpid(postgres->pid, NULL, 0);
    postgres->pid = 0;
}

struct postgres *postgres_create(void)
{
    char *programs = find_programs();
    if (programs == NULL)
        return NULL;
    struct postgres *postgres = calloc(1, sizeof *postgres);
    assert_non_null(postgres);
    postgres->programs = programs;
    postgres->folder = temp_folder_create();
    snprintf(postgres->data, sizeof postgres->data, "%s/data", postgres->folder);
    struct passwd *user = getpwnam("nobody");
    if (geteuid() == 0) {
        assert_non_null(user);
        postgres->user = user->pw_uid;
        postgres->group = user->pw_gid;
        assert_int_equal(chown(postgres->folder, user->pw_uid, user->pw_gid), 0);
    }
    char *const arguments[] = {"initdb", "-D", postgres->data, "-U",         "sora",      "-A",
                               "trust",  "-E", "UTF8",         "--locale=C", "--no-sync", NULL};
    int status = 0;
    pid_t child = run(postgres, arguments);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("initdb failed: see %s/log", postgres->folder);
    postgres_start(postgres);
    return postgres;
}

void postgres_destroy(struct postgres *postgres)
{
    if (postgres == NULL)
        return;
    postgres_stop(postgres);
    temp_folder_remove(postgres->folder);
    free(postgres->programs);
    free(postgres);
}

char *postgres_url(const struct postgres *postgres, const char *schema)
{
    char *url = NULL;
    assert_true(
        asprintf(&url,
                 "postgresql://sora:s3cret-w0rd@/postgres?host=%s&options=-csearch_path%%3D%s",
                 postgres->folder, schema) > 0);
    return url;
}

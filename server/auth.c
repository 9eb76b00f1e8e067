// SPDX-License-Identifier: Apache-2.0
// See auth.h.
#include "server/auth.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/log.h"
#include "base/secret.h"
#include "server/auth_file.h"

struct auth_entry {
    struct sora_key key;
    struct rate_tenant *rate;
};

// What a key file looked like when it was read.
struct file_mark {
    bool there;
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec changed;
};

struct auth {
    sora_access *access;
    char *key_file; // NULL: none
    bool loopback;
    pthread_mutex_t mutex; // entries, open, rates, stopping
    pthread_cond_t stop_asked;
    bool stopping, polling;
    struct auth_entry *entries; // by hash
    int32_t entry_count;
    bool open;
    struct rate_table rates;
    pthread_t thread;
    atomic_bool *reload; // borrowed; NULL: nobody asks
    // Of the thread that looks, or of auth_start before it runs.
    int64_t stamp;
    struct file_mark mark;
    bool failed; // the last look did: said once
};

// --- reading ---

static struct file_mark look_at(const char *path)
{
    struct stat info;
    struct file_mark mark;
    memset(&mark, 0, sizeof mark);
    if (path == NULL || stat(path, &info) != 0)
        return mark;
    mark.there = true;
    mark.device = info.st_dev;
    mark.inode = info.st_ino;
    mark.bytes = info.st_size;
    mark.changed = info.st_ctim; // also when only who may read it has changed
    return mark;
}

static bool same_mark(const struct file_mark *a, const struct file_mark *b)
{
    return a->there == b->there && a->device == b->device && a->inode == b->inode &&
           a->bytes == b->bytes && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

static sora_status read_file(const char *path, struct sora_key **keys, int32_t *key_count,
                             struct sora_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    *keys = NULL;
    *key_count = 0;
    if (path == NULL)
        return SORA_OK;
    sora_status status = file_read(path, SORA_KEY_FILE_BYTES_MAX, &text, &bytes, err);
    if (status == SORA_OK)
        status = auth_file_parse(text, bytes, keys, key_count, err);
    if (text != NULL)
        secret_wipe(text, bytes);
    free(text);
    return status == SORA_OK ? status : sora_fail_within(err, status, "--api-key-file %s", path);
}

static int compare_entries(const void *a, const void *b)
{
    const struct auth_entry *left = a, *right = b;
    return strcmp(left->key.hash, right->key.hash);
}

static int compare_keys(const void *a, const void *b)
{
    const struct sora_key *left = a, *right = b;
    return strcmp(left->hash, right->hash);
}

// A key of the file that the catalog knows (made, by hash) is what the catalog says it is: above
// all, revoked.
static bool is_made(const struct sora_key *made, int32_t made_count, const struct sora_key *given)
{
    const struct sora_key *known =
        made_count > 0 ? bsearch(given, made, (size_t)made_count, sizeof *made, compare_keys)
                       : NULL;
    if (known != NULL)
        log_warn("auth", "known_key_in_file", "key=%s revoked=%s", given->id,
                 known->revoked_s > 0 ? "true" : "false");
    return known != NULL;
}

// The keys that count, by hash.
static struct auth_entry *merge(struct sora_key *made, int32_t made_count,
                                const struct sora_key *given, int32_t given_count, int32_t *count)
{
    struct auth_entry *entries =
        calloc((size_t)made_count + (size_t)given_count + 1, sizeof *entries);
    *count = 0;
    if (made_count > 1)
        qsort(made, (size_t)made_count, sizeof *made, compare_keys);
    for (int32_t i = 0; entries != NULL && i < made_count; i++)
        if (made[i].revoked_s == 0)
            entries[(*count)++].key = made[i];
    for (int32_t i = 0; entries != NULL && i < given_count; i++)
        if (!is_made(made, made_count, &given[i]))
            entries[(*count)++].key = given[i];
    if (*count > 1)
        qsort(entries, (size_t)*count, sizeof *entries, compare_entries);
    return entries;
}

// Takes the entries over.
static void install(struct auth *auth, struct auth_entry *entries, int32_t count, bool open,
                    const struct sora_tenant_limits *limits, int32_t limits_count)
{
    pthread_mutex_lock(&auth->mutex);
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++) {
        struct rate_tenant *rate = rate_table_tenant(&auth->rates, entries[i].key.tenant);
        if (rate == NULL) {
            log_error("auth", "too_many_tenants", "key=%s tenants=%d", entries[i].key.id,
                      (int)auth->rates.count);
            continue; // without limits of its own it must not come in
        }
        entries[kept] = entries[i];
        entries[kept++].rate = rate;
    }
    rate_table_set_limits(&auth->rates, limits, limits_count);
    struct auth_entry *old = auth->entries;
    auth->entries = entries;
    auth->entry_count = kept;
    auth->open = open;
    pthread_mutex_unlock(&auth->mutex);
    free(old);
}

static sora_status read_all(struct auth *auth, struct sora_error *err)
{
    struct sora_key *made = NULL, *given = NULL;
    struct sora_tenant_limits *limits = NULL;
    int32_t made_count = 0, given_count = 0, limits_count = 0, count = 0;
    sora_status status = sora_access_list_keys(auth->access, &made, &made_count, err);
    if (status == SORA_OK)
        status = sora_access_list_limits(auth->access, &limits, &limits_count, err);
    if (status == SORA_OK)
        status = read_file(auth->key_file, &given, &given_count, err);
    if (status == SORA_OK) {
        struct auth_entry *entries = merge(made, made_count, given, given_count, &count);
        bool open = made_count == 0 && auth->key_file == NULL;
        if (entries != NULL)
            install(auth, entries, count, open, limits, limits_count);
        else
            status = sora_fail(err, SORA_NO_MEMORY, "no memory for %d keys",
                               (int)(made_count + given_count));
    }
    free(made);
    free(given);
    free(limits);
    return status;
}

// Reads everything anew when something has changed. What stands then stays when that fails: a
// half-written file must let nobody in and lock nobody out.
static void look(struct auth *auth)
{
    struct sora_error err;
    int64_t stamp = 0;
    bool asked = auth->reload != NULL && atomic_exchange(auth->reload, false);
    struct file_mark mark = look_at(auth->key_file);
    sora_status status = sora_access_stamp(auth->access, &stamp, &err);
    bool same = stamp == auth->stamp && same_mark(&mark, &auth->mark);
    if (status == SORA_OK && same && !asked && !auth->failed)
        return;
    if (status == SORA_OK)
        status = read_all(auth, &err);
    if (status == SORA_OK) {
        auth->stamp = stamp;
        auth->mark = mark;
        auth->failed = false;
        log_info("auth", "reloaded", "keys=%d open=%s", (int)auth->entry_count,
                 auth->open ? "true" : "false");
        return;
    }
    char quoted[LOG_QUOTE_BYTES];
    if (!auth->failed || asked)
        log_error("auth", "reload_failed", "error=%s", log_quote(quoted, err.text));
    auth->failed = true; // tried again at the next look
}

static void *poll_changes(void *context)
{
    struct auth *auth = context;
    pthread_mutex_lock(&auth->mutex);
    while (!auth->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += SORA_ACCESS_POLL_US * 1000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&auth->stop_asked, &auth->mutex, &until);
        if (auth->stopping)
            break;
        pthread_mutex_unlock(&auth->mutex);
        look(auth);
        pthread_mutex_lock(&auth->mutex);
    }
    pthread_mutex_unlock(&auth->mutex);
    return NULL;
}

// --- life ---

static void announce(const struct auth *auth)
{
    if (!auth->open)
        log_info("auth", "keys", "count=%d", (int)auth->entry_count);
    else if (auth->loopback)
        log_info("auth", "open",
                 "note=\"there are no API keys: everyone on this machine may do everything; "
                 "sora-server keys make\"");
    else
        log_warn("auth", "OPEN_TO_THE_NETWORK",
                 "note=\"there are no API keys and --host is not this machine alone: EVERYONE who "
                 "reaches this port may use, replace and delete every adapter; make a key with "
                 "sora-server keys make --scope admin\"");
    if (!auth->open && auth->entry_count == 0)
        log_warn("auth", "closed", "note=\"no key is valid: every request is refused\"");
}

static void init_locks(struct auth *auth)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&auth->mutex, NULL);
    pthread_cond_init(&auth->stop_asked, &monotonic);
    pthread_condattr_destroy(&monotonic);
    rate_table_init(&auth->rates);
}

sora_status auth_start(const struct auth_options *options, struct auth **auth,
                       struct sora_error *err)
{
    struct auth *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the API keys");
    init_locks(made);
    made->loopback = options->loopback;
    made->reload = options->reload;
    sora_status status = SORA_OK;
    if (options->key_file != NULL && (made->key_file = strdup(options->key_file)) == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the API keys");
    if (status == SORA_OK)
        status = options->catalog_url != NULL
                     ? sora_access_open_shared(options->catalog_url, true, &made->access, err)
                     : sora_access_open(options->store_path, true, &made->access, err);
    // Before anything is read: what changes in between is seen at the first look.
    made->mark = look_at(made->key_file);
    if (status == SORA_OK)
        status = sora_access_stamp(made->access, &made->stamp, err);
    if (status == SORA_OK)
        status = read_all(made, err);
    if (status == SORA_OK && rate_table_tenant(&made->rates, "") == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for the limits of tenants");
    if (status == SORA_OK)
        announce(made); // before the thread: it changes what is told
    if (status == SORA_OK && pthread_create(&made->thread, NULL, poll_changes, made) != 0)
        status = sora_fail(err, SORA_IO, "cannot start the thread that watches the API keys");
    else if (status == SORA_OK)
        made->polling = true;
    if (status != SORA_OK) {
        auth_stop(made);
        return status;
    }
    *auth = made;
    return SORA_OK;
}

void auth_stop(struct auth *auth)
{
    if (auth == NULL)
        return;
    pthread_mutex_lock(&auth->mutex);
    auth->stopping = true;
    pthread_cond_signal(&auth->stop_asked);
    pthread_mutex_unlock(&auth->mutex);
    if (auth->polling)
        pthread_join(auth->thread, NULL);
    sora_access_close(auth->access);
    rate_table_deinit(&auth->rates);
    pthread_cond_destroy(&auth->stop_asked);
    pthread_mutex_destroy(&auth->mutex);
    free(auth->entries);
    free(auth->key_file);
    free(auth);
}

sora_access *auth_access(struct auth *auth)
{
    return auth->access;
}

bool auth_is_admin(const struct auth_caller *caller)
{
    return (caller->scopes & SORA_SCOPE_ADMIN) != 0;
}

// --- asking ---

// The key's text in the headers, or NULL.
static const char *find_text(const char *authorization, const char *api_key)
{
    static const char scheme[] = "Bearer ";
    if (authorization == NULL)
        return api_key;
    if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return NULL;
    const char *text = authorization + sizeof scheme - 1;
    return text + strspn(text, " ");
}

// Locked. A search by the hash of what was sent tells by its time at most how that hash begins,
// which is of no use for finding a text with the hash of a key; the rest of it is compared in
// constant time, and so is the hash of a key that is not there.
static const struct auth_entry *find_entry(const struct auth *auth, const char hash[65])
{
    const struct auth_entry *found = NULL;
    int32_t low = 0, high = auth->entry_count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (strncmp(auth->entries[middle].key.hash, hash, 8) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < auth->entry_count && strncmp(auth->entries[low].key.hash, hash, 8) == 0; low++)
        if (secret_equal(auth->entries[low].key.hash, hash, 64))
            found = &auth->entries[low];
    return found;
}

static void fill_caller(const struct auth_entry *entry, struct auth_caller *caller)
{
    caller->scopes = entry->key.scopes;
    caller->rate = entry->rate;
    memcpy(caller->key_id, entry->key.id, sizeof caller->key_id);
    memcpy(caller->tenant, entry->key.tenant, sizeof caller->tenant);
    memcpy(caller->adapters, entry->key.adapters, sizeof caller->adapters);
}

sora_status auth_identify(struct auth *auth, const char *authorization, const char *api_key,
                          struct auth_caller *caller, struct api_error *error)
{
    struct sora_key sent;
    struct sora_error cause;
    const char *text = find_text(authorization, api_key);
    memset(caller, 0, sizeof *caller);
    memset(&sent, 0, sizeof sent);
    size_t bytes = text != NULL ? strlen(text) : 0;
    bool hashed = bytes > 0 && bytes <= SORA_KEY_BYTES_MAX &&
                  sora_key_identify(text, bytes, &sent, &cause) == SORA_OK;
    pthread_mutex_lock(&auth->mutex);
    bool open = auth->open;
    const struct auth_entry *entry = hashed && !open ? find_entry(auth, sent.hash) : NULL;
    if (entry != NULL)
        fill_caller(entry, caller);
    else if (open)
        caller->rate = rate_table_tenant(&auth->rates, "");
    pthread_mutex_unlock(&auth->mutex);
    if (open) // a key that nobody asked for is not looked at, as a stock client always sends one
        caller->scopes = SORA_SCOPE_ALL;
    if (open || entry != NULL)
        return SORA_OK;
    if (text == NULL)
        return api_error_set(error, API_UNAUTHORIZED, "missing_api_key", NULL,
                             "an API key is needed: send \"Authorization: Bearer KEY\"");
    return api_error_set(error, API_UNAUTHORIZED, "invalid_api_key", NULL,
                         "the API key is not known here, or was revoked");
}

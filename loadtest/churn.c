// SPDX-License-Identifier: Apache-2.0
// See churn.h.
#include "loadtest/churn.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/file.h"
#include "loadtest/client_http.h"

#define MADE_FILES 8 // distinct shapes; each upload differs in its values

struct churn_file {
    uint8_t *bytes;
    size_t byte_count;
};

struct churn {
    const struct plan *plan;
    struct churn_file files[SORA_LOADTEST_CHURN_FILES_MAX];
    int32_t file_count;
    bool made;
    int32_t next;
    bool busy;
    int64_t taken_us, total_us, answered;
    struct buf path;
    bool *lives; // [own name]
    struct churn_counts counts;
};

static sora_status make_files(struct churn *churn, const struct made_base *base,
                              struct sora_error *err)
{
    const struct scenario *scenario = churn->plan->scenario;
    churn->made = true;
    for (int32_t i = 0; i < MADE_FILES; i++) {
        struct churn_file *file = &churn->files[i];
        int32_t group = i % scenario_group_count(scenario);
        sora_status status = made_adapter_encode(base, &scenario_group_at(scenario, group)->ranks,
                                                 (uint64_t)scenario->seed * 1000003u + (uint64_t)i,
                                                 &file->bytes, &file->byte_count, err);
        if (status != SORA_OK)
            return status;
        churn->file_count++;
    }
    return SORA_OK;
}

static int is_adapter(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot != NULL && strcmp(dot, ".safetensors") == 0;
}

static sora_status read_one(struct churn *churn, const char *folder, const char *name,
                            struct sora_error *err)
{
    struct churn_file *file = &churn->files[churn->file_count];
    char *path = file_join(folder, name), *bytes = NULL;
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    sora_status status = file_read(path, SORA_ADAPTER_BYTES_MAX, &bytes, &file->byte_count, err);
    file->bytes = (uint8_t *)bytes;
    if (status == SORA_OK)
        churn->file_count++;
    free(path);
    return status;
}

static sora_status read_folder(struct churn *churn, const char *folder, struct sora_error *err)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_adapter, alphasort);
    if (count < 0)
        return sora_fail(err, SORA_NOT_FOUND, "churn_folder %.200s cannot be read", folder);
    sora_status status = SORA_OK;
    for (int i = 0; i < count; i++) {
        if (status == SORA_OK && i < SORA_LOADTEST_CHURN_FILES_MAX)
            status = read_one(churn, folder, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    if (status == SORA_OK && churn->file_count == 0)
        status =
            sora_fail(err, SORA_NOT_FOUND, "churn_folder %.200s has no .safetensors file", folder);
    return status;
}

sora_status churn_create(const struct plan *plan, const struct made_base *base, const char *folder,
                         struct churn **churn, struct sora_error *err)
{
    struct churn *made = calloc(1, sizeof *made);
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for churn");
    made->plan = plan;
    buf_init(&made->path, 4 * SORA_ADAPTER_NAME_BYTES_MAX);
    made->lives = calloc((size_t)plan->churn_count + 1, sizeof *made->lives);
    sora_status status = SORA_OK;
    if (made->lives == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "no memory for churn");
    else if (folder != NULL)
        status = read_folder(made, folder, err);
    else
        status = make_files(made, base, err);
    if (status != SORA_OK) {
        churn_destroy(made);
        return status;
    }
    *churn = made;
    return SORA_OK;
}

void churn_destroy(struct churn *churn)
{
    if (churn == NULL)
        return;
    for (int32_t i = 0; i < SORA_LOADTEST_CHURN_FILES_MAX; i++)
        free(churn->files[i].bytes);
    buf_deinit(&churn->path);
    free(churn->lives);
    free(churn);
}

int64_t churn_due_us(const struct churn *churn)
{
    if (churn->busy || churn->next == churn->plan->churn_count)
        return INT64_MAX;
    return churn->plan->churn[churn->next].at_us;
}

void churn_take(struct churn *churn, int64_t now_us, struct churn_call *call)
{
    ASSERT(!churn->busy && churn->next < churn->plan->churn_count);
    const struct plan_churn *op = &churn->plan->churn[churn->next];
    char name[SORA_ADAPTER_NAME_BYTES_MAX + 1];
    plan_churn_name(churn->plan, op, name, sizeof name);
    buf_clear(&churn->path);
    buf_text(&churn->path, "/v1/adapters/");
    client_http_escape(&churn->path, name);
    churn->busy = true;
    churn->taken_us = now_us;
    *call = (struct churn_call){.method = op->kind == CHURN_DELETE ? "DELETE" : "PUT",
                                .path = churn->path.data};
    if (op->kind == CHURN_DELETE)
        return;
    // Nothing else is under way, so the file may change where it stands.
    struct churn_file *file = &churn->files[op->number % churn->file_count];
    if (churn->made)
        made_adapter_vary(file->bytes, file->byte_count,
                          (uint64_t)churn->plan->scenario->seed + (uint64_t)op->number);
    if (!op->served)
        churn->lives[op->name] = true; // even without an answer it may be there
    call->body = file->bytes;
    call->body_bytes = file->byte_count;
    churn->counts.bytes += (int64_t)file->byte_count;
}

void churn_answer(struct churn *churn, int64_t now_us, long http_status, const char *text,
                  struct stats *stats)
{
    ASSERT(churn->busy);
    const struct plan_churn *op = &churn->plan->churn[churn->next++];
    char name[SORA_ADAPTER_NAME_BYTES_MAX + 1];
    plan_churn_name(churn->plan, op, name, sizeof name);
    churn->busy = false;
    churn->answered++;
    churn->total_us += now_us - churn->taken_us;
    bool good = http_status >= 200 && http_status < 300;
    if (good)
        churn->counts.done[op->kind]++;
    else if (churn->counts.failed++ == 0)
        snprintf(churn->counts.first_failure, sizeof churn->counts.first_failure,
                 "%s of %.60s: HTTP %ld: %.100s", plan_churn_kind_name(op->kind), name, http_status,
                 text);
    if (good && op->kind == CHURN_DELETE)
        churn->lives[op->name] = false;
    static const enum stats_mark_kind marks[] = {STATS_MARK_UPLOAD, STATS_MARK_UPDATE,
                                                 STATS_MARK_DELETE};
    if (stats != NULL)
        stats_add_mark(stats, now_us, good ? marks[op->kind] : STATS_MARK_FAILED, name);
}

bool churn_is_busy(const struct churn *churn)
{
    return churn->busy;
}

void churn_get_counts(const struct churn *churn, struct churn_counts *counts)
{
    *counts = churn->counts;
    counts->mean_us = churn->answered > 0 ? churn->total_us / churn->answered : 0;
}

bool churn_leftover(const struct churn *churn, int32_t index, char *name, size_t name_bytes)
{
    for (int32_t i = 0; i < churn->plan->churn_count; i++) {
        if (!churn->lives[i] || index-- > 0)
            continue;
        snprintf(name, name_bytes, "loadtest-churn-%d", (int)i);
        return true;
    }
    return false;
}

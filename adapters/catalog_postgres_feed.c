// SPDX-License-Identifier: Apache-2.0
// What other servers did: notifications, and the names that changed since a revision. One thread at
// a time.
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog_postgres.h"

sora_status catalog_postgres_listen(struct catalog_postgres *c, struct sora_error *err)
{
    if (c->listening)
        return SORA_OK;
    sora_status status = catalog_postgres_run(c, "LISTEN sora_catalog", NULL, err);
    c->listening = status == SORA_OK;
    c->told |= c->listening; // of what happened before it listened, nobody told
    return status;
}

sora_status catalog_postgres_wait(struct catalog *catalog, int32_t timeout_ms, bool *changed,
                                  struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    *changed = false;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_listen(c, err);
    if (status != SORA_OK)
        return status;
    if (!c->told) {
        struct pollfd fd = {.fd = PQsocket(c->conn), .events = POLLIN};
        (void)poll(&fd, 1, timeout_ms);
        catalog_postgres_listen_in(c);
    }
    *changed = c->told;
    c->told = false;
    return catalog_postgres_connect(c, err); // the end of the connection is no news of a change
}

static void read_name(const PGresult *result, int row, void *out)
{
    struct sora_store_name *name = out;
    catalog_postgres_text(result, row, 0, name->text, sizeof name->text);
}

static sora_status read_names(struct catalog_postgres *c, int64_t since,
                              struct sora_store_changes *changes, struct sora_error *err)
{
    PGresult *result = NULL;
    void *rows = NULL;
    sora_status status = catalog_postgres_query(
        c, &result, err, "SELECT name FROM sora_adapter WHERE revision > $1 ORDER BY name", "n",
        since);
    if (status == SORA_OK)
        status = catalog_postgres_rows(c, result, sizeof *changes->names, read_name, &rows,
                                       &changes->name_count, err);
    PQclear(result);
    changes->names = rows;
    return status;
}

static sora_status read_entries(struct catalog_postgres *c, int64_t since,
                                struct sora_store_changes *changes, struct sora_error *err)
{
    PGresult *result = NULL;
    void *rows = NULL;
    sora_status status = catalog_postgres_query(c, &result, err,
                                                CATALOG_POSTGRES_ENTRY_COLUMNS
                                                " WHERE a.revision > $1 ORDER BY v.name, v.version",
                                                "n", since);
    if (status == SORA_OK)
        status =
            catalog_postgres_rows(c, result, sizeof *changes->entries, catalog_postgres_read_entry,
                                  &rows, &changes->entry_count, err);
    PQclear(result);
    changes->entries = rows;
    return status;
}

sora_status catalog_postgres_changes(struct catalog *catalog, int64_t since,
                                     struct sora_store_changes *changes, struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    memset(changes, 0, sizeof *changes);
    sora_status status = catalog_postgres_connect(c, err);
    if (status != SORA_OK)
        return status;
    // Another database than before, or the same from a backup: nothing that is known here counts.
    bool other = strcmp(c->followed, c->identity) != 0;
    status = catalog_postgres_run(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", NULL, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(c, 0, &changes->revision, err,
                                         "SELECT revision FROM sora_state", "");
    changes->full = since <= 0 || other || changes->revision < since;
    since = changes->full ? 0 : since;
    if (status == SORA_OK && changes->revision > since)
        status = read_names(c, since, changes, err);
    if (status == SORA_OK && changes->name_count > 0)
        status = read_entries(c, since, changes, err);
    status = catalog_postgres_finish(c, status, err);
    if (status == SORA_OK)
        memcpy(c->followed, c->identity, sizeof c->followed);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// Names and versions in a PostgreSQL catalog. Changes follow one another on all servers (see
// catalog_postgres_begin), so a version's number, If-Match and a removal hold across them. One
// thread at a time.
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog_postgres.h"
#include "base/buf.h"

void catalog_postgres_read_entry(const PGresult *result, int row, void *out)
{
    struct sora_store_entry *entry = out;
    memset(entry, 0, sizeof *entry);
    catalog_postgres_text(result, row, 0, entry->name, sizeof entry->name);
    entry->version = (int32_t)catalog_postgres_int(result, row, 1);
    catalog_postgres_text(result, row, 2, entry->digest, sizeof entry->digest);
    entry->bytes = (size_t)catalog_postgres_int(result, row, 3);
    entry->created_s = catalog_postgres_int(result, row, 4);
    entry->active = catalog_postgres_bool(result, row, 5);
    entry->pinned = catalog_postgres_bool(result, row, 6);
}

// The one row of an entry query; *found false when there is none. Takes the result of the query on.
static sora_status take_entry(sora_status status, PGresult *result, bool *found,
                              struct sora_store_entry *entry)
{
    *found = status == SORA_OK && PQntuples(result) > 0;
    if (*found)
        catalog_postgres_read_entry(result, 0, entry);
    PQclear(result);
    return status;
}

static sora_status find_version(struct catalog_postgres *c, const char *name, int32_t version,
                                struct sora_store_entry *entry, struct sora_error *err)
{
    PGresult *result = NULL;
    bool found;
    sora_status status = catalog_postgres_query(
        c, &result, err, CATALOG_POSTGRES_ENTRY_COLUMNS " WHERE v.name = $1 AND v.version = $2",
        "tn", name, (int64_t)version);
    status = take_entry(status, result, &found, entry);
    if (status == SORA_OK && !found)
        return sora_fail(err, SORA_NOT_FOUND, "adapter \"%s\" has no version %d", name,
                         (int)version);
    return status;
}

static sora_status set_active(struct catalog_postgres *c, const char *name, int32_t version,
                              struct sora_error *err)
{
    return catalog_postgres_change(c, err, "UPDATE sora_adapter SET active = $2 WHERE name = $1",
                                   "tn", name, (int64_t)version);
}

// The name has changed: under a new revision, which the other servers are told of at the commit.
static sora_status note_change(struct catalog_postgres *c, const char *name, struct sora_error *err)
{
    return catalog_postgres_change(
        c, err,
        "WITH s AS (UPDATE sora_state SET revision = revision + 1 RETURNING revision),"
        " a AS (UPDATE sora_adapter SET revision = s.revision FROM s WHERE name = $1)"
        " SELECT pg_notify('sora_catalog', revision::text) FROM s",
        "t", name);
}

static sora_status check_if_match(struct catalog_postgres *c, const struct catalog_put *put,
                                  struct sora_error *err)
{
    struct sora_store_entry active;
    PGresult *result = NULL;
    bool found;
    if (!put->if_match)
        return SORA_OK;
    sora_status status = catalog_postgres_query(c, &result, err,
                                                CATALOG_POSTGRES_ENTRY_COLUMNS
                                                " WHERE v.name = $1 AND v.version = a.active",
                                                "t", put->name);
    status = take_entry(status, result, &found, &active);
    if (status != SORA_OK)
        return status;
    if (!found)
        return sora_fail(err, SORA_PRECONDITION,
                         "adapter \"%s\" has no active version, expected one with digest %.80s",
                         put->name, put->if_match);
    if (strcmp(active.digest, put->if_match) != 0)
        return sora_fail(err, SORA_PRECONDITION, "adapter \"%s\" has digest %s, expected %.80s",
                         put->name, active.digest, put->if_match);
    return SORA_OK;
}

static sora_status check_room(struct catalog_postgres *c, const char *name, struct sora_error *err)
{
    int64_t versions = 0, names = 0;
    sora_status status = catalog_postgres_number(
        c, 0, &versions, err, "SELECT 1 FROM sora_version WHERE name = $1 LIMIT 1", "t", name);
    if (status != SORA_OK || versions > 0)
        return status;
    status = catalog_postgres_number(
        c, 0, &names, err, "SELECT count(*) FROM (SELECT DISTINCT name FROM sora_version) n", "");
    if (status == SORA_OK && names >= SORA_ADAPTER_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "the catalog holds %d adapters, its limit",
                         SORA_ADAPTER_COUNT_MAX);
    return status;
}

static sora_status add_version(struct catalog_postgres *c, const struct catalog_put *put,
                               int32_t *version, struct sora_error *err)
{
    int64_t next = 1;
    sora_status status = check_room(c, put->name, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(c, 1, &next, err,
                                         "SELECT next_version FROM sora_adapter WHERE name = $1",
                                         "t", put->name);
    if (status != SORA_OK)
        return status;
    if (next > SORA_ADAPTER_VERSION_MAX)
        return sora_fail(err, SORA_LIMIT, "adapter \"%s\" has had %d versions, the limit",
                         put->name, SORA_ADAPTER_VERSION_MAX);
    *version = (int32_t)next;
    status = catalog_postgres_change(
        c, err,
        "INSERT INTO sora_adapter (name, next_version, active, revision) VALUES ($1, $2, 0, 0)"
        " ON CONFLICT (name) DO UPDATE SET next_version = $2",
        "tn", put->name, next + 1);
    if (status != SORA_OK)
        return status;
    return catalog_postgres_change(
        c, err,
        "INSERT INTO sora_version (name, version, digest, bytes, created_s)"
        " VALUES ($1, $2, $3, $4, $5)",
        "tntnn", put->name, next, put->digest, (int64_t)put->bytes, put->created_s);
}

static sora_status put_inside(struct catalog_postgres *c, const struct catalog_put *put,
                              struct sora_store_entry *entry, bool *created, struct sora_error *err)
{
    PGresult *result = NULL;
    bool found;
    sora_status status = check_if_match(c, put, err);
    // Sent before; sent again when another server has removed its last version since.
    if (status == SORA_OK)
        status = catalog_postgres_add_blob(c, put, err);
    if (status != SORA_OK)
        return status;
    status = catalog_postgres_query(c, &result, err,
                                    CATALOG_POSTGRES_ENTRY_COLUMNS
                                    " WHERE v.name = $1 ORDER BY v.version DESC LIMIT 1",
                                    "t", put->name);
    status = take_entry(status, result, &found, entry);
    if (status != SORA_OK)
        return status;
    int32_t version = entry->version;
    *created = !found || strcmp(entry->digest, put->digest) != 0;
    if (*created)
        status = add_version(c, put, &version, err);
    if (status == SORA_OK && put->activate)
        status = set_active(c, put->name, version, err);
    if (status == SORA_OK)
        status = note_change(c, put->name, err);
    if (status == SORA_OK)
        status = find_version(c, put->name, version, entry, err);
    return status;
}

// Files that no version names: those of `digests` ("{a,b}"), and what uploads that were cut off
// have left long ago.
static sora_status sweep(struct catalog_postgres *c, const char *digests, int64_t now_s,
                         struct sora_error *err)
{
    return catalog_postgres_change(
        c, err,
        "DELETE FROM sora_blob b WHERE (b.digest = ANY ($1::text[]) OR b.created_s < $2)"
        " AND NOT EXISTS (SELECT 1 FROM sora_version v WHERE v.digest = b.digest)",
        "tn", digests, now_s - SORA_CATALOG_ORPHAN_S);
}

// A refused put takes the file it has sent back, unless a version names it.
static void take_back(struct catalog_postgres *c, const struct catalog_put *put)
{
    char digests[80];
    snprintf(digests, sizeof digests, "{%.64s}", put->digest);
    sora_status status = catalog_postgres_begin(c, NULL);
    if (status == SORA_OK)
        status = sweep(c, digests, put->created_s, NULL);
    // When even that fails, a later sweep finds it.
    if (c->conn != NULL)
        (void)!catalog_postgres_finish(c, status, NULL);
}

sora_status catalog_postgres_put(struct catalog *catalog, const struct catalog_put *put,
                                 struct sora_store_entry *entry, bool *created,
                                 struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    memset(entry, 0, sizeof *entry);
    *created = false;
    // The bytes go before the transaction that all servers wait for.
    sora_status status = catalog_postgres_send_blob(c, put, err);
    if (status == SORA_OK)
        status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = catalog_postgres_finish(c, put_inside(c, put, entry, created, err), err);
    if (status != SORA_OK && status != SORA_UNAVAILABLE)
        take_back(c, put);
    return status;
}

sora_status catalog_postgres_activate(struct catalog *catalog, const char *name, int32_t version,
                                      struct sora_store_entry *entry, struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    sora_status status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = find_version(c, name, version, entry, err);
    if (status == SORA_OK)
        status = set_active(c, name, version, err);
    if (status == SORA_OK)
        status = note_change(c, name, err);
    status = catalog_postgres_finish(c, status, err);
    entry->active = true;
    return status;
}

sora_status catalog_postgres_pin(struct catalog *catalog, const char *name, bool pinned,
                                 struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    int64_t there = 0;
    sora_status status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = catalog_postgres_number(
        c, 0, &there, err, "SELECT 1 FROM sora_version WHERE name = $1 LIMIT 1", "t", name);
    if (status == SORA_OK && there == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\"", name);
    if (status == SORA_OK)
        status = catalog_postgres_change(
            c, err, "UPDATE sora_adapter SET pinned = ($2 <> 0) WHERE name = $1", "tn", name,
            (int64_t)pinned);
    if (status == SORA_OK)
        status = note_change(c, name, err);
    return catalog_postgres_finish(c, status, err);
}

static void read_digest(const PGresult *result, int row, void *out)
{
    struct catalog_digest *digest = out;
    catalog_postgres_text(result, row, 0, digest->text, sizeof digest->text);
}

// Deletes the versions; the digests that no other name has come back.
static sora_status delete_versions(struct catalog_postgres *c, const char *name, void **orphans,
                                   int32_t *orphan_count, struct sora_error *err)
{
    PGresult *result = NULL;
    int64_t there = 0;
    sora_status status = catalog_postgres_number(
        c, 0, &there, err, "SELECT 1 FROM sora_version WHERE name = $1 LIMIT 1", "t", name);
    if (status == SORA_OK && there == 0)
        return sora_fail(err, SORA_NOT_FOUND, "no adapter named \"%s\"", name);
    if (status == SORA_OK)
        status = catalog_postgres_query(
            c, &result, err,
            "WITH gone AS (DELETE FROM sora_version WHERE name = $1 RETURNING digest)"
            " SELECT DISTINCT digest FROM gone g WHERE NOT EXISTS"
            " (SELECT 1 FROM sora_version o WHERE o.digest = g.digest AND o.name <> $1)",
            "t", name);
    if (status == SORA_OK)
        status = catalog_postgres_rows(c, result, sizeof(struct catalog_digest), read_digest,
                                       orphans, orphan_count, err);
    PQclear(result);
    return status;
}

static sora_status sweep_orphans(struct catalog_postgres *c, const struct catalog_digest *orphans,
                                 int32_t orphan_count, struct sora_error *err)
{
    int64_t now_s = 0;
    struct buf list;
    buf_init(&list, SORA_ADAPTER_VERSION_MAX * (size_t)66);
    buf_text(&list, "{");
    for (int32_t i = 0; i < orphan_count; i++)
        buf_printf(&list, "%s%s", i > 0 ? "," : "", orphans[i].text);
    buf_text(&list, "}");
    sora_status status = buf_status(&list, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(c, 0, &now_s, err,
                                         "SELECT extract(epoch FROM now())::bigint", "");
    if (status == SORA_OK)
        status = sweep(c, list.data, now_s, err);
    buf_deinit(&list);
    return status;
}

sora_status catalog_postgres_remove(struct catalog *catalog, const char *name,
                                    struct catalog_digest **orphans, int32_t *orphan_count,
                                    struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    void *rows = NULL;
    *orphans = NULL;
    *orphan_count = 0;
    sora_status status = catalog_postgres_begin(c, err);
    if (status != SORA_OK)
        return status;
    status = delete_versions(c, name, &rows, orphan_count, err);
    if (status == SORA_OK)
        status = catalog_postgres_change(
            c, err, "UPDATE sora_adapter SET active = 0, pinned = false WHERE name = $1", "t",
            name);
    if (status == SORA_OK)
        status = sweep_orphans(c, rows, *orphan_count, err);
    if (status == SORA_OK)
        status = note_change(c, name, err);
    status = catalog_postgres_finish(c, status, err);
    if (status != SORA_OK) {
        free(rows);
        *orphan_count = 0;
        return status;
    }
    *orphans = rows;
    return SORA_OK;
}

sora_status catalog_postgres_list(struct catalog *catalog, const char *name,
                                  struct sora_store_entry **entries, int32_t *entry_count,
                                  struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    PGresult *result = NULL;
    void *rows = NULL;
    sora_status status = catalog_postgres_connect(c, err);
    if (status != SORA_OK)
        return status;
    if (name != NULL)
        status = catalog_postgres_query(
            c, &result, err, CATALOG_POSTGRES_ENTRY_COLUMNS " WHERE v.name = $1 ORDER BY v.version",
            "t", name);
    else
        status = catalog_postgres_query(
            c, &result, err, CATALOG_POSTGRES_ENTRY_COLUMNS " ORDER BY v.name, v.version", "");
    if (status == SORA_OK)
        status = catalog_postgres_rows(c, result, sizeof **entries, catalog_postgres_read_entry,
                                       &rows, entry_count, err);
    PQclear(result);
    *entries = rows;
    return status;
}

sora_status catalog_postgres_uses(struct catalog *catalog, const char *digest, bool *used,
                                  struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    int64_t number = 0;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(c, 0, &number, err,
                                         "SELECT 1 FROM sora_version WHERE digest = $1 LIMIT 1",
                                         "t", digest);
    *used = status != SORA_OK || number != 0;
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// The tables of a PostgreSQL catalog and their version. One thread at a time.
#include "adapters/catalog_postgres.h"

#define SCHEMA_VERSION 2
#define LOCK_KEY 7020861 // of the advisory lock under which tables are made

// Names are compared by their bytes, as everywhere else. next_version stays when a name is removed,
// so that a number never means two adapters, and so does its row: a server that was away learns of
// the removal by its revision. A file is cut into parts so that no statement is large. A revoked
// key stays, and the triggers keep the record of changes as it was written.
static const char schema[] =
    "CREATE TABLE sora_schema (version integer NOT NULL, identity text NOT NULL);"
    "CREATE TABLE sora_state (revision bigint NOT NULL, access_stamp bigint NOT NULL,"
    " audit_number bigint NOT NULL);"
    "INSERT INTO sora_state VALUES (1, 0, 0);"
    "CREATE TABLE sora_blob (digest text COLLATE \"C\" PRIMARY KEY, bytes bigint NOT NULL,"
    " created_s bigint NOT NULL);"
    "CREATE TABLE sora_blob_part (digest text COLLATE \"C\" NOT NULL REFERENCES sora_blob"
    " ON DELETE CASCADE, part integer NOT NULL, content bytea NOT NULL,"
    " PRIMARY KEY (digest, part));"
    "ALTER TABLE sora_blob_part ALTER COLUMN content SET STORAGE EXTERNAL;"
    "CREATE TABLE sora_adapter (name text COLLATE \"C\" PRIMARY KEY,"
    " next_version integer NOT NULL, active integer NOT NULL, revision bigint NOT NULL);"
    "CREATE INDEX sora_adapter_revision ON sora_adapter (revision);"
    "CREATE TABLE sora_version (name text COLLATE \"C\" NOT NULL REFERENCES sora_adapter,"
    " version integer NOT NULL, digest text COLLATE \"C\" NOT NULL REFERENCES sora_blob,"
    " bytes bigint NOT NULL, created_s bigint NOT NULL, PRIMARY KEY (name, version));"
    "CREATE INDEX sora_version_digest ON sora_version (digest);"
    "CREATE TABLE sora_api_key (id text COLLATE \"C\" PRIMARY KEY, hash text NOT NULL UNIQUE,"
    " tenant text NOT NULL, scopes integer NOT NULL, name text NOT NULL, adapters text NOT NULL,"
    " created_s bigint NOT NULL, revoked_s bigint NOT NULL DEFAULT 0);"
    "CREATE TABLE sora_tenant_limits (tenant text COLLATE \"C\" PRIMARY KEY,"
    " requests_per_minute bigint NOT NULL, tokens_per_minute bigint NOT NULL,"
    " concurrent_requests bigint NOT NULL, stored_bytes bigint NOT NULL);"
    "CREATE TABLE sora_audit (number bigint PRIMARY KEY, time_s bigint NOT NULL,"
    " key_id text NOT NULL, tenant text NOT NULL, request_id text NOT NULL, action text NOT NULL,"
    " object text NOT NULL, version integer NOT NULL, digest text NOT NULL,"
    " outcome text NOT NULL);"
    "CREATE FUNCTION sora_audit_stays() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN RAISE EXCEPTION ''the record of changes is append-only''; END';"
    "CREATE TRIGGER sora_audit_rows_stay BEFORE UPDATE OR DELETE ON sora_audit FOR EACH ROW"
    " EXECUTE FUNCTION sora_audit_stays();"
    "CREATE TRIGGER sora_audit_stays BEFORE TRUNCATE ON sora_audit FOR EACH STATEMENT"
    " EXECUTE FUNCTION sora_audit_stays();"
    "INSERT INTO sora_schema VALUES (1, gen_random_uuid()::text);";

// Version 2: whether the name's active version is to stay in memory.
static const char pinned_schema[] =
    "ALTER TABLE sora_adapter ADD COLUMN pinned boolean NOT NULL DEFAULT false;"
    "UPDATE sora_schema SET version = 2;";

static sora_status has_tables(struct catalog_postgres *c, bool *there, struct sora_error *err)
{
    int64_t number = 0;
    sora_status status = catalog_postgres_number(
        c, 0, &number, err, "SELECT (to_regclass('sora_schema') IS NOT NULL)::integer", "");
    *there = number != 0;
    return status;
}

// Within make_tables: brings older tables up to what this program knows.
static sora_status upgrade(struct catalog_postgres *c, struct sora_error *err)
{
    int64_t version = 0;
    sora_status status =
        catalog_postgres_number(c, 0, &version, err, "SELECT version FROM sora_schema", "");
    if (status == SORA_OK && version == 1)
        status = catalog_postgres_run(c, pinned_schema, NULL, err);
    return status;
}

// Under a lock: two servers may find an empty database at once.
static sora_status make_tables(struct catalog_postgres *c, struct sora_error *err)
{
    bool there = false;
    sora_status status = catalog_postgres_run(c, "BEGIN", NULL, err);
    if (status == SORA_OK)
        status = catalog_postgres_change(c, err, "SELECT pg_advisory_xact_lock($1)", "n",
                                         (int64_t)LOCK_KEY);
    if (status == SORA_OK)
        status = has_tables(c, &there, err);
    if (status == SORA_OK && !there)
        status = catalog_postgres_run(c, schema, NULL, err);
    if (status == SORA_OK)
        status = upgrade(c, err);
    status = catalog_postgres_finish(c, status, err);
    return status == SORA_OK ? status : sora_fail_within(err, status, "cannot create the tables");
}

sora_status catalog_postgres_prepare(struct catalog_postgres *c, struct sora_error *err)
{
    bool there = false;
    int64_t version = 0;
    PGresult *result = NULL;
    sora_status status = has_tables(c, &there, err);
    if (status == SORA_OK && !there && !c->create)
        return sora_fail(err, SORA_NOT_FOUND, "catalog %s: there is no catalog here", c->shown);
    if (status == SORA_OK && there)
        status = catalog_postgres_number(c, 0, &version, err,
                                         "SELECT max(version) FROM sora_schema", "");
    // Whoever only makes keys leaves the tables as they are.
    if (status == SORA_OK && c->create && version < SCHEMA_VERSION)
        status = make_tables(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_query(c, &result, err,
                                        "SELECT version, identity FROM sora_schema", "");
    if (status != SORA_OK)
        return status;
    if (PQntuples(result) != 1)
        status = sora_fail(err, SORA_MALFORMED, "catalog %s: sora_schema has %d rows, expected 1",
                           c->shown, PQntuples(result));
    else if (catalog_postgres_int(result, 0, 0) > SCHEMA_VERSION)
        status = sora_fail(err, SORA_UNSUPPORTED,
                           "catalog %s has schema version %lld of a newer program; this one knows "
                           "up to %d",
                           c->shown, (long long)catalog_postgres_int(result, 0, 0), SCHEMA_VERSION);
    else
        catalog_postgres_text(result, 0, 1, c->identity, sizeof c->identity);
    PQclear(result);
    return status;
}

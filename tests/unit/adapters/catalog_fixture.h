// SPDX-License-Identifier: Apache-2.0
// The suites of the store and of access run twice, on SQLite and on PostgreSQL: which one is told
// by fixture_url. Each test has a folder, and a schema, of its own.
#ifndef TESTS_CATALOG_FIXTURE_H
#define TESTS_CATALOG_FIXTURE_H

#include "adapter_fixture.h"

#include <libpq-fe.h>

#include "postgres.h"
#include "sora/access.h"
#include "sora/store.h"

static struct postgres *fixture_postgres;
static char *fixture_url; // of the test's schema; NULL: SQLite

// Runs statements that must succeed, or fail with a text that contains `error`.
static inline void fixture_sql(const char *sql, const char *error)
{
    PGconn *conn = PQconnectdb(fixture_url);
    if (PQstatus(conn) != CONNECTION_OK)
        fail_msg("%s", PQerrorMessage(conn));
    PGresult *result = PQexec(conn, sql);
    ExecStatusType kind = PQresultStatus(result);
    bool good = kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK;
    if (good != (error == NULL) || (error && !strstr(PQresultErrorMessage(result), error)))
        fail_msg("%s: %s", sql, PQresultErrorMessage(result));
    PQclear(result);
    PQfinish(conn);
}

// An empty schema, when the suite runs on PostgreSQL.
static inline void fixture_new_catalog(void)
{
    static int number;
    char schema[32], sql[64];
    if (fixture_postgres == NULL)
        return;
    free(fixture_url);
    snprintf(schema, sizeof schema, "t%d", ++number);
    snprintf(sql, sizeof sql, "CREATE SCHEMA %s", schema);
    fixture_url = postgres_url(fixture_postgres, schema);
    fixture_sql(sql, NULL);
}

static inline sora_status fixture_open_store(const char *folder, sora_store **store,
                                             struct sora_error *err)
{
    return fixture_url ? sora_store_open_shared(folder, fixture_url, store, err)
                       : sora_store_open(folder, store, err);
}

static inline sora_status fixture_open_access(const char *folder, bool create, sora_access **access,
                                              struct sora_error *err)
{
    return fixture_url ? sora_access_open_shared(fixture_url, create, access, err)
                       : sora_access_open(folder, create, access, err);
}

// Before and after the second run. False: there is no PostgreSQL here, said as a skipped test.
static inline bool fixture_start_postgres(const char *suite)
{
    fixture_postgres = postgres_create();
    if (fixture_postgres == NULL)
        printf("SKIPPED %s: PostgreSQL is not installed\n", suite);
    return fixture_postgres != NULL;
}

static inline void fixture_stop_postgres(void)
{
    postgres_destroy(fixture_postgres);
    free(fixture_url);
    fixture_postgres = NULL;
    fixture_url = NULL;
}

#endif

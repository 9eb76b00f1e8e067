// SPDX-License-Identifier: Apache-2.0
// The connection of a PostgreSQL catalog: URL, connecting, statements with a deadline, errors.
// Every wait here has an end: of the database (statement_timeout), of the network (keepalives and
// tcp_user_timeout), and of this side for a database that is there but says nothing.
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog_postgres.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"

#define ARGS_MAX 12
#define RETRY_MS_MIN 100

// When this process last made a connection. A server has several, and what one finds out holds for
// the others: no change is refused after the database is known to be back.
static _Atomic int64_t made_us;

struct args {
    const char *values[ARGS_MAX];
    int lengths[ARGS_MAX], formats[ARGS_MAX];
    char numbers[ARGS_MAX][24];
    int count;
};

// --- errors ---

// The first line of libpq's text without the password, for an error of ours.
static void read_reason(const struct catalog_postgres *c, const char *message, char *out,
                        size_t out_bytes)
{
    const char *text = message != NULL && message[0] != '\0' ? message : "no reason was given";
    snprintf(out, out_bytes, "%.*s", (int)strcspn(text, "\r\n"), text);
    size_t secret = c->password != NULL ? strlen(c->password) : 0;
    for (char *at = out; secret > 0 && (at = strstr(at, c->password)) != NULL; at += secret)
        memset(at, '*', secret);
}

// What the database's code for an error means to a caller.
static sora_status status_of(const char *state)
{
    static const struct {
        const char *prefix;
        sora_status status;
    } known[] = {
        {"08", SORA_UNAVAILABLE},    // the connection
        {"57P", SORA_UNAVAILABLE},   // shut down, crashed, starting
        {"57014", SORA_UNAVAILABLE}, // a statement took too long
        {"55P03", SORA_UNAVAILABLE}, // or a lock did
        {"53300", SORA_UNAVAILABLE}, // too many connections
        {"25006", SORA_UNAVAILABLE}, // read-only: a standby, or one that was the primary
        {"40", SORA_UNAVAILABLE},    // taken back for another transaction's sake
        {"53100", SORA_FULL},
    };
    for (size_t i = 0; state != NULL && i < sizeof known / sizeof known[0]; i++)
        if (strncmp(state, known[i].prefix, strlen(known[i].prefix)) == 0)
            return known[i].status;
    return SORA_IO;
}

static sora_status lost(struct catalog_postgres *c, const char *what, const char *message,
                        struct sora_error *err)
{
    read_reason(c, message, c->reason, sizeof c->reason);
    catalog_postgres_disconnect(c);
    return sora_fail(err, SORA_UNAVAILABLE, "catalog %s: %s: %s", c->shown, what, c->reason);
}

// A result that is no success; clears it.
static sora_status refused(struct catalog_postgres *c, PGresult *result, struct sora_error *err)
{
    char reason[256];
    if (PQstatus(c->conn) == CONNECTION_BAD) {
        PQclear(result);
        return lost(c, "the connection is lost", PQerrorMessage(c->conn), err);
    }
    sora_status status = status_of(PQresultErrorField(result, PG_DIAG_SQLSTATE));
    read_reason(c, PQresultErrorMessage(result), reason, sizeof reason);
    PQclear(result);
    return sora_fail(err, status, "catalog %s: %s", c->shown, reason);
}

// --- connecting ---

// "postgresql://user@host:port/database": what may be shown of a URL.
static void show(struct catalog_postgres *c, const PQconninfoOption *options)
{
    const char *user = NULL, *host = NULL, *port = NULL, *database = NULL;
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (strcmp(o->keyword, "user") == 0)
            user = o->val;
        else if (strcmp(o->keyword, "host") == 0 ||
                 (host == NULL && strcmp(o->keyword, "hostaddr") == 0))
            host = o->val != NULL ? o->val : host;
        else if (strcmp(o->keyword, "port") == 0)
            port = o->val;
        else if (strcmp(o->keyword, "dbname") == 0)
            database = o->val;
    }
    snprintf(c->shown, sizeof c->shown, "postgresql://%.60s%s%.80s%s%.20s/%.60s",
             user != NULL ? user : "", user != NULL ? "@" : "", host != NULL ? host : "",
             port != NULL ? ":" : "", port != NULL ? port : "", database != NULL ? database : "");
}

sora_status catalog_postgres_read_url(struct catalog_postgres *c, const char *url,
                                      struct sora_error *err)
{
    char *problem = NULL;
    bool scheme = strncmp(url, "postgresql://", 13) == 0 || strncmp(url, "postgres://", 11) == 0;
    // libpq's own text would quote the URL, with its password.
    PQconninfoOption *options =
        scheme && strlen(url) <= SORA_CATALOG_URL_BYTES_MAX ? PQconninfoParse(url, &problem) : NULL;
    PQfreemem(problem);
    if (options == NULL)
        return sora_fail(err, SORA_MALFORMED,
                         "the catalog's URL cannot be read: expected "
                         "postgresql://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE of at most %d "
                         "bytes, with what is special in a part percent-encoded",
                         SORA_CATALOG_URL_BYTES_MAX);
    show(c, options);
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
        if (strcmp(o->keyword, "password") == 0 && o->val != NULL && o->val[0] != '\0')
            c->password = strdup(o->val);
    PQconninfoFree(options);
    c->url = strdup(url);
    return c->url != NULL ? SORA_OK : sora_fail(err, SORA_NO_MEMORY, "no memory for a catalog");
}

static void hear_notice(void *context, const char *message)
{
    char reason[256], quoted[LOG_QUOTE_BYTES];
    read_reason(context, message, reason, sizeof reason);
    log_debug("catalog", "notice", "text=%s", log_quote(quoted, reason));
}

static sora_status open_connection(struct catalog_postgres *c, struct sora_error *err)
{
    // What the URL says itself stands before these.
    static const char *const names[] = {"connect_timeout",
                                        "keepalives",
                                        "keepalives_idle",
                                        "keepalives_interval",
                                        "keepalives_count",
                                        "tcp_user_timeout",
                                        "fallback_application_name",
                                        "client_encoding",
                                        "dbname",
                                        NULL};
    char connect_s[16];
    snprintf(connect_s, sizeof connect_s, "%d", SORA_CATALOG_CONNECT_S);
    const char *values[] = {connect_s, "1",           "5",    "2",    "3",
                            "10000",   "sora-server", "UTF8", c->url, NULL};
    c->conn = PQconnectdbParams(names, values, 1);
    if (c->conn == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a connection to the catalog");
    if (PQstatus(c->conn) != CONNECTION_OK)
        return lost(c, "cannot connect", PQerrorMessage(c->conn), err);
    PQsetNoticeProcessor(c->conn, hear_notice, c);
    if (PQsetnonblocking(c->conn, 1) != 0)
        return lost(c, "cannot connect", PQerrorMessage(c->conn), err);
    char settings[160];
    snprintf(settings, sizeof settings,
             "SET statement_timeout = %d; SET idle_in_transaction_session_timeout = 60000;"
             " SET client_min_messages = warning",
             SORA_CATALOG_STATEMENT_MS);
    sora_status status = catalog_postgres_run(c, settings, NULL, err);
    return status == SORA_OK ? catalog_postgres_prepare(c, err) : status;
}

void catalog_postgres_disconnect(struct catalog_postgres *c)
{
    PQfinish(c->conn);
    c->conn = NULL;
    c->listening = false;
}

// A connection that the other side has closed is found out here, before a statement is sent: then
// it is certain that the statement was not run.
void catalog_postgres_listen_in(struct catalog_postgres *c)
{
    struct pollfd fd = {.fd = PQsocket(c->conn), .events = POLLIN};
    for (int i = 0; i < 64 && PQstatus(c->conn) == CONNECTION_OK && poll(&fd, 1, 0) > 0; i++)
        if (!PQconsumeInput(c->conn))
            break;
    for (PGnotify *note; (note = PQnotifies(c->conn)) != NULL; PQfreemem(note))
        c->told = true;
}

sora_status catalog_postgres_connect(struct catalog_postgres *c, struct sora_error *err)
{
    if (c->conn != NULL) {
        catalog_postgres_listen_in(c);
        if (PQstatus(c->conn) == CONNECTION_OK)
            return SORA_OK;
        (void)lost(c, "", PQerrorMessage(c->conn), NULL);
    }
    const int64_t now_us = clock_now_us();
    if (now_us < c->retry_at_us && atomic_load(&made_us) <= c->failed_us)
        return sora_fail(err, SORA_UNAVAILABLE, "catalog %s: not connected: %s", c->shown,
                         c->reason);
    sora_status status = open_connection(c, err);
    if (status == SORA_OK) {
        c->pause_ms = 0;
        atomic_store(&made_us, clock_now_us());
        return SORA_OK;
    }
    if (c->conn != NULL) // it is there, but of no use
        catalog_postgres_disconnect(c);
    if (err != NULL)
        snprintf(c->reason, sizeof c->reason, "%.255s", err->text);
    c->pause_ms = c->pause_ms > 0 ? 2 * c->pause_ms : RETRY_MS_MIN;
    if (c->pause_ms > SORA_CATALOG_RETRY_MS_MAX)
        c->pause_ms = SORA_CATALOG_RETRY_MS_MAX;
    c->failed_us = now_us;
    c->retry_at_us = clock_now_us() + c->pause_ms * INT64_C(1000);
    return status;
}

// --- statements ---

// Sleeps until the connection has something to read, or room to write when that is wanted.
static sora_status await_socket(struct catalog_postgres *c, short events, int64_t until_us,
                                struct sora_error *err)
{
    struct pollfd fd = {.fd = PQsocket(c->conn), .events = events};
    int64_t left_ms = (until_us - clock_now_us()) / 1000;
    int ready = left_ms > 0 ? poll(&fd, 1, (int)left_ms) : 0;
    if (ready == 0 && clock_now_us() >= until_us)
        return lost(c, "it gives no answer", "the time is over", err);
    if (ready > 0 && (fd.revents & (POLLIN | POLLERR | POLLHUP)) != 0 && !PQconsumeInput(c->conn))
        return lost(c, "the connection is lost", PQerrorMessage(c->conn), err);
    return SORA_OK;
}

static bool is_success(const PGresult *result)
{
    ExecStatusType kind = PQresultStatus(result);
    return kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK || kind == PGRES_EMPTY_QUERY;
}

// The statement is sent: waits for all its results and keeps the last one, or the first failure.
static sora_status take_result(struct catalog_postgres *c, PGresult **result,
                               struct sora_error *err)
{
    int64_t until_us = clock_now_us() + SORA_CATALOG_ANSWER_MS * INT64_C(1000);
    PGresult *kept = NULL;
    sora_status status = SORA_OK;
    for (int left = PQflush(c->conn); status == SORA_OK && left != 0;) {
        status = left < 0 ? lost(c, "the connection is lost", PQerrorMessage(c->conn), err)
                          : await_socket(c, POLLIN | POLLOUT, until_us, err);
        left = status == SORA_OK ? PQflush(c->conn) : 0;
    }
    while (status == SORA_OK) {
        while (status == SORA_OK && PQisBusy(c->conn))
            status = await_socket(c, POLLIN, until_us, err);
        PGresult *next = status == SORA_OK ? PQgetResult(c->conn) : NULL;
        if (next == NULL)
            break;
        if (kept != NULL && !is_success(kept)) {
            PQclear(next);
            continue;
        }
        PQclear(kept);
        kept = next;
    }
    if (status == SORA_OK && kept == NULL)
        status = lost(c, "the connection is lost", PQerrorMessage(c->conn), err);
    else if (status == SORA_OK && !is_success(kept))
        return refused(c, kept, err);
    if (status != SORA_OK || result == NULL)
        PQclear(kept);
    else
        *result = kept;
    return status;
}

sora_status catalog_postgres_run(struct catalog_postgres *c, const char *sql, PGresult **result,
                                 struct sora_error *err)
{
    if (result != NULL)
        *result = NULL;
    if (c->conn == NULL) // lost in the middle of a transaction
        return sora_fail(err, SORA_UNAVAILABLE, "catalog %s: not connected: %s", c->shown,
                         c->reason);
    if (!PQsendQuery(c->conn, sql))
        return lost(c, "the connection is lost", PQerrorMessage(c->conn), err);
    return take_result(c, result, err);
}

static void bind_args(struct args *args, const char *kinds, va_list list)
{
    args->count = (int)strlen(kinds);
    for (int i = 0; i < args->count && i < ARGS_MAX; i++) {
        args->lengths[i] = args->formats[i] = 0;
        if (kinds[i] == 't') {
            args->values[i] = va_arg(list, const char *);
        } else if (kinds[i] == 'n') {
            snprintf(args->numbers[i], sizeof args->numbers[i], "%lld",
                     (long long)va_arg(list, int64_t));
            args->values[i] = args->numbers[i];
        } else {
            args->values[i] = va_arg(list, const char *);
            args->lengths[i] = (int)va_arg(list, size_t);
            args->formats[i] = 1;
        }
    }
}

static sora_status query(struct catalog_postgres *c, PGresult **result, bool bytes, const char *sql,
                         const char *kinds, va_list list, struct sora_error *err)
{
    struct args args;
    if (result != NULL)
        *result = NULL;
    if (c->conn == NULL)
        return sora_fail(err, SORA_UNAVAILABLE, "catalog %s: not connected: %s", c->shown,
                         c->reason);
    bind_args(&args, kinds, list);
    if (!PQsendQueryParams(c->conn, sql, args.count, NULL, args.values, args.lengths, args.formats,
                           bytes ? 1 : 0))
        return lost(c, "the connection is lost", PQerrorMessage(c->conn), err);
    return take_result(c, result, err);
}

sora_status catalog_postgres_query(struct catalog_postgres *c, PGresult **result,
                                   struct sora_error *err, const char *sql, const char *kinds, ...)
{
    va_list list;
    va_start(list, kinds);
    sora_status status = query(c, result, false, sql, kinds, list, err);
    va_end(list);
    return status;
}

sora_status catalog_postgres_query_bytes(struct catalog_postgres *c, PGresult **result,
                                         struct sora_error *err, const char *sql, const char *kinds,
                                         ...)
{
    va_list list;
    va_start(list, kinds);
    sora_status status = query(c, result, true, sql, kinds, list, err);
    va_end(list);
    return status;
}

sora_status catalog_postgres_change(struct catalog_postgres *c, struct sora_error *err,
                                    const char *sql, const char *kinds, ...)
{
    va_list list;
    va_start(list, kinds);
    sora_status status = query(c, NULL, false, sql, kinds, list, err);
    va_end(list);
    return status;
}

sora_status catalog_postgres_number(struct catalog_postgres *c, int64_t otherwise, int64_t *number,
                                    struct sora_error *err, const char *sql, const char *kinds, ...)
{
    va_list list;
    PGresult *result = NULL;
    va_start(list, kinds);
    sora_status status = query(c, &result, false, sql, kinds, list, err);
    va_end(list);
    *number = otherwise;
    if (status == SORA_OK && PQntuples(result) > 0 && !PQgetisnull(result, 0, 0))
        *number = catalog_postgres_int(result, 0, 0);
    PQclear(result);
    return status;
}

sora_status catalog_postgres_begin(struct catalog_postgres *c, struct sora_error *err)
{
    sora_status status = catalog_postgres_connect(c, err);
    if (status != SORA_OK)
        return status;
    status =
        catalog_postgres_run(c, "BEGIN; SELECT revision FROM sora_state FOR UPDATE", NULL, err);
    return status == SORA_OK ? status : catalog_postgres_finish(c, status, err);
}

sora_status catalog_postgres_finish(struct catalog_postgres *c, sora_status status,
                                    struct sora_error *err)
{
    if (status == SORA_OK)
        status = catalog_postgres_run(c, "COMMIT", NULL, err);
    // What a lost connection had begun is taken back by the database.
    if (status != SORA_OK && c->conn != NULL && PQtransactionStatus(c->conn) != PQTRANS_IDLE &&
        catalog_postgres_run(c, "ROLLBACK", NULL, NULL) != SORA_OK && c->conn != NULL)
        catalog_postgres_disconnect(c);
    return status;
}

// --- results ---

int64_t catalog_postgres_int(const PGresult *result, int row, int column)
{
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

bool catalog_postgres_bool(const PGresult *result, int row, int column)
{
    return PQgetvalue(result, row, column)[0] == 't';
}

void catalog_postgres_text(const PGresult *result, int row, int column, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s", PQgetvalue(result, row, column));
}

sora_status catalog_postgres_rows(const struct catalog_postgres *c, const PGresult *result,
                                  size_t row_bytes,
                                  void (*read_row)(const PGresult *result, int row, void *out),
                                  void **rows, int32_t *row_count, struct sora_error *err)
{
    int count = PQntuples(result);
    char *all = calloc((size_t)count + 1, row_bytes);
    *rows = NULL;
    *row_count = 0;
    if (all == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "catalog %s: no memory for %d rows", c->shown, count);
    for (int i = 0; i < count; i++)
        read_row(result, i, all + (size_t)i * row_bytes);
    *rows = all;
    *row_count = count;
    return SORA_OK;
}

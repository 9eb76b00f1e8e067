// SPDX-License-Identifier: Apache-2.0
// The adapters' files in a PostgreSQL catalog, in parts of SORA_CATALOG_PART_BYTES. One thread at a
// time.
#include <stdlib.h>
#include <string.h>

#include "adapters/catalog_postgres.h"

sora_status catalog_postgres_add_blob(struct catalog_postgres *c, const struct catalog_put *put,
                                      struct sora_error *err)
{
    PGresult *result = NULL;
    sora_status status = catalog_postgres_query(
        c, &result, err,
        "INSERT INTO sora_blob (digest, bytes, created_s) VALUES ($1, $2, $3)"
        " ON CONFLICT (digest) DO NOTHING",
        "tnn", put->digest, (int64_t)put->bytes, put->created_s);
    bool is_new = status == SORA_OK && strcmp(PQcmdTuples(result), "1") == 0;
    PQclear(result);
    if (status != SORA_OK || !is_new)
        return status;
    int64_t part = 0;
    for (size_t at = 0; status == SORA_OK && at < put->bytes; at += SORA_CATALOG_PART_BYTES) {
        size_t bytes = put->bytes - at;
        if (bytes > SORA_CATALOG_PART_BYTES)
            bytes = SORA_CATALOG_PART_BYTES;
        status = catalog_postgres_change(
            c, err, "INSERT INTO sora_blob_part (digest, part, content) VALUES ($1, $2, $3)", "tnb",
            put->digest, part++, (const char *)put->data + at, bytes);
    }
    return status;
}

sora_status catalog_postgres_send_blob(struct catalog_postgres *c, const struct catalog_put *put,
                                       struct sora_error *err)
{
    int64_t there = 0;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(
            c, 0, &there, err, "SELECT 1 FROM sora_blob WHERE digest = $1", "t", put->digest);
    if (status != SORA_OK || there != 0)
        return status;
    status = catalog_postgres_run(c, "BEGIN", NULL, err);
    if (status == SORA_OK)
        status = catalog_postgres_add_blob(c, put, err);
    return catalog_postgres_finish(c, status, err);
}

// One part to `out`, which has room for `room` bytes.
static sora_status read_part(struct catalog_postgres *c, const char *digest, int64_t part,
                             uint8_t *out, size_t room, size_t *bytes, struct sora_error *err)
{
    PGresult *result = NULL;
    *bytes = 0;
    sora_status status = catalog_postgres_query_bytes(
        c, &result, err, "SELECT content FROM sora_blob_part WHERE digest = $1 AND part = $2", "tn",
        digest, part);
    if (status != SORA_OK)
        return status;
    // Removed since its size was read.
    if (PQntuples(result) == 0)
        status = sora_fail(err, SORA_NOT_FOUND, "the catalog has no file %s", digest);
    else if ((size_t)PQgetlength(result, 0, 0) > room || PQgetlength(result, 0, 0) == 0)
        status = sora_fail(err, SORA_MALFORMED, "catalog %s: part %lld of file %s has %d bytes",
                           c->shown, (long long)part, digest, PQgetlength(result, 0, 0));
    if (status == SORA_OK) {
        *bytes = (size_t)PQgetlength(result, 0, 0);
        memcpy(out, PQgetvalue(result, 0, 0), *bytes);
    }
    PQclear(result);
    return status;
}

sora_status catalog_postgres_fetch(struct catalog *catalog, const char *digest, uint8_t **bytes,
                                   size_t *byte_count, struct sora_error *err)
{
    struct catalog_postgres *c = catalog_postgres_of(catalog);
    int64_t size = -1;
    *bytes = NULL;
    *byte_count = 0;
    sora_status status = catalog_postgres_connect(c, err);
    if (status == SORA_OK)
        status = catalog_postgres_number(
            c, -1, &size, err, "SELECT bytes FROM sora_blob WHERE digest = $1", "t", digest);
    if (status == SORA_OK && size < 0)
        status = sora_fail(err, SORA_NOT_FOUND, "the catalog has no file %s", digest);
    if (status == SORA_OK && size > SORA_ADAPTER_BYTES_MAX)
        status = sora_fail(err, SORA_LIMIT, "file %s has %lld bytes, the limit is %u", digest,
                           (long long)size, SORA_ADAPTER_BYTES_MAX);
    uint8_t *all = status == SORA_OK ? malloc((size_t)size + 1) : NULL;
    if (status == SORA_OK && all == NULL)
        status =
            sora_fail(err, SORA_NO_MEMORY, "no memory for a file of %lld bytes", (long long)size);
    int64_t part = 0;
    for (size_t at = 0, got = 0; status == SORA_OK && at < (size_t)size; at += got)
        status = read_part(c, digest, part++, all + at, (size_t)size - at, &got, err);
    if (status != SORA_OK) {
        free(all);
        return status;
    }
    *bytes = all;
    *byte_count = (size_t)size;
    return SORA_OK;
}

// SPDX-License-Identifier: Apache-2.0
// See auth_file.h.
#include "server/auth_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sora/tenant.h"

#define FIELD_COUNT 3

struct field {
    const char *text;
    size_t bytes;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

// The words of a line, up to a '#' that begins one; returns how many there are, which may be more
// than are kept.
static int32_t split_line(const char *line, size_t bytes, struct field fields[FIELD_COUNT])
{
    int32_t count = 0;
    for (size_t i = 0; i < bytes;) {
        while (i < bytes && is_blank(line[i]))
            i++;
        size_t start = i;
        while (i < bytes && !is_blank(line[i]))
            i++;
        if (i == start || line[start] == '#')
            break;
        if (count < FIELD_COUNT)
            fields[count] = (struct field){line + start, i - start};
        count++;
    }
    return count;
}

static sora_status check_text(const struct field *field, struct sora_error *err)
{
    if (field->bytes < SORA_KEY_BYTES_MIN || field->bytes > SORA_KEY_BYTES_MAX)
        return sora_fail(err, SORA_MALFORMED,
                         "the key has %zu bytes, expected %d to %d: one that can be guessed is "
                         "none; `openssl rand -hex 32` makes a good one",
                         field->bytes, SORA_KEY_BYTES_MIN, SORA_KEY_BYTES_MAX);
    for (size_t i = 0; i < field->bytes; i++)
        if (field->text[i] < '!' || field->text[i] > '~')
            return sora_fail(err, SORA_MALFORMED, "byte %zu of the key is not printable ASCII",
                             i + 1);
    return SORA_OK;
}

// A field as text of its own; false when it does not fit or has a zero.
static bool copy_field(const struct field *field, char *out, size_t out_bytes)
{
    if (field->bytes >= out_bytes || memchr(field->text, '\0', field->bytes) != NULL)
        return false;
    memcpy(out, field->text, field->bytes);
    out[field->bytes] = '\0';
    return true;
}

static sora_status read_key(const struct field fields[FIELD_COUNT], int32_t count,
                            struct sora_key *key, struct sora_error *err)
{
    char scopes[SORA_SCOPES_BYTES];
    sora_status status = check_text(&fields[0], err);
    if (status != SORA_OK)
        return status;
    if (count > FIELD_COUNT)
        return sora_fail(err, SORA_MALFORMED, "%d words, expected a key, a tenant and scopes",
                         (int)count);
    if (count > 1 && !copy_field(&fields[1], key->tenant, sizeof key->tenant))
        return sora_fail(err, SORA_MALFORMED, "the tenant has %zu bytes, expected 1 to %d",
                         fields[1].bytes, SORA_TENANT_BYTES_MAX);
    if (strcmp(key->tenant, "-") == 0)
        key->tenant[0] = '\0';
    else if (count > 1)
        status = sora_tenant_check(key->tenant, err);
    key->scopes = count > 2 ? 0 : SORA_SCOPE_INFER | SORA_SCOPE_ADAPTERS;
    if (status == SORA_OK && count > 2 && !copy_field(&fields[2], scopes, sizeof scopes))
        status = sora_fail(err, SORA_MALFORMED, "the scopes have %zu bytes", fields[2].bytes);
    if (status == SORA_OK && count > 2)
        status = sora_scopes_parse(scopes, &key->scopes, err);
    if (status == SORA_OK)
        status = sora_key_identify(fields[0].text, fields[0].bytes, key, err);
    snprintf(key->name, sizeof key->name, "--api-key-file");
    return status;
}

static int32_t count_lines(const char *text, size_t bytes)
{
    int32_t count = 1;
    for (const char *at = text; (at = memchr(at, '\n', bytes - (size_t)(at - text))) != NULL; at++)
        count++;
    return count;
}

static int compare_hashes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// The same key twice would have two meanings.
static sora_status check_distinct(const struct sora_key *keys, int32_t count,
                                  struct sora_error *err)
{
    const char **hashes = calloc((size_t)count + 1, sizeof(const char *));
    sora_status status = SORA_OK;
    if (hashes == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d keys", (int)count);
    for (int32_t i = 0; i < count; i++)
        hashes[i] = keys[i].hash;
    if (count > 1)
        qsort(hashes, (size_t)count, sizeof hashes[0], compare_hashes);
    for (int32_t i = 1; i < count && status == SORA_OK; i++)
        if (strcmp(hashes[i - 1], hashes[i]) == 0)
            status = sora_fail(err, SORA_MALFORMED, "the key with the id key-%.12s is there twice",
                               hashes[i]);
    free(hashes);
    return status;
}

sora_status auth_file_parse(const char *text, size_t bytes, struct sora_key **keys,
                            int32_t *key_count, struct sora_error *err)
{
    sora_status status = SORA_OK;
    int32_t lines = bytes > 0 ? count_lines(text, bytes) : 0, count = 0;
    *keys = NULL;
    *key_count = 0;
    if (lines > 4 * SORA_KEY_COUNT_MAX)
        return sora_fail(err, SORA_LIMIT, "%d lines, the limit is %d", (int)lines,
                         4 * SORA_KEY_COUNT_MAX);
    struct sora_key *all = calloc((size_t)lines + 1, sizeof *all);
    if (all == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %d keys", (int)lines);
    const char *line = text, *end = text + bytes;
    for (int32_t number = 1; line < end && status == SORA_OK; number++) {
        struct field fields[FIELD_COUNT];
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        size_t line_bytes = (size_t)((stop != NULL ? stop : end) - line);
        int32_t words = split_line(line, line_bytes, fields);
        if (words > 0)
            status = read_key(fields, words, &all[count++], err);
        if (status == SORA_OK && count > SORA_KEY_COUNT_MAX)
            status = sora_fail(err, SORA_LIMIT, "more than %d keys", SORA_KEY_COUNT_MAX);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "line %d", (int)number);
        line += line_bytes + (stop != NULL);
    }
    if (status == SORA_OK)
        status = check_distinct(all, count, err);
    if (status != SORA_OK) {
        free(all);
        return status;
    }
    *keys = all;
    *key_count = count;
    return SORA_OK;
}

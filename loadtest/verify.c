// SPDX-License-Identifier: Apache-2.0
// See verify.h.
#include "loadtest/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "sora/limits.h"

#define SHOWN_BYTES 24 // of each reply from where they differ

struct kept {
    char *reply; // NULL: none yet
    size_t bytes;
};

struct verify {
    struct kept *kept;
    int32_t content_count;
    size_t bytes; // of all replies
    struct verify_counts counts;
};

sora_status verify_create(int32_t content_count, struct verify **verify, struct sora_error *err)
{
    struct verify *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->kept = calloc((size_t)content_count + 1, sizeof *made->kept);
    if (made == NULL || made->kept == NULL) {
        free(made);
        return sora_fail(err, SORA_NO_MEMORY, "no memory to verify %d requests",
                         (int)content_count);
    }
    made->content_count = content_count;
    *verify = made;
    return SORA_OK;
}

void verify_destroy(struct verify *verify)
{
    if (verify == NULL)
        return;
    for (int32_t i = 0; i < verify->content_count; i++)
        free(verify->kept[i].reply);
    free(verify->kept);
    free(verify);
}

static void keep(struct verify *verify, struct kept *kept, const char *reply, size_t bytes)
{
    if (verify->bytes + bytes > SORA_LOADTEST_VERIFY_BYTES_MAX ||
        (kept->reply = malloc(bytes + 1)) == NULL) {
        verify->counts.forgotten++;
        return;
    }
    if (bytes > 0)
        memcpy(kept->reply, reply, bytes);
    kept->reply[bytes] = '\0';
    kept->bytes = bytes;
    verify->bytes += bytes;
    verify->counts.kept++;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

bool verify_add(struct verify *verify, int32_t content, const char *reply, size_t bytes, char *text,
                size_t text_bytes)
{
    ASSERT(content >= 0 && content < verify->content_count);
    struct kept *kept = &verify->kept[content];
    if (kept->reply == NULL) {
        keep(verify, kept, reply, bytes);
        return true;
    }
    verify->counts.compared++;
    if (kept->bytes == bytes && (bytes == 0 || memcmp(kept->reply, reply, bytes) == 0))
        return true;
    verify->counts.different++;
    size_t at = 0, both = least(bytes, kept->bytes);
    while (at < both && kept->reply[at] == reply[at])
        at++;
    char before[128], now[128];
    utf8_escape(before, sizeof before, kept->reply + at, least(SHOWN_BYTES, kept->bytes - at),
                true);
    utf8_escape(now, sizeof now, bytes > at ? reply + at : "", least(SHOWN_BYTES, bytes - at),
                true);
    snprintf(text, text_bytes,
             "request %d was answered differently: from byte %zu \"%s\" before, \"%s\" now",
             (int)content, at, before, now);
    return false;
}

struct verify_counts verify_counts(const struct verify *verify)
{
    return verify->counts;
}

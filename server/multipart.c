// SPDX-License-Identifier: Apache-2.0
// See multipart.h. A part is: "--boundary CRLF", header lines, an empty line, data, CRLF before the
// next "--boundary"; the last one is followed by "--".
#include "server/multipart.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define BOUNDARY_BYTES_MAX 70 // RFC 2046
#define HEADER_LINES_MAX 16

struct reader {
    const char *at, *end;
    char delimiter[BOUNDARY_BYTES_MAX + 8]; // CRLF "--" boundary
    size_t delimiter_bytes;
};

// The value of a parameter: `; name=value` or `; name="value"`, the names without regard to case.
static bool find_parameter(const char *text, const char *end, const char *name, char *out,
                           size_t out_bytes)
{
    size_t name_bytes = strlen(name);
    for (const char *at = memchr(text, ';', (size_t)(end - text)); at != NULL;
         at = memchr(at, ';', (size_t)(end - at))) {
        at++;
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        if ((size_t)(end - at) <= name_bytes || strncasecmp(at, name, name_bytes) != 0 ||
            at[name_bytes] != '=')
            continue;
        at += name_bytes + 1;
        bool quoted = at < end && *at == '"';
        at += quoted;
        size_t used = 0;
        while (at < end && (quoted ? *at != '"' : *at != ';' && !isspace((unsigned char)*at))) {
            if (quoted && *at == '\\' && at + 1 < end)
                at++;
            if (used + 1 >= out_bytes)
                return false;
            out[used++] = *at++;
        }
        out[used] = '\0';
        return used > 0 && memchr(out, '\0', used) == NULL && (!quoted || at < end);
    }
    return false;
}

static sora_status broken(struct sora_error *err, const struct multipart *form, const char *what)
{
    return sora_fail(err, SORA_MALFORMED, "form data: part %d: %s", (int)form->count, what);
}

// Reads the header lines up to the empty one; the field's name goes into part->name.
static sora_status read_headers(struct reader *reader, const struct multipart *form,
                                struct multipart_part *part, struct sora_error *err)
{
    static const char wanted[] = "content-disposition:";
    for (int line = 0; line < HEADER_LINES_MAX; line++) {
        const char *end = memmem(reader->at, (size_t)(reader->end - reader->at), "\r\n", 2);
        if (end == NULL)
            return broken(err, form, "its header lines do not end");
        const char *begin = reader->at;
        reader->at = end + 2;
        if (begin == end)
            return part->name[0] != '\0' ? SORA_OK
                                         : broken(err, form, "no Content-Disposition with a name");
        if ((size_t)(end - begin) >= sizeof wanted - 1 &&
            strncasecmp(begin, wanted, sizeof wanted - 1) == 0 &&
            !find_parameter(begin, end, "name", part->name, sizeof part->name))
            return broken(err, form, "its Content-Disposition has no name of 1 to 63 bytes");
    }
    return broken(err, form, "more than 16 header lines");
}

// After a boundary: "--" ends the form (*last), CRLF begins a part.
static sora_status read_boundary_end(struct reader *reader, const struct multipart *form,
                                     bool *last, struct sora_error *err)
{
    size_t left = (size_t)(reader->end - reader->at);
    *last = left >= 2 && memcmp(reader->at, "--", 2) == 0;
    if (*last)
        return SORA_OK;
    while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\t'))
        reader->at++;
    left = (size_t)(reader->end - reader->at);
    if (left < 2 || memcmp(reader->at, "\r\n", 2) != 0)
        return broken(err, form, "a boundary is not followed by a line end");
    reader->at += 2;
    return SORA_OK;
}

static sora_status read_part(struct reader *reader, struct multipart *form, struct sora_error *err)
{
    if (form->count == SORA_MULTIPART_PARTS_MAX)
        return sora_fail(err, SORA_LIMIT, "form data: more than %d parts",
                         SORA_MULTIPART_PARTS_MAX);
    struct multipart_part *part = &form->parts[form->count];
    sora_status status = read_headers(reader, form, part, err);
    if (status != SORA_OK)
        return status;
    // A part without data: its empty line's CRLF may be the delimiter's.
    const char *from = reader->at - 2;
    const char *end =
        memmem(from, (size_t)(reader->end - from), reader->delimiter, reader->delimiter_bytes);
    if (end == NULL)
        return broken(err, form, "no boundary behind its data");
    part->data = reader->at;
    part->bytes = end > reader->at ? (size_t)(end - reader->at) : 0;
    reader->at = end + reader->delimiter_bytes;
    form->count++;
    return SORA_OK;
}

static sora_status begin(struct reader *reader, const char *content_type, const char *body,
                         size_t bytes, struct sora_error *err)
{
    static const char media[] = "multipart/form-data";
    if (content_type == NULL || strncasecmp(content_type, media, sizeof media - 1) != 0)
        return sora_fail(err, SORA_UNSUPPORTED, "the Content-Type must be multipart/form-data");
    char *boundary = reader->delimiter + 4;
    memcpy(reader->delimiter, "\r\n--", 4);
    if (!find_parameter(content_type, content_type + strlen(content_type), "boundary", boundary,
                        BOUNDARY_BYTES_MAX + 1))
        return sora_fail(err, SORA_MALFORMED,
                         "form data: the Content-Type has no boundary of 1 to %d bytes",
                         BOUNDARY_BYTES_MAX);
    reader->delimiter_bytes = 4 + strlen(boundary);
    reader->end = body + bytes;
    // The first boundary may stand at the very beginning, without a line end before it.
    size_t dashes = reader->delimiter_bytes - 2;
    if (bytes >= dashes && memcmp(body, reader->delimiter + 2, dashes) == 0) {
        reader->at = body + dashes;
        return SORA_OK;
    }
    const char *first = memmem(body, bytes, reader->delimiter, reader->delimiter_bytes);
    if (first == NULL)
        return sora_fail(err, SORA_MALFORMED, "form data: its boundary does not occur");
    reader->at = first + reader->delimiter_bytes;
    return SORA_OK;
}

sora_status multipart_parse(const char *content_type, const char *body, size_t bytes,
                            struct multipart *form, struct sora_error *err)
{
    struct reader reader;
    bool last = false;
    memset(form, 0, sizeof *form);
    sora_status status = begin(&reader, content_type, body, bytes, err);
    while (status == SORA_OK) {
        status = read_boundary_end(&reader, form, &last, err);
        if (status != SORA_OK || last)
            return status;
        status = read_part(&reader, form, err);
    }
    return status;
}

const struct multipart_part *multipart_find(const struct multipart *form, const char *name)
{
    for (int32_t i = 0; i < form->count; i++)
        if (strcmp(form->parts[i].name, name) == 0)
            return &form->parts[i];
    return NULL;
}

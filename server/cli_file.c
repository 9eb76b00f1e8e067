// SPDX-License-Identifier: Apache-2.0
// See cli_file.h.
#include "server/cli_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "sora/limits.h"

#define BLANKS " \t\r"

// Ends the text at its last byte that is no blank; returns the first such byte.
static char *trim(char *text)
{
    text += strspn(text, BLANKS);
    size_t bytes = strlen(text);
    while (bytes > 0 && strchr(BLANKS, text[bytes - 1]) != NULL)
        bytes--;
    text[bytes] = '\0';
    return text;
}

// One line, already terminated. *out is left alone when it means nothing.
static sora_status read_line(char *line, struct cli_file_line *out, struct sora_error *err)
{
    char *text = trim(line);
    if (text[0] == '\0' || text[0] == '#')
        return SORA_OK;
    char *equals = strchr(text, '=');
    if (equals == NULL)
        return sora_fail(err, SORA_MALFORMED, "\"%.60s\": expected name = value", text);
    *equals = '\0';
    out->name = trim(text);
    out->value = trim(equals + 1);
    if (out->name[0] == '\0')
        return sora_fail(err, SORA_MALFORMED, "no name before the '='");
    if (out->value[0] == '\0')
        return sora_fail(err, SORA_MALFORMED, "%.60s has no value", out->name);
    return SORA_OK;
}

static int32_t count_lines(const char *text)
{
    int32_t count = 1;
    for (; (text = strchr(text, '\n')) != NULL; text++)
        count++;
    return count;
}

sora_status cli_file_parse(char *text, size_t bytes, struct cli_file *file, struct sora_error *err)
{
    *file = (struct cli_file){.text = text};
    if (bytes > SORA_CONFIG_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "%zu bytes, the limit is %d", bytes,
                         SORA_CONFIG_BYTES_MAX);
    if (strlen(text) != bytes)
        return sora_fail(err, SORA_MALFORMED, "byte %zu is zero", strlen(text) + 1);
    file->lines = calloc((size_t)count_lines(text), sizeof *file->lines);
    if (file->lines == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for its lines");
    int32_t number = 1;
    for (char *line = text, *next; line != NULL; line = next, number++) {
        struct cli_file_line *out = &file->lines[file->line_count];
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        sora_status status = read_line(line, out, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "line %d", (int)number);
        out->number = number;
        file->line_count += out->name != NULL;
    }
    return SORA_OK;
}

sora_status cli_file_read(const char *path, struct cli_file *file, struct sora_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    *file = (struct cli_file){.text = NULL};
    sora_status status = file_read(path, SORA_CONFIG_BYTES_MAX, &text, &bytes, err);
    return status == SORA_OK ? cli_file_parse(text, bytes, file, err) : status;
}

void cli_file_free(struct cli_file *file)
{
    free(file->lines);
    free(file->text);
    *file = (struct cli_file){.text = NULL};
}

// SPDX-License-Identifier: Apache-2.0
// A file of options. What is taken must be lines that the file could mean.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/cli_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const struct cli_file *file, const struct cli_file_line *line, size_t size)
{
    const char *name_end = line->name + strlen(line->name);
    const char *value_end = line->value + strlen(line->value);
    if (line->name < file->text || name_end >= line->value || value_end > file->text + size)
        abort();
    if (line->name[0] == '\0' || line->name[0] == '#' || line->value[0] == '\0')
        abort();
    if (strchr(line->name, '=') != NULL || strpbrk(line->value, "\n") != NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cli_file file;
    struct sora_error err = {SORA_OK, ""};
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    sora_status status = cli_file_parse(text, size, &file, &err);
    if (status != SORA_OK && err.text[0] == '\0')
        abort();
    for (int32_t i = 0; status == SORA_OK && i < file.line_count; i++) {
        check_line(&file, &file.lines[i], size);
        if (i > 0 && file.lines[i].number <= file.lines[i - 1].number)
            abort();
    }
    cli_file_free(&file);
    return 0;
}

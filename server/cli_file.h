// SPDX-License-Identifier: Apache-2.0
// A file of options, as `serve --config` reads it: one "name = value" a line, with the names of the
// command line without their dashes. Blank lines and lines that begin with '#' mean nothing; a
// value is the rest of its line, without quotes. Pure functions on the file's bytes, any thread.
#ifndef SERVER_CLI_FILE_H
#define SERVER_CLI_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "sora/status.h"

struct cli_file_line {
    const char *name, *value; // views into the text
    int32_t number;           // from 1
};

struct cli_file {
    char *text;
    struct cli_file_line *lines;
    int32_t line_count;
};

// Cuts the text, malloc'ed and zero-terminated, into lines; the file owns it then, also on failure.
// Errors name the line.
SORA_CHECKED sora_status cli_file_parse(char *text, size_t bytes, struct cli_file *file,
                                        struct sora_error *err);
SORA_CHECKED sora_status cli_file_read(const char *path, struct cli_file *file,
                                       struct sora_error *err);
void cli_file_free(struct cli_file *file); // accepts zeros

#endif

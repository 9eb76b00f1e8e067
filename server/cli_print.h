// SPDX-License-Identifier: Apache-2.0
// What the subcommands print: progress, tables, texts side by side. For people; machines read the
// --json lines, which the commands write themselves. Main thread only; a table or a progress is
// owned by the command that made it.
#ifndef SERVER_CLI_PRINT_H
#define SERVER_CLI_PRINT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"

// Columns of the terminal behind a stream, or `fallback` when it is none.
int32_t cli_print_width(FILE *out, int32_t fallback);
bool cli_print_is_terminal(FILE *out);

// Progress of one long piece of work, on stderr: one line that is redrawn with a bar on a
// terminal, a plain line every few seconds otherwise, nothing when quiet.
struct cli_progress {
    bool quiet, terminal, drawn;
    int64_t started_us, shown_us;
    int64_t skipped; // units that were done before it started; they say nothing of the pace
};
void cli_progress_init(struct cli_progress *progress, bool quiet);
// done of total units; `text` stands behind them. The time left is worked out from the pace.
void cli_progress_show(struct cli_progress *progress, int64_t done, int64_t total,
                       const char *text);
// Removes the redrawn line, before anything else is printed.
void cli_progress_clear(struct cli_progress *progress);

// A table of text cells, columns as wide as they need to be. Columns whose bit is set in
// `right_columns` are set flush right.
#define CLI_TABLE_COLUMNS_MAX 12
struct cli_table {
    int32_t columns;
    uint32_t right_columns;
    int32_t widths[CLI_TABLE_COLUMNS_MAX];
    int64_t cell_count;
    struct buf cells; // zero-terminated cells one after another
};
void cli_table_init(struct cli_table *table, int32_t columns, uint32_t right_columns);
void cli_table_deinit(struct cli_table *table);
void cli_table_add(struct cli_table *table, const char *format, ...) SORA_PRINTF(2, 3); // one cell
void cli_table_print(const struct cli_table *table, FILE *out);

// Two texts in two columns under their titles, wrapped at words, `width` columns in all.
void cli_print_beside(FILE *out, int32_t width, const char *left_title, const char *left,
                      const char *right_title, const char *right);

// "1,234,567" and "94.2 MB" into out; both return out.
const char *cli_print_count(char out[32], int64_t count);
const char *cli_print_bytes(char out[32], double bytes);
// "59 s", "1:05", "2:03:09".
const char *cli_print_seconds(char out[32], double seconds);

#endif

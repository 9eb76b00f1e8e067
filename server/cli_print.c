// SPDX-License-Identifier: Apache-2.0
// See cli_print.h. Widths are counted in code points, which is right for all but wide and
// combining characters.
#include "server/cli_print.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#define TABLE_BYTES_MAX (64u << 20) // 65,536 tensors of 256 bytes and some
#define PROGRESS_TERMINAL_US 100000 // redraws: ten a second look smooth
#define PROGRESS_PLAIN_US 10000000  // lines in a log: six a minute
#define PROGRESS_LINE_BYTES_MAX 512

bool cli_print_is_terminal(FILE *out)
{
    return isatty(fileno(out)) == 1;
}

int32_t cli_print_width(FILE *out, int32_t fallback)
{
    struct winsize size;
    if (ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col >= 20)
        return size.ws_col;
    return fallback;
}

const char *cli_print_count(char out[32], int64_t count)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)(count < 0 ? -count : count));
    char *to = out;
    if (count < 0)
        *to++ = '-';
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

const char *cli_print_bytes(char out[32], double bytes)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return out;
}

const char *cli_print_seconds(char out[32], double seconds)
{
    long long whole = seconds < 0 ? 0 : seconds > 1e9 ? 1000000000 : (long long)(seconds + 0.5);
    if (whole < 60)
        snprintf(out, 32, "%lld s", whole);
    else if (whole < 3600)
        snprintf(out, 32, "%lld:%02lld", whole / 60, whole % 60);
    else
        snprintf(out, 32, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
    return out;
}

void cli_progress_init(struct cli_progress *progress, bool quiet)
{
    *progress = (struct cli_progress){.quiet = quiet, .terminal = cli_print_is_terminal(stderr)};
    progress->started_us = clock_now_us();
    progress->shown_us = INT64_MIN / 2;
}

static void draw_bar(char *out, size_t out_bytes, int32_t cells, double part)
{
    int32_t full = (int32_t)(part * cells + 0.5);
    size_t used = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < cells && used + 4 < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s", i < full ? "█" : "░");
}

void cli_progress_show(struct cli_progress *progress, int64_t done, int64_t total, const char *text)
{
    int64_t now_us = clock_now_us();
    int64_t pause_us = progress->terminal ? PROGRESS_TERMINAL_US : PROGRESS_PLAIN_US;
    if (progress->quiet || (done < total && now_us - progress->shown_us < pause_us))
        return;
    progress->shown_us = now_us;
    double part = total > 0 ? (double)done / (double)total : 0;
    double seconds = (double)(now_us - progress->started_us) / 1e6;
    char left[32] = "?", line[PROGRESS_LINE_BYTES_MAX], bar[160] = "";
    int64_t paced = done - progress->skipped;
    if (paced > 0)
        cli_print_seconds(left, seconds / (double)paced * (double)(total - done));
    snprintf(line, sizeof line, "%3.0f%%  %lld/%lld  %s  %s left", part * 100, (long long)done,
             (long long)total, text, left);
    if (!progress->terminal) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    // A line longer than the terminal would wrap and no longer be redrawn in place.
    int32_t width = cli_print_width(stderr, 80), room = width - 2 - (int32_t)strlen(line);
    if (room >= 6)
        draw_bar(bar, sizeof bar, room > 30 ? 30 : room, part);
    fprintf(stderr, "\r\033[K%s %.*s", bar, width - 2, line);
    fflush(stderr);
    progress->drawn = true;
}

void cli_progress_clear(struct cli_progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    progress->drawn = false;
}

static int32_t text_columns(const char *text, size_t bytes)
{
    int32_t columns = 0;
    for (size_t i = 0; i < bytes; i++)
        columns += (text[i] & 0xC0) != 0x80;
    return columns;
}

static void print_spaces(FILE *out, int32_t count)
{
    fprintf(out, "%*s", count > 0 ? (int)count : 0, "");
}

void cli_table_init(struct cli_table *table, int32_t columns, uint32_t right_columns)
{
    ASSERT(columns > 0 && columns <= CLI_TABLE_COLUMNS_MAX);
    *table = (struct cli_table){.columns = columns, .right_columns = right_columns};
    buf_init(&table->cells, TABLE_BYTES_MAX);
}

void cli_table_deinit(struct cli_table *table)
{
    buf_deinit(&table->cells);
}

void cli_table_add(struct cli_table *table, const char *format, ...)
{
    size_t before = table->cells.bytes;
    va_list args;
    va_start(args, format);
    buf_vprintf(&table->cells, format, args);
    va_end(args);
    if (table->cells.status != SORA_OK)
        return;
    int32_t *width = &table->widths[table->cell_count % table->columns];
    int32_t columns = text_columns(table->cells.data + before, table->cells.bytes - before);
    if (columns > *width)
        *width = columns;
    buf_append(&table->cells, "", 1);
    table->cell_count++;
}

void cli_table_print(const struct cli_table *table, FILE *out)
{
    const char *cell = table->cells.data;
    for (int64_t i = 0; i < table->cell_count; i++) {
        int32_t column = (int32_t)(i % table->columns);
        size_t bytes = strlen(cell);
        int32_t pad = table->widths[column] - text_columns(cell, bytes);
        bool right = (table->right_columns >> column & 1u) != 0;
        bool last = column + 1 == table->columns;
        if (right)
            print_spaces(out, pad);
        fputs(cell, out);
        if (!right && !last)
            print_spaces(out, pad);
        fputs(last ? "\n" : "  ", out);
        cell += bytes + 1;
    }
    if (table->cells.status != SORA_OK)
        fputs("(the table is too long to be shown)\n", out);
}

// Bytes of the beginning of text that make the next line of at most `columns`; *skip: bytes to
// drop behind them (the space or newline that the break stands for).
static size_t next_line(const char *text, int32_t columns, size_t *skip)
{
    size_t break_at = 0, bytes = 0;
    int32_t used = 0;
    for (; text[bytes] != '\0' && text[bytes] != '\n'; bytes++) {
        bool starts = (text[bytes] & 0xC0) != 0x80;
        if (text[bytes] == ' ')
            break_at = bytes;
        if (starts && used == columns) {
            *skip = break_at > 0;
            return break_at > 0 ? break_at : bytes;
        }
        used += starts;
    }
    *skip = text[bytes] == '\n';
    return bytes;
}

static const char *print_cell(FILE *out, const char *text, int32_t columns, bool pad)
{
    size_t skip = 0, bytes = next_line(text, columns, &skip);
    for (size_t i = 0; i < bytes; i++)
        fputc((unsigned char)text[i] < 0x20 ? ' ' : text[i], out);
    if (pad)
        print_spaces(out, columns - text_columns(text, bytes));
    return text + bytes + skip;
}

void cli_print_beside(FILE *out, int32_t width, const char *left_title, const char *left,
                      const char *right_title, const char *right)
{
    int32_t columns = (width - 3) / 2;
    if (columns < 10)
        columns = 10;
    print_cell(out, left_title, columns, true);
    fputs(" | ", out);
    print_cell(out, right_title, columns, false);
    fputc('\n', out);
    for (int32_t i = 0; i < 2 * columns + 3; i++)
        fputc(i == columns + 1 ? '+' : '-', out);
    fputc('\n', out);
    while (*left != '\0' || *right != '\0') {
        left = print_cell(out, left, columns, true);
        fputs(*right != '\0' ? " | " : " |", out);
        right = print_cell(out, right, columns, false);
        fputc('\n', out);
    }
}

// SPDX-License-Identifier: Apache-2.0
// The command line of every subcommand: one table of options drives parsing, range checks and the
// --help text. Called by the main thread only; nothing here exits the program, so that it can be
// tested.
#ifndef SERVER_CLI_H
#define SERVER_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/cli_file.h"
#include "sora/limits.h"
#include "sora/status.h"

enum cli_exit { CLI_GOOD = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

// What an option's value is and what its field in the values struct is.
enum cli_kind {
    CLI_HEADING,    // no option: a heading of the help text
    CLI_FLAG,       // bool, becomes true
    CLI_TEXT,       // const char *, a view into argv
    CLI_INT,        // int32_t within [min, max]
    CLI_SEED,       // uint64_t
    CLI_DOUBLE,     // double within [min, max]
    CLI_FLOAT,      // float within [min, max]
    CLI_SIZE,       // size_t: "2G", "512M", "1.5g", "4096"
    CLI_CHOICE,     // an enum: the index of the word in `arg`, which is "one|two|three"
    CLI_LIST,       // struct cli_list: the option may be given several times
    CLI_POSITIONAL, // const char *, not behind an option; in the order of the table
};

struct cli_list {
    const char *items[SORA_PRELOAD_COUNT_MAX]; // views into argv or the file of options
    int32_t count;
};

struct cli_option {
    const char *name; // without the dashes; of a positional: as it is shown, "FILE"
    char key;         // 'q' for -q, or 0
    enum cli_kind kind;
    size_t offset;   // of the field in the values struct
    const char *arg; // what the help shows as the value: "N", "FILE", "sora|lora"
    const char *doc;
    double min, max; // both 0: no bounds
    bool required;
};

struct cli_command {
    const char *doc; // what it does, '\v', and the long help with an example
    const struct cli_option *options;
    int32_t option_count;
};

// Reads argv into the struct at `values`, which holds the defaults. True: go on. False: the help
// was asked for and printed to stdout (*exit_code 0), or a line on stderr tells what is wrong and
// what would be right (*exit_code CLI_USAGE). argv[0] is the name that is shown.
bool cli_parse(const struct cli_command *command, int argc, char **argv, void *values,
               int *exit_code);
// The same for a command whose option `config`, a CLI_TEXT, names a file of options. What argv
// gives wins over the file, lists included. The values may be views into *file, which the caller
// frees in every case.
bool cli_parse_config(const struct cli_command *command, const char *config, int argc, char **argv,
                      void *values, struct cli_file *file, int *exit_code);

// "sora-server train: text" on stderr; returns CLI_FAILED.
int cli_fail(const char *program, const struct sora_error *err);
// The same for wrong usage, with a pointer to --help; returns CLI_USAGE.
int cli_usage(const char *program, const char *format, ...) SORA_PRINTF(2, 3);

// The one of names [count] that was most likely meant by `word`: the smallest edit distance, where
// a word that begins a name counts as close. NULL when count is 0.
const char *cli_nearest(const char *word, const char *const *names, int32_t count);

// Bytes of "2G", "512M", "64k", "4096": powers of 1024, an optional "B" or "iB" behind. False when
// it is none or beyond size_t.
bool cli_parse_size(const char *text, size_t *bytes);

#endif

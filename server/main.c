// SPDX-License-Identifier: Apache-2.0
// The program: finds the subcommand and hands it the rest of the command line. The main thread
// runs the subcommand; the exit code is what it returns.
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "server/cli.h"
#include "server/commands.h"

struct command_entry {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static const struct command_entry entries[] = {
    {"serve", cmd_serve, "serve a base model and its adapters over HTTP"},
    {"train", cmd_train, "make an adapter from examples, pruning ranks on the way"},
    {"eval", cmd_eval, "measure the base or an adapter on examples"},
    {"complete", cmd_complete, "complete one prompt without a server"},
    {"bench", cmd_bench, "measure prefill, decode and mixed adapters on this machine"},
    {"inspect", cmd_inspect, "tell what is in a model or an adapter file"},
    {"import", cmd_import, "turn a PEFT adapter into an adapter file"},
    {"export", cmd_export, "turn an adapter file into a PEFT folder"},
    {"keys", cmd_keys, "make, list and revoke API keys; limits of tenants; who changed what"},
};

#define ENTRY_COUNT (sizeof entries / sizeof entries[0])

static void print_help(FILE *out)
{
    fputs("Usage: sora-server COMMAND [OPTION...]\n"
          "Serve and train many LoRA and SoRA adapters of one base model on CPUs.\n\n",
          out);
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        fprintf(out, "  %-10s %s\n", entries[i].name, entries[i].summary);
    fputs("\n'sora-server COMMAND --help' tells the options of a command and what they do.\n"
          "Exit codes: 0 good, 1 the work failed, 2 wrong usage.\n\n"
          "A first adapter, and its first answer:\n"
          "  sora-server train --model model.gguf --data examples.jsonl --out my.safetensors\n"
          "  sora-server complete --model model.gguf --adapter my.safetensors --chat "
          "--prompt 'Hello!'\n"
          "  sora-server serve --model model.gguf --adapter my=my.safetensors\n",
          out);
}

static const struct command_entry *find_entry(const char *name)
{
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        if (strcmp(entries[i].name, name) == 0)
            return &entries[i];
    }
    return NULL;
}

static int report_unknown(const char *word)
{
    const char *names[ENTRY_COUNT];
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        names[i] = entries[i].name;
    return cli_usage("sora-server", "unknown command \"%s\"; did you mean %s?", word,
                     cli_nearest(word, names, (int32_t)ENTRY_COUNT));
}

static int run_entry(const struct command_entry *entry, int argc, char **argv)
{
    char program[64];
    snprintf(program, sizeof program, "sora-server %s", entry->name);
    argv[0] = program;
    return entry->run(argc, argv);
}

static int run_help(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stdout);
        return CLI_GOOD;
    }
    const struct command_entry *entry = find_entry(argv[1]);
    char help[] = "--help";
    char *help_argv[] = {argv[0], help, NULL};
    return entry != NULL ? run_entry(entry, 2, help_argv) : report_unknown(argv[1]);
}

int main(int argc, char **argv)
{
    argp_err_exit_status = CLI_USAGE; // for commands that parse with argp
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
        return run_help(argc - 1, argv + 1);
    if (strcmp(word, "--version") == 0) {
        printf("sora-server %s\n", SORA_VERSION);
        return CLI_GOOD;
    }
    const struct command_entry *entry = find_entry(word);
    return entry != NULL ? run_entry(entry, argc - 1, argv + 1) : report_unknown(word);
}

// SPDX-License-Identifier: Apache-2.0
// `sora-server export`: our file as a PEFT folder. Runs in the main thread.
#include <stdlib.h>
#include <string.h>

#include "server/cli.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "sora/adapter.h"

struct export_args {
    const char *source, *out, *format;
    bool json, quiet;
};

#define AT(field) offsetof(struct export_args, field)

static const struct cli_option export_options[] = {
    {"SRC", 0, CLI_POSITIONAL, AT(source), "SRC", NULL, 0, 0, true},
    {"out", 'o', CLI_TEXT, AT(out), "DIR", "The folder to write; made when it is not there", 0, 0,
     true},
    {"format", 0, CLI_TEXT, AT(format), "peft", "What to write (default peft, the only one)", 0, 0,
     false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Print nothing", 0, 0, false},
};

static const struct cli_command export_command = {
    .doc = "Turn an adapter file into a PEFT folder.\v"
           "The folder holds adapter_config.json and adapter_model.safetensors, and PEFT "
           "computes the same with it as this program does.\n\n"
           "Example:\n"
           "  sora-server export my.safetensors --out ./my-peft-adapter",
    .options = export_options,
    .option_count = sizeof export_options / sizeof export_options[0],
};

static sora_status export_peft(const struct export_args *args, struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_adapter *adapter = NULL;
    // Our file comes back from the import unchanged; whatever else it reads can be exported too.
    sora_status status = sora_adapter_import(args->source, NULL, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = sora_adapter_parse(bytes, byte_count, NULL, &adapter, err);
    if (status == SORA_OK)
        status = sora_adapter_export_peft(bytes, byte_count, args->out, err);
    if (status == SORA_OK)
        status = cli_report_written(args->out, sora_adapter_get_info(adapter), args->json,
                                    args->quiet, err);
    sora_adapter_destroy(adapter);
    free(bytes);
    return status;
}

int cmd_export(int argc, char **argv)
{
    struct export_args args = {.format = "peft"};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&export_command, argc, argv, &args, &exit_code))
        return exit_code;
    if (strcmp(args.format, "peft") != 0)
        return cli_usage(argv[0], "--format %s: only peft can be written", args.format);
    return export_peft(&args, &err) == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}

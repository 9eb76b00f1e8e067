// SPDX-License-Identifier: Apache-2.0
// `sora-server import`: a PEFT or llama.cpp adapter as our file. Runs in the main thread.
#include <stdlib.h>

#include "base/file.h"
#include "server/cli.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "sora/adapter.h"
#include "sora/engine.h"

struct import_args {
    const char *source, *out, *model;
    bool json, quiet;
};

#define AT(field) offsetof(struct import_args, field)

static const struct cli_option import_options[] = {
    {"SRC", 0, CLI_POSITIONAL, AT(source), "SRC", NULL, 0, 0, true},
    {"out", 'o', CLI_TEXT, AT(out), "F.safetensors", "The adapter file to write", 0, 0, true},
    {"model", 'm', CLI_TEXT, AT(model), "F",
     "The base it is meant for: every tensor is checked against it and the file remembers it", 0, 0,
     false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Print nothing", 0, 0, false},
};

static const struct cli_command import_command = {
    .doc = "Turn a PEFT or llama.cpp adapter into an adapter file.\v"
           "SRC is a PEFT folder (adapter_config.json and adapter_model.safetensors), a PEFT "
           ".safetensors that carries its config, or a llama.cpp LoRA adapter (.gguf). Ranks and "
           "scales are taken over exactly, also those of rank_pattern, alpha_pattern and "
           "use_rslora; AdaLoRA's singular values are folded into lora_B. A llama.cpp adapter of "
           "a llama model needs --model: it stores rows of q and k in an order of its own. What "
           "this program does not compute (DoRA, modules_to_save, biases, adapted embeddings) is "
           "refused by name.\n\n"
           "Example:\n"
           "  sora-server import ./my-peft-adapter --model model.gguf --out my.safetensors",
    .options = import_options,
    .option_count = sizeof import_options / sizeof import_options[0],
};

static sora_status import(const struct import_args *args, struct sora_error *err)
{
    struct sora_base model;
    sora_adapter *adapter = NULL;
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_status status = SORA_OK;
    if (args->model != NULL)
        status = sora_model_read_base(args->model, &model, err);
    const struct sora_base *base = args->model != NULL ? &model : NULL;
    if (status == SORA_OK)
        status = sora_adapter_import(args->source, base, &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = sora_adapter_parse(bytes, byte_count, base, &adapter, err);
    if (status == SORA_OK)
        status = file_write_atomic(args->out, bytes, byte_count, err);
    if (status == SORA_OK)
        status = cli_report_written(args->out, sora_adapter_get_info(adapter), args->json,
                                    args->quiet, err);
    sora_adapter_destroy(adapter);
    free(bytes);
    return status;
}

int cmd_import(int argc, char **argv)
{
    struct import_args args = {0};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&import_command, argc, argv, &args, &exit_code))
        return exit_code;
    return import(&args, &err) == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}

// SPDX-License-Identifier: Apache-2.0
// `sora-server export`: our file as a PEFT folder, as a llama.cpp adapter, or merged into its base.
// Runs in the main thread.
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"
#include "server/cli.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "sora/adapter.h"
#include "sora/engine.h"
#include "sora/merge.h"

enum export_format { FORMAT_PEFT, FORMAT_GGUF };

struct export_args {
    const char *source, *out, *model;
    int32_t format, dtype; // enum export_format, enum sora_merge_dtype
    bool merge, json, quiet;
};

#define AT(field) offsetof(struct export_args, field)

static const struct cli_option export_options[] = {
    {"SRC", 0, CLI_POSITIONAL, AT(source), "SRC", NULL, 0, 0, true},
    {"out", 'o', CLI_TEXT, AT(out), "DST",
     "The folder to write, made when it is not there, or the .gguf file", 0, 0, true},
    {"format", 0, CLI_CHOICE, AT(format), "peft|gguf",
     "A PEFT folder (default), or a LoRA adapter for llama.cpp", 0, 0, false},
    {"model", 'm', CLI_TEXT, AT(model), "F",
     "The base: the adapter is checked against it. --merge needs it, and so does --format gguf "
     "when "
     "the file does not tell its base",
     0, 0, false},
    {"merge", 0, CLI_FLAG, AT(merge), NULL,
     "Write the base with the adapter in it, as a Hugging Face folder", 0, 0, false},
    {"dtype", 0, CLI_CHOICE, AT(dtype), "auto|f32|f16|bf16",
     "With --merge, the type of the tensors (default auto: the base's, f16 where it is quantized)",
     0, 0, false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Print nothing", 0, 0, false},
};

static const struct cli_command export_command = {
    .doc = "Turn an adapter into what other programs read.\v"
           "SRC is whatever import reads. A PEFT folder holds adapter_config.json and "
           "adapter_model.safetensors, and PEFT computes the same with it as this program does. "
           "llama.cpp has one alpha for a whole file: where the scales of the modules ask for "
           "more than one, they are multiplied into lora_b, in f32. --merge writes config.json, "
           "model.safetensors and, where the base is a folder that has them, the tokenizer's "
           "files. The digest that is reported is that of a file that was written, and otherwise "
           "the adapter's.\n\n"
           "Examples:\n"
           "  sora-server export my.safetensors --out ./my-peft-adapter\n"
           "  sora-server export my.safetensors --out my.gguf --format gguf\n"
           "  sora-server export my.safetensors --merge --model model.gguf --out ./merged",
    .options = export_options,
    .option_count = sizeof export_options / sizeof export_options[0],
};

// The adapter that was read: our file's bytes, parsed.
struct loaded {
    struct sora_base base;
    const struct sora_base *known_base; // NULL: none was named
    uint8_t *bytes;
    size_t byte_count;
    sora_adapter *adapter;
};

// Our file comes back from the import unchanged; whatever else it reads can be exported too.
static sora_status load(const struct export_args *args, struct loaded *loaded,
                        struct sora_error *err)
{
    sora_status status = SORA_OK;
    if (args->model != NULL) {
        status = sora_model_read_base(args->model, &loaded->base, err);
        loaded->known_base = &loaded->base;
    }
    if (status == SORA_OK)
        status = sora_adapter_import(args->source, loaded->known_base, &loaded->bytes,
                                     &loaded->byte_count, err);
    if (status == SORA_OK)
        status = sora_adapter_parse(loaded->bytes, loaded->byte_count, loaded->known_base,
                                    &loaded->adapter, err);
    return status;
}

static sora_status export_gguf(const struct export_args *args, const struct loaded *loaded,
                               char digest[65], struct sora_error *err)
{
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    sora_status status = sora_adapter_to_gguf(loaded->bytes, loaded->byte_count, loaded->known_base,
                                              &bytes, &byte_count, err);
    if (status == SORA_OK)
        status = sha256_of(bytes, byte_count, digest, err);
    if (status == SORA_OK)
        status = file_write_atomic(args->out, bytes, byte_count, err);
    free(bytes);
    return status;
}

static sora_status export(const struct export_args *args, struct sora_error *err)
{
    struct loaded loaded = {0};
    sora_status status = load(args, &loaded, err);
    if (status == SORA_OK) {
        struct sora_adapter_info info = *sora_adapter_get_info(loaded.adapter);
        if (args->merge)
            status = sora_model_merge(args->model, sora_adapter_get_lora(loaded.adapter),
                                      (enum sora_merge_dtype)args->dtype, args->out, err);
        else if (args->format == FORMAT_GGUF)
            status = export_gguf(args, &loaded, info.digest, err);
        else
            status = sora_adapter_export_peft(loaded.bytes, loaded.byte_count, args->out, err);
        if (status == SORA_OK)
            status = cli_report_written(args->out, &info, args->json, args->quiet, err);
    }
    sora_adapter_destroy(loaded.adapter);
    free(loaded.bytes);
    return status;
}

int cmd_export(int argc, char **argv)
{
    struct export_args args = {0};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&export_command, argc, argv, &args, &exit_code))
        return exit_code;
    if (args.merge && args.model == NULL)
        return cli_usage(argv[0], "--merge needs --model, the base to merge into");
    if (args.merge && args.format != FORMAT_PEFT)
        return cli_usage(argv[0], "--merge writes a Hugging Face folder: --format does not apply");
    if (!args.merge && args.dtype != SORA_MERGE_AUTO)
        return cli_usage(argv[0], "--dtype applies to --merge alone");
    return export(&args, &err) == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}

// SPDX-License-Identifier: Apache-2.0
// `sora-server eval`: what the base or an adapter makes of examples, computed by the serving
// engine. Runs in the main thread.
#include <stdlib.h>

#include "server/cli.h"
#include "server/cli_print.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "sora/adapter.h"
#include "sora/train.h"

#define JSON_BYTES_MAX 65536

struct eval_args {
    const char *model, *adapter, *data;
    struct sora_eval_options options;
    bool no_generate, json, quiet;
};

#define AT(field) offsetof(struct eval_args, field)

static const struct cli_option eval_options[] = {
    {"model", 'm', CLI_TEXT, AT(model), "F",
     "The base: a .gguf file, or a folder with config.json and *.safetensors", 0, 0, true},
    {"adapter", 'a', CLI_TEXT, AT(adapter), "F", "The adapter; without it the base is measured", 0,
     0, false},
    {"data", 'd', CLI_TEXT, AT(data), "F.jsonl", "The examples", 0, 0, true},
    {"limit", 'n', CLI_INT, AT(options.limit), "N", "Only the first N examples (default: all)", 0,
     INT32_MAX, false},
    {"no-generate", 0, CLI_FLAG, AT(no_generate), NULL,
     "Leave out exact match, ROUGE-L and BLEU, which generate an answer for every prompt and take "
     "most of the time",
     0, 0, false},
    {"chat-template", 0, CLI_TEXT, AT(options.chat_template), "NAME",
     "Template of {\"messages\"} data (default: the model's own)", 0, 0, false},
    {"compute", 0, CLI_CHOICE, AT(options.compute), "auto|f32|int8",
     "Arithmetic of the base's matrices, as 'serve' has it (default auto)", 0, 0, false},
    {"threads", 't', CLI_INT, AT(options.threads), "N", "Threads (default 0: all processors)", 0,
     SORA_THREADS_MAX, false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "No table", 0, 0, false},
};

static const struct cli_command eval_command = {
    .doc = "Measure the base or an adapter on examples.\v"
           "The data is what 'train' reads. Loss and perplexity are over the completions; data "
           "with \"choices\" gives accuracy (the likeliest choice is the right one) and, of two "
           "choices, Matthews correlation; prompt and completion without choices give exact "
           "match (what is generated equals the completion), ROUGE-L and BLEU. Lines with the "
           "same prompt are answered once, and their completions are its references.\n\n"
           "Example, what an adapter is worth:\n"
           "  sora-server eval -m model.gguf -d dev.jsonl\n"
           "  sora-server eval -m model.gguf -d dev.jsonl --adapter my.safetensors",
    .options = eval_options,
    .option_count = sizeof eval_options / sizeof eval_options[0],
};

static sora_status print_result(const struct eval_args *args, const struct sora_eval_result *result,
                                struct sora_error *err)
{
    if (args->json) {
        struct buf out;
        buf_init(&out, JSON_BYTES_MAX);
        cli_report_eval_json(&out, result);
        return cli_report_print(&out, err);
    }
    if (args->quiet)
        return SORA_OK;
    struct cli_table table;
    cli_table_init(&table, 2, 0);
    cli_report_eval_rows(&table, result);
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
    return SORA_OK;
}

static sora_status evaluate(const struct eval_args *args, struct sora_error *err)
{
    sora_model *model = NULL;
    sora_tokenizer *tokenizer = NULL;
    sora_adapter *adapter = NULL;
    struct sora_eval_result result = {0};
    sora_status status = sora_model_open(args->model, &model, err);
    if (status == SORA_OK)
        status = sora_tokenizer_open(args->model, &tokenizer, err);
    if (status == SORA_OK && args->adapter != NULL)
        status = sora_adapter_open_as(
            args->adapter, &sora_model_get_info(model)->base,
            sora_compute_for(model, args->options.compute) == SORA_COMPUTE_INT8, &adapter, err);
    if (status == SORA_OK)
        status =
            sora_eval_run(model, tokenizer, adapter != NULL ? sora_adapter_get_lora(adapter) : NULL,
                          args->data, &args->options, &result, err);
    if (status == SORA_OK)
        status = print_result(args, &result, err);
    sora_adapter_destroy(adapter);
    sora_tokenizer_close(tokenizer);
    sora_model_close(model);
    return status;
}

int cmd_eval(int argc, char **argv)
{
    struct eval_args args = {0};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&eval_command, argc, argv, &args, &exit_code))
        return exit_code;
    args.options.generate = !args.no_generate;
    return evaluate(&args, &err) == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}

// SPDX-License-Identifier: Apache-2.0
// `sora-server complete`: one completion without a server, streamed to standard output. Runs in
// the main thread, which is the engine's thread too.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "server/cli.h"
#include "server/cli_print.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "sora/adapter.h"
#include "sora/engine.h"
#include "sora/sampler.h"
#include "sora/text.h"

#define OUT_BYTES_MAX (16u << 20) // the longest context, as text and as ids

struct complete_args {
    const char *model, *adapter, *prompt, *tokens, *system, *chat_template;
    struct sora_sampling sampling;
    int32_t max_tokens, threads, max_rank;
    enum sora_compute compute;
    float scale;
    bool chat, raw, compare, ignore_eos, json, quiet;
};

#define AT(field) offsetof(struct complete_args, field)

static const struct cli_option complete_options[] = {
    {.kind = CLI_HEADING, .doc = "What is completed:"},
    {"model", 'm', CLI_TEXT, AT(model), "F",
     "The base: a .gguf file, or a folder with config.json and *.safetensors", 0, 0, true},
    {"adapter", 'a', CLI_TEXT, AT(adapter), "F", "An adapter file, or a PEFT folder", 0, 0, false},
    {"prompt", 'p', CLI_TEXT, AT(prompt), "TEXT", "The prompt; - reads standard input", 0, 0,
     false},
    {"chat", 0, CLI_FLAG, AT(chat), NULL,
     "The prompt is a message to an assistant: put it into the model's chat template", 0, 0, false},
    {"system", 0, CLI_TEXT, AT(system), "TEXT", "The system message before it, with --chat", 0, 0,
     false},
    {"chat-template", 0, CLI_TEXT, AT(chat_template), "NAME",
     "The template, when the model's own is not recognised", 0, 0, false},
    {"tokens", 0, CLI_TEXT, AT(tokens), "ID,ID,...",
     "The prompt as token ids, for a model without a tokenizer", 0, 0, false},
    {.kind = CLI_HEADING, .doc = "How the next token is chosen:"},
    {"max-tokens", 'n', CLI_INT, AT(max_tokens), "N", "The most to generate (default 128)", 1,
     SORA_CONTEXT_MAX, false},
    {"temperature", 0, CLI_FLOAT, AT(sampling.temperature), "X",
     "0, the default, takes the likeliest token each time and gives the same answer every time; "
     "1 draws as the model believes; more is wilder",
     0, 2, false},
    {"top-p", 0, CLI_FLOAT, AT(sampling.top_p), "X",
     "Draw among the likeliest tokens that together have this probability (default 1: all)", 0, 1,
     false},
    {"top-k", 0, CLI_INT, AT(sampling.top_k), "N", "Draw among the N likeliest (default 0: all)",
     -1, SORA_VOCAB_SIZE_MAX, false},
    {"min-p", 0, CLI_FLOAT, AT(sampling.min_p), "X",
     "Drop tokens less likely than X times the likeliest (default 0: none)", 0, 1, false},
    {"seed", 0, CLI_SEED, AT(sampling.seed), "N",
     "Draw the same way again (default: another way each time)", 0, 0, false},
    {"ignore-eos", 0, CLI_FLAG, AT(ignore_eos), NULL, "Go on behind the end of the text", 0, 0,
     false},
    {.kind = CLI_HEADING, .doc = "How much of the adapter:"},
    {"scale", 0, CLI_FLOAT, AT(scale), "X", "Multiply the adapter's effect (default 1)", -100, 100,
     false},
    {"max-rank", 0, CLI_INT, AT(max_rank), "N",
     "Only the first N ranks of each module, the most important ones (default 0: all)", 0,
     SORA_TRAIN_RANK_MAX, false},
    {"compare", 0, CLI_FLAG, AT(compare), NULL, "The base's answer and the adapter's side by side",
     0, 0, false},
    {.kind = CLI_HEADING, .doc = "What is printed:"},
    {"raw", 0, CLI_FLAG, AT(raw), NULL, "Token ids instead of text", 0, 0, false},
    {"json", 0, CLI_FLAG, AT(json), NULL, "One JSON object on standard output", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "The completion alone, no timing", 0, 0, false},
    {"compute", 0, CLI_CHOICE, AT(compute), "auto|f32|int8",
     "Arithmetic of the base's matrices, as 'serve' has it (default auto)", 0, 0, false},
    {"threads", 't', CLI_INT, AT(threads), "N", "Threads (default 0: all processors)", 0,
     SORA_THREADS_MAX, false},
};

static const struct cli_command complete_command = {
    .doc = "Complete one prompt without a server.\v"
           "The tokens are written as they come.\n\n"
           "Examples:\n"
           "  sora-server complete --model model.gguf --prompt 'Once upon a time'\n"
           "  sora-server complete -m model.gguf -a my.safetensors --chat -p 'Who are you?'\n"
           "  sora-server complete -m model.gguf -a my.safetensors --compare -p 'Hello'",
    .options = complete_options,
    .option_count = sizeof complete_options / sizeof complete_options[0],
};

// One completion: what is generated and where it goes.
struct completion {
    const struct complete_args *args;
    const sora_model *model;
    const sora_tokenizer *tokenizer; // NULL: ids only
    const int32_t *prompt;
    int32_t prompt_count;
    const struct sora_lora *lora;
    bool stream; // to standard output, as it comes
    // Results. text is what the tokens say, or the ids with commas when ids are asked for.
    struct buf text, ids;
    int32_t token_count;
    bool ended; // at an end token, not at max_tokens
    double prompt_seconds, token_seconds;
};

static void completion_init(struct completion *completion)
{
    buf_init(&completion->text, OUT_BYTES_MAX);
    buf_init(&completion->ids, OUT_BYTES_MAX);
}

static void completion_deinit(struct completion *completion)
{
    buf_deinit(&completion->text);
    buf_deinit(&completion->ids);
}

static void put_text(struct completion *completion, const char *text, size_t bytes)
{
    buf_append(&completion->text, text, bytes);
    if (completion->stream && bytes > 0) {
        fwrite(text, 1, bytes, stdout);
        fflush(stdout);
    }
}

static void put_token(struct completion *completion, sora_detokenizer *detokenizer, int32_t token)
{
    char id[16];
    int id_bytes = snprintf(id, sizeof id, completion->token_count > 0 ? ",%d" : "%d", token);
    buf_append(&completion->ids, id, (size_t)id_bytes);
    completion->token_count++;
    if (detokenizer == NULL) {
        put_text(completion, id, (size_t)id_bytes);
        return;
    }
    size_t bytes = 0;
    const char *text = sora_detokenizer_push(detokenizer, token, &bytes);
    put_text(completion, text, bytes);
}

// Feeds tokens in steps that the engine takes; returns the logits behind the last one.
static const float *feed(sora_engine *engine, struct sora_span *span, const int32_t *tokens,
                         int32_t token_count, int32_t rows_max)
{
    for (int32_t at = 0; at < token_count; at += rows_max) {
        span->tokens = tokens + at;
        span->token_count = token_count - at < rows_max ? token_count - at : rows_max;
        bool last = at + span->token_count == token_count;
        span->want = last ? SORA_LOGITS_LAST : SORA_LOGITS_NONE;
        sora_engine_step(engine, span, 1, NULL);
    }
    return span->logits;
}

static void generate(struct completion *completion, sora_engine *engine, int32_t seq,
                     int32_t token_max, int32_t rows_max, sora_sampler *sampler,
                     const sora_sampler_scratch *scratch, sora_detokenizer *detokenizer)
{
    const struct complete_args *args = completion->args;
    const struct sora_lora_part part = {completion->lora, args->scale, args->max_rank};
    struct sora_span span = {.seq = seq, .parts = &part, .part_count = part.lora != NULL};
    int64_t started_us = clock_now_us();
    const float *logits =
        feed(engine, &span, completion->prompt, completion->prompt_count, rows_max);
    int64_t first_us = clock_now_us();
    for (int32_t i = 0; i < token_max; i++) {
        int32_t token = sora_sampler_next(sampler, scratch, 0, logits, NULL, 0);
        bool is_end = completion->tokenizer != NULL && !args->ignore_eos &&
                      sora_tokenizer_is_end(completion->tokenizer, token);
        if (is_end) {
            completion->ended = true;
            break;
        }
        put_token(completion, detokenizer, token);
        if (i + 1 < token_max)
            logits = feed(engine, &span, &token, 1, rows_max);
    }
    completion->prompt_seconds = (double)(first_us - started_us) / 1e6;
    completion->token_seconds = (double)(clock_now_us() - first_us) / 1e6;
}

static sora_status run_completion(struct completion *completion, struct sora_error *err)
{
    const struct complete_args *args = completion->args;
    const struct sora_model_info *info = sora_model_get_info(completion->model);
    int32_t room = info->context_length - completion->prompt_count;
    if (room < 1)
        return sora_fail(err, SORA_LIMIT, "the prompt has %d tokens, the model's context %d",
                         completion->prompt_count, info->context_length);
    int32_t token_max = args->max_tokens < room ? args->max_tokens : room;
    sora_engine *engine = NULL;
    sora_sampler *sampler = NULL;
    sora_sampler_scratch *scratch = NULL;
    sora_detokenizer *detokenizer = NULL;
    struct sora_engine_options options = sora_engine_options_defaults(completion->model);
    options.compute = args->compute;
    options.threads = args->threads;
    options.seqs_max = 1;
    options.logit_rows_max = 1;
    options.context_max = completion->prompt_count + token_max;
    sora_status status = sora_engine_create(completion->model, &options, &engine, err);
    if (status == SORA_OK)
        status = sora_sampler_create(&args->sampling, info->base.vocab_size, &sampler, err);
    if (status == SORA_OK)
        status = sora_sampler_scratch_create(info->base.vocab_size, 1, &scratch, err);
    if (status == SORA_OK && completion->tokenizer != NULL && !args->raw)
        status = sora_detokenizer_create(completion->tokenizer, true, &detokenizer, err);
    if (status != SORA_OK)
        goto done;
    int32_t seq = sora_engine_seq_open(engine);
    if (seq < 0 || !sora_engine_seq_reserve(engine, seq, options.context_max)) {
        status = sora_fail(err, SORA_LIMIT, "no memory for %d tokens of keys and values",
                           options.context_max);
        goto done;
    }
    sora_sampler_see_prompt(sampler, completion->prompt, completion->prompt_count);
    generate(completion, engine, seq, token_max, options.rows_max, sampler, scratch, detokenizer);
    if (detokenizer != NULL) {
        size_t bytes = 0;
        const char *rest = sora_detokenizer_flush(detokenizer, &bytes);
        put_text(completion, rest, bytes);
    }
    status = buf_status(&completion->text, err);
done:
    sora_detokenizer_destroy(detokenizer);
    sora_sampler_scratch_destroy(scratch);
    sora_sampler_destroy(sampler);
    sora_engine_destroy(engine);
    return status;
}

// "1,2,3" into a malloc'ed array.
static sora_status parse_ids(const char *text, int32_t vocab_size, int32_t **tokens,
                             int32_t *token_count, struct sora_error *err)
{
    size_t length = strlen(text);
    int32_t *ids = calloc(length / 2 + 1, sizeof *ids);
    if (ids == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "--tokens: out of memory");
    int32_t count = 0;
    const char *at = text;
    do {
        char *end = NULL;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || errno != 0 || id < 0 || id >= vocab_size || (*end != ',' && *end != 0)) {
            free(ids);
            return sora_fail(err, SORA_MALFORMED,
                             "--tokens: expected ids from 0 to %d with commas between, got \"%s\"",
                             vocab_size - 1, at);
        }
        ids[count++] = (int32_t)id;
        at = end + (*end == ',');
    } while (*at != '\0');
    *tokens = ids;
    *token_count = count;
    return SORA_OK;
}

static sora_status read_stdin(char **text, size_t *bytes, struct sora_error *err)
{
    struct buf buf;
    char chunk[4096];
    size_t count;
    buf_init(&buf, SORA_BODY_BYTES_MAX);
    while ((count = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        buf_append(&buf, chunk, count);
    sora_status status = buf_status(&buf, err);
    if (status == SORA_OK)
        *text = buf_take(&buf, bytes);
    buf_deinit(&buf);
    return status == SORA_OK ? SORA_OK : sora_fail_within(err, status, "standard input");
}

// The prompt's text, through the chat template when asked for; malloc'ed.
static sora_status make_text(const struct complete_args *args, const sora_tokenizer *tokenizer,
                             char **text, size_t *bytes, struct sora_error *err)
{
    char *prompt = NULL;
    size_t prompt_bytes = 0;
    if (strcmp(args->prompt, "-") == 0) {
        sora_status status = read_stdin(&prompt, &prompt_bytes, err);
        if (status != SORA_OK)
            return status;
    } else {
        prompt = strdup(args->prompt);
        prompt_bytes = strlen(args->prompt);
    }
    if (prompt == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "the prompt: out of memory");
    if (!args->chat) {
        *text = prompt;
        *bytes = prompt_bytes;
        return SORA_OK;
    }
    struct sora_message messages[2];
    int32_t count = 0;
    if (args->system != NULL)
        messages[count++] = (struct sora_message){"system", args->system};
    messages[count++] = (struct sora_message){"user", prompt};
    sora_status status =
        sora_chat_render(tokenizer, args->chat_template, messages, count, true, text, bytes, err);
    free(prompt);
    return status;
}

static sora_status make_prompt(const struct complete_args *args, const sora_model *model,
                               const sora_tokenizer *tokenizer, int32_t **tokens,
                               int32_t *token_count, struct sora_error *err)
{
    if (args->tokens != NULL)
        return parse_ids(args->tokens, sora_model_get_info(model)->base.vocab_size, tokens,
                         token_count, err);
    if (tokenizer == NULL)
        return sora_fail(err, SORA_UNSUPPORTED,
                         "%s has no tokenizer: give the prompt as --tokens ID,ID,...", args->model);
    char *text = NULL;
    size_t bytes = 0;
    sora_status status = make_text(args, tokenizer, &text, &bytes, err);
    if (status == SORA_OK)
        status =
            sora_tokenizer_encode(tokenizer, text, bytes, true, sora_tokenizer_adds_bos(tokenizer),
                                  tokens, token_count, err);
    free(text);
    if (status == SORA_OK && *token_count == 0)
        status = sora_fail(err, SORA_MALFORMED, "the prompt is empty");
    return status;
}

static void put_json(struct buf *out, const struct completion *completion)
{
    buf_text(out, "{\"text\":");
    bool ids_only = completion->tokenizer == NULL || completion->args->raw;
    buf_json_string(out, ids_only ? "" : completion->text.data,
                    ids_only ? 0 : completion->text.bytes);
    buf_text(out, ",\"token_ids\":[");
    buf_append(out, completion->ids.data, completion->ids.bytes);
    buf_text(out, "]");
    cli_report_text(out, "finish_reason", completion->ended ? "stop" : "length");
    cli_report_count(out, "prompt_tokens", completion->prompt_count);
    cli_report_count(out, "completion_tokens", completion->token_count);
    cli_report_number(out, "prompt_seconds", completion->prompt_seconds);
    cli_report_number(out, "completion_seconds", completion->token_seconds);
    buf_text(out, "}");
}

static void print_timing(const struct completion *completion)
{
    double seconds = completion->token_seconds > 0 ? completion->token_seconds : 1e-9;
    fprintf(stderr, "[prompt %d tokens in %.2f s, completion %d tokens, %.1f tokens/s, %s]\n",
            completion->prompt_count, completion->prompt_seconds, completion->token_count,
            completion->token_count / seconds,
            completion->ended ? "ended by itself" : "cut at --max-tokens");
}

static sora_status complete_once(struct completion *completion, struct sora_error *err)
{
    const struct complete_args *args = completion->args;
    completion->stream = !args->json;
    sora_status status = run_completion(completion, err);
    if (status != SORA_OK)
        return status;
    if (args->json) {
        struct buf out;
        buf_init(&out, 2 * OUT_BYTES_MAX);
        put_json(&out, completion);
        return cli_report_print(&out, err);
    }
    fputc('\n', stdout);
    fflush(stdout);
    if (!args->quiet)
        print_timing(completion);
    return ferror(stdout) ? sora_fail(err, SORA_IO, "standard output: %s", strerror(errno))
                          : SORA_OK;
}

static sora_status complete_beside(struct completion *adapted, struct sora_error *err)
{
    struct completion base = *adapted;
    completion_init(&base);
    base.lora = NULL;
    sora_status status = run_completion(&base, err);
    if (status == SORA_OK)
        status = run_completion(adapted, err);
    if (status == SORA_OK && adapted->args->json) {
        struct buf out;
        buf_init(&out, 4 * OUT_BYTES_MAX);
        buf_text(&out, "{\"base\":");
        put_json(&out, &base);
        buf_text(&out, ",\"adapted\":");
        put_json(&out, adapted);
        buf_text(&out, "}");
        status = cli_report_print(&out, err);
    } else if (status == SORA_OK) {
        cli_print_beside(stdout, cli_print_width(stdout, 100), "base",
                         base.text.bytes > 0 ? base.text.data : "", adapted->args->adapter,
                         adapted->text.bytes > 0 ? adapted->text.data : "");
    }
    completion_deinit(&base);
    return status;
}

static sora_status complete(const struct complete_args *args, struct sora_error *err)
{
    sora_model *model = NULL;
    sora_tokenizer *tokenizer = NULL;
    sora_adapter *adapter = NULL;
    int32_t *prompt = NULL;
    struct completion completion = {.args = args};
    completion_init(&completion);
    sora_status status = sora_model_open(args->model, &model, err);
    if (status == SORA_OK)
        status = sora_tokenizer_open(args->model, &tokenizer, err);
    if (status == SORA_OK)
        status = make_prompt(args, model, tokenizer, &prompt, &completion.prompt_count, err);
    if (status == SORA_OK && args->adapter != NULL)
        status = sora_adapter_open_as(args->adapter, &sora_model_get_info(model)->base,
                                      sora_compute_for(model, args->compute) == SORA_COMPUTE_INT8,
                                      &adapter, err);
    if (status != SORA_OK)
        goto done;
    completion.model = model;
    completion.tokenizer = tokenizer;
    completion.prompt = prompt;
    completion.lora = adapter != NULL ? sora_adapter_get_lora(adapter) : NULL;
    status = args->compare ? complete_beside(&completion, err) : complete_once(&completion, err);
done:
    completion_deinit(&completion);
    free(prompt);
    sora_adapter_destroy(adapter);
    sora_tokenizer_close(tokenizer);
    sora_model_close(model);
    return status;
}

int cmd_complete(int argc, char **argv)
{
    struct complete_args args = {
        .sampling = sora_sampling_defaults(), .max_tokens = 128, .scale = 1};
    struct sora_error err;
    int exit_code = CLI_GOOD;
    args.sampling.temperature = 0;
    rng_system(&args.sampling.seed, sizeof args.sampling.seed);
    if (!cli_parse(&complete_command, argc, argv, &args, &exit_code))
        return exit_code;
    if ((args.prompt == NULL) == (args.tokens == NULL))
        return cli_usage(argv[0], "give the prompt as --prompt TEXT or as --tokens ID,ID,...");
    if (args.chat && args.tokens != NULL)
        return cli_usage(argv[0], "--chat needs --prompt, not --tokens");
    if ((args.system != NULL || args.chat_template != NULL) && !args.chat)
        return cli_usage(argv[0], "--system and --chat-template need --chat");
    if (args.compare && args.adapter == NULL)
        return cli_usage(argv[0], "--compare needs --adapter");
    return complete(&args, &err) == SORA_OK ? CLI_GOOD : cli_fail(argv[0], &err);
}

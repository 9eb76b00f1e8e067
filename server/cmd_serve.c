// SPDX-License-Identifier: Apache-2.0
// `sora-server serve`: options, signals, and the life of one server. Main thread only.
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/cli.h"
#include "server/commands.h"
#include "server/server.h"
#include "sora/limits.h"

struct serve_options {
    struct server_config config;
    struct cli_list adapters; // NAME=FILE
    const char *config_path;
    int log_level;
};

#define FIELD(name) offsetof(struct serve_options, name)
static const struct cli_option options[] = {
    {.kind = CLI_HEADING, .doc = "Model"},
    {.name = "model",
     .key = 'm',
     .kind = CLI_TEXT,
     .offset = FIELD(config.model_path),
     .arg = "FILE",
     .doc = "A .gguf file, or a folder with config.json and *.safetensors",
     .required = true},
    {.name = "model-name",
     .kind = CLI_TEXT,
     .offset = FIELD(config.model_name),
     .arg = "ID",
     .doc = "The base's id in the API (default: the stem of FILE)"},
    {.name = "chat-template",
     .kind = CLI_TEXT,
     .offset = FIELD(config.chat_template),
     .arg = "NAME",
     .doc = "How chats are written as text (default: what the model's own template is "
            "recognised as)"},
    {.kind = CLI_HEADING, .doc = "Adapters"},
    {.name = "store",
     .kind = CLI_TEXT,
     .offset = FIELD(config.store_path),
     .arg = "DIR",
     .doc = "Where adapters are kept (default ./sora-store)"},
    {.name = "store-limit",
     .kind = CLI_SIZE,
     .offset = FIELD(config.store_bytes),
     .arg = "SIZE",
     .doc = "Most bytes of adapters on disk, such as 20G (default: what the disk holds)"},
    {.name = "adapter-memory",
     .kind = CLI_SIZE,
     .offset = FIELD(config.adapter_bytes),
     .arg = "SIZE",
     .doc = "Memory for adapters, such as 2G: the least recently used leave it and come back on "
            "demand (default: a quarter of the machine's)"},
    {.name = "catalog",
     .kind = CLI_TEXT,
     .offset = FIELD(config.catalog_url),
     .arg = "URL",
     .doc = "A PostgreSQL that several servers share, postgresql://USER@HOST/DATABASE: names, keys "
            "and files live there, --store keeps copies (default: a catalog in --store)"},
    {.name = "adapter",
     .kind = CLI_LIST,
     .offset = FIELD(adapters),
     .arg = "NAME=FILE",
     .doc = "Publish an adapter at the start: our file or a PEFT folder; may be repeated"},
    {.name = "adapter-root",
     .kind = CLI_TEXT,
     .offset = FIELD(config.adapter_root),
     .arg = "DIR",
     .doc = "Folder from which vLLM's POST /v1/load_lora_adapter may take files; the route is "
            "not there without it"},
    {.kind = CLI_HEADING, .doc = "Network"},
    {.name = "host",
     .kind = CLI_TEXT,
     .offset = FIELD(config.host),
     .arg = "ADDRESS",
     .doc = "Address to listen on (default 127.0.0.1)"},
    {.name = "port",
     .kind = CLI_INT,
     .offset = FIELD(config.port),
     .arg = "N",
     .doc = "Port to listen on; 0 takes a free one, printed at the start (default 8080)",
     .min = 0,
     .max = 65535},
    {.name = "queue",
     .kind = CLI_INT,
     .offset = FIELD(config.queue_max),
     .arg = "N",
     .doc = "Requests that may wait; beyond them the answer is 429 (default 128)",
     .min = 1,
     .max = SORA_QUEUE_REQUESTS_MAX},
    {.name = "elastic-at",
     .kind = CLI_INT,
     .offset = FIELD(config.elastic_at),
     .arg = "N",
     .doc = "Requests, running and waiting, from which on those with \"elastic\": true get fewer "
            "ranks of their adapters; 0: never (default 32)",
     .min = 0,
     .max = SORA_ELASTIC_AT_MAX},
    {.name = "elastic-rank",
     .kind = CLI_INT,
     .offset = FIELD(config.elastic_rank),
     .arg = "K",
     .doc = "Ranks of each module that are left to them (default 4)",
     .min = 1,
     .max = SORA_TRAIN_RANK_MAX},
    {.name = "step-ms",
     .kind = CLI_INT,
     .offset = FIELD(config.step_ms),
     .arg = "N",
     .doc = "Longest pause that long prompts may cause those who generate: less is smoother, more "
            "is a little quicker for the prompts (default 100)",
     .min = 1,
     .max = SORA_STEP_MS_MAX},
    {.name = "api-key-file",
     .kind = CLI_TEXT,
     .offset = FIELD(config.api_key_file),
     .arg = "FILE",
     .doc = "Keys beside those of `sora-server keys`: lines of KEY [TENANT [SCOPES]], read anew "
            "when the file changes"},
    {.name = "tls-cert",
     .kind = CLI_TEXT,
     .offset = FIELD(config.tls_certificate),
     .arg = "FILE",
     .doc = "Serve HTTPS with this certificate (PEM; those that lead to a root may follow it)"},
    {.name = "tls-key",
     .kind = CLI_TEXT,
     .offset = FIELD(config.tls_key),
     .arg = "FILE",
     .doc = "The certificate's key (PEM, without a password)"},
    {.kind = CLI_HEADING, .doc = "Machine"},
    {.name = "threads",
     .kind = CLI_INT,
     .offset = FIELD(config.threads),
     .arg = "N",
     .doc = "Threads that compute (default: the machine's processors)",
     .min = 1,
     .max = SORA_THREADS_MAX},
    {.name = "compute",
     .kind = CLI_CHOICE,
     .offset = FIELD(config.compute),
     .arg = "auto|f32|int8",
     .doc =
         "Arithmetic of the base's matrices (default auto). f32: the reference's fidelity. int8: "
         "activations in 8 bits where weights have 4, two to three times as fast. auto: int8 "
         "for quantized models, f32 for others"},
    {.name = "kv",
     .kind = CLI_CHOICE,
     .offset = FIELD(config.kv),
     .arg = "auto|f32|f16|i16",
     .doc =
         "How keys and values are kept (default auto: i16, integers with a scale for each token, "
         "with --compute int8, else f32)"},
    {.name = "no-prefix-cache",
     .kind = CLI_FLAG,
     .offset = FIELD(config.no_prefix_cache),
     .doc = "Compute every prompt anew, also those whose beginning was computed before"},
    {.name = "ctx",
     .kind = CLI_INT,
     .offset = FIELD(config.context),
     .arg = "N",
     .doc = "Most tokens of one request, prompt and answer (default: the model's)",
     .min = 16,
     .max = SORA_CONTEXT_MAX},
    {.name = "max-seqs",
     .kind = CLI_INT,
     .offset = FIELD(config.seqs_max),
     .arg = "N",
     .doc = "Sequences computed at once (default 32)",
     .min = 1,
     .max = SORA_SEQS_MAX},
    {.name = "kv-memory",
     .kind = CLI_SIZE,
     .offset = FIELD(config.kv_bytes),
     .arg = "SIZE",
     .doc = "Memory for keys and values, such as 512M (default: what --max-seqs and --ctx need, "
            "2G at most)"},
    {.name = "log-level",
     .kind = CLI_CHOICE,
     .offset = FIELD(log_level),
     .arg = "debug|info|warn|error|none",
     .doc = "What is logged to stderr (default info)"},
    {.name = "config",
     .kind = CLI_TEXT,
     .offset = FIELD(config_path),
     .arg = "FILE",
     .doc = "Options from a file: lines of name = value, the names as here without dashes, a flag "
            "= true; # begins a comment line. The command line wins"},
};

static const struct cli_command command = {
    .doc = "Serve a base model and many adapters of it over an OpenAI-style HTTP API.\v"
           "More sequences and more context need more memory for keys and values; when it is "
           "short, requests wait or are computed again, none fails.\n\nWithout any API key "
           "everyone who "
           "reaches the port may do everything; the first `sora-server keys make` ends that, also "
           "while the server runs.\n\nExample:\n  sora-server "
           "serve --model model.gguf --adapter support=support.safetensors",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

static bool take_preload(const char *program, const char *text, struct server_config *config,
                         int *exit_code)
{
    struct server_preload *preload = &config->preloads[config->preload_count++];
    const char *equals = strchr(text, '=');
    size_t bytes = equals != NULL ? (size_t)(equals - text) : 0;
    if (bytes == 0 || bytes >= sizeof preload->name || equals[1] == '\0') {
        *exit_code = cli_usage(program, "--adapter %s: must be NAME=FILE", text);
        return false;
    }
    memcpy(preload->name, text, bytes);
    preload->name[bytes] = '\0';
    preload->path = equals + 1;
    return true;
}

static bool read_options(int argc, char **argv, struct serve_options *values, struct cli_file *file,
                         int *exit_code)
{
    *values = (struct serve_options){
        .config = {.store_path = "sora-store",
                   .host = "127.0.0.1",
                   .port = 8080,
                   .queue_max = SORA_QUEUE_REQUESTS_DEFAULT,
                   .elastic_at = SORA_ELASTIC_AT_DEFAULT,
                   .elastic_rank = SORA_ELASTIC_RANK_DEFAULT,
                   .step_ms = SORA_STEP_MS_DEFAULT},
        .log_level = LOG_INFO,
    };
    struct server_config *config = &values->config;
    if (!cli_parse_config(&command, "config", argc, argv, values, file, exit_code))
        return false;
    for (int32_t i = 0; i < values->adapters.count; i++)
        if (!take_preload(argv[0], values->adapters.items[i], config, exit_code))
            return false;
    if ((config->tls_certificate != NULL) == (config->tls_key != NULL))
        return true;
    *exit_code = cli_usage(argv[0], "--tls-cert and --tls-key go together");
    return false;
}

static sem_t stop_asked;
static atomic_bool reload_keys; // what SIGHUP asks for

static void set_handler(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

// The first signal asks for an orderly end; a second one ends the process at once, as by default.
static void on_signal(int number)
{
    (void)number;
    set_handler(SIG_DFL);
    sem_post(&stop_asked);
}

static void on_hangup(int number)
{
    (void)number;
    atomic_store(&reload_keys, true);
}

// SIGHUP: the API keys are read anew, as daemons do.
static void catch_hangup(void)
{
    struct sigaction action = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGHUP, &action, NULL);
}

// From here on; before, while the model loads, a signal just ends the process: nothing has been
// acknowledged that could be lost.
static void catch_signals(void)
{
    sem_init(&stop_asked, 0, 0);
    set_handler(on_signal);
}

static void wait_for_signal(void)
{
    while (sem_wait(&stop_asked) != 0)
        continue;
    log_info("serve", "stop", "drain_s=%d", SORA_DRAIN_US / 1000000);
}

static void announce(const struct server *server)
{
    const char *host = server->config.host;
    bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    bool brackets = !any && strchr(host, ':') != NULL;
    printf("listening on %s://%s%s%s:%d\n",
           server->config.tls_certificate != NULL ? "https" : "http", brackets ? "[" : "",
           any ? "127.0.0.1" : host, brackets ? "]" : "", (int)http_port(server->http));
    fflush(stdout);
}

int cmd_serve(int argc, char **argv)
{
    struct serve_options values;
    struct cli_file file;
    struct server *server = NULL;
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!read_options(argc, argv, &values, &file, &exit_code)) {
        cli_file_free(&file);
        return exit_code;
    }
    values.config.reload_keys = &reload_keys;
    log_set_level((enum log_level)values.log_level);
    sora_status status = server_open(&values.config, &server, &err);
    if (status == SORA_OK) {
        log_info("serve", "listen", "host=%s port=%d", values.config.host,
                 (int)http_port(server->http));
        status = server_load(server, &err);
    }
    if (status == SORA_OK) {
        catch_signals();
        if (values.config.api_key_file != NULL) // otherwise a closed terminal ends it as ever
            catch_hangup();
        announce(server);
        wait_for_signal();
        server_drain(server, SORA_DRAIN_US);
    } else {
        exit_code = cli_fail(argv[0], &err);
    }
    server_close(server);
    cli_file_free(&file);
    return exit_code;
}

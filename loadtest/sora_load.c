// SPDX-License-Identifier: Apache-2.0
// `sora-loadtest`: options, signals, exit codes. Main thread only; the program has no other.
#include <argp.h>
#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "loadtest/compare.h"
#include "loadtest/nearest.h"
#include "loadtest/run.h"
#include "loadtest/scenario.h"

#define OPTIONS_MAX 96
#define NAME_BYTES_MAX 40
#define KEY_BYTES_MAX 4000
#define SETTING_KEY 1000 // argp's key of the first setting

enum own_key {
    OWN_SCENARIO = 's',
    OWN_QUIET = 'q',
    OWN_LIST = 512,
    OWN_PRINT_SCENARIO,
    OWN_PRINT_PLAN,
    OWN_FIND_RATE,
    OWN_PRECISION,
    OWN_JSON,
    OWN_HTML,
    OWN_LABEL,
    OWN_SELECTOR,
    OWN_KEY_FILE,
    OWN_CACERT,
    OWN_INSECURE,
    OWN_FRESH,
    OWN_LIKE,
    OWN_KEEP
};

static const struct argp_option own_options[] = {
    {.name = "scenario",
     .key = OWN_SCENARIO,
     .arg = "NAME|FILE",
     .group = 1,
     .doc = "Takes the settings of a scenario; options beside it win"},
    {.name = "list-scenarios", .key = OWN_LIST, .group = 1, .doc = "Lists the built-in scenarios"},
    {.name = "print-scenario",
     .key = OWN_PRINT_SCENARIO,
     .arg = "NAME",
     .group = 1,
     .doc = "Prints a scenario's file, to be changed"},
    {.name = "print-plan",
     .key = OWN_PRINT_PLAN,
     .group = 1,
     .doc = "Prints every request as CSV and sends none; needs no URL when the adapters are given"},
    {.name = "find-rate",
     .key = OWN_FIND_RATE,
     .group = 1,
     .doc = "Searches for the highest rate that holds --slo, starting at --rate; each try takes "
            "--warmup and --duration"},
    {.name = "precision",
     .key = OWN_PRECISION,
     .arg = "SHARE",
     .group = 1,
     .doc = "How close --find-rate comes (0.05)"},
    {.doc = "Where the report goes", .group = 2},
    {.name = "json",
     .key = OWN_JSON,
     .arg = "FILE",
     .group = 2,
     .doc = "Everything measured, for programs and for compare; - is standard output"},
    {.name = "html",
     .key = OWN_HTML,
     .arg = "FILE",
     .group = 2,
     .doc = "One page with its pictures in it"},
    {.name = "label",
     .key = OWN_LABEL,
     .arg = "TEXT",
     .group = 2,
     .doc = "The server's name in comparisons"},
    {.name = "quiet", .key = OWN_QUIET, .group = 2, .doc = "No live line, no progress"},
    {.doc = "How the server is spoken to", .group = 3},
    {.name = "selector",
     .key = OWN_SELECTOR,
     .arg = "model|lora",
     .group = 3,
     .doc = "model: adapters are model names (sora-server, vLLM). lora: llama-server's `lora` "
            "field; --adapters stand in the order of its --lora options"},
    {.name = "key-file",
     .key = OWN_KEY_FILE,
     .arg = "FILE",
     .group = 3,
     .doc = "API key, sent as a bearer token (or in the environment: SORA_API_KEY)"},
    {.name = "cacert",
     .key = OWN_CACERT,
     .arg = "FILE",
     .group = 3,
     .doc = "Certificates to trust, PEM"},
    {.name = "insecure", .key = OWN_INSECURE, .group = 3, .doc = "Does not check certificates"},
    {.name = "fresh-connections",
     .key = OWN_FRESH,
     .group = 3,
     .doc = "A new connection for each request (default: kept and used again)"},
    {.name = "like",
     .key = OWN_LIKE,
     .arg = "FILE",
     .group = 3,
     .doc = "Adapter file of the server's base, for --make when the server has no adapter yet"},
    {.name = "keep-adapters",
     .key = OWN_KEEP,
     .group = 3,
     .doc = "Leaves made adapters on the server"},
};

static const char doc[] =
    "Sends a planned load to any OpenAI-compatible server and measures what comes back. Latencies "
    "count from the planned time, so a server that stalls is seen as its users would see it.\v"
    "Examples:\n"
    "  sora-loadtest http://127.0.0.1:8080 --rate 4 --duration 60s\n"
    "      all adapters of the server, 4 requests a second, for a minute\n"
    "  sora-loadtest http://127.0.0.1:8080 --scenario ragged-32 --html report.html\n"
    "      32 adapters of random ranks, made, uploaded, asked and deleted\n"
    "  sora-loadtest http://127.0.0.1:8080 --find-rate --duration 30s --warmup 5s \\\n"
    "      --slo ttft_p95=500ms,itl_p95=100ms\n"
    "      the highest rate that the server holds\n"
    "  sora-loadtest http://127.0.0.1:8080 --clients 16 --requests 200 --verify\n"
    "      a closed loop; equal requests must get equal replies, to the byte\n"
    "  sora-loadtest https://other:8000 --key-file key --adapters a,b --json b.json\n"
    "  sora-loadtest compare a.json b.json --html both.html\n"
    "      the same load on two servers, side by side\n\n"
    "A scenario is a JSON file with the same settings, underscores for dashes; --print-scenario "
    "shows one. A LENGTH is a distribution: 64, uniform:16:128 or lognormal:MEDIAN:SIGMA[:MAX].\n\n"
    "Exit: 0 done; 1 the objective or --verify failed, or nothing could be sent; 2 wrong usage.";

struct override {
    const struct setting *setting;
    const char *text;
};

struct cli {
    struct run_options options;
    struct scenario scenario;
    const char *url_text, *key_path;
    struct override *overrides;
    int override_count;
    bool list;
    const char *print_scenario;
    char url[2048], key[KEY_BYTES_MAX];
};

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void parse_precision(const char *text, double *out, struct argp_state *state)
{
    struct sora_error err;
    if (number_parse(text, 0.001, 1, out, &err) != SORA_OK)
        argp_error(state, "--precision: %s", err.text);
}

static void parse_selector(const char *text, enum client_selector *out, struct argp_state *state)
{
    if (strcmp(text, "model") == 0)
        *out = CLIENT_BY_MODEL;
    else if (strcmp(text, "lora") == 0)
        *out = CLIENT_BY_LORA;
    else
        argp_error(state, "--selector: \"%s\" is neither model nor lora", text);
}

static error_t parse_own(struct cli *cli, int key, char *arg, struct argp_state *state)
{
    struct run_options *options = &cli->options;
    switch (key) {
    case OWN_SCENARIO:
        options->scenario_name = arg;
        return 0;
    case OWN_LIST:
        cli->list = true;
        return 0;
    case OWN_PRINT_SCENARIO:
        cli->print_scenario = arg;
        return 0;
    case OWN_PRINT_PLAN:
        options->print_plan = true;
        return 0;
    case OWN_FIND_RATE:
        options->find_rate = true;
        return 0;
    case OWN_PRECISION:
        parse_precision(arg, &options->precision, state);
        return 0;
    case OWN_JSON:
        options->json_path = arg;
        return 0;
    case OWN_HTML:
        options->html_path = arg;
        return 0;
    case OWN_LABEL:
        options->label = arg;
        return 0;
    case OWN_QUIET:
        options->quiet = true;
        return 0;
    case OWN_SELECTOR:
        parse_selector(arg, &options->config.selector, state);
        return 0;
    case OWN_KEY_FILE:
        cli->key_path = arg;
        return 0;
    case OWN_CACERT:
        options->config.ca_file = arg;
        return 0;
    case OWN_INSECURE:
        options->config.insecure = true;
        return 0;
    case OWN_FRESH:
        options->config.fresh = true;
        return 0;
    case OWN_LIKE:
        options->like = arg;
        return 0;
    case OWN_KEEP:
        options->keep = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct cli *cli = state->input;
    if (key == ARGP_KEY_ARG) {
        if (cli->url_text != NULL)
            argp_error(state, "one URL is expected, \"%s\" is another", arg);
        cli->url_text = arg;
        return 0;
    }
    if (key >= SETTING_KEY && key < SETTING_KEY + OPTIONS_MAX) {
        cli->overrides[cli->override_count++] =
            (struct override){&scenario_settings[key - SETTING_KEY], arg != NULL ? arg : "true"};
        return 0;
    }
    return parse_own(cli, key, arg, state);
}

// The table of settings and the program's own options as argp wants them.
static void build_options(struct argp_option options[OPTIONS_MAX],
                          char names[OPTIONS_MAX][NAME_BYTES_MAX])
{
    int count = 0, group = 10;
    for (size_t i = 0; i < sizeof own_options / sizeof own_options[0]; i++)
        options[count++] = own_options[i];
    for (int i = 0; scenario_settings[i].key != NULL && count < OPTIONS_MAX - 1; i++) {
        const struct setting *setting = &scenario_settings[i];
        struct argp_option *option = &options[count];
        if (setting->arg == NULL) {
            options[count++] = (struct argp_option){.doc = setting->key, .group = ++group};
            continue;
        }
        snprintf(names[count], NAME_BYTES_MAX, "%s", setting->key);
        for (char *at = names[count]; *at != '\0'; at++) {
            if (*at == '_')
                *at = '-';
        }
        *option = (struct argp_option){.name = names[count],
                                       .key = SETTING_KEY + i,
                                       .arg = setting->arg,
                                       .doc = setting->doc,
                                       .group = group};
        if (setting->kind == SETTING_BOOL)
            option->flags = OPTION_ARG_OPTIONAL;
        count++;
    }
    options[count] = (struct argp_option){0};
}

// argp says "unrecognized option" without a hint; this names the nearest one.
static bool check_names(int argc, char **argv, const struct argp_option *options)
{
    const char *names[OPTIONS_MAX + 4] = {"help", "usage", "version"};
    int count = 3;
    for (const struct argp_option *at = options; at->name != NULL || at->doc != NULL; at++) {
        if (at->name != NULL)
            names[count++] = at->name;
    }
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        char text[NAME_BYTES_MAX];
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        snprintf(text, sizeof text, "%.*s", (int)strcspn(argv[i] + 2, "="), argv[i] + 2);
        bool known = false;
        for (int j = 0; j < count && !known; j++)
            known = strncmp(names[j], text, strlen(text)) == 0; // argp takes beginnings
        if (known)
            continue;
        fprintf(stderr, "sora-loadtest: unknown option --%s; did you mean --%s?\n", text,
                nearest_name(text, names));
        return false;
    }
    return true;
}

static bool was_given(const struct cli *cli, const char *key)
{
    for (int i = 0; i < cli->override_count; i++) {
        if (strcmp(cli->overrides[i].setting->key, key) == 0)
            return true;
    }
    return false;
}

static sora_status apply_settings(struct cli *cli, struct sora_error *err)
{
    sora_status status = scenario_init(&cli->scenario, err);
    if (status == SORA_OK && cli->options.scenario_name != NULL)
        status = scenario_load(&cli->scenario, cli->options.scenario_name, err);
    for (int i = 0; i < cli->override_count && status == SORA_OK; i++)
        status =
            scenario_set(&cli->scenario, cli->overrides[i].setting, cli->overrides[i].text, err);
    // --clients alone means a closed loop, --rate alone an open one.
    if (!was_given(cli, "arrivals") && was_given(cli, "clients") && !was_given(cli, "rate"))
        cli->scenario.arrivals = ARRIVALS_CLOSED;
    if (!was_given(cli, "arrivals") && was_given(cli, "rate") &&
        cli->scenario.arrivals == ARRIVALS_CLOSED)
        cli->scenario.arrivals = ARRIVALS_POISSON;
    if (status == SORA_OK)
        status = scenario_check(&cli->scenario, err);
    if (status == SORA_OK && cli->options.find_rate && cli->scenario.slo == NULL)
        status = sora_fail(err, SORA_MALFORMED, "--find-rate needs --slo");
    if (status == SORA_OK && cli->options.find_rate && cli->scenario.arrivals >= ARRIVALS_TRACE)
        status = sora_fail(err, SORA_MALFORMED, "--find-rate needs arrivals that have a rate");
    return status;
}

// "host:8080/v1/" becomes "http://host:8080".
static sora_status take_url(struct cli *cli, struct sora_error *err)
{
    const char *text = cli->url_text != NULL ? cli->url_text : "";
    bool has_scheme = strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0;
    if (*text == '\0' && !cli->options.print_plan)
        return sora_fail(err, SORA_MALFORMED, "no URL is given, such as http://127.0.0.1:8080");
    if (!has_scheme && strstr(text, "://") != NULL)
        return sora_fail(err, SORA_MALFORMED, "\"%.200s\" is neither http:// nor https://", text);
    int bytes = snprintf(cli->url, sizeof cli->url, "%s%s",
                         has_scheme || *text == '\0' ? "" : "http://", text);
    if (bytes >= (int)sizeof cli->url)
        return sora_fail(err, SORA_LIMIT, "the URL is longer than %zu bytes", sizeof cli->url - 1);
    while (bytes > 0 && cli->url[bytes - 1] == '/')
        cli->url[--bytes] = '\0';
    if (bytes > 3 && strcmp(cli->url + bytes - 3, "/v1") == 0)
        cli->url[bytes - 3] = '\0';
    cli->options.config.url = cli->url;
    return SORA_OK;
}

static sora_status take_key(struct cli *cli, struct sora_error *err)
{
    const char *text = getenv("SORA_API_KEY");
    char *file = NULL;
    size_t bytes = 0;
    if (cli->key_path != NULL) {
        sora_status status = file_read(cli->key_path, KEY_BYTES_MAX - 1, &file, &bytes, err);
        if (status != SORA_OK)
            return status;
        text = file;
    }
    if (text != NULL) {
        snprintf(cli->key, sizeof cli->key, "%.*s", (int)strcspn(text, " \t\r\n"), text);
        cli->options.config.key = cli->key;
    }
    free(file);
    return SORA_OK;
}

static int list_scenarios(void)
{
    for (const struct scenario_builtin *at = scenario_builtins; at->name != NULL; at++) {
        struct scenario scenario;
        struct sora_error err;
        if (scenario_init(&scenario, &err) != SORA_OK ||
            scenario_parse(&scenario, at->name, at->json, strlen(at->json), &err) != SORA_OK) {
            fprintf(stderr, "sora-loadtest: %s\n", err.text);
            return RUN_FAILED;
        }
        printf("%-20s %s\n", at->name, scenario.doc != NULL ? scenario.doc : "");
        scenario_deinit(&scenario);
    }
    return RUN_DONE;
}

static int print_scenario(const char *name)
{
    for (const struct scenario_builtin *at = scenario_builtins; at->name != NULL; at++) {
        if (strcmp(at->name, name) == 0) {
            fputs(at->json, stdout);
            return RUN_DONE;
        }
    }
    fprintf(stderr, "sora-loadtest: no scenario \"%s\"; --list-scenarios shows all\n", name);
    return RUN_USAGE;
}

static int run_cli(struct cli *cli)
{
    struct sora_error err;
    struct sigaction action = {.sa_handler = on_signal};
    if (cli->list)
        return list_scenarios();
    if (cli->print_scenario != NULL)
        return print_scenario(cli->print_scenario);
    sora_status status = take_url(cli, &err);
    if (status == SORA_OK)
        status = take_key(cli, &err);
    if (status == SORA_OK)
        status = apply_settings(cli, &err);
    if (status != SORA_OK) {
        fprintf(stderr, "sora-loadtest: %s\n", err.text);
        return RUN_USAGE;
    }
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    cli->options.scenario = &cli->scenario;
    cli->options.stop = &stop;
    return run_load(&cli->options, stdout, stderr);
}

int main(int argc, char **argv)
{
    static struct argp_option options[OPTIONS_MAX];
    static char names[OPTIONS_MAX][NAME_BYTES_MAX];
    static struct cli cli = {.options = {.precision = 0.05}};
    const struct argp argp = {.options = options,
                              .parser = parse_option,
                              .args_doc = "URL\ncompare A.json B.json...",
                              .doc = doc};
    argp_program_version = "sora-loadtest " SORA_VERSION;
    argp_err_exit_status = RUN_USAGE;
    if (argc > 1 && strcmp(argv[1], "compare") == 0)
        return compare_command(argc - 1, argv + 1, stdout, stderr);
    build_options(options, names);
    if (!check_names(argc, argv, options))
        return RUN_USAGE;
    cli.overrides = calloc((size_t)argc + 1, sizeof *cli.overrides);
    if (cli.overrides == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fprintf(stderr, "sora-loadtest: no memory\n");
        return RUN_FAILED;
    }
    argp_parse(&argp, argc, argv, 0, NULL, &cli);
    int exit_code = run_cli(&cli);
    scenario_deinit(&cli.scenario);
    free(cli.overrides);
    curl_global_cleanup();
    return exit_code;
}

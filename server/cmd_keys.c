// SPDX-License-Identifier: Apache-2.0
// `sora-server keys`: makes, lists and revokes API keys, sets the limits of tenants, prints the
// record of changes. It writes to the store's catalog, also while a server has the store open,
// which sees the change within a second. Main thread only.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/secret.h"
#include "server/audit.h"
#include "server/cli.h"
#include "server/cli_print.h"
#include "server/cli_report.h"
#include "server/commands.h"
#include "sora/access.h"
#include "sora/tenant.h"

#define LINE_BYTES_MAX (16u << 20)
#define NOT_GIVEN (-1)
#define AUDIT_DEFAULT 100 // records of one listing

struct keys_args {
    const char *action, *id, *store, *catalog, *tenant, *name, *adapters;
    struct cli_list scope;
    double requests_per_minute, tokens_per_minute, concurrent_requests; // NOT_GIVEN: as it is
    const char *stored_bytes;
    int32_t after, limit;
    bool json, quiet;
    uint32_t scopes; // of all --scope together
};

#define AT(field) offsetof(struct keys_args, field)

static const struct cli_option keys_options[] = {
    {"ACTION", 0, CLI_POSITIONAL, AT(action), "ACTION", NULL, 0, 0, true},
    {"[KEY_ID]", 0, CLI_POSITIONAL, AT(id), "KEY_ID", NULL, 0, 0, false},
    {"store", 0, CLI_TEXT, AT(store), "DIR", "The server's store (default ./sora-store)", 0, 0,
     false},
    {"catalog", 0, CLI_TEXT, AT(catalog), "URL",
     "The servers' shared catalog, postgresql://USER@HOST/DATABASE, in place of --store", 0, 0,
     false},
    {.kind = CLI_HEADING, .doc = "make"},
    {"scope", 0, CLI_LIST, AT(scope), "infer|adapters|admin",
     "What the key may do (default infer); several with commas, or repeated. infer: completions, "
     "chats, models, tokens. adapters: upload, change, delete and fetch the tenant's adapters. "
     "admin: everything, of every tenant",
     0, 0, false},
    {"tenant", 0, CLI_TEXT, AT(tenant), "T",
     "Whose key it is: adapters of one tenant do not exist for others. Without it the key works "
     "on the adapters that everyone shares",
     0, 0, false},
    {"name", 0, CLI_TEXT, AT(name), "TEXT", "A note for lists: a person, a program", 0, 0, false},
    {"adapters", 0, CLI_TEXT, AT(adapters), "A,B",
     "Only these adapters exist for the key, beside the base", 0, 0, false},
    {.kind = CLI_HEADING, .doc = "limit; 0 is none, and what is not given stays as it is"},
    {"requests-per-minute", 0, CLI_DOUBLE, AT(requests_per_minute), "N", "Requests of any kind", 0,
     1e12, false},
    {"tokens-per-minute", 0, CLI_DOUBLE, AT(tokens_per_minute), "N",
     "Tokens of prompts and answers", 0, 1e12, false},
    {"concurrent-requests", 0, CLI_DOUBLE, AT(concurrent_requests), "N", "Requests at once", 0,
     1e12, false},
    {"stored-bytes", 0, CLI_TEXT, AT(stored_bytes), "SIZE", "Distinct adapter files, such as 500M",
     0, 0, false},
    {.kind = CLI_HEADING, .doc = "audit"},
    {"after", 0, CLI_INT, AT(after), "N", "Only records behind number N", 0, INT32_MAX, false},
    {"limit", 0, CLI_INT, AT(limit), "N", "At most so many (default 100)", 1, SORA_AUDIT_PAGE_MAX,
     false},
    {.kind = CLI_HEADING, .doc = "Output"},
    {"json", 0, CLI_FLAG, AT(json), NULL, "JSON on standard output; audit: one object a line", 0, 0,
     false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "Only what was asked for", 0, 0, false},
};

static const struct cli_command keys_command = {
    .doc = "Make, list and revoke API keys, and limit what a tenant may use.\v"
           "ACTION is one of\n"
           "  make            a new key; its text is printed once and kept nowhere\n"
           "  list            all keys ever made and the limits, or those of --tenant\n"
           "  revoke KEY_ID   from now on the key is refused\n"
           "  limit           sets and prints the limits of --tenant\n"
           "  audit           who changed which adapter, and what became of it\n\n"
           "A running server takes changes up within a second. As long as a store has never had "
           "a key, its server is open to everyone who reaches it.\n\n"
           "Examples:\n"
           "  sora-server keys make --scope admin --name me\n"
           "  sora-server keys make --scope infer,adapters --tenant acme\n"
           "  sora-server keys limit --tenant acme --requests-per-minute 600 --stored-bytes 500M\n"
           "  sora-server keys revoke key-0123456789ab",
    .options = keys_options,
    .option_count = sizeof keys_options / sizeof keys_options[0],
};

static void print_time(int64_t unix_s, char out[32])
{
    struct tm parts;
    time_t seconds = (time_t)unix_s;
    out[0] = '\0';
    if (gmtime_r(&seconds, &parts) != NULL)
        strftime(out, 32, "%Y-%m-%d %H:%M:%SZ", &parts);
}

static void member_text(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, "%s\"%s\":", out->bytes > 1 ? "," : "", key);
    if (text[0] != '\0')
        buf_json_string(out, text, strlen(text));
    else
        buf_text(out, "null");
}

// The members of a key's object, without braces.
static void encode_key(const struct sora_key *key, struct buf *out)
{
    char scopes[SORA_SCOPES_BYTES];
    buf_printf(out, "\"id\":\"%s\",\"scopes\":\"%s\"", key->id,
               sora_scopes_print(key->scopes, scopes));
    member_text(out, "tenant", key->tenant);
    member_text(out, "name", key->name);
    member_text(out, "adapters", key->adapters);
    buf_printf(out, ",\"created\":%" PRId64, key->created_s);
    if (key->revoked_s > 0)
        buf_printf(out, ",\"revoked\":%" PRId64, key->revoked_s);
    else
        buf_text(out, ",\"revoked\":null");
}

static void encode_limits(const struct sora_tenant_limits *limits, struct buf *out)
{
    buf_text(out, "{\"tenant\":");
    buf_json_string(out, limits->tenant, strlen(limits->tenant));
    buf_printf(out,
               ",\"requests_per_minute\":%" PRId64 ",\"tokens_per_minute\":%" PRId64
               ",\"concurrent_requests\":%" PRId64 ",\"stored_bytes\":%" PRId64 "}",
               limits->requests_per_minute, limits->tokens_per_minute, limits->concurrent_requests,
               limits->stored_bytes);
}

// --- make, revoke ---

static sora_status copy_name(const char *text, char *out, size_t out_bytes, const char *option,
                             struct sora_error *err)
{
    if (text == NULL)
        return SORA_OK;
    if (strlen(text) >= out_bytes)
        return sora_fail(err, SORA_LIMIT, "--%s has %zu bytes, the limit is %zu", option,
                         strlen(text), out_bytes - 1);
    memcpy(out, text, strlen(text) + 1);
    return SORA_OK;
}

static sora_status make_key(const struct keys_args *args, sora_access *access,
                            struct sora_error *err)
{
    struct sora_key key = {.scopes = args->scopes};
    char text[SORA_KEY_TEXT_BYTES];
    sora_status status = copy_name(args->tenant, key.tenant, sizeof key.tenant, "tenant", err);
    if (status == SORA_OK)
        status = copy_name(args->name, key.name, sizeof key.name, "name", err);
    if (status == SORA_OK)
        status = copy_name(args->adapters, key.adapters, sizeof key.adapters, "adapters", err);
    if (status == SORA_OK)
        status = sora_access_make_key(access, &key, text, err);
    if (status != SORA_OK)
        return status;
    if (args->json) {
        struct buf out;
        buf_init(&out, LINE_BYTES_MAX);
        buf_printf(&out, "{\"key\":\"%s\",", text);
        encode_key(&key, &out);
        buf_text(&out, "}");
        status = cli_report_print(&out, err);
    } else {
        if (!args->quiet)
            fprintf(stderr,
                    "The key %s. It is printed this once and kept nowhere: whoever has it may use "
                    "it.\n",
                    key.id);
        printf("%s\n", text);
    }
    secret_wipe(text, sizeof text);
    return status;
}

static sora_status revoke_key(const struct keys_args *args, sora_access *access,
                              struct sora_error *err)
{
    sora_status status = sora_access_revoke_key(access, args->id, err);
    if (status == SORA_OK && args->json)
        printf("{\"id\":\"%s\",\"revoked\":true}\n", args->id);
    else if (status == SORA_OK && !args->quiet)
        printf("%s is revoked\n", args->id);
    return status;
}

// --- list ---

static void print_keys(const struct sora_key *keys, int32_t count, const char *tenant)
{
    struct cli_table table;
    char created[32], revoked[32], scopes[SORA_SCOPES_BYTES];
    if (count == 0 && tenant == NULL)
        printf("There are no keys: the server is open to everyone who reaches it.\n");
    else if (count == 0)
        printf("The tenant %s has no keys.\n", tenant);
    if (count == 0)
        return;
    cli_table_init(&table, 7, 0);
    for (int i = 0; i < 7; i++) {
        static const char *const heads[] = {"KEY",      "SCOPES",  "TENANT", "NAME",
                                            "ADAPTERS", "CREATED", "REVOKED"};
        cli_table_add(&table, "%s", heads[i]);
    }
    for (int32_t i = 0; i < count; i++) {
        const struct sora_key *key = &keys[i];
        print_time(key->created_s, created);
        print_time(key->revoked_s, revoked);
        cli_table_add(&table, "%s", key->id);
        cli_table_add(&table, "%s", sora_scopes_print(key->scopes, scopes));
        cli_table_add(&table, "%s", key->tenant[0] != '\0' ? key->tenant : "-");
        cli_table_add(&table, "%s", key->name);
        cli_table_add(&table, "%s", key->adapters[0] != '\0' ? key->adapters : "all");
        cli_table_add(&table, "%s", created);
        cli_table_add(&table, "%s", key->revoked_s > 0 ? revoked : "-");
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
}

static void add_limit(struct cli_table *table, int64_t limit)
{
    char text[32];
    cli_table_add(table, "%s", limit > 0 ? cli_print_count(text, limit) : "-");
}

static void print_limits(const struct sora_tenant_limits *limits, int32_t count)
{
    static const char *const heads[] = {"TENANT", "REQUESTS/MIN", "TOKENS/MIN", "AT ONCE",
                                        "STORED BYTES"};
    struct cli_table table;
    cli_table_init(&table, 5, 0x1e);
    for (int i = 0; i < 5; i++)
        cli_table_add(&table, "%s", heads[i]);
    for (int32_t i = 0; i < count; i++) {
        cli_table_add(&table, "%s", limits[i].tenant);
        add_limit(&table, limits[i].requests_per_minute);
        add_limit(&table, limits[i].tokens_per_minute);
        add_limit(&table, limits[i].concurrent_requests);
        add_limit(&table, limits[i].stored_bytes);
    }
    cli_table_print(&table, stdout);
    cli_table_deinit(&table);
}

static sora_status print_lists_json(const struct sora_key *keys, int32_t key_count,
                                    const struct sora_tenant_limits *limits, int32_t limits_count,
                                    struct sora_error *err)
{
    struct buf out;
    buf_init(&out, LINE_BYTES_MAX);
    buf_text(&out, "{\"keys\":[");
    for (int32_t i = 0; i < key_count; i++) {
        buf_text(&out, i > 0 ? ",{" : "{");
        encode_key(&keys[i], &out);
        buf_text(&out, "}");
    }
    buf_text(&out, "],\"limits\":[");
    for (int32_t i = 0; i < limits_count; i++) {
        buf_text(&out, i > 0 ? "," : "");
        encode_limits(&limits[i], &out);
    }
    buf_text(&out, "]}");
    return cli_report_print(&out, err);
}

// Those of one tenant, in order.
static int32_t keep_tenant(const char *tenant, struct sora_key *keys, int32_t count)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < count; i++)
        if (strcmp(keys[i].tenant, tenant) == 0)
            keys[kept++] = keys[i];
    return kept;
}

static sora_status list_keys(const struct keys_args *args, sora_access *access,
                             struct sora_error *err)
{
    struct sora_key *keys = NULL;
    struct sora_tenant_limits *limits = NULL;
    int32_t key_count = 0, limits_count = 0;
    sora_status status = sora_access_list_keys(access, &keys, &key_count, err);
    if (status == SORA_OK)
        status = sora_access_list_limits(access, &limits, &limits_count, err);
    if (status == SORA_OK && args->tenant != NULL) {
        key_count = keep_tenant(args->tenant, keys, key_count);
        int32_t all = limits_count;
        limits_count = 0;
        for (int32_t i = 0; i < all; i++)
            if (strcmp(limits[i].tenant, args->tenant) == 0)
                limits[limits_count++] = limits[i];
    }
    if (status == SORA_OK && args->json) {
        status = print_lists_json(keys, key_count, limits, limits_count, err);
    } else if (status == SORA_OK) {
        print_keys(keys, key_count, args->tenant);
        if (limits_count > 0) {
            printf("\n");
            print_limits(limits, limits_count);
        }
    }
    free(keys);
    free(limits);
    return status;
}

// --- limit ---

static sora_status find_limits(sora_access *access, const char *tenant,
                               struct sora_tenant_limits *found, struct sora_error *err)
{
    struct sora_tenant_limits *all = NULL;
    int32_t count = 0;
    sora_status status = sora_access_list_limits(access, &all, &count, err);
    *found = (struct sora_tenant_limits){.stored_bytes = 0};
    snprintf(found->tenant, sizeof found->tenant, "%s", tenant);
    for (int32_t i = 0; status == SORA_OK && i < count; i++)
        if (strcmp(all[i].tenant, tenant) == 0)
            *found = all[i];
    free(all);
    return status;
}

// Half a request a minute is no limit that could be kept, and cut to 0 it would be none at all.
static sora_status change_limit(const char *option, double given, int64_t *limit, bool *changed,
                                struct sora_error *err)
{
    if (given == NOT_GIVEN)
        return SORA_OK;
    if (given != floor(given))
        return sora_fail(err, SORA_MALFORMED, "--%s: expected a whole number, got %g", option,
                         given);
    *limit = (int64_t)given;
    *changed = true;
    return SORA_OK;
}

static sora_status change_limits(const struct keys_args *args, struct sora_tenant_limits *limits,
                                 bool *changed, struct sora_error *err)
{
    size_t bytes = 0;
    if (args->stored_bytes != NULL) {
        if (!cli_parse_size(args->stored_bytes, &bytes) || bytes > (size_t)SORA_RATE_MAX)
            return sora_fail(err, SORA_MALFORMED,
                             "--stored-bytes %.40s: expected a size such as "
                             "500M, %lld bytes at most",
                             args->stored_bytes, SORA_RATE_MAX);
        limits->stored_bytes = (int64_t)bytes;
        *changed = true;
    }
    sora_status status = change_limit("requests-per-minute", args->requests_per_minute,
                                      &limits->requests_per_minute, changed, err);
    if (status == SORA_OK)
        status = change_limit("tokens-per-minute", args->tokens_per_minute,
                              &limits->tokens_per_minute, changed, err);
    if (status == SORA_OK)
        status = change_limit("concurrent-requests", args->concurrent_requests,
                              &limits->concurrent_requests, changed, err);
    return status;
}

static sora_status set_limits(const struct keys_args *args, sora_access *access,
                              struct sora_error *err)
{
    struct sora_tenant_limits limits;
    bool changed = false;
    sora_status status = sora_tenant_check(args->tenant, err);
    if (status == SORA_OK)
        status = find_limits(access, args->tenant, &limits, err);
    if (status == SORA_OK)
        status = change_limits(args, &limits, &changed, err);
    if (status == SORA_OK && changed)
        status = sora_access_set_limits(access, &limits, err);
    if (status == SORA_OK && args->json) {
        struct buf out;
        buf_init(&out, LINE_BYTES_MAX);
        encode_limits(&limits, &out);
        status = cli_report_print(&out, err);
    } else if (status == SORA_OK && !args->quiet) {
        print_limits(&limits, 1);
    }
    return status;
}

// --- audit ---

static void print_record(const struct sora_audit *record)
{
    char when[32];
    print_time(record->time_s, when);
    printf("%" PRId64 "  %s  %s  %s  %s  %s", record->number, when,
           record->key_id[0] != '\0' ? record->key_id : "-",
           record->tenant[0] != '\0' ? record->tenant : "-", record->action, record->object);
    if (record->version > 0)
        printf("@%d", (int)record->version);
    printf("  %.12s  %s\n", record->digest[0] != '\0' ? record->digest : "-", record->outcome);
}

static sora_status print_audit(const struct keys_args *args, sora_access *access,
                               struct sora_error *err)
{
    struct sora_audit *records = NULL;
    int32_t count = 0;
    sora_status status =
        sora_access_list_audit(access, args->after, args->limit, &records, &count, err);
    for (int32_t i = 0; status == SORA_OK && i < count; i++) {
        struct buf out;
        if (!args->json) {
            print_record(&records[i]);
            continue;
        }
        buf_init(&out, LINE_BYTES_MAX);
        audit_encode(&records[i], &out);
        status = cli_report_print(&out, err);
    }
    free(records);
    return status;
}

// --- the command ---

enum { USES_SCOPE = 1, USES_TENANT = 2, USES_NAME = 4, USES_LIMITS = 8, USES_PAGE = 16 };

static const struct {
    const char *name;
    sora_status (*run)(const struct keys_args *args, sora_access *access, struct sora_error *err);
    bool needs_id, needs_tenant, creates;
    unsigned uses;
} actions[] = {
    {"make", make_key, false, false, true, USES_SCOPE | USES_TENANT | USES_NAME},
    {"list", list_keys, false, false, false, USES_TENANT},
    {"revoke", revoke_key, true, false, false, 0},
    {"limit", set_limits, false, true, true, USES_TENANT | USES_LIMITS},
    {"audit", print_audit, false, false, false, USES_PAGE},
};
#define ACTION_COUNT (sizeof actions / sizeof actions[0])

// The first option that was given although the action has no use for it; NULL: none.
static const char *find_unused(const struct keys_args *args, unsigned uses)
{
    const struct {
        unsigned use;
        bool given;
        const char *name;
    } options[] = {
        {USES_SCOPE, args->scopes != 0, "scope"},
        {USES_TENANT, args->tenant != NULL, "tenant"},
        {USES_NAME, args->name != NULL, "name"},
        {USES_NAME, args->adapters != NULL, "adapters"},
        {USES_LIMITS, args->requests_per_minute != NOT_GIVEN, "requests-per-minute"},
        {USES_LIMITS, args->tokens_per_minute != NOT_GIVEN, "tokens-per-minute"},
        {USES_LIMITS, args->concurrent_requests != NOT_GIVEN, "concurrent-requests"},
        {USES_LIMITS, args->stored_bytes != NULL, "stored-bytes"},
        {USES_PAGE, args->after != 0, "after"},
        {USES_PAGE, args->limit != 0, "limit"},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (options[i].given && (options[i].use & uses) == 0)
            return options[i].name;
    return NULL;
}

static int run_action(const char *program, size_t index, struct keys_args *args)
{
    sora_access *access = NULL;
    struct sora_error err;
    if (actions[index].needs_id && args->id == NULL)
        return cli_usage(program, "%s needs the id of a key, which list shows", args->action);
    if (!actions[index].needs_id && args->id != NULL)
        return cli_usage(program, "unexpected argument \"%s\"", args->id);
    if (actions[index].needs_tenant && args->tenant == NULL)
        return cli_usage(program, "%s needs --tenant T", args->action);
    const char *unused = find_unused(args, actions[index].uses);
    if (unused != NULL)
        return cli_usage(program, "%s has no use for --%s", args->action, unused);
    if (args->scopes == 0)
        args->scopes = SORA_SCOPE_INFER;
    if (args->limit == 0)
        args->limit = AUDIT_DEFAULT;
    bool create = actions[index].creates;
    sora_status status = args->catalog != NULL
                             ? sora_access_open_shared(args->catalog, create, &access, &err)
                             : sora_access_open(args->store, create, &access, &err);
    if (status == SORA_OK)
        status = actions[index].run(args, access, &err);
    sora_access_close(access);
    return status == SORA_OK ? CLI_GOOD : cli_fail(program, &err);
}

int cmd_keys(int argc, char **argv)
{
    struct keys_args args = {.store = "sora-store",
                             .requests_per_minute = NOT_GIVEN,
                             .tokens_per_minute = NOT_GIVEN,
                             .concurrent_requests = NOT_GIVEN};
    const char *names[ACTION_COUNT];
    struct sora_error err;
    int exit_code = CLI_GOOD;
    if (!cli_parse(&keys_command, argc, argv, &args, &exit_code))
        return exit_code;
    for (int32_t i = 0; i < args.scope.count; i++)
        if (sora_scopes_parse(args.scope.items[i], &args.scopes, &err) != SORA_OK)
            return cli_usage(argv[0], "--%s", err.text);
    for (size_t i = 0; i < ACTION_COUNT; i++) {
        names[i] = actions[i].name;
        if (strcmp(args.action, names[i]) == 0)
            return run_action(argv[0], i, &args);
    }
    return cli_usage(argv[0], "unknown action \"%s\"; did you mean %s?", args.action,
                     cli_nearest(args.action, names, (int32_t)ACTION_COUNT));
}

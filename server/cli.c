// SPDX-License-Identifier: Apache-2.0
// Options are walked here and not by argp_parse, which neither suggests a name nor lets its caller
// choose the exit code; argp formats the help.
#include "server/cli.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLI_OPTION_COUNT_MAX 64 // the longest table has half of that
#define CLI_WORD_BYTES_MAX 64   // longer words are compared by their beginning

int cli_fail(const char *program, const struct sora_error *err)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", program, err->text);
    return CLI_FAILED;
}

int cli_usage(const char *program, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "%s: ", program);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry '%s --help'.\n", program);
    return CLI_USAGE;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

// Edits (insert, delete, replace, swap two neighbours) from a to b: optimal string alignment.
static size_t edit_distance(const char *a, const char *b)
{
    size_t a_bytes = strnlen(a, CLI_WORD_BYTES_MAX), b_bytes = strnlen(b, CLI_WORD_BYTES_MAX);
    size_t rows[3][CLI_WORD_BYTES_MAX + 1];
    for (size_t j = 0; j <= b_bytes; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        size_t *now = rows[i % 3], *up = rows[(i - 1) % 3], *up2 = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            now[j] = min3(up[j] + 1, now[j - 1] + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                up2[j - 2] + 1 < now[j])
                now[j] = up2[j - 2] + 1;
        }
    }
    return rows[a_bytes % 3][b_bytes];
}

const char *cli_nearest(const char *word, const char *const *names, int32_t count)
{
    const char *nearest = NULL;
    size_t least = SIZE_MAX;
    for (int32_t i = 0; i < count; i++) {
        bool begins = strlen(word) >= 2 && strncmp(names[i], word, strlen(word)) == 0;
        size_t distance = begins ? 1 : edit_distance(word, names[i]);
        if (distance < least) {
            least = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

bool cli_parse_size(const char *text, size_t *bytes)
{
    static const char units[] = "kmgt";
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9')
        return false;
    double value = strtod(text, &end);
    if (*end != '\0') {
        const char *unit = strchr(units, *end | 0x20);
        if (unit != NULL && *unit != '\0') {
            value = ldexp(value, 10 * (int)(unit - units + 1));
            end++;
            if (end[0] == 'i' && end[1] == 'B')
                end++;
        }
        if (*end == 'B')
            end++;
    }
    // 2^63 is far beyond any machine and exact as a double.
    if (*end != '\0' || !(value >= 0) || value >= 9223372036854775808.0)
        return false;
    *bytes = (size_t)value;
    return true;
}

static bool parse_double(const char *text, double *value)
{
    char *end = NULL;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*value);
}

static bool has_bounds(const struct cli_option *option)
{
    return option->min != 0 || option->max != 0;
}

static bool within(const struct cli_option *option, double value)
{
    return !has_bounds(option) || (value >= option->min && value <= option->max);
}

// Index of `text` among the words of "one|two|three", or -1.
static int choice_index(const char *choices, const char *text)
{
    size_t bytes = strlen(text);
    int index = 0;
    for (const char *word = choices; word != NULL; index++) {
        size_t word_bytes = strcspn(word, "|");
        if (word_bytes == bytes && memcmp(word, text, bytes) == 0)
            return index;
        word = word[word_bytes] == '|' ? word + word_bytes + 1 : NULL;
    }
    return -1;
}

static bool set_integer(const struct cli_option *option, const char *text, void *field)
{
    char *end = NULL;
    errno = 0;
    if (option->kind == CLI_SEED) {
        uint64_t seed = strtoull(text, &end, 10);
        if (end == text || *end != '\0' || errno != 0 || strchr(text, '-') != NULL)
            return false;
        memcpy(field, &seed, sizeof seed);
        return true;
    }
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < INT32_MIN || value > INT32_MAX ||
        !within(option, (double)value))
        return false;
    int32_t narrow = (int32_t)value;
    memcpy(field, &narrow, sizeof narrow);
    return true;
}

// False: the text is no value of this option; the field is as it was.
static bool set_value(const struct cli_option *option, const char *text, void *field)
{
    double number = 0;
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)field = true;
        return true;
    case CLI_TEXT:
    case CLI_POSITIONAL:
        *(const char **)field = text;
        return true;
    case CLI_LIST: {
        struct cli_list *list = field;
        if (list->count == SORA_PRELOAD_COUNT_MAX)
            return false;
        list->items[list->count++] = text;
        return true;
    }
    case CLI_INT:
    case CLI_SEED:
        return set_integer(option, text, field);
    case CLI_SIZE:
        return cli_parse_size(text, field);
    case CLI_CHOICE: {
        int index = choice_index(option->arg, text);
        if (index >= 0)
            memcpy(field, &index, sizeof index);
        return index >= 0;
    }
    case CLI_DOUBLE:
    case CLI_FLOAT:
        if (!parse_double(text, &number) || !within(option, number))
            return false;
        if (option->kind == CLI_DOUBLE)
            *(double *)field = number;
        else
            *(float *)field = (float)number;
        return true;
    case CLI_HEADING:
        break;
    }
    return false;
}

// Why a text is no value of the option.
static void describe_value(const struct cli_option *option, const char *text,
                           struct sora_error *err)
{
    char bounds[80] = "", many[40] = "";
    if (has_bounds(option))
        snprintf(bounds, sizeof bounds, " from %.10g to %.10g", option->min, option->max);
    const char *expected = "a whole number";
    if (option->kind == CLI_CHOICE)
        expected = option->arg;
    else if (option->kind == CLI_SIZE)
        expected = "a size such as 512M or 2G";
    else if (option->kind == CLI_DOUBLE || option->kind == CLI_FLOAT)
        expected = "a number";
    else if (option->kind == CLI_SEED)
        expected = "a whole number from 0 to 18446744073709551615";
    else if (option->kind == CLI_FLAG)
        expected = "true or false";
    else if (option->kind == CLI_LIST) {
        snprintf(many, sizeof many, "it at most %d times", SORA_PRELOAD_COUNT_MAX);
        expected = many;
    }
    (void)sora_fail(err, SORA_MALFORMED, "%s: expected %s%s, got \"%.200s\"", option->name,
                    expected, bounds, text);
}

// What one walk over argv keeps in hand.
struct walk {
    const struct cli_command *command;
    const char *program;
    char *values;
    bool given[CLI_OPTION_COUNT_MAX];
    bool options_ended; // behind "--"
    bool help;
};

static const struct cli_option *find_option(const struct cli_command *command, const char *name,
                                            size_t name_bytes)
{
    for (int32_t i = 0; i < command->option_count; i++) {
        const struct cli_option *option = &command->options[i];
        if (option->kind == CLI_HEADING || option->kind == CLI_POSITIONAL)
            continue;
        if (strlen(option->name) == name_bytes && memcmp(option->name, name, name_bytes) == 0)
            return option;
    }
    return NULL;
}

static const struct cli_option *find_key(const struct cli_command *command, char key)
{
    for (int32_t i = 0; i < command->option_count; i++) {
        if (command->options[i].key == key && key != '\0')
            return &command->options[i];
    }
    return NULL;
}

static const char *nearest_option(const struct cli_command *command, const char *name, bool help)
{
    const char *names[CLI_OPTION_COUNT_MAX + 1] = {"help"};
    int32_t count = help ? 1 : 0;
    for (int32_t i = 0; i < command->option_count; i++) {
        const struct cli_option *option = &command->options[i];
        if (option->kind != CLI_HEADING && option->kind != CLI_POSITIONAL)
            names[count++] = option->name;
    }
    return cli_nearest(name, names, count);
}

// Of the options that begin with a letter the first, or whichever is nearest.
static const char *option_of_letter(const struct cli_command *command, const char *letter)
{
    for (int32_t i = 0; i < command->option_count; i++) {
        const struct cli_option *option = &command->options[i];
        if (option->kind != CLI_HEADING && option->kind != CLI_POSITIONAL &&
            option->name[0] == letter[0])
            return option->name;
    }
    return nearest_option(command, letter, true);
}

static int report_unknown(const struct walk *walk, const char *dashes, const char *word,
                          size_t word_bytes)
{
    char name[CLI_WORD_BYTES_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)word_bytes, word);
    return cli_usage(walk->program, "unknown option %s%s; did you mean --%s?", dashes, name,
                     word_bytes == 1 ? option_of_letter(walk->command, name)
                                     : nearest_option(walk->command, name, true));
}

static int take_positional(struct walk *walk, const char *text)
{
    for (int32_t i = 0; i < walk->command->option_count; i++) {
        const struct cli_option *option = &walk->command->options[i];
        if (option->kind == CLI_POSITIONAL && !walk->given[i]) {
            walk->given[i] = true;
            (void)set_value(option, text, walk->values + option->offset);
            return CLI_GOOD;
        }
    }
    return cli_usage(walk->program, "unexpected argument \"%s\"", text);
}

static int take_option(struct walk *walk, const struct cli_option *option, const char *text)
{
    ptrdiff_t index = option - walk->command->options;
    struct sora_error err;
    if (walk->given[index] && option->kind != CLI_FLAG && option->kind != CLI_LIST)
        return cli_usage(walk->program, "--%s is given twice", option->name);
    walk->given[index] = true;
    if (set_value(option, text, walk->values + option->offset))
        return CLI_GOOD;
    describe_value(option, text, &err);
    return cli_usage(walk->program, "--%s", err.text);
}

// One "--name", "--name=value", "--name value" or "-k"; *i moves over a value that is apart.
static int take_dashed(struct walk *walk, int argc, char **argv, int *i)
{
    const char *word = argv[*i];
    bool is_long = word[1] == '-';
    const char *name = word + 2, *equals = is_long ? strchr(name, '=') : NULL;
    size_t name_bytes = equals != NULL ? (size_t)(equals - name) : strlen(name);
    if (strcmp(word, "-h") == 0 || strcmp(word, "-?") == 0 || strcmp(word, "--help") == 0) {
        walk->help = true;
        return CLI_GOOD;
    }
    const struct cli_option *option = is_long ? find_option(walk->command, name, name_bytes)
                                      : word[2] == '\0' ? find_key(walk->command, word[1])
                                                        : NULL;
    if (option == NULL)
        return is_long ? report_unknown(walk, "--", name, name_bytes)
                       : report_unknown(walk, "-", word + 1, strlen(word + 1));
    if (option->kind == CLI_FLAG)
        return equals == NULL ? take_option(walk, option, NULL)
                              : cli_usage(walk->program, "--%s takes no value", option->name);
    if (equals != NULL)
        return take_option(walk, option, equals + 1);
    if (*i + 1 >= argc)
        return cli_usage(walk->program, "--%s needs a value: --%s %s", option->name, option->name,
                         option->arg);
    *i += 1;
    return take_option(walk, option, argv[*i]);
}

static void print_help(const struct walk *walk)
{
    struct argp_option table[CLI_OPTION_COUNT_MAX + 2];
    char positionals[128] = "";
    int32_t count = 0, group = 0;
    memset(table, 0, sizeof table);
    for (int32_t i = 0; i < walk->command->option_count; i++) {
        const struct cli_option *option = &walk->command->options[i];
        size_t used = strlen(positionals);
        if (option->kind == CLI_POSITIONAL) {
            snprintf(positionals + used, sizeof positionals - used, used > 0 ? " %s" : "%s",
                     option->name);
            continue;
        }
        struct argp_option *row = &table[count++];
        row->doc = option->doc;
        if (option->kind == CLI_HEADING) {
            row->group = ++group;
            continue;
        }
        row->name = option->name;
        row->arg = option->kind == CLI_FLAG ? NULL : option->arg;
        // Codes above the characters are not shown as short options.
        row->key = option->key != '\0' ? option->key : 1000 + i;
        row->group = group;
    }
    table[count] = (struct argp_option){.name = "help", .key = 'h', .doc = "Print this text"};
    table[count].group = -1;
    struct argp argp = {.options = table, .args_doc = positionals, .doc = walk->command->doc};
    char *name = strdup(walk->program);
    // Without argp's remark on short options; what the user set stays.
    (void)setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
    if (name != NULL)
        argp_help(&argp, stdout, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK, name);
    free(name);
}

static int check_required(const struct walk *walk)
{
    for (int32_t i = 0; i < walk->command->option_count; i++) {
        const struct cli_option *option = &walk->command->options[i];
        if (!option->required || walk->given[i])
            continue;
        if (option->kind == CLI_POSITIONAL)
            return cli_usage(walk->program, "%s is missing", option->name);
        return cli_usage(walk->program, "--%s %s is missing", option->name, option->arg);
    }
    return CLI_GOOD;
}

// --- a file of options ---

// "true" sets a flag and "false" leaves it: every flag of ours is off by default.
static bool set_from_file(const struct cli_option *option, const char *text, void *field)
{
    if (option->kind != CLI_FLAG)
        return set_value(option, text, field);
    bool on = strcmp(text, "true") == 0;
    if (on)
        *(bool *)field = true;
    return on || strcmp(text, "false") == 0;
}

// What argv has given stays. `seen`: the options that the file gave already.
static sora_status take_line(const struct walk *walk, const struct cli_option *config,
                             const struct cli_file_line *line, bool *seen, struct sora_error *err)
{
    const struct cli_option *option = find_option(walk->command, line->name, strlen(line->name));
    if (option == NULL)
        return sora_fail(err, SORA_MALFORMED, "unknown option \"%.60s\"; did you mean %s?",
                         line->name, nearest_option(walk->command, line->name, false));
    ptrdiff_t index = option - walk->command->options;
    if (option == config)
        return sora_fail(err, SORA_MALFORMED, "%s: a file of options names no other", line->name);
    if (seen[index] && option->kind != CLI_LIST)
        return sora_fail(err, SORA_MALFORMED, "%s is given twice", line->name);
    seen[index] = true;
    if (walk->given[index] || set_from_file(option, line->value, walk->values + option->offset))
        return SORA_OK;
    describe_value(option, line->value, err);
    return SORA_MALFORMED;
}

static int take_file(struct walk *walk, const char *config_name, struct cli_file *file)
{
    const struct cli_option *config = find_option(walk->command, config_name, strlen(config_name));
    bool seen[CLI_OPTION_COUNT_MAX] = {false};
    struct sora_error err;
    const char *path = *(const char **)(walk->values + config->offset);
    if (path == NULL)
        return CLI_GOOD;
    sora_status status = cli_file_read(path, file, &err);
    bool readable = status == SORA_OK || status == SORA_MALFORMED;
    for (int32_t i = 0; status == SORA_OK && i < file->line_count; i++) {
        status = take_line(walk, config, &file->lines[i], seen, &err);
        if (status != SORA_OK)
            status = sora_fail_within(&err, status, "line %d", (int)file->lines[i].number);
    }
    for (int32_t i = 0; i < walk->command->option_count; i++)
        walk->given[i] = walk->given[i] || seen[i];
    if (status == SORA_OK)
        return CLI_GOOD;
    (void)sora_fail_within(&err, status, "--%s %s", config_name, path);
    return readable ? cli_usage(walk->program, "%s", err.text) : cli_fail(walk->program, &err);
}

bool cli_parse_config(const struct cli_command *command, const char *config, int argc, char **argv,
                      void *values, struct cli_file *file, int *exit_code)
{
    struct walk walk = {.command = command, .program = argv[0], .values = values};
    int result = CLI_GOOD;
    *file = (struct cli_file){.text = NULL};
    for (int i = 1; i < argc && result == CLI_GOOD && !walk.help; i++) {
        const char *word = argv[i];
        if (!walk.options_ended && strcmp(word, "--") == 0)
            walk.options_ended = true;
        else if (!walk.options_ended && word[0] == '-' && word[1] != '\0')
            result = take_dashed(&walk, argc, argv, &i);
        else
            result = take_positional(&walk, word);
    }
    if (result == CLI_GOOD && walk.help)
        print_help(&walk);
    else if (result == CLI_GOOD && config != NULL)
        result = take_file(&walk, config, file);
    if (result == CLI_GOOD && !walk.help)
        result = check_required(&walk);
    *exit_code = result;
    return result == CLI_GOOD && !walk.help;
}

bool cli_parse(const struct cli_command *command, int argc, char **argv, void *values,
               int *exit_code)
{
    struct cli_file none;
    return cli_parse_config(command, NULL, argc, argv, values, &none, exit_code);
}

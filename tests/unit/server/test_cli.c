// SPDX-License-Identifier: Apache-2.0
// The command line's own parts: options from a table, nearest names, sizes, tables, wrapped
// columns and the rank picture. Output goes to memory streams.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "server/cli.h"
#include "server/cli_print.h"
#include "server/cli_report.h"
#include "server/rank_picture.h"
#include "temp_folder.h"

struct values {
    const char *model, *file, *other;
    int32_t rank, method;
    uint64_t seed;
    double rate;
    float scale;
    size_t memory;
    bool quiet;
    struct cli_list names;
    const char *config;
};

#define AT(field) offsetof(struct values, field)

static const struct cli_option options[] = {
    {.kind = CLI_HEADING, .doc = "Heading:"},
    {"FILE", 0, CLI_POSITIONAL, AT(file), "FILE", NULL, 0, 0, true},
    {"OTHER", 0, CLI_POSITIONAL, AT(other), "OTHER", NULL, 0, 0, false},
    {"model", 'm', CLI_TEXT, AT(model), "F", "the model", 0, 0, true},
    {"rank", 0, CLI_INT, AT(rank), "N", "the rank", 1, 64, false},
    {"method", 0, CLI_CHOICE, AT(method), "sora|lora", "the method", 0, 0, false},
    {"seed", 0, CLI_SEED, AT(seed), "N", "the seed", 0, 0, false},
    {"rate", 0, CLI_DOUBLE, AT(rate), "X", "the rate", 0, 1, false},
    {"scale", 0, CLI_FLOAT, AT(scale), "X", "the scale", -2, 2, false},
    {"memory", 0, CLI_SIZE, AT(memory), "SIZE", "the memory", 0, 0, false},
    {"quiet", 'q', CLI_FLAG, AT(quiet), NULL, "no words", 0, 0, false},
    {"name", 0, CLI_LIST, AT(names), "N", "a name", 0, 0, false},
    {"config", 0, CLI_TEXT, AT(config), "F", "a file of options", 0, 0, false},
};

static const struct cli_command command = {
    .doc = "Do a thing.\vAt length.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

// Redirects a stream into memory for one call.
struct capture {
    FILE *saved, *memory;
    char *text;
    size_t bytes;
};

static void capture_begin(struct capture *capture, FILE **stream)
{
    fflush(*stream);
    capture->saved = *stream;
    capture->memory = open_memstream(&capture->text, &capture->bytes);
    assert_non_null(capture->memory);
    *stream = capture->memory;
}

static void capture_end(struct capture *capture, FILE **stream)
{
    *stream = capture->saved;
    fclose(capture->memory);
}

#define ARGS_MAX 12

// Parses a NULL-terminated list; the exit code is in *exit_code, stderr's text in *said.
static bool parse(const char *const *words, struct values *values, int *exit_code, char **said)
{
    char *argv[ARGS_MAX] = {(char *)"sora-server thing"};
    int argc = 1;
    for (; words[argc - 1] != NULL; argc++)
        argv[argc] = (char *)words[argc - 1];
    struct capture capture;
    *exit_code = -1;
    capture_begin(&capture, &stderr);
    bool go_on = cli_parse(&command, argc, argv, values, exit_code);
    capture_end(&capture, &stderr);
    *said = capture.text;
    return go_on;
}

static void every_kind_of_value_is_read(void **state)
{
    (void)state;
    static const char *const words[] = {"in",       "--model=a=b", "--rank",      "8",
                                        "--method", "lora",        "--rate=0.25", "-q",
                                        "--memory", "1.5k",        "--scale=-1"};
    const char *list[ARGS_MAX] = {0};
    memcpy(list, words, sizeof words);
    struct values values = {0};
    char *said = NULL;
    int exit_code;
    assert_true(parse(list, &values, &exit_code, &said));
    assert_int_equal(exit_code, CLI_GOOD);
    assert_string_equal(said, "");
    assert_string_equal(values.file, "in");
    assert_string_equal(values.model, "a=b");
    assert_int_equal(values.rank, 8);
    assert_int_equal(values.method, 1);
    assert_true(values.rate == 0.25);
    assert_true(values.scale == -1.0f);
    assert_int_equal(values.memory, 1536);
    assert_true(values.quiet);
    assert_null(values.other);
    free(said);
}

static void a_seed_has_all_64_bits_and_dashes_end_the_options(void **state)
{
    (void)state;
    static const char *const words[] = {"-m", "x",      "--seed", "18446744073709551615",
                                        "--", "--rank", "-",      NULL};
    struct values values = {0};
    char *said = NULL;
    int exit_code;
    assert_true(parse(words, &values, &exit_code, &said));
    assert_true(values.seed == UINT64_MAX);
    assert_string_equal(values.file, "--rank");
    assert_string_equal(values.other, "-");
    free(said);
}

static void wrong_usage_is_exit_2_and_says_what_would_be_right(void **state)
{
    (void)state;
    static const struct {
        const char *words[5];
        const char *text; // is in what stderr says
    } cases[] = {
        {{"in", "--model", "x", "--rnak=3"}, "unknown option --rnak; did you mean --rank?"},
        {{"in", "--model", "x", "--mem"}, "did you mean --memory?"},
        {{"in", "--model", "x", "-z"}, "unknown option -z; did you mean --"},
        {{"in", "--model", "x", "-r"}, "unknown option -r; did you mean --rank?"},
        {{"in", "--model", "x", "--hlep"}, "did you mean --help?"},
        {{"in", "--model"}, "--model needs a value: --model F"},
        {{"in"}, "--model F is missing"},
        {{"--model", "x"}, "FILE is missing"},
        {{"in", "-mx"}, "unknown option"},
        {{"a", "b", "c"}, "unexpected argument \"c\""},
        {{"in", "--quiet=1"}, "--quiet takes no value"},
        {{"in", "-m", "x", "-m"}, "needs a value"},
        {{"--model=x", "--model=y"}, "--model is given twice"},
        {{"--rank", "0"}, "--rank: expected a whole number from 1 to 64, got \"0\""},
        {{"--rank", "65"}, "from 1 to 64"},
        {{"--rank", "8x"}, "got \"8x\""},
        {{"--rank", ""}, "got \"\""},
        {{"--rank", "99999999999999999999"}, "whole number"},
        {{"--rate", "nan"}, "expected a number from 0 to 1, got \"nan\""},
        {{"--rate", "1.5"}, "from 0 to 1"},
        {{"--method", "sor"}, "expected sora|lora, got \"sor\""},
        {{"--seed", "-1"}, "--seed"},
        {{"--memory", "2X"}, "a size such as 512M or 2G"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct values values = {0};
        char *said = NULL;
        int exit_code;
        assert_false(parse(cases[i].words, &values, &exit_code, &said));
        assert_int_equal(exit_code, CLI_USAGE);
        if (strstr(said, cases[i].text) == NULL)
            fail_msg("case %zu: expected \"%s\" in \"%s\"", i, cases[i].text, said);
        assert_non_null(strstr(said, "sora-server thing: "));
        assert_non_null(strstr(said, "Try 'sora-server thing --help'."));
        free(said);
    }
}

static void help_is_printed_to_stdout_and_ends_well(void **state)
{
    (void)state;
    static const char *const words[] = {"--help", NULL};
    struct values values = {0};
    struct capture capture;
    char *said = NULL;
    int exit_code;
    capture_begin(&capture, &stdout);
    bool go_on = parse(words, &values, &exit_code, &said);
    capture_end(&capture, &stdout);
    assert_false(go_on);
    assert_int_equal(exit_code, CLI_GOOD);
    assert_string_equal(said, "");
    static const char *const parts[] = {
        "Usage: sora-server thing", "FILE OTHER", "Do a thing.", "--rank=N", "the rank",
        "--method=sora|lora",       "At length.", "-q, --quiet", "--help"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(capture.text, parts[i]) == NULL)
            fail_msg("\"%s\" is not in the help:\n%s", parts[i], capture.text);
    }
    free(capture.text);
    free(said);
}

static void the_nearest_name_is_the_one_meant(void **state)
{
    (void)state;
    static const char *const names[] = {"serve",    "train",   "eval",
                                        "complete", "inspect", "max-tokens"};
    static const struct {
        const char *word, *nearest;
    } cases[] = {
        {"srve", "serve"},     {"trian", "train"},     {"comp", "complete"}, {"evla", "eval"},
        {"max", "max-tokens"}, {"inspekt", "inspect"}, {"serve", "serve"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(cli_nearest(cases[i].word, names, 6), cases[i].nearest);
    assert_null(cli_nearest("x", names, 0));
    char longest[1000];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_non_null(cli_nearest(longest, names, 6));
}

static void sizes_are_powers_of_1024(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {
        {"0", 0},       {"4096", 4096},     {"2G", (size_t)2 << 30}, {"512m", 512u << 20},
        {"1.5K", 1536}, {"3MiB", 3u << 20}, {"7kB", 7168},           {"1T", (size_t)1 << 40},
        {"9B", 9}};
    static const char *const bad[] = {"",     "G",   "-1",  "2X",  "2GG",
                                      "1e30", "2 G", "nan", "inf", "2Gi"};
    size_t bytes = 77;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!cli_parse_size(good[i].text, &bytes))
            fail_msg("\"%s\" was refused", good[i].text);
        assert_int_equal(bytes, good[i].bytes);
    }
    bytes = 77;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (cli_parse_size(bad[i], &bytes))
            fail_msg("\"%s\" was taken", bad[i]);
    }
    assert_int_equal(bytes, 77);
}

static void numbers_are_written_for_people(void **state)
{
    (void)state;
    char out[32];
    assert_string_equal(cli_print_count(out, 0), "0");
    assert_string_equal(cli_print_count(out, 1234567), "1,234,567");
    assert_string_equal(cli_print_count(out, -100000), "-100,000");
    assert_string_equal(cli_print_bytes(out, 999), "999 B");
    assert_string_equal(cli_print_bytes(out, 94200000), "94.2 MB");
    assert_string_equal(cli_print_seconds(out, 59.2), "59 s");
    assert_string_equal(cli_print_seconds(out, 65), "1:05");
    assert_string_equal(cli_print_seconds(out, 7389), "2:03:09");
}

static char *print_table(uint32_t right_columns)
{
    struct cli_table table;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    cli_table_init(&table, 2, right_columns);
    cli_table_add(&table, "caf\xC3\xA9");
    cli_table_add(&table, "%d", 7);
    cli_table_add(&table, "x");
    cli_table_add(&table, "%d", 1234);
    cli_table_print(&table, out);
    cli_table_deinit(&table);
    fclose(out);
    return text;
}

static void a_table_is_as_wide_as_its_cells(void **state)
{
    (void)state;
    char *left = print_table(0), *right = print_table(1u << 1);
    assert_string_equal(left, "caf\xC3\xA9  7\nx     1234\n");
    assert_string_equal(right, "caf\xC3\xA9     7\nx     1234\n");
    free(left);
    free(right);
}

static void two_texts_are_wrapped_at_words_side_by_side(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    cli_print_beside(out, 23, "base", "one two three\nfour", "adapted", "abcdefghijklmno p\n\nq");
    fclose(out);
    assert_string_equal(text, "base       | adapted\n"
                              "-----------+-----------\n"
                              "one two    | abcdefghij\n"
                              "three      | klmno p\n"
                              "four       | \n"
                              "           | q\n");
    free(text);
}

static void progress_is_lines_in_a_log_and_nothing_when_quiet(void **state)
{
    (void)state;
    for (int quiet = 0; quiet < 2; quiet++) {
        struct capture capture;
        struct cli_progress progress;
        capture_begin(&capture, &stderr);
        cli_progress_init(&progress, quiet == 1);
        cli_progress_show(&progress, 1, 4, "loss 2.5");
        cli_progress_show(&progress, 2, 4, "too soon for a line");
        cli_progress_show(&progress, 4, 4, "loss 1.5");
        cli_progress_clear(&progress);
        capture_end(&capture, &stderr);
        if (quiet == 1)
            assert_string_equal(capture.text, "");
        else
            assert_string_equal(capture.text, " 25%  1/4  loss 2.5  0 s left\n"
                                              "100%  4/4  loss 1.5  0 s left\n");
        free(capture.text);
    }
}

static char *draw_ranks(const struct sora_adapter_info *info, int32_t width, bool shaded)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    rank_picture_print(out, info, width, shaded);
    fclose(out);
    return text;
}

static void the_rank_picture_shows_each_module_of_each_layer(void **state)
{
    (void)state;
    static const struct sora_adapter_module modules[] = {
        {0, SORA_PROJ_Q, 3, 6, 2}, {0, SORA_PROJ_DOWN, 16, 32, 2}, {2, SORA_PROJ_Q, 11, 22, 2}};
    struct sora_adapter_info info = {
        .modules = modules, .module_count = 3, .layer_count = 3, .r_max = 16, .rank_max = 16};
    char *text = draw_ranks(&info, 100, false);
    assert_string_equal(text,
                        "rank of each module by layer (. is 0, a is 10, b is 11; 16 in full)\n"
                        "layer 012\n"
                        "q     3.b      14   29% ###-------\n"
                        "k     ...       0    0% ----------\n"
                        "v     ...       0    0% ----------\n"
                        "o     ...       0    0% ----------\n"
                        "gate  ...       0    0% ----------\n"
                        "up    ...       0    0% ----------\n"
                        "down  g..      16   33% ###-------\n"
                        "sum   1 1\n"
                        "      901\n");
    free(text);
    text = draw_ranks(&info, 100, true);
    assert_non_null(strstr(text, "\033["));
    free(text);
}

static void layers_that_do_not_fit_go_below(void **state)
{
    (void)state;
    static const struct sora_adapter_module modules[] = {{25, SORA_PROJ_K, 40, 40, 1}};
    struct sora_adapter_info info = {
        .modules = modules, .module_count = 1, .layer_count = 30, .r_max = 8, .rank_max = 40};
    char *text = draw_ranks(&info, 60, false);
    // The 24 that fit, then layers 24 to 29 with the totals.
    assert_non_null(strstr(text, "\nlayer 222222\n"));
    assert_non_null(strstr(text, "\nk     .+....  "));
    free(text);
    assert_int_equal(rank_picture_digit(0), '.');
    assert_int_equal(rank_picture_digit(35), 'z');
    assert_int_equal(rank_picture_digit(36), '+');
}

static void an_evaluation_prints_only_what_the_data_allowed(void **state)
{
    (void)state;
    struct sora_eval_result result = {
        .examples = 2, .tokens = 5, .loss = 0.5, .perplexity = 1.25, .seconds = 3};
    struct buf out;
    buf_init(&out, 4096);
    cli_report_eval_json(&out, &result);
    assert_string_equal(
        out.data, "{\"examples\":2,\"tokens\":5,\"loss\":0.5,\"perplexity\":1.25,\"seconds\":3}");
    buf_clear(&out);
    result.has_accuracy = result.has_exact_match = true;
    result.accuracy = 0.75;
    result.mcc = __builtin_nan("");
    result.rouge_l = 0.5;
    result.bleu = 0.25;
    cli_report_eval_json(&out, &result);
    assert_string_equal(out.data, "{\"examples\":2,\"tokens\":5,\"loss\":0.5,\"perplexity\":1.25,"
                                  "\"accuracy\":0.75,\"exact_match\":0,\"rouge_l\":0.5,"
                                  "\"bleu\":0.25,\"seconds\":3}");
    buf_deinit(&out);
}

static void a_list_takes_an_option_many_times(void **state)
{
    (void)state;
    static const char *const words[] = {"in", "-mx", NULL};
    static const char *const twice[] = {"in", "--model=x", "--name=a", "--name", "b=c", NULL};
    struct values values = {0};
    char *said = NULL, *argv[SORA_PRELOAD_COUNT_MAX + 4];
    int exit_code;
    assert_false(parse(words, &values, &exit_code, &said)); // not "-m x": no short form with "x"
    free(said);
    assert_true(parse(twice, &values, &exit_code, &said));
    assert_int_equal(values.names.count, 2);
    assert_string_equal(values.names.items[0], "a");
    assert_string_equal(values.names.items[1], "b=c");
    free(said);
    values = (struct values){0};
    argv[0] = (char *)"sora-server thing";
    for (int i = 1; i < SORA_PRELOAD_COUNT_MAX + 2; i++)
        argv[i] = (char *)"--name=a";
    struct capture capture;
    capture_begin(&capture, &stderr);
    assert_false(
        cli_parse(&command, SORA_PRELOAD_COUNT_MAX + 2, argv, &values, &exit_code)); // one too many
    capture_end(&capture, &stderr);
    assert_int_equal(exit_code, CLI_USAGE);
    assert_non_null(strstr(capture.text, "--name: expected it at most 256 times"));
    free(capture.text);
}

// Parses "thing in --model=argv --config=FILE" with this text in FILE.
static bool parse_file(const char *text, struct values *values, struct cli_file *file,
                       int *exit_code, char **said)
{
    struct sora_error err;
    char *folder = temp_folder_create(), *path = file_join(folder, "options");
    char config[256];
    assert_int_equal(file_write_atomic(path, text, strlen(text), &err), SORA_OK);
    snprintf(config, sizeof config, "--config=%s", path);
    char *argv[] = {(char *)"sora-server thing", (char *)"in", (char *)"--model=argv", config};
    struct capture capture;
    *values = (struct values){.rank = 1};
    capture_begin(&capture, &stderr);
    bool go_on = cli_parse_config(&command, "config", 4, argv, values, file, exit_code);
    capture_end(&capture, &stderr);
    *said = capture.text;
    free(path);
    temp_folder_remove(folder);
    return go_on;
}

static void a_file_of_options_yields_to_the_command_line(void **state)
{
    (void)state;
    struct values values;
    struct cli_file file;
    char *said = NULL;
    int exit_code;
    assert_true(parse_file("# of ours\n\n model = file \r\nrank=7\nquiet = true\nname = a # b\n"
                           "memory = 2k\nname=c=d",
                           &values, &file, &exit_code, &said));
    assert_string_equal(values.model, "argv");
    assert_int_equal(values.rank, 7);
    assert_true(values.quiet);
    assert_int_equal(values.memory, 2048);
    assert_int_equal(values.names.count, 2);
    assert_string_equal(values.names.items[0], "a # b");
    assert_string_equal(values.names.items[1], "c=d");
    cli_file_free(&file);
    free(said);
    assert_true(parse_file("quiet = false\n", &values, &file, &exit_code, &said));
    assert_false(values.quiet);
    cli_file_free(&file);
    free(said);
}

static void a_bad_line_of_options_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"\nrnak = 1", "line 2: unknown option \"rnak\"; did you mean rank?"},
        {"rank = 65", "line 1: rank: expected a whole number from 1 to 64, got \"65\""},
        {"rank = 1\nrank = 1", "line 2: rank is given twice"},
        {"quiet = 1", "quiet: expected true or false"},
        {"FILE = x", "unknown option"},
        {"config = x", "names no other"},
        {"rank", "expected name = value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct values values;
        struct cli_file file;
        char *said = NULL;
        int exit_code;
        assert_false(parse_file(cases[i].text, &values, &file, &exit_code, &said));
        assert_int_equal(exit_code, CLI_USAGE);
        if (strstr(said, cases[i].part) == NULL)
            fail_msg("%s", said);
        cli_file_free(&file);
        free(said);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(a_seed_has_all_64_bits_and_dashes_end_the_options),
        cmocka_unit_test(wrong_usage_is_exit_2_and_says_what_would_be_right),
        cmocka_unit_test(help_is_printed_to_stdout_and_ends_well),
        cmocka_unit_test(the_nearest_name_is_the_one_meant),
        cmocka_unit_test(sizes_are_powers_of_1024),
        cmocka_unit_test(numbers_are_written_for_people),
        cmocka_unit_test(a_table_is_as_wide_as_its_cells),
        cmocka_unit_test(two_texts_are_wrapped_at_words_side_by_side),
        cmocka_unit_test(progress_is_lines_in_a_log_and_nothing_when_quiet),
        cmocka_unit_test(the_rank_picture_shows_each_module_of_each_layer),
        cmocka_unit_test(layers_that_do_not_fit_go_below),
        cmocka_unit_test(an_evaluation_prints_only_what_the_data_allowed),
        cmocka_unit_test(a_list_takes_an_option_many_times),
        cmocka_unit_test(a_file_of_options_yields_to_the_command_line),
        cmocka_unit_test(a_bad_line_of_options_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

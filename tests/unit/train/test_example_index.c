// SPDX-License-Identifier: Apache-2.0
// Data that is read again for every step: the examples are those of the whole file read at once,
// in any order; lines that change meanwhile, longer lines than the window, cutting.
#include "byte_tokenizer.h"

#include <stdio.h>
#include <unistd.h>

#include "base/sha256.h"
#include "train/example_index.h"

static char *folder;
static sora_tokenizer *tokenizer;

static int set_up(void **state)
{
    (void)state;
    folder = temp_folder_create();
    tokenizer = byte_tokenizer_open(folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sora_tokenizer_close(tokenizer);
    temp_folder_remove(folder);
    return 0;
}

static const char mixed[] =
    "{\"prompt\":\"Q:\",\"completion\":\" a\"}\n"
    "\n"
    "{\"text\":\"abcdef\"}\r\n"
    "  \t\n"
    "{\"tokens\":[1,2,3,4],\"loss_from\":2}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"h\"},"
    "{\"role\":\"assistant\",\"content\":\"yo\"}]}"; // no newline at the end

static sora_status open_index(const char *text, int32_t tokens_max, bool cut,
                              struct example_index *index, struct sora_error *err)
{
    const struct dataset_rules rules = {
        .tokenizer = tokenizer, .vocab_size = 320, .example_tokens_max = tokens_max, .cut = cut};
    char *path = write_file(folder, "d.jsonl", text);
    const sora_status status = example_index_open(path, &rules, index, err);
    free(path);
    return status;
}

static void examples_are_loaded_in_any_order(void **state)
{
    (void)state;
    struct example_index index;
    struct dataset whole;
    struct sora_error err;
    char digest[65];
    const struct dataset_rules rules = {
        .tokenizer = tokenizer, .vocab_size = 320, .example_tokens_max = 100};
    assert_int_equal(open_index(mixed, 100, false, &index, &err), SORA_OK);
    assert_int_equal(dataset_parse("d", mixed, strlen(mixed), &rules, &whole, &err), SORA_OK);
    assert_int_equal(index.example_count, 4);
    assert_int_equal(index.token_count, whole.token_count);
    assert_int_equal(index.longest, whole.longest);
    assert_int_equal(index.entries[2].line, 5);
    assert_int_equal(sha256_of(mixed, strlen(mixed), digest, &err), SORA_OK);
    assert_string_equal(index.digest, digest);
    const int32_t order[] = {3, 0, 2, 2, 1};
    assert_int_equal(example_index_load(&index, order, 5, &err), SORA_OK);
    assert_int_equal(index.window.example_count, 5);
    for (int32_t i = 0; i < 5; i++) {
        const struct dataset_example *ours = &index.window.examples[i];
        const struct dataset_example *want = &whole.examples[order[i]];
        assert_int_equal(ours->token_count, want->token_count);
        assert_int_equal(ours->scored_count, want->scored_count);
        assert_memory_equal(index.window.tokens + ours->first, whole.tokens + want->first,
                            (size_t)want->token_count * sizeof(int32_t));
        assert_memory_equal(index.window.scored + ours->first, whole.scored + want->first,
                            (size_t)want->token_count);
    }
    dataset_close(&whole);
    example_index_close(&index);
}

static void lines_may_be_longer_than_what_is_read_at_once(void **state)
{
    (void)state;
    enum { FILLER = 1 << 20 };
    static const char head[] = "{\"tokens\":[7,8],\"note\":\"",
                      tail[] = "\"}\n{\"tokens\":[1,2]}\n";
    struct example_index index;
    struct sora_error err;
    struct buf text;
    buf_init(&text, 16 << 20);
    for (int32_t filler = FILLER; text.bytes < 12 << 20; filler += FILLER / 2) {
        buf_text(&text, head);
        for (int32_t i = 0; i < filler; i++)
            buf_append(&text, "x", 1);
        buf_text(&text, tail);
    }
    assert_int_equal(open_index(text.data, 10, false, &index, &err), SORA_OK);
    assert_true(index.example_count >= 8 && index.example_count % 2 == 0);
    for (int32_t i = 0; i < index.example_count; i++) {
        assert_int_equal(example_index_load(&index, &i, 1, &err), SORA_OK);
        assert_int_equal(index.window.tokens[0], i % 2 == 0 ? 7 : 1);
    }
    example_index_close(&index);
    buf_clear(&text);
    buf_text(&text, "{\"tokens\":[1,2]}\n{\"text\":\"");
    for (int32_t i = 0; i < 5 << 20; i++)
        buf_append(&text, "x", 1);
    buf_text(&text, tail);
    assert_int_equal(open_index(text.data, 10, false, &index, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "d.jsonl line 2"));
    buf_deinit(&text);
}

static void a_file_that_changes_meanwhile_is_an_error(void **state)
{
    (void)state;
    struct example_index index;
    struct sora_error err;
    const int32_t last = 3;
    assert_int_equal(open_index(mixed, 100, false, &index, &err), SORA_OK);
    char *path = file_join(folder, "d.jsonl");
    assert_int_equal(truncate(path, (off_t)strlen(mixed) - 10), 0);
    assert_int_equal(example_index_load(&index, &last, 1, &err), SORA_IO);
    assert_non_null(strstr(err.text, "d.jsonl line 6 changed"));
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_true(fputs("{\"prompt\":\"QQ\",\"completion\":\"aa\"}", file) >= 0);
    assert_int_equal(fclose(file), 0);
    const int32_t first = 0;
    assert_int_equal(example_index_load(&index, &first, 1, &err), SORA_IO);
    free(path);
    example_index_close(&index);
}

static void long_examples_are_cut_only_when_told_to(void **state)
{
    (void)state;
    struct example_index index;
    struct sora_error err;
    assert_int_equal(open_index(mixed, 5, false, &index, &err), SORA_LIMIT);
    assert_non_null(strstr(err.text, "d.jsonl line 3"));
    assert_int_equal(
        open_index("{\"text\":\"abcdef\"}\n{\"tokens\":[1,2,3]}\n", 5, true, &index, &err),
        SORA_OK);
    assert_int_equal(index.cut_count, 1);
    assert_int_equal(index.longest, 5);
    assert_int_equal(index.entries[0].scored_count, 4);
    example_index_close(&index);
    // A cut that leaves nothing to learn is still an error.
    assert_int_equal(
        open_index("{\"prompt\":\"a long prompt\",\"completion\":\"x\"}\n", 5, true, &index, &err),
        SORA_MALFORMED);
    assert_non_null(strstr(err.text, "line 1"));
    assert_non_null(strstr(err.text, "after the cut"));
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    struct example_index index;
    struct sora_error err;
    const struct dataset_rules rules = {.vocab_size = 320, .example_tokens_max = 10};
    assert_int_equal(example_index_open(folder, &rules, &index, &err), SORA_IO);
    assert_non_null(strstr(err.text, folder));
    assert_int_equal(example_index_open("/no/such/file", &rules, &index, &err), SORA_NOT_FOUND);
    assert_int_equal(open_index("\n \n", 10, false, &index, &err), SORA_MALFORMED);
    assert_non_null(strstr(err.text, "no examples"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(examples_are_loaded_in_any_order),
        cmocka_unit_test(lines_may_be_longer_than_what_is_read_at_once),
        cmocka_unit_test(a_file_that_changes_meanwhile_is_an_error),
        cmocka_unit_test(long_examples_are_cut_only_when_told_to),
        cmocka_unit_test(what_cannot_be_read_is_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

// SPDX-License-Identifier: Apache-2.0
// The GGUF parser: files built here byte by byte, whole and damaged, and the default model.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/gguf.h"
#include "edge_page.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

static void put_u32(struct buf *out, uint32_t value)
{
    buf_append(out, &value, sizeof value); // tests run on little-endian machines
}

static void put_u64(struct buf *out, uint64_t value)
{
    buf_append(out, &value, sizeof value);
}

static void put_string(struct buf *out, const char *text)
{
    put_u64(out, strlen(text));
    buf_text(out, text);
}

static void put_header(struct buf *out, uint64_t tensors, uint64_t kvs)
{
    buf_init(out, 1 << 20);
    buf_text(out, "GGUF");
    put_u32(out, 3);
    put_u64(out, tensors);
    put_u64(out, kvs);
}

static void put_key(struct buf *out, const char *key, uint32_t type)
{
    put_string(out, key);
    put_u32(out, type);
}

static void put_int_key(struct buf *out, const char *key, uint32_t value)
{
    put_key(out, key, U32);
    put_u32(out, value);
}

static void put_tensor(struct buf *out, const char *name, uint32_t type, uint64_t columns,
                       uint64_t rows, uint64_t offset)
{
    put_string(out, name);
    put_u32(out, 2);
    put_u64(out, columns);
    put_u64(out, rows);
    put_u32(out, type);
    put_u64(out, offset);
}

static void put_data(struct buf *out, size_t alignment, size_t bytes)
{
    while (out->bytes % alignment != 0)
        buf_append(out, "", 1);
    for (size_t i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)i;
        buf_append(out, &byte, 1);
    }
}

// Parses a copy that ends at an unmapped page.
static sora_status parse(const struct buf *file, struct edge_page *page, struct gguf **gguf,
                         struct sora_error *err)
{
    edge_page_copy(page, file->data, file->bytes);
    return gguf_parse(page->data, page->bytes, gguf, err);
}

static void expect_refused(struct buf *file, sora_status wanted, const char *text)
{
    struct sora_error err = {0};
    struct edge_page page;
    struct gguf *gguf;
    sora_status status = parse(file, &page, &gguf, &err);
    if (status != wanted || strstr(err.text, text) == NULL)
        fail_msg("status %d instead of %d, \"%s\" not in: %s", status, wanted, text, err.text);
    assert_null(gguf);
    edge_page_deinit(&page);
    buf_deinit(file);
}

// A file with a value of every kind and two tensors.
static void put_whole(struct buf *out)
{
    put_header(out, 2, 8);
    put_int_key(out, "general.alignment", 64);
    put_key(out, "negative", I8);
    buf_append(out, "\xfe", 1);
    put_key(out, "large", U64);
    put_u64(out, UINT64_MAX);
    put_key(out, "half", F64);
    double half = 0.5;
    buf_append(out, &half, 8);
    put_key(out, "yes", BOOL);
    buf_append(out, "\1", 1);
    put_key(out, "name", STRING);
    put_string(out, "tiny");
    put_key(out, "words", ARRAY);
    put_u32(out, STRING);
    put_u64(out, 2);
    put_string(out, "one");
    put_string(out, "");
    put_key(out, "numbers", ARRAY);
    put_u32(out, I32);
    put_u64(out, 2);
    put_u32(out, 7);
    put_u32(out, (uint32_t)-7);
    put_tensor(out, "q4", 2, 32, 2, 0);
    put_tensor(out, "f32", 0, 3, 2, 64);
    put_data(out, 64, 64 + 24);
}

static void a_whole_file_gives_its_values_and_tensors(void **state)
{
    (void)state;
    struct buf file;
    struct edge_page page;
    struct sora_error err = {0};
    struct gguf *gguf;
    put_whole(&file);
    if (parse(&file, &page, &gguf, &err) != SORA_OK)
        fail_msg("%s", err.text);
    int64_t number = 0;
    double real;
    bool yes = false;
    struct gguf_string name, words[2];
    int32_t numbers[2];
    assert_true(gguf_get_int(gguf, "negative", &number));
    assert_int_equal(number, -2);
    assert_false(gguf_get_int(gguf, "large", &number)); // does not fit
    assert_false(gguf_get_int(gguf, "half", &number));
    assert_false(gguf_get_int(gguf, "missing", &number));
    assert_true(gguf_get_number(gguf, "half", &real) && real == 0.5);
    assert_true(gguf_get_number(gguf, "negative", &real) && real == -2);
    assert_false(gguf_get_number(gguf, "name", &real));
    assert_true(gguf_get_bool(gguf, "yes", &yes) && yes);
    assert_false(gguf_get_bool(gguf, "negative", &yes));
    assert_true(gguf_get_string(gguf, "name", &name));
    assert_int_equal(name.bytes, 4);
    assert_memory_equal(name.data, "tiny", 4);
    assert_false(gguf_get_string(gguf, "yes", &name));
    assert_int_equal(gguf_get_strings(gguf, "words"), 2);
    gguf_copy_strings(gguf, "words", words);
    assert_memory_equal(words[0].data, "one", 3);
    assert_int_equal(words[1].bytes, 0);
    assert_int_equal(gguf_get_strings(gguf, "numbers"), -1);
    assert_int_equal(gguf_get_ints(gguf, "words"), -1);
    assert_int_equal(gguf_get_ints(gguf, "numbers"), 2);
    gguf_copy_ints(gguf, "numbers", numbers);
    assert_int_equal(numbers[1], -7);
    assert_int_equal(gguf_tensor_count(gguf), 2);
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, "f32");
    assert_ptr_equal(tensor, gguf_tensor_at(gguf, 1));
    assert_int_equal(tensor->bytes, 24);
    assert_int_equal(tensor->data[0], 64);
    assert_int_equal(tensor->shape[0], 3);
    assert_int_equal(gguf_find_tensor(gguf, "q4")->bytes, 36);
    assert_null(gguf_find_tensor(gguf, "f3"));
    assert_null(gguf_find_tensor(gguf, "f322"));
    gguf_forget_tensor(gguf, tensor); // nothing to forget
    gguf_close(gguf);
    edge_page_deinit(&page);
    buf_deinit(&file);
}

static void every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    struct buf file;
    put_whole(&file);
    for (size_t bytes = 0; bytes < file.bytes; bytes++) {
        struct sora_error err = {0};
        struct edge_page page;
        struct gguf *gguf;
        struct buf cut = file;
        cut.bytes = bytes;
        if (bytes == 0) {
            assert_int_equal(gguf_parse(NULL, 0, &gguf, &err), SORA_MALFORMED);
            continue;
        }
        assert_int_not_equal(parse(&cut, &page, &gguf, &err), SORA_OK);
        edge_page_deinit(&page);
    }
    buf_deinit(&file);
}

static void every_changed_byte_is_refused_or_read_safely(void **state)
{
    (void)state;
    struct buf file;
    put_whole(&file);
    for (size_t at = 0; at < file.bytes; at++) {
        for (int bit = 0; bit < 8; bit++) {
            struct sora_error err = {0};
            struct edge_page page;
            struct gguf *gguf;
            file.data[at] ^= (char)(1 << bit);
            if (parse(&file, &page, &gguf, &err) == SORA_OK)
                gguf_close(gguf);
            edge_page_deinit(&page);
            file.data[at] ^= (char)(1 << bit);
        }
    }
    buf_deinit(&file);
}

static void a_foreign_header_is_refused(void **state)
{
    (void)state;
    struct buf file;
    put_header(&file, 0, 0);
    file.data[0] = 'X';
    expect_refused(&file, SORA_MALFORMED, "GGUF");
    put_header(&file, 0, 0);
    file.data[4] = 1;
    expect_refused(&file, SORA_UNSUPPORTED, "version 1");
    put_header(&file, 1 << 20, 0);
    expect_refused(&file, SORA_LIMIT, "1048576 tensors");
    put_header(&file, 0, 1 << 20);
    expect_refused(&file, SORA_LIMIT, "1048576 metadata keys");
    put_header(&file, 1000, 0);
    expect_refused(&file, SORA_MALFORMED, "1000 tensors do not fit");
    put_header(&file, 0, 1000);
    expect_refused(&file, SORA_MALFORMED, "1000 metadata keys do not fit");
}

static void keys_may_not_repeat_and_types_must_be_known(void **state)
{
    (void)state;
    struct buf file;
    put_header(&file, 0, 2);
    put_int_key(&file, "twice", 1);
    put_int_key(&file, "twice", 1);
    expect_refused(&file, SORA_MALFORMED, "key twice appears twice");
    put_header(&file, 0, 1);
    put_key(&file, "odd", 13);
    put_u64(&file, 0);
    expect_refused(&file, SORA_MALFORMED, "key odd: unknown value type 13");
    put_header(&file, 0, 1);
    put_key(&file, "maybe", BOOL);
    buf_append(&file, "\2\0\0\0", 4);
    expect_refused(&file, SORA_MALFORMED, "key maybe: bool with value 2");
}

static void arrays_are_bounded_in_count_and_depth(void **state)
{
    (void)state;
    struct buf file;
    put_header(&file, 0, 1);
    put_key(&file, "deep", ARRAY);
    for (int depth = 0; depth < 1000; depth++) {
        put_u32(&file, ARRAY);
        put_u64(&file, 1);
    }
    expect_refused(&file, SORA_LIMIT, "key deep: arrays nest deeper than 4");
    put_header(&file, 0, 1);
    put_key(&file, "long", ARRAY);
    put_u32(&file, U8);
    put_u64(&file, UINT64_MAX);
    expect_refused(&file, SORA_LIMIT, "18446744073709551615 items");
    put_header(&file, 0, 1);
    put_key(&file, "cut", ARRAY);
    put_u32(&file, U64);
    put_u64(&file, 1000);
    expect_refused(&file, SORA_MALFORMED, "key cut");
    put_header(&file, 0, 1);
    put_key(&file, "odd", ARRAY);
    put_u32(&file, 99);
    put_u64(&file, 0);
    expect_refused(&file, SORA_MALFORMED, "unknown value type 99");
}

static void nested_arrays_are_skipped(void **state)
{
    (void)state;
    struct buf file;
    struct edge_page page;
    struct sora_error err = {0};
    struct gguf *gguf;
    put_header(&file, 0, 2);
    put_key(&file, "nested", ARRAY);
    put_u32(&file, ARRAY);
    put_u64(&file, 2);
    for (int i = 0; i < 2; i++) {
        put_u32(&file, U16);
        put_u64(&file, 3);
        buf_append(&file, "\0\0\0\0\0\0", 6);
    }
    put_int_key(&file, "after", 5);
    assert_int_equal(parse(&file, &page, &gguf, &err), SORA_OK);
    int64_t after;
    assert_true(gguf_get_int(gguf, "after", &after));
    assert_int_equal(after, 5);
    assert_int_equal(gguf_get_strings(gguf, "nested"), -1);
    gguf_close(gguf);
    edge_page_deinit(&page);
    buf_deinit(&file);
}

static void alignment_must_be_a_power_of_two_and_is_honoured(void **state)
{
    (void)state;
    static const uint32_t bad[] = {0, 3, 48, 1u << 21, 0x80000000u};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buf file;
        put_header(&file, 0, 1);
        put_int_key(&file, "general.alignment", bad[i]);
        expect_refused(&file, SORA_MALFORMED, "general.alignment");
    }
    struct buf file;
    put_header(&file, 1, 1);
    put_int_key(&file, "general.alignment", 64);
    put_tensor(&file, "t", 0, 1, 1, 32);
    put_data(&file, 64, 64);
    expect_refused(&file, SORA_MALFORMED, "offset 32 is no multiple of 64");
}

static void tensors_outside_of_the_file_or_of_odd_shape_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        uint64_t columns, rows, offset;
        sora_status status;
        const char *text;
    } cases[] = {
        {0, 32, 1, 0, SORA_MALFORMED, "leave the data section"},
        {0, 16, 1, 32, SORA_MALFORMED, "leave the data section"},
        {0, 1, 1, UINT64_MAX - 31, SORA_MALFORMED, "leave the data section"},
        {200, 1, 1, 1 << 20, SORA_MALFORMED, "leave the data section"},
        {0, UINT64_MAX, 1, 0, SORA_MALFORMED, "dimension 0"},
        {0, 0, 1, 0, SORA_MALFORMED, "dimension 0"},
        {0, 1ull << 62, 1ull << 62, 0, SORA_LIMIT, "overflow"},
        {200, 1ull << 62, 1ull << 62, 0, SORA_LIMIT, "overflow"},
        {28, 1ull << 61, 1, 0, SORA_LIMIT, "overflow"},
        {2, 33, 1, 0, SORA_MALFORMED, "no multiple of 32"},
        {12, 32, 8, 0, SORA_MALFORMED, "no multiple of 256"},
        {0xffffffffu, 1, 1, 0, SORA_MALFORMED, "type"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf file;
        put_header(&file, 1, 0);
        put_tensor(&file, "t", cases[i].type, cases[i].columns, cases[i].rows, cases[i].offset);
        put_data(&file, 32, 64);
        expect_refused(&file, cases[i].status, cases[i].text);
    }
}

static void tensors_need_distinct_names_and_one_to_four_dimensions(void **state)
{
    (void)state;
    struct buf file;
    put_header(&file, 2, 0);
    put_tensor(&file, "same", 0, 1, 1, 0);
    put_tensor(&file, "same", 0, 1, 1, 32);
    put_data(&file, 32, 64);
    expect_refused(&file, SORA_MALFORMED, "tensor same appears twice");
    put_header(&file, 1, 0);
    put_tensor(&file, "", 0, 1, 1, 0);
    expect_refused(&file, SORA_LIMIT, "name of 0 bytes");
    for (uint32_t rank = 0; rank <= 5; rank += 5) {
        put_header(&file, 1, 0);
        put_string(&file, "t");
        put_u32(&file, rank);
        put_data(&file, 8, 64);
        expect_refused(&file, SORA_LIMIT, "dimensions");
    }
}

static void a_tensor_of_unknown_type_has_no_data(void **state)
{
    (void)state;
    struct buf file;
    struct edge_page page;
    struct sora_error err = {0};
    struct gguf *gguf;
    put_header(&file, 1, 0);
    put_tensor(&file, "odd", 4, 32, 1, 0); // Q4_2 was taken out of GGML
    assert_int_equal(parse(&file, &page, &gguf, &err), SORA_OK);
    assert_null(gguf_tensor_at(gguf, 0)->data);
    assert_int_equal(gguf_tensor_at(gguf, 0)->type, 4);
    gguf_close(gguf);
    edge_page_deinit(&page);
    buf_deinit(&file);
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    struct sora_error err = {0};
    struct gguf *gguf;
    assert_int_equal(gguf_open("/nonexistent.gguf", &gguf, &err), SORA_NOT_FOUND);
    assert_null(gguf);
}

static void the_default_model_parses(void **state)
{
    (void)state;
    const char *path = getenv("SORA_TEST_MODEL");
    if (path == NULL) {
        print_message("SKIPPED %s: SORA_TEST_MODEL is not set\n", __func__);
        skip();
    }
    struct sora_error err = {0};
    struct gguf *gguf;
    if (gguf_open(path, &gguf, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_int_equal(gguf_tensor_count(gguf), 272);
    int64_t layers;
    double theta;
    assert_true(gguf_get_int(gguf, "llama.block_count", &layers));
    assert_int_equal(layers, 30);
    assert_true(gguf_get_number(gguf, "llama.rope.freq_base", &theta) && theta == 100000);
    assert_int_equal(gguf_get_strings(gguf, "tokenizer.ggml.tokens"), 49152);
    assert_int_equal(gguf_get_strings(gguf, "tokenizer.ggml.merges"), 48900);
    assert_int_equal(gguf_get_ints(gguf, "tokenizer.ggml.token_type"), 49152);
    const struct gguf_tensor *tensor = gguf_find_tensor(gguf, "blk.29.ffn_down.weight");
    assert_non_null(tensor);
    assert_int_equal(tensor->shape[0], 1536);
    assert_int_equal(tensor->shape[1], 576);
    for (int32_t i = 0; i < gguf_tensor_count(gguf); i++) {
        char name[128];
        const struct gguf_tensor *at = gguf_tensor_at(gguf, i);
        snprintf(name, sizeof name, "%.*s", (int)at->name.bytes, at->name.data);
        assert_ptr_equal(gguf_find_tensor(gguf, name), at);
    }
    uint8_t first = tensor->data[0];
    gguf_forget_tensor(gguf, tensor);
    assert_int_equal(tensor->data[0], first); // comes back from the file
    gguf_close(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_file_gives_its_values_and_tensors),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(every_changed_byte_is_refused_or_read_safely),
        cmocka_unit_test(a_foreign_header_is_refused),
        cmocka_unit_test(keys_may_not_repeat_and_types_must_be_known),
        cmocka_unit_test(arrays_are_bounded_in_count_and_depth),
        cmocka_unit_test(nested_arrays_are_skipped),
        cmocka_unit_test(alignment_must_be_a_power_of_two_and_is_honoured),
        cmocka_unit_test(tensors_outside_of_the_file_or_of_odd_shape_are_refused),
        cmocka_unit_test(tensors_need_distinct_names_and_one_to_four_dimensions),
        cmocka_unit_test(a_tensor_of_unknown_type_has_no_data),
        cmocka_unit_test(a_missing_file_is_not_found),
        cmocka_unit_test(the_default_model_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

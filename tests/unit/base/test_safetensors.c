// SPDX-License-Identifier: Apache-2.0
// Tests of the safetensors reader and writer.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "edge_page.h"

// Parses length + header + data_bytes bytes 0, 1, 2..., from memory without a byte behind it.
static sora_status parse(const char *header, size_t data_bytes, struct safetensors **file,
                         struct edge_page *page, struct sora_error *err)
{
    size_t length = strlen(header);
    edge_page_init(page, 8 + length + data_bytes);
    uint8_t *bytes = page->data;
    uint64_t stored = length;
    memcpy(bytes, &stored, 8);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; ++i)
        bytes[8 + length + i] = (uint8_t)i;
    *file = NULL;
    return safetensors_parse(bytes, page->bytes, file, err);
}

static void a_file_gives_its_tensors(void **state)
{
    (void)state;
    struct edge_page page;
    struct safetensors *file;
    const char *header = "{\"__metadata__\":{\"format\":\"pt\",\"k\":\"\"},"
                         "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]},"
                         "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                         "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[22,30]},"
                         "\"e\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[16,16]}}   ";
    assert_int_equal(parse(header, 30, &file, &page, NULL), SORA_OK);
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_at(file, 0)->name, "b"); // the order of the header
    const struct safetensors_tensor *a = safetensors_find(file, "a");
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[0] * a->shape[1], 4);
    assert_int_equal(a->bytes, 16);
    assert_int_equal(a->data[5], 5);
    assert_string_equal(a->dtype, "F32");
    const struct safetensors_tensor *s = safetensors_find(file, "s");
    assert_int_equal(s->rank, 0);
    assert_int_equal(s->bytes, 8);
    assert_int_equal(s->data[0], 22);
    assert_int_equal(safetensors_find(file, "e")->bytes, 0);
    assert_null(safetensors_find(file, "c"));
    assert_null(safetensors_find(file, "__metadata__"));
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_string_equal(safetensors_metadata(file, "k"), "");
    assert_null(safetensors_metadata(file, "none"));
    safetensors_destroy(file);
    edge_page_deinit(&page);
}

static void every_known_type_has_its_size(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        size_t bytes;
    } types[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                 {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U8", 1},      {"U16", 2},
                 {"U32", 4}, {"U64", 8}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; ++i) {
        for (size_t wrong = 0; wrong < 2; ++wrong) {
            struct edge_page page;
            struct safetensors *file;
            char header[128];
            size_t bytes = 3 * types[i].bytes + wrong;
            snprintf(header, sizeof header,
                     "{\"x\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                     types[i].dtype, bytes);
            assert_int_equal(parse(header, bytes, &file, &page, NULL),
                             wrong ? SORA_MALFORMED : SORA_OK);
            safetensors_destroy(file);
            edge_page_deinit(&page);
        }
    }
}

// clang-format off
#define U8(name, begin, end) \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" #begin "," #end "]}"
#define ONE(dtype, shape, offsets) \
    "{\"w\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
// clang-format on

static void a_broken_file_is_refused_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        sora_status status;
        const char *reason;
    } cases[] = {
        {"", 0, SORA_MALFORMED, "begin with '{'"},
        {" {}", 0, SORA_MALFORMED, "begin with '{'"},
        {"[]", 0, SORA_MALFORMED, "begin with '{'"},
        {"{", 0, SORA_MALFORMED, "JSON at byte 1"},
        {"{}x", 0, SORA_MALFORMED, "trailing"},
        {"{}", 1, SORA_MALFORMED, "1 bytes after the last tensor"},
        {"{\"__metadata__\":[]}", 0, SORA_MALFORMED, "not an object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, SORA_MALFORMED, "__metadata__ a: not a string"},
        {"{\"w\":1}", 0, SORA_MALFORMED, "tensor w: the entry is not an object"},
        {"{\"w\":{}}", 0, SORA_MALFORMED, "unknown dtype (none)"},
        {ONE("\"F31\"", "[1]", "[0,4]"), 4, SORA_MALFORMED, "tensor w: unknown dtype F31"},
        {ONE("\"U8\"", "4", "[0,4]"), 4, SORA_MALFORMED, "no shape"},
        {ONE("\"U8\"", "[-4]", "[0,4]"), 4, SORA_MALFORMED, "dimension 0 is not a size"},
        {ONE("\"U8\"", "[2,2.5]", "[0,4]"), 4, SORA_MALFORMED, "dimension 1 is not a size"},
        {ONE("\"U8\"", "[1,1,1,1,4]", "[0,4]"), 4, SORA_LIMIT, "more than 4 dimensions"},
        {ONE("\"U8\"", "[4294967296,4294967296,2]", "[0,0]"), 0, SORA_MALFORMED, "overflows"},
        {ONE("\"F64\"", "[4294967296,1073741824]", "[0,0]"), 0, SORA_MALFORMED, "ask for"},
        {ONE("\"U8\"", "[4]", "[0,5]"), 5, SORA_MALFORMED, "5 bytes, but shape and U8 ask for 4"},
        {ONE("\"U8\"", "[4]", "[0,5]"), 4, SORA_MALFORMED, "data_offsets [0, 5] in 4 bytes"},
        {ONE("\"U8\"", "[4]", "[4,0]"), 4, SORA_MALFORMED, "data_offsets [4, 0]"},
        {ONE("\"U8\"", "[4]", "[0]"), 4, SORA_MALFORMED, "not two sizes"},
        {ONE("\"U8\"", "[4]", "[0,2,4]"), 4, SORA_MALFORMED, "not two sizes"},
        {ONE("\"U8\"", "[4]", "[-4,0]"), 4, SORA_MALFORMED, "not two sizes"},
        {ONE("\"U8\"", "[4]", "[0,1e30]"), 4, SORA_MALFORMED, "not two sizes"},
        {"{" U8("a", 0, 4) "," U8("b", 5, 9) "}", 9, SORA_MALFORMED, "tensor b: a hole"},
        {"{" U8("b", 4, 8) "," U8("a", 3, 7) "}", 8, SORA_MALFORMED, "tensor a: a hole"},
        {"{" U8("b", 4, 8) "," U8("a", 0, 4) "," U8("c", 4, 8) "}", 8, SORA_MALFORMED, "overlaps"},
        {"{" U8("a", 0, 4) "," U8("b", 3, 7) "}", 7, SORA_MALFORMED, "tensor b: overlaps"},
        {"{" U8("a", 0, 4) "," U8("a", 4, 8) "}", 8, SORA_MALFORMED, "duplicate key"},
        {"{" U8("a", 0, 4) "}", 5, SORA_MALFORMED, "1 bytes after"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        struct edge_page page;
        struct safetensors *file;
        struct sora_error err = {0};
        sora_status status = parse(cases[i].header, cases[i].data_bytes, &file, &page, &err);
        if (status != cases[i].status || strstr(err.text, cases[i].reason) == NULL)
            fail_msg("%s: %s, not %s", cases[i].header, err.text, cases[i].reason);
        assert_null(file);
        edge_page_deinit(&page);
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct edge_page whole, cut;
    struct safetensors *file;
    assert_int_equal(parse("{" U8("a", 0, 4) "," U8("b", 4, 8) "}", 8, &file, &whole, NULL),
                     SORA_OK);
    safetensors_destroy(file);
    for (size_t bytes = 0; bytes < whole.bytes; ++bytes) {
        file = NULL;
        edge_page_copy(&cut, whole.data, bytes);
        assert_int_equal(safetensors_parse(cut.data, bytes, &file, NULL), SORA_MALFORMED);
        assert_null(file);
        edge_page_deinit(&cut);
    }
    edge_page_deinit(&whole);
}

static void a_huge_header_length_is_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {SORA_SAFETENSORS_HEADER_BYTES_MAX + 1ull, 1ull << 63,
                                       UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
        uint8_t bytes[16] = {0};
        struct safetensors *file = NULL;
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(safetensors_parse(bytes, sizeof bytes, &file, NULL), SORA_LIMIT);
    }
}

static void a_long_name_is_refused(void **state)
{
    (void)state;
    for (int more = 0; more < 2; ++more) {
        struct edge_page page;
        struct safetensors *file;
        char name[SORA_TENSOR_NAME_BYTES_MAX + 2] = {0}, header[512];
        memset(name, 'n', (size_t)(SORA_TENSOR_NAME_BYTES_MAX + more));
        snprintf(header, sizeof header,
                 "{\"%s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", name);
        assert_int_equal(parse(header, 4, &file, &page, NULL), more ? SORA_LIMIT : SORA_OK);
        safetensors_destroy(file);
        edge_page_deinit(&page);
    }
}

// At the bound on tensors; a search of all pairs would take minutes.
static void many_tensors_are_read_quickly(void **state)
{
    (void)state;
    for (int more = 0; more < 2; ++more) {
        int count = SORA_TENSOR_COUNT_MAX + more;
        struct buf header;
        struct edge_page page;
        struct safetensors *file;
        buf_init(&header, 16u << 20);
        for (int i = 0; i < count; ++i)
            buf_printf(&header,
                       "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                       i > 0 ? "," : "{", count - i, i, i + 1);
        buf_text(&header, "}");
        assert_int_equal(parse(header.data, (size_t)count, &file, &page, NULL),
                         more ? SORA_LIMIT : SORA_OK);
        for (int i = 0; i < count && !more; ++i)
            assert_ptr_equal(safetensors_find(file, safetensors_at(file, i)->name),
                             safetensors_at(file, i));
        safetensors_destroy(file);
        edge_page_deinit(&page);
        buf_deinit(&header);
    }
}

static void floats_are_widened_exactly(void **state)
{
    (void)state;
    static const uint8_t f32[] = {0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0};
    static const uint8_t f16[] = {0xFF, 0x00, 0x3C, 0x00, 0xC0}; // unaligned from byte 1
    static const uint8_t bf16[] = {0xFF, 0x80, 0x3F, 0x00, 0xC0};
    const struct safetensors_tensor tensors[] = {
        {.name = "a", .dtype = "F32", .rank = 1, .shape = {2}, .data = f32, .bytes = 8},
        {.name = "b", .dtype = "F16", .rank = 1, .shape = {2}, .data = f16 + 1, .bytes = 4},
        {.name = "c", .dtype = "BF16", .rank = 1, .shape = {2}, .data = bf16 + 1, .bytes = 4},
    };
    for (size_t i = 0; i < 3; ++i) {
        float out[2] = {0};
        assert_int_equal(safetensors_to_f32(&tensors[i], out, NULL), SORA_OK);
        assert_true(out[0] == 1.0f && out[1] == -2.0f);
    }
    const struct safetensors_tensor other = {.name = "d", .dtype = "I8", .data = f32, .bytes = 1};
    struct sora_error err;
    float out;
    assert_int_equal(safetensors_to_f32(&other, &out, &err), SORA_UNSUPPORTED);
    assert_string_equal(err.text, "tensor d: I8 is not a float type read here");
}

static void what_is_encoded_parses_to_the_same(void **state)
{
    (void)state;
    static const uint8_t data[] = "0123456789abcdef";
    const struct safetensors_meta meta[] = {{"format", "sora-adapter"},
                                            {"config", "{\"r\": 4, \"x\": \"\n\xC3\xA9\"}"}};
    const struct safetensors_tensor tensors[] = {
        {.name = "z", .dtype = "BF16", .rank = 2, .shape = {2, 3}, .data = data, .bytes = 12},
        {.name = "a\"b", .dtype = "F32", .rank = 0, .data = data + 12, .bytes = 4},
        {.name = "e", .dtype = "F32", .rank = 2, .shape = {0, 3}, .data = NULL, .bytes = 0},
    };
    uint8_t *bytes = NULL, *again = NULL;
    size_t byte_count = 0, again_count = 0;
    struct sora_error err;
    assert_int_equal(safetensors_encode(meta, 2, tensors, 3, &bytes, &byte_count, &err), SORA_OK);
    assert_int_equal(safetensors_encode(meta, 2, tensors, 3, &again, &again_count, &err), SORA_OK);
    assert_int_equal(byte_count, again_count);
    assert_memory_equal(bytes, again, byte_count);
    struct safetensors *file = NULL;
    assert_int_equal(safetensors_parse(bytes, byte_count, &file, &err), SORA_OK);
    assert_int_equal(safetensors_count(file), 3);
    for (int32_t i = 0; i < 3; ++i) {
        const struct safetensors_tensor *back = safetensors_at(file, i);
        assert_string_equal(back->name, tensors[i].name);
        assert_string_equal(back->dtype, tensors[i].dtype);
        assert_int_equal(back->rank, tensors[i].rank);
        assert_memory_equal(back->shape, tensors[i].shape, sizeof back->shape);
        assert_int_equal(back->bytes, tensors[i].bytes);
        assert_true(back->bytes == 0 || memcmp(back->data, tensors[i].data, back->bytes) == 0);
    }
    assert_int_equal((size_t)(safetensors_at(file, 0)->data - bytes) % 8, 0);
    assert_string_equal(safetensors_metadata(file, "config"), meta[1].value);
    safetensors_destroy(file);
    free(bytes);
    free(again);
}

static void an_encoding_that_no_reader_takes_is_refused(void **state)
{
    (void)state;
    static const uint8_t data[16] = {0};
    const struct safetensors_tensor good = {
        .name = "a", .dtype = "U8", .rank = 1, .shape = {4}, .data = data, .bytes = 4};
    struct safetensors_tensor pairs[3][2] = {{good, good}, {good, good}, {good, good}};
    pairs[1][1].name = pairs[2][1].name = "b"; // the first pair shares a name
    pairs[1][1].dtype[0] = 'X';
    pairs[2][1].shape[0] = 5;
    for (size_t i = 0; i < 3; ++i) {
        uint8_t *bytes = NULL;
        size_t byte_count = 0;
        assert_int_equal(safetensors_encode(NULL, 0, pairs[i], 2, &bytes, &byte_count, NULL),
                         SORA_MALFORMED);
        assert_null(bytes);
    }
    uint8_t *bytes = NULL;
    size_t byte_count = 0;
    assert_int_equal(safetensors_encode(NULL, 0, NULL, 0, &bytes, &byte_count, NULL), SORA_OK);
    assert_int_equal(byte_count, 16);
    free(bytes);
}

static void a_file_of_the_reference_library_is_read(void **state)
{
    (void)state;
    static const char path[] = GOLDEN_DIR "/adapters/ragged/adapter_model.safetensors";
    struct file_map map;
    struct safetensors *file = NULL;
    struct sora_error err = {0};
    assert_int_equal(file_map_open(path, &map, &err), SORA_OK);
    if (safetensors_parse(map.data, map.bytes, &file, &err) != SORA_OK)
        fail_msg("%s: %s", path, err.text);
    assert_true(safetensors_count(file) > 0);
    for (int32_t i = 0; i < safetensors_count(file); ++i) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        assert_int_equal(tensor->rank, 2);
        float *values = malloc((size_t)(tensor->shape[0] * tensor->shape[1]) * sizeof *values);
        assert_int_equal(safetensors_to_f32(tensor, values, &err), SORA_OK);
        free(values);
    }
    safetensors_destroy(file);
    file_map_close(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_gives_its_tensors),
        cmocka_unit_test(every_known_type_has_its_size),
        cmocka_unit_test(a_broken_file_is_refused_with_its_reason),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_huge_header_length_is_refused),
        cmocka_unit_test(a_long_name_is_refused),
        cmocka_unit_test(many_tensors_are_read_quickly),
        cmocka_unit_test(floats_are_widened_exactly),
        cmocka_unit_test(what_is_encoded_parses_to_the_same),
        cmocka_unit_test(an_encoding_that_no_reader_takes_is_refused),
        cmocka_unit_test(a_file_of_the_reference_library_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// llama.cpp's adapters: out and back, the order of q and k rows, and what a file must tell.
#include "adapter_fixture.h"

#include "base/gguf.h"
#include "base/half.h"

static float number_of(const struct sora_lora_module *module, const void *values, size_t index)
{
    uint16_t half;
    if (module->dtype == SORA_F32)
        return ((const float *)values)[index];
    memcpy(&half, (const uint8_t *)values + 2 * index, sizeof half);
    return module->dtype == SORA_F16 ? half_from_f16(half) : half_from_bf16(half);
}

// Modules whose A, or B with its scale, differs anywhere.
static int count_different(const struct sora_base *base, const sora_adapter *left,
                           const sora_adapter *right)
{
    const struct sora_lora *x = sora_adapter_get_lora(left), *y = sora_adapter_get_lora(right);
    int different = 0;
    for (int32_t i = 0; i < base->layer_count * SORA_PROJ_COUNT; i++) {
        const struct sora_lora_module *a = &x->modules[i], *b = &y->modules[i];
        size_t rank = (size_t)a->rank;
        bool same = a->rank == b->rank;
        for (size_t j = 0; same && j < rank * (size_t)base->d_in[i % SORA_PROJ_COUNT]; j++)
            same = number_of(a, a->a, j) == number_of(b, b->a, j);
        for (size_t j = 0; same && j < rank * (size_t)base->d_out[i % SORA_PROJ_COUNT]; j++)
            same = number_of(a, a->bt, j) * a->scale == number_of(b, b->bt, j) * b->scale;
        different += !same;
    }
    return different;
}

static void check_round(const struct sora_base *base, enum sora_dtype dtype, bool tell_base)
{
    struct sora_error err = {SORA_OK, ""};
    struct fixture_pairs *pairs = fixture_pairs_make(base, 7);
    uint8_t *ours, *gguf, *back;
    size_t our_bytes, gguf_bytes, back_bytes;
    sora_adapter *first, *second;
    fixture_file_of(base, pairs, dtype, &ours, &our_bytes);
    fixture_pairs_free(pairs);
    // The file's own record of its base is enough.
    assert_ok(sora_adapter_to_gguf(ours, our_bytes, NULL, &gguf, &gguf_bytes, &err));
    assert_true(sora_adapter_is_gguf(gguf, gguf_bytes));
    assert_false(sora_adapter_is_gguf(ours, our_bytes));
    assert_ok(sora_adapter_from_gguf(gguf, gguf_bytes, tell_base ? base : NULL, &back, &back_bytes,
                                     &err));
    assert_ok(sora_adapter_parse(ours, our_bytes, base, &first, &err));
    assert_ok(sora_adapter_parse(back, back_bytes, base, &second, &err));
    assert_int_equal(count_different(base, first, second), 0);
    sora_adapter_destroy(first);
    sora_adapter_destroy(second);
    free(ours);
    free(gguf);
    free(back);
}

static void what_goes_out_comes_back(void **state)
{
    (void)state;
    static const char *const architectures[] = {"llama", "qwen2", "qwen3"};
    for (int i = 0; i < 3; i++) {
        struct sora_base base = fixture_base();
        snprintf(base.architecture, sizeof base.architecture, "%s", architectures[i]);
        for (int dtype = SORA_F32; dtype <= SORA_BF16; dtype++) {
            check_round(&base, (enum sora_dtype)dtype, true);
            check_round(&base, (enum sora_dtype)dtype, false);
        }
    }
}

// A qwen3 adapter read as llama's has other rows: the comparer sees it.
static void the_comparer_sees_the_order_of_rows(void **state)
{
    (void)state;
    struct sora_base llama = fixture_base(), qwen = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    uint8_t *ours, *gguf, *back;
    size_t our_bytes, gguf_bytes, back_bytes;
    sora_adapter *first, *second;
    snprintf(qwen.architecture, sizeof qwen.architecture, "qwen3");
    fixture_file(&qwen, 7, &ours, &our_bytes);
    assert_ok(sora_adapter_to_gguf(ours, our_bytes, NULL, &gguf, &gguf_bytes, &err));
    assert_refused(sora_adapter_from_gguf(gguf, gguf_bytes, &llama, &back, &back_bytes, &err),
                   SORA_MISMATCH, "qwen3");
    free(gguf);
    free(ours);
    fixture_file(&llama, 7, &ours, &our_bytes);
    assert_ok(sora_adapter_to_gguf(ours, our_bytes, NULL, &gguf, &gguf_bytes, &err));
    assert_ok(sora_adapter_parse(ours, our_bytes, &llama, &first, &err));
    assert_ok(sora_adapter_look_at_gguf(gguf, gguf_bytes, &second, &err));
    assert_true(count_different(&llama, first, second) > 0);
    sora_adapter_destroy(first);
    sora_adapter_destroy(second);
    free(ours);
    free(gguf);
}

static void hf_rows_are_ggmls_rows_interleaved(void **state)
{
    (void)state;
    static const int32_t expected[] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
    for (int32_t row = 0; row < 12; row++)
        assert_int_equal(gguf_rotary_row(row, 6), expected[row]);
}

// An adapter of one module, all ones, with an alpha.
static void write_one(const char *name_a, const char *name_b, const struct gguf_entry *more,
                      uint8_t **bytes, size_t *byte_count)
{
    static float ones[16];
    struct sora_error err = {SORA_OK, ""};
    struct gguf_entry entries[5] = {
        {.key = "general.architecture", .text = "llama"},
        {.key = "general.type", .text = "adapter"},
        {.key = "adapter.type", .text = "lora"},
        {.key = "adapter.lora.alpha", .is_float = true, .number = 3},
    };
    for (int i = 0; i < 16; i++)
        ones[i] = 1;
    // One dimension: a writer in C drops a last 1.
    struct gguf_source sources[2] = {
        {name_a, 0, 1, {16}, ones, sizeof ones},
        {name_b, 0, 2, {1, 16}, ones, sizeof ones},
    };
    if (more)
        entries[4] = *more;
    assert_ok(gguf_encode(entries, more ? 5 : 4, sources, 2, 1 << 20, bytes, byte_count, &err));
}

static void the_size_of_a_head_must_be_known_for_q_and_k(void **state)
{
    (void)state;
    struct sora_base base = fixture_base();
    struct sora_error err = {SORA_OK, ""};
    const struct gguf_entry head_dim = {.key = "llama.attention.key_length", .number = 4};
    const struct gguf_entry odd = {.key = "llama.attention.key_length", .number = 5};
    const char *a = "blk.0.attn_q.weight.lora_a", *b = "blk.0.attn_q.weight.lora_b";
    uint8_t *bytes, *out;
    size_t byte_count, out_bytes;
    write_one(a, b, NULL, &bytes, &byte_count);
    assert_refused(sora_adapter_from_gguf(bytes, byte_count, NULL, &out, &out_bytes, &err),
                   SORA_MISMATCH, "--model");
    assert_ok(sora_adapter_from_gguf(bytes, byte_count, &base, &out, &out_bytes, &err));
    free(out);
    free(bytes);
    write_one(a, b, &head_dim, &bytes, &byte_count);
    assert_ok(sora_adapter_from_gguf(bytes, byte_count, NULL, &out, &out_bytes, &err));
    free(out);
    free(bytes);
    write_one(a, b, &odd, &bytes, &byte_count);
    assert_refused(sora_adapter_from_gguf(bytes, byte_count, NULL, &out, &out_bytes, &err),
                   SORA_MISMATCH, "heads of 5");
    free(bytes);
    write_one("blk.0.attn_output.weight.lora_a", "blk.0.attn_output.weight.lora_b", NULL, &bytes,
              &byte_count);
    assert_ok(sora_adapter_from_gguf(bytes, byte_count, NULL, &out, &out_bytes, &err));
    free(out);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_out_comes_back),
        cmocka_unit_test(the_comparer_sees_the_order_of_rows),
        cmocka_unit_test(hf_rows_are_ggmls_rows_interleaved),
        cmocka_unit_test(the_size_of_a_head_must_be_known_for_q_and_k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

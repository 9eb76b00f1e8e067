// SPDX-License-Identifier: Apache-2.0
// Tests of half floats, random numbers, clock, CPU detection, SHA-256 and of the tests' own
// comparer.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/half.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "expect_close.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void f16_values_are_exact(void **state)
{
    (void)state;
    static const struct {
        uint16_t bits;
        float value;
    } cases[] = {
        {0x0000, 0.0f},        {0x8000, -0.0f},    {0x3C00, 1.0f},      {0xC000, -2.0f},
        {0x7BFF, 65504.0f},    {0x0400, 0x1p-14f}, {0x0001, 0x1p-24f},  {0x83FF, -0x1.FF8p-15f},
        {0x3555, 0x1.554p-2f}, {0x7C00, INFINITY}, {0xFC00, -INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        assert_true(bits_of(half_from_f16(cases[i].bits)) == bits_of(cases[i].value));
        assert_int_equal(half_to_f16(cases[i].value), cases[i].bits);
    }
}

static void every_f16_round_trips(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        float value = half_from_f16((uint16_t)bits);
        if ((bits & 0x7FFF) > 0x7C00) {
            assert_true(isnan(value));
            assert_true((half_to_f16(value) & 0x7FFF) > 0x7C00);
        } else {
            assert_int_equal(half_to_f16(value), bits);
        }
    }
}

static void every_bf16_round_trips(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
        float value = half_from_bf16((uint16_t)bits);
        if ((bits & 0x7FFF) > 0x7F80) {
            assert_true(isnan(value));
            assert_true((half_to_bf16(value) & 0x7FFF) > 0x7F80);
        } else {
            assert_true(bits_of(value) == bits << 16);
            assert_int_equal(half_to_bf16(value), bits);
        }
    }
}

// Between each two neighbours of a 16-bit format: below, at and above the middle.
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7BFF; ++bits) {
        float low = half_from_f16((uint16_t)bits), high = half_from_f16((uint16_t)(bits + 1));
        float middle = (low + high) / 2; // exact in f32
        assert_int_equal(half_to_f16(middle), bits % 2 == 0 ? bits : bits + 1);
        assert_int_equal(half_to_f16(nextafterf(middle, low)), bits);
        assert_int_equal(half_to_f16(nextafterf(middle, high)), bits + 1);
        assert_int_equal(half_to_f16(-middle), 0x8000 | (bits % 2 == 0 ? bits : bits + 1));
    }
    for (uint32_t bits = 0; bits < 0x7F7F; ++bits) {
        uint32_t middle = bits << 16 | 0x8000;
        assert_int_equal(half_to_bf16(float_of(middle)), bits % 2 == 0 ? bits : bits + 1);
        assert_int_equal(half_to_bf16(float_of(middle - 1)), bits);
        assert_int_equal(half_to_bf16(float_of(middle + 1)), bits + 1);
    }
}

static void halves_overflow_to_infinity(void **state)
{
    (void)state;
    assert_int_equal(half_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(half_to_f16(65520.0f), 0x7C00);
    assert_int_equal(half_to_f16(1e30f), 0x7C00);
    assert_int_equal(half_to_f16(-1e30f), 0xFC00);
    assert_int_equal(half_to_f16(0x1p-25f), 0); // the middle to the smallest one: to even
    assert_int_equal(half_to_f16(nextafterf(0x1p-25f, 1)), 1);
    assert_int_equal(half_to_f16(float_of(1)), 0);
    assert_int_equal(half_to_bf16(3.4028234e38f), 0x7F80);
}

static void nan_stays_nan(void **state)
{
    (void)state;
    static const uint32_t payloads[] = {0x7F800001, 0x7FC00000, 0xFF800001, 0x7FFFFFFF};
    for (size_t i = 0; i < 4; ++i) {
        float value = float_of(payloads[i]);
        assert_true((half_to_f16(value) & 0x7FFF) > 0x7C00);
        assert_true((half_to_bf16(value) & 0x7FFF) > 0x7F80);
        assert_int_equal(half_to_f16(value) >> 15, payloads[i] >> 31);
    }
}

static void random_numbers_are_the_published_ones(void **state)
{
    (void)state;
    // xoshiro256** from the state {1, 2, 3, 4}; splitmix64 from 1234567.
    static const uint64_t want[] = {11520, 0, 1509978240, 1215971899390074240};
    struct rng rng = {{1, 2, 3, 4}};
    for (size_t i = 0; i < 4; ++i)
        assert_true(rng_u64(&rng) == want[i]);
    rng_seed(&rng, 1234567);
    assert_true(rng.state[0] == 6457827717110365317u);
    assert_true(rng.state[1] == 3203168211198807973u);
}

static void the_same_seed_gives_the_same_numbers(void **state)
{
    (void)state;
    struct rng a, b, c;
    rng_seed(&a, 7);
    rng_seed(&b, 7);
    rng_seed(&c, 8);
    int same = 0;
    for (int i = 0; i < 100; ++i) {
        uint64_t value = rng_u64(&a);
        assert_true(value == rng_u64(&b));
        same += value == rng_u64(&c);
    }
    assert_int_equal(same, 0);
}

static void uniform_and_below_stay_in_range(void **state)
{
    (void)state;
    enum { DRAWS = 60000, SIDES = 6 };
    struct rng rng;
    int hits[SIDES] = {0};
    double sum = 0;
    rng_seed(&rng, 1);
    for (int i = 0; i < DRAWS; ++i) {
        double u = rng_uniform(&rng);
        assert_true(u >= 0 && u < 1);
        sum += u;
        uint64_t side = rng_below(&rng, SIDES);
        assert_true(side < SIDES);
        ++hits[side];
        assert_int_equal(rng_below(&rng, 1), 0);
        assert_true(rng_below(&rng, (1ull << 63) + 1) <= 1ull << 63);
    }
    assert_true(fabs(sum / DRAWS - 0.5) < 0.01);
    for (int i = 0; i < SIDES; ++i) // 10000 each, standard deviation 91
        assert_true(abs(hits[i] - DRAWS / SIDES) < 500);
}

static void normal_numbers_have_the_normal_moments(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    struct rng rng;
    double moments[5] = {0};
    rng_seed(&rng, 3);
    for (int i = 0; i < DRAWS; ++i) {
        double x = rng_normal(&rng);
        assert_true(isfinite(x));
        for (int power = 1; power <= 4; ++power)
            moments[power] += pow(x, power) / DRAWS;
    }
    assert_true(fabs(moments[1]) < 0.02);
    assert_true(fabs(moments[2] - 1) < 0.03);
    assert_true(fabs(moments[3]) < 0.06);
    assert_true(fabs(moments[4] - 3) < 0.2);
}

static void a_shuffle_keeps_every_item(void **state)
{
    (void)state;
    enum { ITEMS = 100 };
    struct rng rng;
    int32_t items[ITEMS];
    int seen[ITEMS] = {0}, moved = 0;
    rng_seed(&rng, 5);
    for (int32_t i = 0; i < ITEMS; ++i)
        items[i] = i;
    rng_shuffle(&rng, items, ITEMS);
    for (int32_t i = 0; i < ITEMS; ++i) {
        ++seen[items[i]];
        moved += items[i] != i;
    }
    for (int i = 0; i < ITEMS; ++i)
        assert_int_equal(seen[i], 1);
    assert_true(moved > ITEMS / 2);
    rng_shuffle(&rng, items, 0);
}

static void the_system_gives_different_bytes(void **state)
{
    (void)state;
    uint8_t a[300], b[300];
    rng_system(a, sizeof a);
    rng_system(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
}

static void the_clock_goes_forward(void **state)
{
    (void)state;
    int64_t start_us = clock_now_us();
    clock_sleep_us(2000);
    assert_true(clock_now_us() - start_us >= 2000);
    clock_sleep_us(-1);
    assert_true(clock_unix_s() > 1700000000);
}

static void the_cpu_is_known(void **state)
{
    (void)state;
    assert_true(cpu_count() >= 1);
    assert_true(strlen(cpu_model_name()) > 0);
    assert_string_equal(cpu_isa_name(CPU_PORTABLE), "portable");
    assert_string_equal(cpu_isa_name(CPU_AVX512), "avx512");
    assert_string_equal(cpu_isa_name(CPU_VNNI), "vnni");
    // Read once per process: a test cannot set it later, only hold it to what was set.
    const char *cap = getenv("SORA_ISA");
    if (cap != NULL && strcmp(cap, "portable") == 0)
        assert_int_equal(cpu_isa(), CPU_PORTABLE);
    if (cap != NULL && strcmp(cap, "avx2") == 0)
        assert_true(cpu_isa() <= CPU_AVX2);
    if (cap != NULL && strcmp(cap, "avx512") == 0)
        assert_true(cpu_isa() <= CPU_AVX512);
    assert_true(cpu_isa() <= CPU_VNNI);
}

static void sha256_gives_the_known_digests(void **state)
{
    (void)state;
    char hex[65];
    assert_int_equal(sha256_of("abc", 3, hex, NULL), SORA_OK);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(sha256_of(NULL, 0, hex, NULL), SORA_OK);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct sha256 *sha = NULL;
    assert_int_equal(sha256_create(&sha, NULL), SORA_OK);
    sha256_update(sha, "a", 1);
    sha256_update(sha, NULL, 0);
    sha256_update(sha, "bc", 2);
    sha256_finish(sha, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_int_equal(sha256_create(&sha, NULL), SORA_OK);
    sha256_destroy(sha);
    sha256_destroy(NULL);
}

static void the_comparer_accepts_what_is_close(void **state)
{
    (void)state;
    const float want[] = {1.0f, -100.0f, 0.0f, INFINITY, NAN};
    const float got[] = {1.001f, -100.5f, 0.001f, INFINITY, NAN};
    expect_close("close", got, want, 5, 0.002, 0.005);
    expect_close("nothing", NULL, NULL, 0, 0, 0);
}

static void the_comparer_refuses_what_is_not(void **state)
{
    (void)state;
    static const struct {
        float got, want;
    } cases[] = {{1.01f, 1.0f}, {-1.0f, 1.0f}, {0.0021f, 0.0f},       {NAN, 1.0f},
                 {1.0f, NAN},   {INFINITY, 1}, {INFINITY, -INFINITY}, {1, INFINITY}};
    char text[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i)
        assert_false(close_compare(&cases[i].got, &cases[i].want, 1, 0.002, 0.005, text));
    const float want[] = {1, 2, 3}, got[] = {1, 2.5f, 4};
    assert_false(close_compare(got, want, 3, 0.1, 0, text));
    assert_non_null(strstr(text, "2 of 3 items differ"));
    assert_non_null(strstr(text, "first [1] got 2.5 want 2, worst [2] got 4 want 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_values_are_exact),
        cmocka_unit_test(every_f16_round_trips),
        cmocka_unit_test(every_bf16_round_trips),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(halves_overflow_to_infinity),
        cmocka_unit_test(nan_stays_nan),
        cmocka_unit_test(random_numbers_are_the_published_ones),
        cmocka_unit_test(the_same_seed_gives_the_same_numbers),
        cmocka_unit_test(uniform_and_below_stay_in_range),
        cmocka_unit_test(normal_numbers_have_the_normal_moments),
        cmocka_unit_test(a_shuffle_keeps_every_item),
        cmocka_unit_test(the_system_gives_different_bytes),
        cmocka_unit_test(the_clock_goes_forward),
        cmocka_unit_test(the_cpu_is_known),
        cmocka_unit_test(sha256_gives_the_known_digests),
        cmocka_unit_test(the_comparer_accepts_what_is_close),
        cmocka_unit_test(the_comparer_refuses_what_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The text of an SLO: what is read, what is refused and by which name.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// cmocka.h needs the four above.
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "loadtest/slo.h"

static void a_usual_objective_is_read(void **state)
{
    (void)state;
    struct slo slo;
    struct sora_error err;
    assert_int_equal(slo_parse("ttft_p95=500ms,itl_p99.9=100us", &slo, &err), SORA_OK);
    assert_int_equal(slo.term_count, 2);
    assert_int_equal(slo.terms[0].kind, LATENCY_TTFT);
    assert_int_equal(slo.terms[0].figure, SLO_QUANTILE);
    assert_true(fabs(slo.terms[0].quantile - 0.95) < 1e-12);
    assert_int_equal(slo.terms[0].limit_us, 500000);
    assert_int_equal(slo.terms[1].kind, LATENCY_ITL);
    assert_true(fabs(slo.terms[1].quantile - 0.999) < 1e-12);
    assert_int_equal(slo.terms[1].limit_us, 100);
    assert_true(slo.errors_max == 0.01);
}

static void means_maxima_units_and_errors_are_read(void **state)
{
    (void)state;
    struct slo slo;
    struct sora_error err;
    assert_int_equal(slo_parse("e2e_mean=1.5s,errors=0.5%,e2e_max=2min", &slo, &err), SORA_OK);
    assert_int_equal(slo.terms[0].figure, SLO_MEAN);
    assert_int_equal(slo.terms[0].limit_us, 1500000);
    assert_int_equal(slo.terms[1].figure, SLO_MAX);
    assert_int_equal(slo.terms[1].limit_us, 120000000);
    assert_true(fabs(slo.errors_max - 0.005) < 1e-12);
}

static void what_is_written_is_read_as_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "ttft_p95=500ms,itl_p95=100ms,errors=1%",
        "ttft_p99.9=1500us,e2e_max=60000ms,e2e_mean=7ms,errors=0%",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; ++i) {
        struct slo slo;
        struct sora_error err;
        char text[SLO_TEXT_BYTES];
        assert_int_equal(slo_parse(texts[i], &slo, &err), SORA_OK);
        slo_text(&slo, text);
        assert_string_equal(text, texts[i]);
    }
}

static void a_wrong_objective_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *named;
    } cases[] = {
        {"", "not of the form"},
        {"errors=1%", "at least one latency"},
        {"ttft_p95", "not of the form"},
        {"ttft_p95=500ms,", "not of the form"},
        {"ttft_p95=500", "\"500\" is not a duration"},
        {"ttft_p95=500hours", "\"500hours\" is not a duration"},
        {"ttft_p95=-5ms", "\"-5ms\" is not a duration"},
        {"ttft_p95=0x10ms", "is not a duration"},
        {"ttft_p95=0X10ms", "is not a duration"},
        {"ttft_p95=nan", "is not a duration"},
        {"ttft_p95=infms", "is not a duration"},
        {"ttft_p95=0ms", "not within"},
        {"ttft_p95=11min", "not within"},
        {"ttft_p95=1e300s", "not within"},
        {"ttft_p0=5ms", "ttft_p0"},
        {"ttft_p100=5ms", "ttft_p100"},
        {"ttft_p=5ms", "ttft_p"},
        {"ttft_q95=5ms", "ttft_q95"},
        {"ttft95=5ms", "ttft95"},
        {"speed_p95=5ms", "speed_p95"},
        {"ttft_p95=5ms,ttft_p95=6ms", "given twice"},
        {"ttft_p95=5ms,errors=1%,errors=2%", "given twice"},
        {"ttft_p95=5ms,errors=101%", "share"},
        {"ttft_p95=5ms,errors=0.5", "share"},
        {"ttft_p95=5msssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss", "over"},
        {"ttft_p1=1s,ttft_p2=1s,ttft_p3=1s,ttft_p4=1s,ttft_p5=1s,ttft_p6=1s,ttft_p7=1s,"
         "ttft_p8=1s,ttft_p9=1s,ttft_p10=1s,ttft_p11=1s,ttft_p12=1s,ttft_p13=1s,ttft_p14=1s,"
         "ttft_p15=1s,ttft_p16=1s,ttft_p17=1s",
         "more than 16 terms"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        struct slo slo = {.term_count = -7};
        struct sora_error err = {0};
        if (slo_parse(cases[i].text, &slo, &err) == SORA_OK)
            fail_msg("\"%s\" was accepted", cases[i].text);
        if (strstr(err.text, cases[i].named) == NULL)
            fail_msg("\"%s\": the text is \"%s\"", cases[i].text, err.text);
        assert_int_equal(slo.term_count, -7); // untouched
    }
}

static void sixteen_terms_fit_into_the_text(void **state)
{
    (void)state;
    struct slo slo, again;
    struct sora_error err;
    char text[SLO_TEXT_BYTES];
    assert_int_equal(
        slo_parse("ttft_p1.11111=599999999us,ttft_p2=1s,ttft_p3=1s,ttft_p4=1s,ttft_p5=1s,"
                  "ttft_p6=1s,ttft_p7=1s,ttft_p8=1s,ttft_p9=1s,ttft_p10=1s,ttft_p11=1s,"
                  "ttft_p12=1s,ttft_p13=1s,ttft_p14=1s,ttft_p15=1s,ttft_p16=1s",
                  &slo, &err),
        SORA_OK);
    slo_text(&slo, text);
    assert_int_equal(slo_parse(text, &again, &err), SORA_OK);
    assert_int_equal(again.term_count, 16);
    assert_int_equal(again.terms[0].limit_us, 599999999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_usual_objective_is_read),
        cmocka_unit_test(means_maxima_units_and_errors_are_read),
        cmocka_unit_test(what_is_written_is_read_as_the_same),
        cmocka_unit_test(a_wrong_objective_is_refused_by_name),
        cmocka_unit_test(sixteen_terms_fit_into_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

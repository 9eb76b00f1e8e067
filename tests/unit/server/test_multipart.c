// SPDX-License-Identifier: Apache-2.0
// Form data: what clients send, and what is refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "server/multipart.h"

#define TYPE "multipart/form-data; boundary=XyZ"

static sora_status parse(const char *type, const char *body, struct multipart *form,
                         struct sora_error *err)
{
    return multipart_parse(type, body, strlen(body), form, err);
}

static void the_parts_of_a_form_are_found_by_name(void **state)
{
    (void)state;
    struct multipart form;
    static const char body[] =
        "preamble\r\n--XyZ\r\nContent-Disposition: form-data; name=\"config\"; filename=\"a.json\""
        "\r\nContent-Type: application/json\r\n\r\n{\"r\": 4}\r\n--XyZ\r\n"
        "content-disposition: form-data; name=weights\r\n\r\nA\r\n--Xy\0Z\r\n\r\n--XyZ  \r\n"
        "Content-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n--XyZ--\r\nepilogue";
    struct sora_error err;
    assert_int_equal(multipart_parse(TYPE, body, sizeof body - 1, &form, &err), SORA_OK);
    assert_int_equal(form.count, 3);
    const struct multipart_part *part = multipart_find(&form, "config");
    assert_non_null(part);
    assert_int_equal(part->bytes, 8);
    assert_memory_equal(part->data, "{\"r\": 4}", 8);
    part = multipart_find(&form, "weights");
    assert_non_null(part);
    assert_int_equal(part->bytes, 11); // bytes that look like a boundary, a zero, line ends
    assert_memory_equal(part->data, "A\r\n--Xy\0Z\r\n", 11);
    assert_int_equal(multipart_find(&form, "empty")->bytes, 0);
    assert_null(multipart_find(&form, "name"));
}

static void a_quoted_boundary_is_understood(void **state)
{
    (void)state;
    struct multipart form;
    assert_int_equal(parse("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"",
                           "--a b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n"
                           "--a b--",
                           &form, NULL),
                     SORA_OK);
    assert_int_equal(form.count, 1);
    assert_int_equal(form.parts[0].bytes, 1);
}

static void broken_forms_are_refused_and_say_why(void **state)
{
    (void)state;
    static const struct {
        const char *type, *body, *text;
    } cases[] = {
        {NULL, "", "must be multipart/form-data"},
        {"application/json", "{}", "must be multipart/form-data"},
        {"multipart/form-data", "--XyZ--", "has no boundary"},
        {"multipart/form-data; boundary=\"open", "--open--", "has no boundary"},
        {TYPE, "", "does not occur"},
        {TYPE, "--Xy", "does not occur"},
        {TYPE, "--XyZ", "not followed by a line end"},
        {TYPE, "--XyZjunk\r\n", "not followed by a line end"},
        {TYPE, "--XyZ\r\nContent-Disposition: form-data; name=a", "do not end"},
        {TYPE, "--XyZ\r\n\r\ndata\r\n--XyZ--", "no Content-Disposition"},
        {TYPE, "--XyZ\r\nContent-Disposition: form-data\r\n\r\nd\r\n--XyZ--", "has no name"},
        {TYPE, "--XyZ\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nd\r\n--XyZ--",
         "has no name"},
        {TYPE, "--XyZ\r\nContent-Disposition: form-data; name=a\r\n\r\ndata", "no boundary behind"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct multipart form;
        struct sora_error err;
        assert_int_not_equal(parse(cases[i].type, cases[i].body, &form, &err), SORA_OK);
        if (strstr(err.text, cases[i].text) == NULL)
            fail_msg("case %zu: \"%s\" lacks \"%s\"", i, err.text, cases[i].text);
    }
}

static void too_many_parts_are_refused(void **state)
{
    (void)state;
    static const char part[] = "\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--XyZ";
    char body[4096] = "--XyZ";
    size_t used = strlen(body);
    for (int i = 0; i <= SORA_MULTIPART_PARTS_MAX; i++)
        used += (size_t)snprintf(body + used, sizeof body - used, "%s", part);
    snprintf(body + used, sizeof body - used, "--");
    struct multipart form;
    assert_int_equal(parse(TYPE, body, &form, NULL), SORA_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parts_of_a_form_are_found_by_name),
        cmocka_unit_test(a_quoted_boundary_is_understood),
        cmocka_unit_test(broken_forms_are_refused_and_say_why),
        cmocka_unit_test(too_many_parts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: Apache-2.0
// The strict JSON walk. cJSON alone would accept control characters as blanks, "01", "1.", and
// would cut strings at \u0000. Pure; any thread.
#include "base/json_scan.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/utf8.h"
#include "sora/limits.h"

#define NUMBER_BYTES_MAX 63 // what cJSON copies of a number before it converts it

struct scan {
    const char *text;
    size_t bytes, pos;
    size_t values, values_max;
    sora_status status;
    const char *problem; // NULL: none yet
    size_t problem_at;
};

static bool stop(struct scan *scan, sora_status status, const char *problem)
{
    if (scan->problem == NULL) {
        scan->status = status;
        scan->problem = problem;
        scan->problem_at = scan->pos;
    }
    return false;
}

static bool bad(struct scan *scan, const char *problem)
{
    return stop(scan, SORA_MALFORMED, scan->pos < scan->bytes ? problem : "the text ends early");
}

// The byte at the position; 0 at the end (a zero byte in the text is nowhere valid).
static unsigned char peek(const struct scan *scan)
{
    return scan->pos < scan->bytes ? (unsigned char)scan->text[scan->pos] : 0;
}

static void skip_blanks(struct scan *scan)
{
    while (scan->pos < scan->bytes) {
        char c = scan->text[scan->pos];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
            return;
        ++scan->pos;
    }
}

// Four hex digits at the position into *code.
static bool scan_hex4(struct scan *scan, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; ++i, ++scan->pos) {
        unsigned char c = peek(scan);
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (uint32_t)(c | 0x20) - 'a' + 10;
        else
            return bad(scan, "\\u needs four hex digits");
        *code = *code << 4 | digit;
    }
    return true;
}

// Past "\u".
static bool scan_unicode(struct scan *scan)
{
    uint32_t code, low;
    if (!scan_hex4(scan, &code))
        return false;
    if (code == 0)
        return bad(scan, "\\u0000 is not accepted");
    if (code >= 0xDC00 && code <= 0xDFFF)
        return bad(scan, "a low surrogate without a high one");
    if (code < 0xD800 || code > 0xDBFF)
        return true;
    if (peek(scan) != '\\' || scan->bytes - scan->pos < 2 || scan->text[scan->pos + 1] != 'u')
        return bad(scan, "a high surrogate without a low one");
    scan->pos += 2;
    if (!scan_hex4(scan, &low))
        return false;
    return (low >= 0xDC00 && low <= 0xDFFF) || bad(scan, "a high surrogate without a low one");
}

static bool scan_escape(struct scan *scan)
{
    ++scan->pos;
    unsigned char c = peek(scan);
    if (c == 'u') {
        ++scan->pos;
        return scan_unicode(scan);
    }
    if (c == 0 || strchr("\"\\/bfnrt", c) == NULL)
        return bad(scan, "unknown escape");
    ++scan->pos;
    return true;
}

// At the opening quote.
static bool scan_string(struct scan *scan)
{
    ++scan->pos;
    while (scan->pos < scan->bytes) {
        unsigned char c = (unsigned char)scan->text[scan->pos];
        if (c == '"') {
            ++scan->pos;
            return true;
        }
        if (c == '\\') {
            if (!scan_escape(scan))
                return false;
        } else if (c < 0x20) {
            return bad(scan, "raw control character in a string");
        } else if (c < 0x80) {
            ++scan->pos;
        } else {
            uint32_t code;
            size_t length = utf8_next(scan->text + scan->pos, scan->bytes - scan->pos, &code);
            if (code == UTF8_BROKEN)
                return bad(scan, "invalid UTF-8");
            scan->pos += length;
        }
    }
    return bad(scan, "");
}

static bool scan_digits(struct scan *scan)
{
    size_t start = scan->pos;
    while (peek(scan) >= '0' && peek(scan) <= '9')
        ++scan->pos;
    return scan->pos > start || bad(scan, "a digit is missing");
}

static bool scan_number(struct scan *scan)
{
    size_t start = scan->pos;
    if (peek(scan) == '-')
        ++scan->pos;
    if (peek(scan) == '0')
        ++scan->pos;
    else if (!scan_digits(scan))
        return false;
    if (peek(scan) == '.') {
        ++scan->pos;
        if (!scan_digits(scan))
            return false;
    }
    if (peek(scan) == 'e' || peek(scan) == 'E') {
        ++scan->pos;
        if (peek(scan) == '+' || peek(scan) == '-')
            ++scan->pos;
        if (!scan_digits(scan))
            return false;
    }
    return scan->pos - start <= NUMBER_BYTES_MAX ||
           stop(scan, SORA_MALFORMED, "a number of more than 63 characters");
}

static bool scan_word(struct scan *scan, const char *word)
{
    size_t length = strlen(word);
    if (scan->bytes - scan->pos < length || memcmp(scan->text + scan->pos, word, length) != 0)
        return bad(scan, "unknown word");
    scan->pos += length;
    return true;
}

static bool scan_value(struct scan *scan, int depth);

// At '[' or '{'. Recursion is bounded by SORA_JSON_DEPTH_MAX.
static bool scan_container(struct scan *scan, int depth)
{
    bool object = peek(scan) == '{';
    unsigned char close = object ? '}' : ']';
    if (depth >= SORA_JSON_DEPTH_MAX)
        return stop(scan, SORA_MALFORMED, "nested too deep");
    ++scan->pos;
    skip_blanks(scan);
    if (peek(scan) == close) {
        ++scan->pos;
        return true;
    }
    for (;;) {
        skip_blanks(scan);
        if (object) {
            if (peek(scan) != '"')
                return bad(scan, "a key in quotes is missing");
            if (!scan_string(scan))
                return false;
            skip_blanks(scan);
            if (peek(scan) != ':')
                return bad(scan, "':' is missing");
            ++scan->pos;
        }
        if (!scan_value(scan, depth + 1))
            return false;
        skip_blanks(scan);
        unsigned char next = peek(scan);
        if (next != ',' && next != close)
            return bad(scan, object ? "',' or '}' is missing" : "',' or ']' is missing");
        ++scan->pos;
        if (next == close)
            return true;
    }
}

static bool scan_value(struct scan *scan, int depth)
{
    skip_blanks(scan);
    if (++scan->values > scan->values_max)
        return stop(scan, SORA_LIMIT, "too many values");
    switch (peek(scan)) {
    case '{':
    case '[':
        return scan_container(scan, depth);
    case '"':
        return scan_string(scan);
    case 't':
        return scan_word(scan, "true");
    case 'f':
        return scan_word(scan, "false");
    case 'n':
        return scan_word(scan, "null");
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return scan_number(scan);
    default:
        return bad(scan, "a value is missing");
    }
}

sora_status json_scan(const char *text, size_t bytes, size_t values_max, struct sora_error *err)
{
    struct scan scan = {.text = text, .bytes = bytes, .values_max = values_max};
    if (scan_value(&scan, 0)) {
        skip_blanks(&scan);
        if (scan.pos < bytes)
            stop(&scan, SORA_MALFORMED, "trailing bytes");
    }
    if (scan.problem == NULL)
        return SORA_OK;
    if (scan.status == SORA_LIMIT)
        return sora_fail(err, SORA_LIMIT, "JSON at byte %zu: %s (more than %zu)", scan.problem_at,
                         scan.problem, values_max);
    return sora_fail(err, SORA_MALFORMED, "JSON at byte %zu: %s", scan.problem_at, scan.problem);
}

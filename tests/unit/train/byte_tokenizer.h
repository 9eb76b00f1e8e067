// SPDX-License-Identifier: Apache-2.0
// A tokenizer for tests: one token per byte (the id is the byte), <|im_start|> 256, <|im_end|> 257
// (the end token) and a ChatML template; and data files written beside it. Fits the vocabulary of
// the tiny golden models.
#ifndef TRAIN_BYTE_TOKENIZER_H
#define TRAIN_BYTE_TOKENIZER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "sora/text.h"
#include "temp_folder.h"

enum { BYTE_IM_START = 256, BYTE_IM_END = 257 };

// malloc'ed path of a file with this text.
static inline char *write_file(const char *folder, const char *name, const char *text)
{
    struct sora_error err;
    char *path = file_join(folder, name);
    assert_non_null(path);
    assert_int_equal(file_write_atomic(path, text, strlen(text), &err), SORA_OK);
    return path;
}

// GPT-2's printable stand-in of a byte, as UTF-8.
static inline void append_byte(struct buf *buf, int32_t byte)
{
    int32_t shifted = 0;
    for (int32_t b = 0; b <= byte; b++)
        shifted += !((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int32_t point = printable ? byte : 255 + shifted;
    const char utf8[3] = {(char)(0xc0 | (point >> 6)), (char)(0x80 | (point & 63)), 0};
    const char ascii[2] = {(char)point, 0};
    if (point < 128)
        buf_json_string(buf, ascii, 1);
    else
        buf_json_string(buf, utf8, 2);
}

static inline sora_tokenizer *byte_tokenizer_open(const char *folder)
{
    static const char config[] =
        "{\"eos_token\":\"<|im_end|>\",\"chat_template\":\"{% for message in messages %}"
        "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}\"}";
    struct buf buf;
    struct sora_error err;
    sora_tokenizer *tokenizer = NULL;
    buf_init(&buf, 64 << 10);
    buf_text(&buf, "{\"added_tokens\":["
                   "{\"id\":256,\"content\":\"<|im_start|>\",\"special\":true},"
                   "{\"id\":257,\"content\":\"<|im_end|>\",\"special\":true}],"
                   "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                   "\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int32_t byte = 0; byte < 256; byte++) {
        append_byte(&buf, byte);
        buf_printf(&buf, ":%d%s", byte, byte < 255 ? "," : "");
    }
    buf_text(&buf, "},\"merges\":[]}}");
    assert_int_equal(buf_status(&buf, &err), SORA_OK);
    free(write_file(folder, "tokenizer.json", buf.data));
    free(write_file(folder, "tokenizer_config.json", config));
    buf_deinit(&buf);
    if (sora_tokenizer_open(folder, &tokenizer, &err) != SORA_OK)
        fail_msg("%s", err.text);
    assert_non_null(tokenizer);
    assert_int_equal(sora_tokenizer_eos(tokenizer), BYTE_IM_END);
    return tokenizer;
}

#endif

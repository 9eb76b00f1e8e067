// SPDX-License-Identifier: Apache-2.0
// Writes GGUF files, small ones: the whole file is made in memory. One call, one thread.
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/gguf.h"

#define GGUF_VERSION 3u
#define GGUF_ALIGNMENT 32u // the format's default, so that no key has to tell it
// Value types of the format.
#define TYPE_U32 4u
#define TYPE_F32 6u
#define TYPE_STRING 8u

static void put_u32(struct buf *out, uint32_t value)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    buf_append(out, bytes, sizeof bytes);
}

static void put_u64(struct buf *out, uint64_t value)
{
    put_u32(out, (uint32_t)value);
    put_u32(out, (uint32_t)(value >> 32));
}

static void put_string(struct buf *out, const char *text)
{
    put_u64(out, strlen(text));
    buf_text(out, text);
}

static void put_entry(struct buf *out, const struct gguf_entry *entry)
{
    put_string(out, entry->key);
    if (entry->text != NULL) {
        put_u32(out, TYPE_STRING);
        put_string(out, entry->text);
    } else if (entry->is_float) {
        float value = (float)entry->number;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        put_u32(out, TYPE_F32);
        put_u32(out, bits);
    } else {
        ASSERT(entry->number >= 0 && entry->number <= UINT32_MAX);
        put_u32(out, TYPE_U32);
        put_u32(out, (uint32_t)entry->number);
    }
}

static size_t aligned(size_t bytes)
{
    return (bytes + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

static void put_padding(struct buf *out)
{
    static const uint8_t zeros[GGUF_ALIGNMENT];
    buf_append(out, zeros, aligned(out->bytes) - out->bytes);
}

static void put_directory(struct buf *out, const struct gguf_source *sources, int32_t count)
{
    uint64_t offset = 0;
    for (int32_t i = 0; i < count; i++) {
        put_string(out, sources[i].name);
        put_u32(out, (uint32_t)sources[i].rank);
        for (int32_t j = 0; j < sources[i].rank; j++)
            put_u64(out, (uint64_t)sources[i].shape[j]);
        put_u32(out, (uint32_t)sources[i].type);
        put_u64(out, offset);
        offset += aligned(sources[i].bytes);
    }
}

sora_status gguf_encode(const struct gguf_entry *entries, int32_t entry_count,
                        const struct gguf_source *sources, int32_t source_count, size_t bytes_max,
                        uint8_t **bytes, size_t *byte_count, struct sora_error *err)
{
    struct buf out;
    struct gguf *check = NULL;
    buf_init(&out, bytes_max);
    buf_text(&out, "GGUF");
    put_u32(&out, GGUF_VERSION);
    put_u64(&out, (uint64_t)source_count);
    put_u64(&out, (uint64_t)entry_count);
    for (int32_t i = 0; i < entry_count; i++)
        put_entry(&out, &entries[i]);
    put_directory(&out, sources, source_count);
    put_padding(&out);
    for (int32_t i = 0; i < source_count; i++) {
        buf_append(&out, sources[i].data, sources[i].bytes);
        put_padding(&out);
    }
    sora_status status = buf_status(&out, err);
    if (status != SORA_OK)
        status = sora_fail_within(err, status, "gguf");
    // What is written must be readable: the reader's own check, over names, shapes and types.
    if (status == SORA_OK)
        status = gguf_parse(out.data, out.bytes, &check, err);
    gguf_close(check);
    if (status == SORA_OK) {
        *bytes = (uint8_t *)buf_take(&out, byte_count);
        if (*bytes == NULL)
            status = sora_fail(err, SORA_NO_MEMORY, "no memory for a GGUF file");
    }
    buf_deinit(&out);
    return status;
}

// SPDX-License-Identifier: Apache-2.0
// See stop_match.h. The first stop string to be complete wins; of several that end at the same
// byte, the longest, because it begins first.
#include "server/stop_match.h"

#include <string.h>

// Pending text never exceeds a stop string, plus one piece.
#define PENDING_BYTES_MAX (SORA_STOP_BYTES_MAX + SORA_REPLY_BYTES_MAX)

void stop_match_init(struct stop_match *match, const char *const *stops, int32_t stop_count)
{
    match->stops = stops;
    match->stop_count = stop_count;
    match->hit = -1;
    buf_init(&match->pending, PENDING_BYTES_MAX);
}

void stop_match_deinit(struct stop_match *match)
{
    buf_deinit(&match->pending);
}

// Start of the stop string that ends with text[0, end), or -1.
static int64_t find_ending(struct stop_match *match, const char *text, size_t end)
{
    size_t longest = 0;
    for (int32_t i = 0; i < match->stop_count; i++) {
        size_t bytes = strlen(match->stops[i]);
        if (bytes > end || bytes <= longest)
            continue;
        if (memcmp(text + end - bytes, match->stops[i], bytes) == 0) {
            longest = bytes;
            match->hit = i;
        }
    }
    return longest == 0 ? -1 : (int64_t)(end - longest);
}

// Bytes at the end of text that are the beginning of some stop string.
static size_t held_back(const struct stop_match *match, const char *text, size_t bytes)
{
    size_t held = 0;
    for (int32_t i = 0; i < match->stop_count; i++) {
        size_t most = strlen(match->stops[i]) - 1;
        for (size_t n = most < bytes ? most : bytes; n > held; n--)
            if (memcmp(text + bytes - n, match->stops[i], n) == 0)
                held = n;
    }
    return held;
}

bool stop_match_push(struct stop_match *match, const char *text, size_t bytes, bool keep_stop,
                     struct buf *out)
{
    if (match->hit >= 0)
        return true;
    if (match->stop_count == 0) {
        buf_append(out, text, bytes);
        return false;
    }
    size_t before = match->pending.bytes;
    buf_append(&match->pending, text, bytes);
    if (match->pending.status != SORA_OK) {
        out->status = match->pending.status;
        return false;
    }
    const char *all = match->pending.data;
    for (size_t end = before + 1; end <= match->pending.bytes; end++) {
        int64_t start = find_ending(match, all, end);
        if (start >= 0) {
            buf_append(out, all, keep_stop ? end : (size_t)start);
            buf_clear(&match->pending);
            return true;
        }
    }
    size_t held = held_back(match, all, match->pending.bytes);
    size_t certain = match->pending.bytes - held;
    buf_append(out, all, certain);
    if (certain > 0) {
        memmove(match->pending.data, all + certain, held + 1); // and its final zero
        match->pending.bytes = held;
    }
    return false;
}

void stop_match_flush(struct stop_match *match, struct buf *out)
{
    if (match->hit < 0 && match->pending.bytes > 0)
        buf_append(out, match->pending.data, match->pending.bytes);
    buf_clear(&match->pending);
}

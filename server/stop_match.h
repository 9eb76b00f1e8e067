// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in text that comes in pieces. Text is given out as soon as no stop string can
// begin in it; the result does not depend on how the text was cut into pieces. Owned by one
// request; one thread.
#ifndef SERVER_STOP_MATCH_H
#define SERVER_STOP_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "sora/limits.h"

struct stop_match {
    const char *const *stops; // borrowed, each 1..SORA_STOP_BYTES_MAX bytes
    int32_t stop_count;
    struct buf pending; // what may still turn out to be the beginning of a stop string
    int32_t hit;        // index of the stop string that was found, -1: none yet
};

void stop_match_init(struct stop_match *match, const char *const *stops, int32_t stop_count);
void stop_match_deinit(struct stop_match *match);
// Appends to `out` what became certain. True when a stop string is complete: out then ends before
// it (after it with `keep_stop`), match->hit tells which, and later text is ignored.
bool stop_match_push(struct stop_match *match, const char *text, size_t bytes, bool keep_stop,
                     struct buf *out);
// The text ends here: what was held back is text after all.
void stop_match_flush(struct stop_match *match, struct buf *out);

#endif

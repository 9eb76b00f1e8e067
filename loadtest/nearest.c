// SPDX-License-Identifier: Apache-2.0
// See nearest.h.
#include "loadtest/nearest.h"

#include <stdint.h>
#include <string.h>

#define NAME_BYTES_MAX 63

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

// Levenshtein's distance, one row at a time.
static int32_t edit_distance(const char *a, const char *b)
{
    int32_t row[NAME_BYTES_MAX + 1];
    int32_t a_bytes = (int32_t)strnlen(a, NAME_BYTES_MAX);
    int32_t b_bytes = (int32_t)strnlen(b, NAME_BYTES_MAX);
    for (int32_t j = 0; j <= b_bytes; j++)
        row[j] = j;
    for (int32_t i = 1; i <= a_bytes; i++) {
        int32_t diagonal = row[0];
        row[0] = i;
        for (int32_t j = 1; j <= b_bytes; j++) {
            int32_t above = row[j];
            int32_t swap = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = least(swap, least(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[b_bytes];
}

const char *nearest_name(const char *text, const char *const *names)
{
    const char *best = names[0];
    int32_t best_distance = INT32_MAX;
    for (int32_t i = 0; names[i] != NULL; i++) {
        int32_t distance = edit_distance(text, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

// SPDX-License-Identifier: Apache-2.0
// See find_rate.h.
#include "loadtest/find_rate.h"

#include <math.h>

#include "base/assert.h"
#include "sora/limits.h"

#define RATE_MIN 0.01 // a request in 100 s: a server that cannot even do this holds nothing

void find_rate_init(struct find_rate *find, double first, double precision)
{
    *find = (struct find_rate){.phase = FIND_RATE_GROW, .rate = first, .precision = precision};
}

bool find_rate_next(const struct find_rate *find, double *rate, bool *repeat)
{
    *rate = find->rate;
    *repeat = find->phase == FIND_RATE_REPEAT;
    return find->phase != FIND_RATE_DONE;
}

// Chooses the next rate from what is known by now.
static void choose(struct find_rate *find)
{
    if (find->low == 0) { // nothing held yet
        find->rate = find->high / 2;
        find->phase = find->rate < RATE_MIN ? FIND_RATE_DONE : FIND_RATE_GROW;
    } else if (find->high == 0) {
        find->rate = fmin(find->low * 2, SORA_LOADTEST_RATE_MAX);
        find->phase = find->low >= SORA_LOADTEST_RATE_MAX ? FIND_RATE_REPEAT : FIND_RATE_GROW;
    } else if (find->high > find->low * (1 + find->precision) * (1 + 1e-9)) {
        find->rate = sqrt(find->low * find->high);
        find->phase = FIND_RATE_BISECT;
    } else {
        find->rate = find->low;
        find->phase = FIND_RATE_REPEAT;
    }
}

void find_rate_tell(struct find_rate *find, bool held)
{
    ASSERT(find->phase != FIND_RATE_DONE);
    find->tries++;
    if (find->phase == FIND_RATE_REPEAT && held) {
        find->found = find->rate;
        find->phase = FIND_RATE_DONE;
        return;
    }
    if (find->phase == FIND_RATE_REPEAT) {
        // It held once by luck: what is known below it is only that nothing failed there.
        find->high = find->rate;
        find->low = 0;
        find->rate = find->high / (1 + find->precision);
        find->phase = find->rate < RATE_MIN ? FIND_RATE_DONE : FIND_RATE_BISECT;
    } else {
        if (held)
            find->low = find->rate;
        else
            find->high = find->rate;
        // After a failed repeat, one step down at a time.
        if (!held && find->phase == FIND_RATE_BISECT && find->low == 0) {
            find->rate = find->high / (1 + find->precision);
            find->phase = find->rate < RATE_MIN ? FIND_RATE_DONE : FIND_RATE_BISECT;
        } else {
            choose(find);
        }
    }
    if (find->tries == SORA_LOADTEST_POINTS_MAX)
        find->phase = FIND_RATE_DONE;
}

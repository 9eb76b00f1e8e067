// SPDX-License-Identifier: Apache-2.0
// The search for the highest rate that holds an objective: doubles from a first guess, bisects, and
// tries the winner a second time; a winner that does not hold again gives way to a lower rate.
// Pure: is told how each try went; one owner.
#ifndef LOADTEST_FIND_RATE_H
#define LOADTEST_FIND_RATE_H

#include <stdbool.h>
#include <stdint.h>

enum find_rate_phase { FIND_RATE_GROW, FIND_RATE_BISECT, FIND_RATE_REPEAT, FIND_RATE_DONE };

struct find_rate {
    enum find_rate_phase phase;
    double rate;      // to try next
    double low, high; // highest that held, lowest that did not; 0: none yet
    double precision; // high may be so much above low in the end: 0.05
    int32_t tries;
    double found; // held twice; 0: none
};

void find_rate_init(struct find_rate *find, double first, double precision);
// What to try next; *repeat: it held before. False: the search is over.
bool find_rate_next(const struct find_rate *find, double *rate, bool *repeat);
void find_rate_tell(struct find_rate *find, bool held);

#endif

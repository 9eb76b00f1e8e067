// SPDX-License-Identifier: Apache-2.0
// Comparing arrays of floats within a tolerance, for tests. An item passes when
// |got - want| <= abs_max + rel_max * |want|; a NaN or an infinity only matches the same.
#ifndef SUPPORT_EXPECT_CLOSE_H
#define SUPPORT_EXPECT_CLOSE_H

#include <stdbool.h>
#include <stddef.h>

// False when an item is out of tolerance; text then names the first such item and the worst one.
bool close_compare(const float *got, const float *want, size_t count, double abs_max,
                   double rel_max, char text[256]);

// Fails the running cmocka test with `what` and the text of close_compare.
#define expect_close(what, got, want, count, abs_max, rel_max) \
    expect_close_at(what, got, want, count, abs_max, rel_max, __FILE__, __LINE__)
void expect_close_at(const char *what, const float *got, const float *want, size_t count,
                     double abs_max, double rel_max, const char *file, int line);

#endif

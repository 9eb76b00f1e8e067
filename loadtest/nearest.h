// SPDX-License-Identifier: Apache-2.0
// "Did you mean ...?": the name with the smallest edit distance. Pure.
#ifndef LOADTEST_NEAREST_H
#define LOADTEST_NEAREST_H

// names ends with NULL and has at least one name; names longer than 63 bytes are cut.
const char *nearest_name(const char *text, const char *const *names);

#endif

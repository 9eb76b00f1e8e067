// SPDX-License-Identifier: Apache-2.0
// What is done with secrets, by libcrypto: comparing without telling by time where they differ, and
// wiping memory so that the compiler does not leave it out. Pure functions, any thread.
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

bool secret_equal(const void *a, const void *b, size_t bytes);
void secret_wipe(void *memory, size_t bytes);

#endif

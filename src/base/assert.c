// SPDX-License-Identifier: Apache-2.0
// The end of a process that found its own bug. Any thread.
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "assertion failed: %s at %s:%d\n", condition, file, line);
    fflush(stderr);
    abort();
}

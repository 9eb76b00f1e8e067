// SPDX-License-Identifier: Apache-2.0
// The files of loadtest/scenarios, put into the program by the build. Constant data.
#include "loadtest/scenario.h"

const struct scenario_builtin scenario_builtins[] = {
#include <scenario_table.inc> // the build makes it
    {NULL, NULL},
};

// SPDX-License-Identifier: Apache-2.0
// The tolerance comparer of the tests.
#include "expect_close.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
// cmocka.h needs the four above.
#include <cmocka.h>

// How far an item is over its tolerance; 0 or less: it passes.
static double excess_of(float got, float want, double abs_max, double rel_max)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got) ? 0 : INFINITY;
    if (isinf(want) || isinf(got))
        return got == want ? 0 : INFINITY;
    return fabs((double)got - want) - (abs_max + rel_max * fabs((double)want));
}

bool close_compare(const float *got, const float *want, size_t count, double abs_max,
                   double rel_max, char text[256])
{
    size_t wrong = 0, first = 0, worst = 0;
    double worst_excess = 0;
    for (size_t i = 0; i < count; ++i) {
        double excess = excess_of(got[i], want[i], abs_max, rel_max);
        if (!(excess > 0))
            continue;
        if (wrong++ == 0)
            first = i;
        if (excess > worst_excess) {
            worst_excess = excess;
            worst = i;
        }
    }
    text[0] = 0;
    if (wrong > 0)
        snprintf(text, 256,
                 "%zu of %zu items differ (abs %g, rel %g): first [%zu] got %.9g want %.9g, worst "
                 "[%zu] got %.9g want %.9g",
                 wrong, count, abs_max, rel_max, first, (double)got[first], (double)want[first],
                 worst, (double)got[worst], (double)want[worst]);
    return wrong == 0;
}

void expect_close_at(const char *what, const float *got, const float *want, size_t count,
                     double abs_max, double rel_max, const char *file, int line)
{
    char text[256];
    if (close_compare(got, want, count, abs_max, rel_max, text))
        return;
    print_error("%s: %s\n", what, text);
    _fail(file, line);
}

// SPDX-License-Identifier: Apache-2.0
// See plan_arrivals.h.
#include "loadtest/plan_arrivals.h"

#include <math.h>

static double exponential(struct rng *rng)
{
    return -log1p(-rng_uniform(rng));
}

// Gamma variate of this shape and scale 1. Marsaglia and Tsang, "A simple method for generating
// gamma variables", 2000; below shape 1 by their boost U^(1/shape).
static double gamma_variate(double shape, struct rng *rng)
{
    if (shape < 1)
        return gamma_variate(shape + 1, rng) * pow(1 - rng_uniform(rng), 1 / shape);
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    while (1) {
        double x = rng_normal(rng), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        double u = 1 - rng_uniform(rng);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

double arrivals_gap_s(enum scenario_arrivals kind, double rate, double burstiness, struct rng *rng)
{
    if (kind == ARRIVALS_POISSON)
        return exponential(rng) / rate;
    if (kind == ARRIVALS_GAMMA)
        return gamma_variate(burstiness, rng) / (burstiness * rate);
    return 1 / rate;
}

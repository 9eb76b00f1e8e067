// SPDX-License-Identifier: Apache-2.0
// When the requests of an open loop are sent: a renewal process. Pure.
#ifndef LOADTEST_PLAN_ARRIVALS_H
#define LOADTEST_PLAN_ARRIVALS_H

#include "base/rng.h"
#include "loadtest/scenario.h"

// Seconds to the next request. ARRIVALS_POISSON, _GAMMA (mean 1/rate, shape `burstiness`, variance
// of the gap 1/(burstiness rate^2)) and _CONSTANT.
double arrivals_gap_s(enum scenario_arrivals kind, double rate, double burstiness, struct rng *rng);

#endif

// SPDX-License-Identifier: Apache-2.0
// What is done to a server before and after the load: finding its models, uploading made adapters,
// deleting what the load test left. One thread.
#ifndef LOADTEST_SETUP_H
#define LOADTEST_SETUP_H

#include <stdbool.h>

#include "loadtest/churn.h"
#include "loadtest/client_http.h"
#include "loadtest/made_adapter.h"
#include "loadtest/plan.h"
#include "loadtest/scenario.h"
#include "sora/status.h"

// Who will be asked; speaks to the server only when the scenario leaves something open.
SORA_CHECKED sora_status setup_models(struct client_http *http, const struct scenario *scenario,
                                      enum client_selector selector, struct plan_models *models,
                                      struct sora_error *err);
// The record of the server's base: from an adapter file (like), or the card of a loaded adapter.
SORA_CHECKED sora_status setup_base(struct client_http *http, const char *like,
                                    struct made_base *base, struct sora_error *err);
// Makes and uploads the first made_count models. progress is called now and then (may be NULL);
// false ends with SORA_CANCELLED.
typedef bool (*setup_progress_fn)(void *context, int32_t done, int32_t total);
SORA_CHECKED sora_status setup_upload(struct client_http *http, const struct scenario *scenario,
                                      const struct plan_models *models,
                                      const struct made_base *base, setup_progress_fn progress,
                                      void *context, struct sora_error *err);
// Deletes the first `count` made models and what churn left (may be NULL). Returns how many the
// server would not delete.
int32_t setup_remove(struct client_http *http, const struct plan_models *models, int32_t count,
                     const struct churn *churn);

#endif

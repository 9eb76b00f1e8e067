// SPDX-License-Identifier: Apache-2.0
// A planned request as the JSON that is sent. Pure.
#ifndef LOADTEST_CLIENT_BODY_H
#define LOADTEST_CLIENT_BODY_H

#include "base/buf.h"
#include "loadtest/client_http.h"
#include "loadtest/plan.h"

// Replaces what is in body; its status says whether it fitted. scratch is anyone's.
void client_body_encode(const struct plan *plan, const struct plan_request *request,
                        enum client_selector selector, struct buf *body, struct buf *scratch);
// "/v1/chat/completions" or "/v1/completions".
const char *client_body_path(const struct plan_request *request);

#endif

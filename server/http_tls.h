// SPDX-License-Identifier: Apache-2.0
// What CivetWeb needs before it can speak TLS. Main thread, before it starts.
#ifndef SERVER_HTTP_TLS_H
#define SERVER_HTTP_TLS_H

#include "sora/status.h"

// Loads the modules of src/base/libssl_module.c from the program's folder, for as long as it runs.
SORA_CHECKED sora_status http_tls_load(struct sora_error *err);

#endif

// SPDX-License-Identifier: Apache-2.0
// A server's certificate and key as libssl wants them. Made and freed by one thread; the
// connections of any thread may use it in between.
#ifndef BASE_TLS_H
#define BASE_TLS_H

#include "sora/status.h"

// *context: an SSL_CTX that speaks TLS 1.2 and 1.3. Both files are PEM; the first may go on with
// the certificates that lead to a root. Errors name the file.
SORA_CHECKED sora_status tls_server_open(const char *certificate_path, const char *key_path,
                                         void **context, struct sora_error *err);
void tls_server_close(void *context); // accepts NULL

#endif

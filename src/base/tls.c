// SPDX-License-Identifier: Apache-2.0
// See tls.h.
#include "base/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

// What libssl says went wrong first; later errors only tell who asked for it.
static sora_status fail_ssl(const char *what, const char *path, struct sora_error *err)
{
    unsigned long code = ERR_get_error();
    char text[256];
    const char *reason = ERR_reason_error_string(code);
    if (ERR_SYSTEM_ERROR(code))
        reason = strerror_r(ERR_GET_REASON(code), text, sizeof text);
    ERR_clear_error();
    return sora_fail(err, SORA_MALFORMED, "%s %s: %s", what, path,
                     reason != NULL ? reason : "not usable");
}

// A server has nobody to ask for the password of a key.
static int no_password(char *out, int out_bytes, int writes, void *context)
{
    (void)out, (void)out_bytes, (void)writes, (void)context;
    return 0;
}

static sora_status configure(SSL_CTX *context, const char *certificate_path, const char *key_path,
                             struct sora_error *err)
{
    static const unsigned char session_context[] = "sora-server";
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_session_id_context(context, session_context, sizeof session_context - 1) != 1)
        return fail_ssl("TLS", "1.2", err);
    if (SSL_CTX_use_certificate_chain_file(context, certificate_path) != 1)
        return fail_ssl("the certificate", certificate_path, err);
    // Also when it is a good key, but not this certificate's.
    if (SSL_CTX_use_PrivateKey_file(context, key_path, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return fail_ssl("the certificate's key", key_path, err);
    return SORA_OK;
}

sora_status tls_server_open(const char *certificate_path, const char *key_path, void **context,
                            struct sora_error *err)
{
    *context = NULL;
    ERR_clear_error();
    SSL_CTX *made = SSL_CTX_new(TLS_server_method());
    if (made == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for TLS");
    sora_status status = configure(made, certificate_path, key_path, err);
    if (status != SORA_OK) {
        SSL_CTX_free(made);
        return status;
    }
    *context = made;
    return SORA_OK;
}

void tls_server_close(void *context)
{
    SSL_CTX_free(context);
}

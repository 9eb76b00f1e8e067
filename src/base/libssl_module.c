// SPDX-License-Identifier: Apache-2.0
// libssl and libcrypto under the names by which CivetWeb looks for them. Not a part of the program:
// CMake makes two modules of this file, called libssl.so and libcrypto.so, which http_tls.c loads.
//
// CivetWeb 1.15 wants SSL_get_peer_certificate, which OpenSSL 3 has as a macro only, and does no
// TLS at all without it (civetweb/civetweb#1334). All other names are found in the libraries that
// the modules bring along. Any thread.
#include <openssl/ssl.h>

#undef SSL_get_peer_certificate
X509 *SSL_get_peer_certificate(const SSL *connection);

X509 *SSL_get_peer_certificate(const SSL *connection)
{
    return SSL_get1_peer_certificate(connection);
}

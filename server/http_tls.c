// SPDX-License-Identifier: Apache-2.0
// See http_tls.h.
#include "server/http_tls.h"

#include <civetweb.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

// "/usr/bin" of "/usr/bin/sora-server" into out.
static sora_status find_folder(char out[PATH_MAX], struct sora_error *err)
{
    ssize_t bytes = readlink("/proc/self/exe", out, PATH_MAX - 1);
    if (bytes <= 0)
        return sora_fail(err, SORA_IO, "cannot read /proc/self/exe");
    out[bytes] = '\0';
    *strrchr(out, '/') = '\0';
    return SORA_OK;
}

// Once a library of this name is there, CivetWeb's own dlopen finds it and no other.
static sora_status load_module(const char *folder, const char *name, struct sora_error *err)
{
    sora_status status = SORA_OK;
    char *path = file_join(folder, name);
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    if (dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) == NULL)
        status = sora_fail(err, SORA_IO, "TLS needs a module beside the program: %s", dlerror());
    free(path);
    return status;
}

sora_status http_tls_load(struct sora_error *err)
{
    char folder[PATH_MAX + 16];
    sora_status status = find_folder(folder, err);
    if (status != SORA_OK)
        return status;
    memcpy(folder + strlen(folder), "/tls", sizeof "/tls");
    status = load_module(folder, "libcrypto.so", err);
    if (status == SORA_OK)
        status = load_module(folder, "libssl.so", err);
    if (status == SORA_OK && (mg_check_feature(MG_FEATURES_TLS) & MG_FEATURES_TLS) == 0)
        status = sora_fail(err, SORA_UNSUPPORTED, "this CivetWeb was built without TLS");
    return status;
}

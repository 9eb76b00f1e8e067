// SPDX-License-Identifier: Apache-2.0
// What the registry needs of adapter files beyond sora/adapter.h. Pure; any thread.
#ifndef ADAPTERS_ADAPTER_LOAD_H
#define ADAPTERS_ADAPTER_LOAD_H

#include <stddef.h>

#include "sora/adapter.h"

// As sora_adapter_parse_as, of bytes whose digest the caller has computed.
SORA_CHECKED sora_status adapter_parse_known(const void *bytes, size_t byte_count,
                                             const struct sora_base *base, const char *digest,
                                             bool int8, sora_adapter **adapter,
                                             struct sora_error *err);
// The packed_bytes that parsing a good file for this base will give. Reads its header alone.
SORA_CHECKED sora_status adapter_measure(const void *bytes, size_t byte_count,
                                         const struct sora_base *base, bool int8,
                                         size_t *packed_bytes, struct sora_error *err);

#endif

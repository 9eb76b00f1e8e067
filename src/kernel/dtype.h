// SPDX-License-Identifier: Apache-2.0
// Sizes of the element types of adapters and of keys and values.
#ifndef KERNEL_DTYPE_H
#define KERNEL_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "sora/lora.h"

static inline size_t dtype_bytes(enum sora_dtype dtype)
{
    return dtype == SORA_F32 ? sizeof(float) : dtype == SORA_I8 ? sizeof(int8_t) : sizeof(uint16_t);
}

#endif

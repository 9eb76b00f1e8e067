// SPDX-License-Identifier: Apache-2.0
// f16 and bf16, one value at a time, exact; round to nearest even on the way down.
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include <stdint.h>

float half_from_f16(uint16_t bits);
float half_from_bf16(uint16_t bits);
uint16_t half_to_f16(float value);
uint16_t half_to_bf16(float value);

#endif

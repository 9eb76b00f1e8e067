// SPDX-License-Identifier: Apache-2.0
// An adapter's rank per layer and module as a picture in characters. Main thread only.
#ifndef SERVER_RANK_PICTURE_H
#define SERVER_RANK_PICTURE_H

#include <stdbool.h>
#include <stdio.h>

#include "sora/adapter.h"

// The rank as one character: '.' for 0, '1' to '9', 'a' (10) to 'z' (35), '+' for more.
char rank_picture_digit(int32_t rank);

// One row for each of the seven modules, one column for each layer (as many as fit in `width`
// columns, the rest below), the sum of ranks beside and under them. shaded: with background
// colours by rank / r_max.
void rank_picture_print(FILE *out, const struct sora_adapter_info *info, int32_t width,
                        bool shaded);

#endif

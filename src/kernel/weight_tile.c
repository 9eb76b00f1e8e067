// SPDX-License-Identifier: Apache-2.0
// See weight_tile.h.
#include "kernel/weight_tile.h"

#include <string.h>

#include "base/assert.h"
#include "kernel/panel.h"
#include "kernel/tile_product.h"

void weight_tile_unpack(const struct weight *weight, int32_t column_first, int32_t row_first,
                        int32_t row_count, float *out)
{
    _Static_assert(WEIGHT_TILE_COLUMNS == 2 * TILE_COLUMNS && WEIGHT_PANEL_ROWS == TILE_COLUMNS,
                   "a panel's columns are two tiles");
    ASSERT(column_first % WEIGHT_TILE_COLUMNS == 0 && row_first % WEIGHT_PANEL_ROWS == 0);
    float chunk[WEIGHT_TILE_COLUMNS * WEIGHT_PANEL_ROWS]; // [columns][rows]
    const int32_t columns = tile_smaller(WEIGHT_TILE_COLUMNS, weight->d_in - column_first);
    memset(chunk, 0, sizeof chunk);
    for (int32_t row = 0; row < row_count; row += WEIGHT_PANEL_ROWS) {
        const int32_t rows = tile_smaller(WEIGHT_PANEL_ROWS, row_count - row);
        panel_unpack(weight, (row_first + row) / WEIGHT_PANEL_ROWS, column_first, columns, chunk);
        for (int32_t half = 0; half < 2; half++)
            tile_transpose(chunk + half * TILE_COLUMNS * WEIGHT_PANEL_ROWS, WEIGHT_PANEL_ROWS,
                           TILE_COLUMNS, rows,
                           out + (size_t)(half * row_count + row) * TILE_COLUMNS, TILE_COLUMNS);
    }
}

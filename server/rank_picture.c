// SPDX-License-Identifier: Apache-2.0
// See rank_picture.h.
#include "server/rank_picture.h"

#include <stdlib.h>
#include <string.h>

#include "sora/limits.h"

#define LABEL_COLUMNS 6  // "layer " and the names of the modules
#define TOTAL_COLUMNS 30 // what stands behind the last layer
#define SHARE_CELLS 10

// Ranks as a grid; modules that the adapter lacks are 0.
struct rank_grid {
    int32_t layer_count, full; // full: the rank that counts as dark
    int32_t ranks[SORA_LAYER_COUNT_MAX][SORA_PROJ_COUNT];
};

static const char *const labels[SORA_PROJ_COUNT] = {"q", "k", "v", "o", "gate", "up", "down"};

char rank_picture_digit(int32_t rank)
{
    if (rank <= 0)
        return '.';
    if (rank < 10)
        return (char)('0' + rank);
    return rank < 36 ? (char)('a' + rank - 10) : '+';
}

static void fill_grid(struct rank_grid *grid, const struct sora_adapter_info *info)
{
    memset(grid, 0, sizeof *grid);
    grid->layer_count =
        info->layer_count < SORA_LAYER_COUNT_MAX ? info->layer_count : SORA_LAYER_COUNT_MAX;
    grid->full = info->r_max > info->rank_max ? info->r_max : info->rank_max;
    for (int32_t i = 0; i < info->module_count; i++) {
        const struct sora_adapter_module *module = &info->modules[i];
        if (module->layer >= 0 && module->layer < grid->layer_count)
            grid->ranks[module->layer][module->proj] = module->rank;
    }
}

// A rank from 1 to full as one of five greens of the 256-colour palette, black text.
static void print_cell(FILE *out, int32_t rank, int32_t full, bool shaded)
{
    static const int greens[] = {194, 157, 120, 83, 46};
    if (!shaded || rank <= 0) {
        fputc(rank_picture_digit(rank), out);
        return;
    }
    int32_t shade = full > 0 ? (int32_t)((int64_t)(rank - 1) * 5 / full) : 0;
    fprintf(out, "\033[38;5;16;48;5;%dm%c\033[0m", greens[shade > 4 ? 4 : shade],
            rank_picture_digit(rank));
}

// Numbers stand upright, one digit in each line, so that a column is one character wide.
static void print_upright(FILE *out, const char *label, const int32_t *values, int32_t count)
{
    int32_t largest = 0;
    for (int32_t i = 0; i < count; i++)
        largest = values[i] > largest ? values[i] : largest;
    int32_t power = 1;
    while (largest / power >= 10)
        power *= 10;
    for (bool first = true; power > 0; power /= 10, first = false) {
        fprintf(out, "%-*s", LABEL_COLUMNS, first ? label : "");
        for (int32_t i = 0; i < count; i++)
            fputc(values[i] >= power || power == 1 ? '0' + values[i] / power % 10 : ' ', out);
        fputc('\n', out);
    }
}

// Sum over all layers of one module, and which part of full rank that is.
static void print_total(FILE *out, const struct rank_grid *grid, int32_t proj)
{
    int64_t sum = 0;
    for (int32_t layer = 0; layer < grid->layer_count; layer++)
        sum += grid->ranks[layer][proj];
    int64_t full = (int64_t)grid->layer_count * grid->full;
    double part = full > 0 ? (double)sum / (double)full : 0;
    fprintf(out, "  %6lld %4.0f%% ", (long long)sum, part * 100);
    for (int32_t i = 0; i < SHARE_CELLS; i++)
        fputc(i < (int32_t)(part * SHARE_CELLS + 0.5) ? '#' : '-', out);
}

static void print_block(FILE *out, const struct rank_grid *grid, int32_t first, int32_t count,
                        bool shaded, bool totals)
{
    int32_t numbers[SORA_LAYER_COUNT_MAX], sums[SORA_LAYER_COUNT_MAX] = {0};
    for (int32_t i = 0; i < count; i++) {
        numbers[i] = first + i;
        for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++)
            sums[i] += grid->ranks[first + i][proj];
    }
    print_upright(out, "layer", numbers, count);
    for (int32_t proj = 0; proj < SORA_PROJ_COUNT; proj++) {
        fprintf(out, "%-*s", LABEL_COLUMNS, labels[proj]);
        for (int32_t i = 0; i < count; i++)
            print_cell(out, grid->ranks[first + i][proj], grid->full, shaded);
        if (totals)
            print_total(out, grid, proj);
        fputc('\n', out);
    }
    print_upright(out, "sum", sums, count);
}

void rank_picture_print(FILE *out, const struct sora_adapter_info *info, int32_t width, bool shaded)
{
    struct rank_grid *grid = malloc(sizeof *grid);
    if (grid == NULL)
        return;
    fill_grid(grid, info);
    int32_t columns = width - LABEL_COLUMNS - TOTAL_COLUMNS;
    if (columns < 20)
        columns = 20;
    fprintf(out, "rank of each module by layer (. is 0, a is 10, b is 11; %d in full)\n",
            grid->full);
    for (int32_t first = 0; first < grid->layer_count; first += columns) {
        int32_t left = grid->layer_count - first;
        bool last = left <= columns;
        print_block(out, grid, first, last ? left : columns, shaded, last);
    }
    free(grid);
}

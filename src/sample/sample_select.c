// SPDX-License-Identifier: Apache-2.0
// Quickselect with pivots from a fixed sequence, so that no input is slow on purpose and the
// result is always the same. Pure functions; any thread.
#include "sample/sample_select.h"

#include <stdbool.h>

#include "base/assert.h"

#define SMALL_COUNT 24 // up to here insertion sort is faster

static uint32_t next_pivot(uint32_t *state, uint32_t count)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)*state * count >> 32);
}

static void sort_small(uint64_t *keys, int32_t count)
{
    for (int32_t i = 1; i < count; i++) {
        uint64_t key = keys[i];
        int32_t j = i;
        for (; j > 0 && keys[j - 1] < key; j--)
            keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

// Moves keys larger than or equal to a pivot to the front; returns how many (1 <= n <= count).
// Keys are distinct, so n = count only for the smallest pivot, which then stands last.
static int32_t partition(uint64_t *keys, int32_t count, uint32_t *state)
{
    uint32_t at = next_pivot(state, (uint32_t)count);
    uint64_t pivot = keys[at];
    keys[at] = keys[count - 1];
    keys[count - 1] = pivot;
    int32_t front = 0;
    for (int32_t i = 0; i < count - 1; i++) {
        uint64_t key = keys[i];
        keys[i] = keys[front];
        keys[front] = key;
        front += key > pivot;
    }
    keys[count - 1] = keys[front];
    keys[front] = pivot;
    return front + 1;
}

void select_largest(uint64_t *keys, int32_t count, int32_t wanted)
{
    ASSERT(wanted >= 0 && wanted <= count);
    uint32_t state = 1;
    while (wanted > 0 && wanted < count) {
        if (count <= SMALL_COUNT) {
            sort_small(keys, count);
            return;
        }
        int32_t front = partition(keys, count, &state);
        if (front == wanted)
            return;
        if (front > wanted) {
            count = front - 1; // the pivot is the smallest of the front: not among the wanted
        } else {
            keys += front;
            count -= front;
            wanted -= front;
        }
    }
}

int32_t select_mass(uint64_t *keys, int32_t count, double mass)
{
    ASSERT(count > 0);
    uint32_t state = 1;
    int32_t taken = 0; // keys before `keys` that belong to the result
    while (count > SMALL_COUNT) {
        int32_t front = partition(keys, count, &state);
        double before_pivot = 0;
        for (int32_t i = 0; i < front - 1; i++)
            before_pivot += select_weight(keys[i]);
        if (front > 1 && before_pivot >= mass) {
            count = front - 1;
            continue;
        }
        double with_pivot = before_pivot + select_weight(keys[front - 1]);
        taken += front;
        if (with_pivot >= mass || front == count)
            return taken;
        mass -= with_pivot;
        keys += front;
        count -= front;
    }
    sort_small(keys, count);
    double sum = 0;
    int32_t last = 0;
    for (; last < count; last++) {
        if ((taken > 0 || last > 0) && sum >= mass)
            break;
        sum += select_weight(keys[last]);
    }
    return taken + last;
}

float select_nth_value(float *values, int32_t count, int32_t wanted)
{
    ASSERT(wanted >= 1 && wanted <= count);
    uint32_t state = 1;
    int32_t low = 0, high = count - 1, target = wanted - 1;
    while (low < high) {
        float pivot = values[low + (int32_t)next_pivot(&state, (uint32_t)(high - low + 1))];
        int32_t i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot)
                i++;
            while (values[j] < pivot)
                j--;
            if (i <= j) {
                float value = values[i];
                values[i++] = values[j];
                values[j--] = value;
            }
        }
        if (target <= j)
            high = j;
        else if (target >= i)
            low = i;
        else
            break;
    }
    return values[target];
}

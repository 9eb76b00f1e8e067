// SPDX-License-Identifier: Apache-2.0
// Adapters made for the benchmark, packed as the registry packs real ones (in 8 bits, or as a file
// of bf16 is), each with memory of its own. Ragged ranks are drawn as SoRA leaves them: an adapter
// keeps a share of its ranks, more of them in upper layers.
#include <stdlib.h>
#include <string.h>

#include "base/pages.h"
#include "base/rng.h"
#include "server/bench.h"

struct bench_adapters {
    int32_t count;
    struct made {
        struct sora_lora lora;
        struct sora_lora_module *modules;
        uint8_t *values;
        size_t value_bytes;
        float *scales; // of all ranks, in int8
        int64_t parameters;
        bool borrowed; // values and scales are another adapter's
    } * made;
};

static int32_t draw_rank(const struct bench_ranks *ranks, struct rng *rng, double keep,
                         int32_t layer, int32_t layer_count)
{
    if (ranks->kind == BENCH_UNIFORM)
        return ranks->rank;
    const double share = keep * (0.4 + 1.2 * layer / layer_count);
    int32_t rank = 0;
    for (int32_t i = 0; i < ranks->rank; i++)
        rank += rng_uniform(rng) < share;
    return rank;
}

static size_t to_line(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

// In int8 anything; in bf16 signs and mantissas at random, about 2^-6: small enough to leave the
// model's numbers tame. So do the scales of int8.
static void fill_values(struct made *made, bool int8, struct rng *rng)
{
    for (size_t i = 0; i < made->value_bytes / sizeof(uint16_t); i++) {
        const uint16_t bits = (uint16_t)rng_u64(rng);
        const uint16_t half = int8 ? bits : (uint16_t)(0x3c80u | (bits & 0x807fu));
        memcpy(made->values + i * sizeof half, &half, sizeof half);
    }
}

// Of a or bt of a module, whole lines.
static size_t matrix_bytes(const struct sora_lora_module *module, int32_t width)
{
    const size_t item = module->dtype == SORA_I8 ? sizeof(int8_t) : sizeof(uint16_t);
    return to_line((size_t)module->rank * (size_t)width * item);
}

// Modules without values.
static sora_status draw_modules(const struct sora_base *base, const struct bench_ranks *ranks,
                                bool int8, struct rng *rng, struct made *made,
                                struct sora_error *err)
{
    static const double keeps[] = {0.15, 0.3, 0.45, 0.6, 0.8};
    const double keep = keeps[rng_below(rng, 5)];
    const int32_t module_count = base->layer_count * SORA_PROJ_COUNT;
    made->modules = calloc((size_t)module_count, sizeof *made->modules);
    if (made->modules == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a made adapter");
    for (int32_t i = 0; i < module_count; i++) {
        const int proj = i % SORA_PROJ_COUNT;
        const int32_t narrow =
            base->d_in[proj] < base->d_out[proj] ? base->d_in[proj] : base->d_out[proj];
        int32_t rank = draw_rank(ranks, rng, keep, i / SORA_PROJ_COUNT, base->layer_count);
        rank = rank < narrow ? rank : narrow;
        made->modules[i] = (struct sora_lora_module){
            .rank = rank, .scale = 2.0f, .dtype = int8 ? SORA_I8 : SORA_BF16};
        made->parameters += (int64_t)rank * (base->d_in[proj] + base->d_out[proj]);
    }
    made->lora = (struct sora_lora){base->layer_count, made->modules};
    return SORA_OK;
}

// Where each module's values are: one after another in made->values and made->scales.
static void place_modules(const struct sora_base *base, struct made *made)
{
    uint8_t *next = made->values;
    const float *scales = made->scales;
    for (int32_t i = 0; i < base->layer_count * SORA_PROJ_COUNT; i++) {
        struct sora_lora_module *module = &made->modules[i];
        if (module->rank == 0)
            continue;
        module->a = next;
        next += matrix_bytes(module, base->d_in[i % SORA_PROJ_COUNT]);
        module->bt = next;
        next += matrix_bytes(module, base->d_out[i % SORA_PROJ_COUNT]);
        module->scales = module->dtype == SORA_I8 ? scales : NULL;
        scales += module->rank;
    }
}

static sora_status make_one(const struct sora_base *base, const struct bench_ranks *ranks,
                            bool int8, struct rng *rng, struct made *made, struct sora_error *err)
{
    size_t total = 0, rank_sum = 0;
    sora_status status = draw_modules(base, ranks, int8, rng, made, err);
    if (status != SORA_OK)
        return status;
    for (int32_t i = 0; i < base->layer_count * SORA_PROJ_COUNT; i++) {
        total += matrix_bytes(&made->modules[i], base->d_in[i % SORA_PROJ_COUNT]) +
                 matrix_bytes(&made->modules[i], base->d_out[i % SORA_PROJ_COUNT]);
        rank_sum += (size_t)made->modules[i].rank;
    }
    made->value_bytes = total + 64;
    made->values = pages_map(made->value_bytes);
    made->scales = calloc(rank_sum + 1, sizeof *made->scales);
    if (made->values == NULL || made->scales == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu bytes of a made adapter", total);
    fill_values(made, int8, rng);
    for (size_t i = 0; i < rank_sum; i++)
        made->scales[i] = 1.5e-8f;
    place_modules(base, made);
    return SORA_OK;
}

static struct bench_adapters *adapters_of(int32_t count, struct sora_error *err)
{
    struct bench_adapters *created = calloc(1, sizeof *created);
    if (created != NULL)
        created->made = calloc((size_t)count, sizeof *created->made);
    if (created == NULL || created->made == NULL) {
        bench_adapters_destroy(created);
        (void)sora_fail(err, SORA_NO_MEMORY, "no memory for %d made adapters", (int)count);
        return NULL;
    }
    created->count = count;
    return created;
}

sora_status bench_adapters_create(const struct sora_base *base, const struct bench_ranks *ranks,
                                  int32_t count, bool int8, uint64_t seed,
                                  struct bench_adapters **adapters, struct sora_error *err)
{
    struct rng rng;
    rng_seed(&rng, seed);
    struct bench_adapters *created = adapters_of(count, err);
    if (created == NULL)
        return SORA_NO_MEMORY;
    for (int32_t i = 0; i < count; i++) {
        sora_status status = make_one(base, ranks, int8, &rng, &created->made[i], err);
        if (status != SORA_OK) {
            bench_adapters_destroy(created);
            return status;
        }
    }
    *adapters = created;
    return SORA_OK;
}

sora_status bench_adapters_within(const struct sora_base *base, const struct bench_adapters *from,
                                  int32_t rank, struct bench_adapters **adapters,
                                  struct sora_error *err)
{
    const struct bench_ranks ranks = {.kind = BENCH_UNIFORM, .rank = rank};
    struct bench_adapters *created = adapters_of(from->count, err);
    struct rng rng; // nothing of one rank depends on what it draws
    rng_seed(&rng, 1);
    if (created == NULL)
        return SORA_NO_MEMORY;
    for (int32_t i = 0; i < from->count; i++) {
        struct made *made = &created->made[i];
        const bool int8 = from->made[i].modules[0].dtype == SORA_I8;
        sora_status status = draw_modules(base, &ranks, int8, &rng, made, err);
        if (status != SORA_OK) {
            bench_adapters_destroy(created);
            return status;
        }
        made->borrowed = true;
        made->values = from->made[i].values;
        made->scales = from->made[i].scales;
        place_modules(base, made);
    }
    *adapters = created;
    return SORA_OK;
}

void bench_adapters_destroy(struct bench_adapters *adapters)
{
    if (adapters == NULL)
        return;
    for (int32_t i = 0; i < adapters->count; i++) {
        struct made *made = &adapters->made[i];
        free(made->modules);
        if (made->borrowed)
            continue;
        free(made->scales);
        pages_unmap(made->values, made->value_bytes);
    }
    free(adapters->made);
    free(adapters);
}

const struct sora_lora *bench_adapters_get(const struct bench_adapters *adapters, int32_t index)
{
    return &adapters->made[index].lora;
}

int64_t bench_adapters_parameters(const struct bench_adapters *adapters, int32_t index)
{
    return adapters->made[index].parameters;
}

// SPDX-License-Identifier: Apache-2.0
// Data files: lines, digest and memory. See dataset.h.
#include "train/dataset.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/sha256.h"
#include "sora/limits.h"
#include "train/dataset_line.h"

bool dataset_grow(void **items, size_t item_bytes, int64_t count, int64_t extra, int64_t *capacity)
{
    if (count + extra <= *capacity)
        return true;
    const int64_t wanted = (count + extra) + (count + extra) / 2 + 64;
    void *memory = reallocarray(*items, (size_t)wanted, item_bytes);
    if (memory == NULL)
        return false;
    *items = memory;
    *capacity = wanted;
    return true;
}

bool dataset_line_is_blank(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static sora_status parse_lines(const char *name, const char *text, size_t bytes,
                               const struct dataset_rules *rules, struct dataset *dataset,
                               struct sora_error *err)
{
    int32_t line = 0;
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        const size_t length = end != NULL ? (size_t)(end - (text + at)) : bytes - at;
        line++;
        if (length > SORA_TRAIN_LINE_BYTES_MAX)
            return sora_fail(err, SORA_LIMIT, "%s line %d: %zu bytes, limit %d", name, line, length,
                             SORA_TRAIN_LINE_BYTES_MAX);
        if (!dataset_line_is_blank(text + at, length)) {
            const sora_status status =
                dataset_line_add(dataset, text + at, length, line, rules, err);
            if (status != SORA_OK)
                return sora_fail_within(err, status, "%s line %d", name, line);
        }
        at += length + (end != NULL);
    }
    if (dataset->example_count == 0)
        return sora_fail(err, SORA_MALFORMED, "%s: no examples", name);
    return SORA_OK;
}

sora_status dataset_parse(const char *name, const char *text, size_t bytes,
                          const struct dataset_rules *rules, struct dataset *dataset,
                          struct sora_error *err)
{
    *dataset = (struct dataset){0};
    if (bytes > SORA_TRAIN_DATA_BYTES_MAX)
        return sora_fail(err, SORA_LIMIT, "%s: %zu bytes, limit %u", name, bytes,
                         SORA_TRAIN_DATA_BYTES_MAX);
    sora_status status = sha256_of(text, bytes, dataset->digest, err);
    if (status == SORA_OK)
        status = parse_lines(name, text, bytes, rules, dataset, err);
    if (status != SORA_OK)
        dataset_close(dataset);
    return status;
}

sora_status dataset_open(const char *path, const struct dataset_rules *rules,
                         struct dataset *dataset, struct sora_error *err)
{
    *dataset = (struct dataset){0};
    const char *slash = strrchr(path, '/');
    struct file_map map;
    sora_status status = file_map_open(path, &map, err);
    if (status != SORA_OK)
        return status;
    status = dataset_parse(slash != NULL ? slash + 1 : path,
                           map.data != NULL ? (const char *)map.data : "", map.bytes, rules,
                           dataset, err);
    file_map_close(&map);
    return status;
}

void dataset_close(struct dataset *dataset)
{
    free(dataset->tokens);
    free(dataset->scored);
    free(dataset->choice_tokens);
    free(dataset->choices);
    free(dataset->examples);
    *dataset = (struct dataset){0};
}

void dataset_clear(struct dataset *dataset)
{
    dataset->token_count = dataset->choice_token_count = dataset->choice_count = 0;
    dataset->example_count = dataset->longest = 0;
}

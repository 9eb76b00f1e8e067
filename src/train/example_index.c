// SPDX-License-Identifier: Apache-2.0
// Places of training examples, see example_index.h.
#include "train/example_index.h"

#include <stdlib.h>
#include <string.h>

#include "sora/limits.h"
#include "train/dataset_line.h"

// FNV-1a. Against editors, not against an enemy: the file is the user's own.
static uint32_t check_of(const char *text, size_t bytes)
{
    uint32_t check = 2166136261u;
    for (size_t i = 0; i < bytes; i++)
        check = (check ^ (uint8_t)text[i]) * 16777619u;
    return check;
}

static sora_status add_entry(struct example_index *index, const char *text, struct line_place place,
                             struct sora_error *err)
{
    const struct dataset_example *example = &index->window.examples[0];
    if (index->example_count == SORA_TRAIN_VISITS_MAX)
        return sora_fail(err, SORA_LIMIT, "more than %d examples", SORA_TRAIN_VISITS_MAX);
    if (!dataset_grow((void **)&index->entries, sizeof(*index->entries), index->example_count, 1,
                      &index->capacity))
        return sora_fail(err, SORA_NO_MEMORY, "no memory for the places of %d examples",
                         index->example_count);
    index->entries[index->example_count++] =
        (struct example_entry){.offset = place.offset,
                               .bytes = (uint32_t)place.bytes,
                               .token_count = example->token_count,
                               .scored_count = example->scored_count,
                               .line = example->line,
                               .check = check_of(text, place.bytes)};
    index->token_count += example->token_count;
    index->scored_count += example->scored_count;
    index->cut_count += example->is_cut;
    if (example->token_count > index->longest)
        index->longest = example->token_count;
    return SORA_OK;
}

static sora_status read_lines(struct example_index *index, struct sora_error *err)
{
    for (bool more = true; more;) {
        const char *text = NULL;
        struct line_place place = {0};
        sora_status status = line_file_next(&index->file, &text, &place, &more, err);
        if (status == SORA_OK && !more)
            break;
        const int64_t line = index->file.line;
        if (status == SORA_OK && line > INT32_MAX)
            status = sora_fail(err, SORA_LIMIT, "more than %d lines", INT32_MAX);
        if (status == SORA_OK && dataset_line_is_blank(text, place.bytes))
            continue;
        dataset_clear(&index->window);
        if (status == SORA_OK)
            status = dataset_line_add(&index->window, text, place.bytes, (int32_t)line,
                                      &index->rules, err);
        if (status == SORA_OK)
            status = add_entry(index, text, place, err);
        if (status != SORA_OK)
            return sora_fail_within(err, status, "%s line %lld", index->name, (long long)line);
    }
    if (index->example_count == 0)
        return sora_fail(err, SORA_MALFORMED, "%s: no examples", index->name);
    return SORA_OK;
}

sora_status example_index_open(const char *path, const struct dataset_rules *rules,
                               struct example_index *index, struct sora_error *err)
{
    *index = (struct example_index){.rules = *rules};
    sora_status status = line_file_open(path, SORA_TRAIN_LINE_BYTES_MAX, &index->file, err);
    if (status != SORA_OK)
        return status;
    const char *slash = strrchr(index->file.path, '/');
    index->name = slash != NULL ? slash + 1 : index->file.path;
    status = read_lines(index, err);
    if (status == SORA_OK)
        line_file_digest(&index->file, index->digest);
    else
        example_index_close(index);
    return status;
}

void example_index_close(struct example_index *index)
{
    line_file_close(&index->file);
    free(index->entries);
    dataset_close(&index->window);
    *index = (struct example_index){.file = {.fd = -1}};
}

static sora_status load_one(struct example_index *index, const struct example_entry *entry,
                            struct sora_error *err)
{
    const char *text;
    const struct line_place place = {entry->offset, entry->bytes};
    sora_status status = line_file_read(&index->file, place, &text, err);
    if (status != SORA_OK)
        return status;
    if (check_of(text, place.bytes) != entry->check)
        return sora_fail(err, SORA_IO, "its bytes are others");
    return dataset_line_add(&index->window, text, place.bytes, entry->line, &index->rules, err);
}

sora_status example_index_load(struct example_index *index, const int32_t *which, int32_t count,
                               struct sora_error *err)
{
    dataset_clear(&index->window);
    for (int32_t i = 0; i < count; i++) {
        const struct example_entry *entry = &index->entries[which[i]];
        if (load_one(index, entry, err) != SORA_OK)
            return sora_fail_within(err, SORA_IO, "%s line %d changed while it was in use",
                                    index->name, entry->line);
    }
    return SORA_OK;
}

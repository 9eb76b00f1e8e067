// SPDX-License-Identifier: Apache-2.0
// Checkpoints, see train_checkpoint.h. Memory order is little-endian, as safetensors has it.
#include "train/train_checkpoint.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/safetensors.h"
#include "base/sha256.h"
#include "sora/limits.h"
#include "train/train_identity.h"

#define FILE_NAME "checkpoint.safetensors"
#define FORMAT "sora-checkpoint"
#define FORMAT_VERSION "1"

enum { TENSORS_MAX = 5 };

// Temporary files of a run that was killed while it wrote.
static void remove_leftovers(const char *folder)
{
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        const size_t bytes = strlen(entry->d_name), prefix = strlen(FILE_NAME ".");
        if (strncmp(entry->d_name, FILE_NAME ".", prefix) == 0 && bytes > prefix + 4 &&
            strcmp(entry->d_name + bytes - 4, ".tmp") == 0)
            (void)unlinkat(dirfd(stream), entry->d_name, 0);
    }
    closedir(stream);
}

sora_status train_checkpoint_open(const char *folder, bool *found, struct sora_error *err)
{
    *found = false;
    const sora_status status = file_make_folder(folder, err);
    if (status != SORA_OK)
        return status;
    if (access(folder, W_OK) != 0)
        return sora_fail(err, SORA_IO, "checkpoint folder %s cannot be written to", folder);
    remove_leftovers(folder);
    char *path = file_join(folder, FILE_NAME);
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    *found = file_exists(path);
    free(path);
    return SORA_OK;
}

static struct safetensors_tensor tensor_of(const char *name, const char *dtype, const void *data,
                                           size_t count, size_t item_bytes)
{
    struct safetensors_tensor tensor = {.name = name,
                                        .rank = 1,
                                        .shape = {(int64_t)count},
                                        .data = data,
                                        .bytes = count * item_bytes};
    snprintf(tensor.dtype, sizeof(tensor.dtype), "%s", dtype);
    return tensor;
}

// Over all that the file says, so that a damaged one is not trained on.
static sora_status digest_of(const char *identity, const char *state,
                             const struct safetensors_tensor *tensors, int32_t count, char hex[65],
                             struct sora_error *err)
{
    struct sha256 *sha;
    const sora_status status = sha256_create(&sha, err);
    if (status != SORA_OK)
        return status;
    sha256_update(sha, identity, strlen(identity) + 1);
    sha256_update(sha, state, strlen(state) + 1);
    for (int32_t i = 0; i < count; i++)
        sha256_update(sha, tensors[i].data, tensors[i].bytes);
    sha256_finish(sha, hex);
    return SORA_OK;
}

static sora_status write_file(const char *folder, const char *identity, const char *state,
                              const struct safetensors_tensor *tensors, int32_t count,
                              struct sora_error *err)
{
    char digest[65];
    uint8_t *bytes = NULL;
    size_t byte_count;
    char *path = file_join(folder, FILE_NAME);
    sora_status status = path != NULL ? SORA_OK : sora_fail(err, SORA_NO_MEMORY, "no memory");
    if (status == SORA_OK)
        status = digest_of(identity, state, tensors, count, digest, err);
    if (status == SORA_OK) {
        const struct safetensors_meta meta[] = {{"format", FORMAT},
                                                {"format_version", FORMAT_VERSION},
                                                {"identity", identity},
                                                {"state", state},
                                                {"digest", digest}};
        status = safetensors_encode(meta, sizeof(meta) / sizeof(meta[0]), tensors, count, &bytes,
                                    &byte_count, err);
    }
    if (status == SORA_OK)
        status = file_write_atomic(path, bytes, byte_count, err);
    free(bytes);
    free(path);
    return status;
}

sora_status train_checkpoint_save(const char *folder, const char *identity,
                                  const struct run_state *state, const struct params *params,
                                  const struct train_best *best, struct sora_error *err)
{
    int32_t ranks[SORA_LAYER_COUNT_MAX * SORA_PROJ_COUNT] = {0};
    const size_t module_count = (size_t)params->layer_count * SORA_PROJ_COUNT;
    const size_t count = (size_t)(params->matrix_count + params->gate_count);
    for (size_t i = 0; i < module_count; i++)
        ranks[i] = params->modules[i].rank;
    struct safetensors_tensor tensors[TENSORS_MAX] = {
        tensor_of("ranks", "I32", ranks, module_count, sizeof(int32_t)),
        tensor_of("values", "F32", params->values, count, sizeof(float)),
        tensor_of("moments1", "F32", params->moments1, count, sizeof(float)),
        tensor_of("moments2", "F32", params->moments2, count, sizeof(float))};
    int32_t tensor_count = 4;
    if (state->has_best)
        tensors[tensor_count++] = tensor_of("best", "U8", best->bytes, best->byte_count, 1);
    char *json = NULL;
    sora_status status = run_state_encode(state, &json, err);
    if (status == SORA_OK)
        status = write_file(folder, identity, json, tensors, tensor_count, err);
    free(json);
    return status;
}

// A tensor of this type and count (-1: any), or SORA_MALFORMED.
static sora_status find_tensor(const struct safetensors *file, const char *name, const char *dtype,
                               int64_t count, struct safetensors_tensor *tensor,
                               struct sora_error *err)
{
    const struct safetensors_tensor *found = safetensors_find(file, name);
    if (found == NULL || strcmp(found->dtype, dtype) != 0 || found->rank != 1 ||
        (count >= 0 && found->shape[0] != count))
        return sora_fail(err, SORA_MALFORMED,
                         "tensor \"%s\" is missing or not %s of the right size", name, dtype);
    *tensor = *found;
    return SORA_OK;
}

struct loaded {
    struct safetensors_tensor tensors[TENSORS_MAX]; // ranks, values, moments1, moments2, best
    int32_t tensor_count;
};

static sora_status find_tensors(const struct safetensors *file, const struct params *params,
                                bool has_best, struct loaded *loaded, struct sora_error *err)
{
    static const char *const names[] = {"values", "moments1", "moments2"};
    sora_status status = find_tensor(file, "ranks", "I32", params->layer_count * SORA_PROJ_COUNT,
                                     &loaded->tensors[0], err);
    for (int32_t i = 0; status == SORA_OK && i < 3; i++)
        status = find_tensor(file, names[i], "F32", i > 0 ? loaded->tensors[1].shape[0] : -1,
                             &loaded->tensors[i + 1], err);
    loaded->tensor_count = 4;
    if (status == SORA_OK && has_best)
        status = find_tensor(file, "best", "U8", -1, &loaded->tensors[loaded->tensor_count++], err);
    return status;
}

static sora_status check_digest(const struct safetensors *file, const char *identity,
                                const char *state, const struct loaded *loaded,
                                struct sora_error *err)
{
    char digest[65];
    const char *saved = safetensors_metadata(file, "digest");
    const sora_status status =
        digest_of(identity, state, loaded->tensors, loaded->tensor_count, digest, err);
    if (status == SORA_OK && (saved == NULL || strcmp(saved, digest) != 0))
        return sora_fail(err, SORA_MALFORMED,
                         "it is damaged: its bytes are not those of its "
                         "digest");
    return status;
}

static sora_status take_numbers(const struct loaded *loaded, const struct sora_base *base,
                                struct params *params, struct sora_error *err)
{
    int32_t ranks[SORA_LAYER_COUNT_MAX * SORA_PROJ_COUNT] = {0};
    memcpy(ranks, loaded->tensors[0].data, loaded->tensors[0].bytes);
    const sora_status status = params_resize(params, base, ranks, err);
    if (status != SORA_OK)
        return status;
    const size_t bytes = (size_t)(params->matrix_count + params->gate_count) * sizeof(float);
    if (loaded->tensors[1].bytes != bytes)
        return sora_fail(err, SORA_MALFORMED, "%zu bytes of values, its ranks ask for %zu",
                         loaded->tensors[1].bytes, bytes);
    memcpy(params->values, loaded->tensors[1].data, bytes);
    memcpy(params->moments1, loaded->tensors[2].data, bytes);
    memcpy(params->moments2, loaded->tensors[3].data, bytes);
    return SORA_OK;
}

static sora_status take_best(const struct loaded *loaded, bool has_best, struct train_best *best,
                             struct sora_error *err)
{
    *best = (struct train_best){0};
    if (!has_best)
        return SORA_OK;
    best->byte_count = loaded->tensors[4].bytes;
    best->bytes = malloc(best->byte_count > 0 ? best->byte_count : 1);
    if (best->bytes == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for %zu bytes", best->byte_count);
    memcpy(best->bytes, loaded->tensors[4].data, best->byte_count);
    return SORA_OK;
}

static sora_status take_file(const struct safetensors *file, const char *identity,
                             const struct sora_base *base, struct run_state *state,
                             struct params *params, struct train_best *best, struct sora_error *err)
{
    const char *format = safetensors_metadata(file, "format");
    const char *version = safetensors_metadata(file, "format_version");
    const char *saved_identity = safetensors_metadata(file, "identity");
    const char *json = safetensors_metadata(file, "state");
    if (format == NULL || strcmp(format, FORMAT) != 0 || saved_identity == NULL || json == NULL)
        return sora_fail(err, SORA_MALFORMED, "it is no checkpoint of a training run");
    if (version == NULL || strcmp(version, FORMAT_VERSION) != 0)
        return sora_fail(err, SORA_UNSUPPORTED, "format version %.16s, this program reads %s",
                         version != NULL ? version : "(none)", FORMAT_VERSION);
    struct loaded loaded;
    sora_status status = train_identity_compare(saved_identity, identity, err);
    if (status == SORA_OK)
        status = run_state_decode(json, strlen(json), state, err);
    if (status == SORA_OK)
        status = find_tensors(file, params, state->has_best, &loaded, err);
    if (status == SORA_OK)
        status = check_digest(file, saved_identity, json, &loaded, err);
    if (status == SORA_OK)
        status = take_numbers(&loaded, base, params, err);
    if (status == SORA_OK)
        status = take_best(&loaded, state->has_best, best, err);
    return status;
}

sora_status train_checkpoint_load(const char *folder, const char *identity,
                                  const struct sora_base *base, struct run_state *state,
                                  struct params *params, struct train_best *best,
                                  struct sora_error *err)
{
    struct file_map map = {0};
    struct safetensors *file = NULL;
    char *path = file_join(folder, FILE_NAME);
    if (path == NULL)
        return sora_fail(err, SORA_NO_MEMORY, "no memory for a path");
    sora_status status = file_map_open(path, &map, err);
    if (status == SORA_OK) {
        status = safetensors_parse(map.data, map.bytes, &file, err);
        if (status == SORA_OK)
            status = take_file(file, identity, base, state, params, best, err);
        if (status != SORA_OK)
            status = sora_fail_within(err, status, "checkpoint %s", path);
    }
    safetensors_destroy(file);
    file_map_close(&map);
    free(path);
    return status;
}

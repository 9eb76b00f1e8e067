// SPDX-License-Identifier: Apache-2.0
// Opening and closing a model: picks the container, loads the weights.
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/file.h"
#include "model/checkpoint.h"
#include "model/weights.h"

sora_status sora_model_open(const char *path, sora_model **model, struct sora_error *err)
{
    int64_t start_us = clock_now_us();
    struct checkpoint checkpoint;
    sora_status status = file_is_folder(path) ? hf_checkpoint_open(path, &checkpoint, err)
                                              : gguf_checkpoint_open(path, &checkpoint, err);
    if (status != SORA_OK)
        return status;
    struct sora_model *opened = calloc(1, sizeof *opened);
    if (opened == NULL)
        status = sora_fail(err, SORA_NO_MEMORY, "out of memory");
    else
        status = weights_load(&checkpoint, cpu_count(), opened, err);
    checkpoint.close(&checkpoint);
    if (status != SORA_OK) {
        free(opened);
        return sora_fail_within(err, status, "%s", path);
    }
    file_stem(path, opened->info.name, sizeof opened->info.name);
    opened->info.load_seconds = (double)(clock_now_us() - start_us) * 1e-6;
    *model = opened;
    return SORA_OK;
}

sora_status sora_model_read_base(const char *path, struct sora_base *base, struct sora_error *err)
{
    struct checkpoint checkpoint;
    sora_status status = file_is_folder(path) ? hf_checkpoint_open(path, &checkpoint, err)
                                              : gguf_checkpoint_open(path, &checkpoint, err);
    if (status != SORA_OK)
        return status;
    status = weights_read_base(&checkpoint, base, err);
    checkpoint.close(&checkpoint);
    return status == SORA_OK ? status : sora_fail_within(err, status, "%s", path);
}

void sora_model_close(sora_model *model)
{
    if (model == NULL)
        return;
    weights_free(model);
    free(model);
}

const struct sora_model_info *sora_model_get_info(const sora_model *model)
{
    return &model->info;
}

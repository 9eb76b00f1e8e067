// SPDX-License-Identifier: Apache-2.0
// What tests of whole runs share: a folder with data, a tokenizer and a tiny model. Included once
// by a program, whose own they are.
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "byte_tokenizer.h"

#include "sora/engine.h"

static char *folder;
static sora_tokenizer *tokenizer;
static sora_model *model;
static char *data_path, *eval_path;

static const char train_lines[] = "{\"prompt\":\"red\",\"completion\":\" apple\"}\n"
                                  "{\"prompt\":\"blue\",\"completion\":\" sky\"}\n"
                                  "{\"prompt\":\"green\",\"completion\":\" leaf\"}\n"
                                  "{\"prompt\":\"white\",\"completion\":\" snow\"}\n";
static const char eval_lines[] =
    "{\"prompt\":\"red\",\"completion\":\" apple\",\"choices\":[\" apple\",\" sky\"]}\n"
    "{\"prompt\":\"blue\",\"completion\":\" sky\",\"choices\":[\" apple\",\" sky\"]}\n";

static int set_up(void **state)
{
    (void)state;
    struct sora_error err;
    folder = temp_folder_create();
    tokenizer = byte_tokenizer_open(folder);
    data_path = write_file(folder, "train.jsonl", train_lines);
    eval_path = write_file(folder, "eval.jsonl", eval_lines);
    return sora_model_open(GOLDEN_DIR "/train/qwen3/base", &model, &err) == SORA_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(data_path);
    free(eval_path);
    sora_model_close(model);
    sora_tokenizer_close(tokenizer);
    temp_folder_remove(folder);
    return 0;
}

#endif

// SPDX-License-Identifier: Apache-2.0
// What the processes of one data-parallel run agree on, see struct sora_train_group. A group of
// NULL is this process alone: nothing is exchanged. Every function but the first two is called by
// all processes at the same place. No state.
#ifndef TRAIN_GROUP_H
#define TRAIN_GROUP_H

#include "sora/train.h"

// Whether this process is the one that writes, evaluates and speaks.
bool train_group_leads(const struct sora_train_group *group);
// A process's share of `count` things with these costs: neighbours, [*first, *first + *shared), so
// that all shares cost about the same. May be none.
void train_group_share(const struct sora_train_group *group, const int32_t *costs, int32_t count,
                       int32_t *first, int32_t *shared);
// The own status where it is a failure; else SORA_UNAVAILABLE where another process has one.
SORA_CHECKED sora_status train_group_agree(const struct sora_train_group *group, sora_status status,
                                           struct sora_error *err);
bool train_group_any(const struct sora_train_group *group, bool flag);
// SORA_MISMATCH where a process holds another text than process 0; `what` names it.
SORA_CHECKED sora_status train_group_same(const struct sora_train_group *group, const char *what,
                                          const char *text, struct sora_error *err);

#endif

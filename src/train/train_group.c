// SPDX-License-Identifier: Apache-2.0
// Agreement between the processes of a run, see train_group.h.
#include "train/train_group.h"

#include <string.h>

#include "base/sha256.h"

bool train_group_leads(const struct sora_train_group *group)
{
    return group == NULL || group->rank == 0;
}

// A thing belongs to the process into whose equal part of the whole cost its middle falls.
void train_group_share(const struct sora_train_group *group, const int32_t *costs, int32_t count,
                       int32_t *first, int32_t *shared)
{
    *first = 0;
    *shared = count;
    if (group == NULL)
        return;
    int64_t total = 0, before = 0;
    for (int32_t i = 0; i < count; i++)
        total += costs[i];
    *shared = 0;
    for (int32_t i = 0; i < count; i++) {
        const int64_t twice_middle = 2 * before + costs[i];
        const int64_t owner = total > 0 ? twice_middle * group->size / (2 * total) : 0;
        if (owner < group->rank)
            *first = i + 1;
        *shared += owner == group->rank;
        before += costs[i];
    }
}

sora_status train_group_agree(const struct sora_train_group *group, sora_status status,
                              struct sora_error *err)
{
    const bool any = train_group_any(group, status != SORA_OK);
    if (status == SORA_OK && any)
        return sora_fail(err, SORA_UNAVAILABLE,
                         "another process of the run failed; its message tells why");
    return status;
}

bool train_group_any(const struct sora_train_group *group, bool flag)
{
    if (group == NULL)
        return flag;
    double count = flag ? 1.0 : 0.0;
    group->sum_doubles(group->context, &count, 1);
    return count > 0.0;
}

sora_status train_group_same(const struct sora_train_group *group, const char *what,
                             const char *text, struct sora_error *err)
{
    char own[65], leaders[65];
    if (group == NULL)
        return SORA_OK;
    sora_status status = train_group_agree(group, sha256_of(text, strlen(text), own, err), err);
    if (status != SORA_OK)
        return status;
    memcpy(leaders, own, sizeof(own));
    group->broadcast(group->context, leaders, sizeof(leaders));
    if (strcmp(own, leaders) != 0)
        status = sora_fail(err, SORA_MISMATCH,
                           "process %d of the run does not have the %s of "
                           "process 0; all need the same files, at the same paths, and the same "
                           "options",
                           group->rank, what);
    return train_group_agree(group, status, err);
}

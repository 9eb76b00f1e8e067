// SPDX-License-Identifier: Apache-2.0
// The processes that `mpirun` started, as the group of a training run. The main thread's alone.
#ifndef SERVER_TRAIN_MPI_H
#define SERVER_TRAIN_MPI_H

#include "sora/train.h"

// *group: NULL when this process runs alone. SORA_UNSUPPORTED when mpirun started several, but this
// program was built without MPI. Once in a process; after a success train_mpi_end must follow.
SORA_CHECKED sora_status train_mpi_begin(const struct sora_train_group **group,
                                         struct sora_error *err);
// Leaves the group. A failure of this process's own takes the others down with it, as none can go
// on without the others: then this call does not return, and the process exits with `exit_code`.
void train_mpi_end(const struct sora_train_group *group, sora_status status, int exit_code);

#endif

// SPDX-License-Identifier: Apache-2.0
// Data-parallel training by MPI, see train_mpi.h. MPI's own errors end all processes, as its
// default is.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "server/train_mpi.h"
#ifdef SORA_MPI
#include <mpi.h>
#endif

// Whether a launcher says that it started several processes, before MPI itself is asked.
static bool has_company(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        if (text != NULL)
            return strcmp(text, "1") != 0;
    }
    return false;
}

#ifdef SORA_MPI
enum { PART_MAX = 1 << 24 }; // numbers of one call, whose count is an int

static int part(size_t left)
{
    return left < PART_MAX ? (int)left : PART_MAX;
}

// Reduced in one place and sent out from there, so that all processes hold the same bits: an
// all-reduce need not add in the same order everywhere.
static void sum(void *values, size_t count, size_t item_bytes, MPI_Datatype type, int rank)
{
    for (size_t at = 0; at < count;) {
        char *first = (char *)values + at * item_bytes;
        const int n = part(count - at);
        if (rank == 0)
            MPI_Reduce(MPI_IN_PLACE, first, n, type, MPI_SUM, 0, MPI_COMM_WORLD);
        else
            MPI_Reduce(first, NULL, n, type, MPI_SUM, 0, MPI_COMM_WORLD);
        MPI_Bcast(first, n, type, 0, MPI_COMM_WORLD);
        at += (size_t)n;
    }
}

static void sum_floats(void *context, float *values, size_t count)
{
    const struct sora_train_group *group = context;
    sum(values, count, sizeof *values, MPI_FLOAT, group->rank);
}

static void sum_doubles(void *context, double *values, size_t count)
{
    const struct sora_train_group *group = context;
    sum(values, count, sizeof *values, MPI_DOUBLE, group->rank);
}

static void broadcast(void *context, void *bytes, size_t byte_count)
{
    (void)context;
    for (size_t at = 0; at < byte_count;) {
        const int n = part(byte_count - at);
        MPI_Bcast((char *)bytes + at, n, MPI_BYTE, 0, MPI_COMM_WORLD);
        at += (size_t)n;
    }
}

sora_status train_mpi_begin(const struct sora_train_group **group, struct sora_error *err)
{
    static struct sora_train_group made;
    *group = NULL;
    if (!has_company())
        return SORA_OK;
    int threads, rank, size;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &threads) != MPI_SUCCESS)
        return sora_fail(err, SORA_INTERNAL, "MPI does not start");
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size == 1) {
        MPI_Finalize();
        return sora_fail(err, SORA_UNSUPPORTED,
                         "started as one of several processes, but MPI sees no others, so that "
                         "each would train the same: start it with the mpirun of OpenMPI");
    }
    made = (struct sora_train_group){.rank = rank,
                                     .size = size,
                                     .context = &made,
                                     .sum = sum_floats,
                                     .sum_doubles = sum_doubles,
                                     .broadcast = broadcast};
    *group = &made;
    return SORA_OK;
}

void train_mpi_end(const struct sora_train_group *group, sora_status status, int exit_code)
{
    if (group == NULL)
        return;
    // Whoever only heard of another's failure lets that one speak.
    const bool own_failure =
        status != SORA_OK && status != SORA_CANCELLED && status != SORA_UNAVAILABLE;
    if (own_failure)
        MPI_Abort(MPI_COMM_WORLD, exit_code);
    MPI_Finalize();
}
#else
sora_status train_mpi_begin(const struct sora_train_group **group, struct sora_error *err)
{
    *group = NULL;
    if (!has_company())
        return SORA_OK;
    return sora_fail(err, SORA_UNSUPPORTED,
                     "started by mpirun, but built without MPI, so that every process would train "
                     "the same: install OpenMPI (Debian: libopenmpi-dev) and build again");
}

void train_mpi_end(const struct sora_train_group *group, sora_status status, int exit_code)
{
    (void)group, (void)status, (void)exit_code;
}
#endif

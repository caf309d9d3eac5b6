/* SPDX-License-Identifier: MIT
 *
 * mpi.c - Open MPI, master and worker: rank 0 sends arrays of arguments, rank 1 sends arrays of
 * answers back. Both poll. Started by mpirun with two ranks; an empty message ends a series.
 */
#include <mpi.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include "bench/peers/peer.h"

static int rank;
static bool arrays; /* a batch is one message */

static bool is_worker(void)
{
    return rank == 1;
}

static void *m_open(struct peer_run *r, bool worker)
{
    (void)worker;
    arrays = strcmp(r->mode, "arrays") == 0;
    MPI_Barrier(MPI_COMM_WORLD);
    return &rank;
}

static void m_close(void *p)
{
    (void)p;
    if (rank == 0)
        MPI_Send(NULL, 0, MPI_INT64_T, 1, 0, MPI_COMM_WORLD);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* A failed call ends both ranks: MPI's default error handler. */
static unsigned receive(void *v, MPI_Datatype type, unsigned max)
{
    MPI_Status s;
    int n;
    MPI_Recv(v, arrays ? (int)max : 1, type, 1 - rank, 0, MPI_COMM_WORLD, &s);
    MPI_Get_count(&s, type, &n);
    return (unsigned)n;
}

static void m_send(void *p, const int64_t *arg, unsigned n)
{
    (void)p;
    MPI_Send(arg, (int)n, MPI_INT64_T, 1, 0, MPI_COMM_WORLD);
}
static unsigned m_take(void *p, uint64_t *answer, unsigned max)
{
    (void)p;
    return receive(answer, MPI_UINT64_T, max);
}
static unsigned m_get(void *p, int64_t *arg, unsigned max)
{
    (void)p;
    return receive(arg, MPI_INT64_T, max);
}
static void m_put(void *p, const uint64_t *answer, unsigned n)
{
    (void)p;
    MPI_Send(answer, (int)n, MPI_UINT64_T, 0, 0, MPI_COMM_WORLD);
}

static const struct peer_ops *choose(const char *mode)
{
    static const struct peer_step windows[] = {{1, 64}, {1, 256}, {1, 1024}, {0, 0}};
    /* Below the 4 KiB from which on a send waits for its receive: both sides would. */
    static const struct peer_step batches[] = {{8, 64}, {32, 128}, {128, 512}, {256, 1024}, {0, 0}};
    static struct peer_ops ops = {.open = m_open,
                                  .close = m_close,
                                  .send = m_send,
                                  .take = m_take,
                                  .get = m_get,
                                  .put = m_put,
                                  .is_worker = is_worker};
    ops.step = strcmp(mode, "arrays") == 0 ? batches : windows;
    return strcmp(mode, "arrays") == 0 || strcmp(mode, "messages") == 0 ? &ops : NULL;
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* mpirun's: its ranks are in groups of their own */
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int rc = peer_main(argc, argv, choose);
    MPI_Finalize();
    return rc;
}

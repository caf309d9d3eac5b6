/* SPDX-License-Identifier: MIT
 *
 * stamps_child.c - what a task costs one thread that has both handles: built twice, with the clock
 * that stamps the tasks' stages as it is, and with one that is not read (FABRIC_STILL_CLOCK of
 * core/clock.h), which counts how often it would have been. stamps.c runs the two in turns.
 *
 *   stamps-real | stamps-still  SOCKET BATCH SECONDS CORE
 *
 * Prints: ns a task (of the median group), readings a task (0 by the real clock).
 *
 * Threads: one, pinned. Failure: a message and exit status 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "bench/one_thread.h"
#include "core/attach.h"
#include "core/topology.h"

#define GROUP  256u /* tasks */
#define GROUPS 65536u

#ifdef FABRIC_STILL_CLOCK
uint64_t clock_still_reads;
#define READS clock_still_reads
#else
#define READS 0
#endif

static int open_one(fab_t **out, const char *path, unsigned role)
{
    struct fab_options o = {.roles = role, .name = "bench"};
    struct local *l;
    int rc = attach_open(&l, path, &o);
    *out = rc < 0 ? NULL : &l->base;
    if (rc == 0)
        l->base.pid = getpid();
    return rc;
}

static int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The first half warms up. */
static int measure(fab_t *producer, fab_t *worker, unsigned batch, double seconds, double *ns,
                   double *reads)
{
    static uint64_t took[GROUPS];
    const int64_t n = 48, answer = 48; /* nobody computes it */
    struct fab_task t[ONE_THREAD_BATCH_MAX];
    struct fab_result res[ONE_THREAD_BATCH_MAX];
    size_t k = 0;
    uint64_t half = clock_ns() + (uint64_t)(seconds * 0.5e9), end = half + (uint64_t)(seconds * 0.5e9);
    uint64_t tasks = 0, before = 0;
    int rc = 0;
    for (unsigned i = 0; i < batch; i++) {
        t[i] = (struct fab_task){.kernel = fab_kernel_id("feb"), .arg = &n, .len = sizeof n};
        res[i] = (struct fab_result){.data = &answer, .len = sizeof answer};
    }
    for (uint64_t now = clock_ns(); rc == 0 && (now < end || k < 100) && k < GROUPS;) {
        uint64_t from = now;
        for (unsigned i = 0; i < GROUP && rc == 0; i += batch)
            rc = one_thread_batch(producer, worker, t, (uint64_t)answer, res, batch);
        now = clock_ns();
        if (from < half) {
            before = READS;
            continue;
        }
        took[k++] = now - from;
        tasks += GROUP;
    }
    if (rc < 0 || k == 0)
        return rc < 0 ? rc : -1;
    qsort(took, k, sizeof *took, by_u64);
    *ns = (double)took[k / 2] / GROUP;
    *reads = (double)(READS - before) / (double)tasks;
    return 0;
}

int main(int argc, char **argv)
{
    fab_t *producer = NULL, *worker = NULL;
    double ns, reads;
    unsigned batch = argc == 5 ? (unsigned)atoi(argv[2]) : 0;
    if (batch < 1 || batch > ONE_THREAD_BATCH_MAX || GROUP % batch) {
        fprintf(stderr, "%s: SOCKET BATCH SECONDS CORE; bench/run calls it\n", argv[0]);
        return 2;
    }
    int rc = topo_pin(atoi(argv[4]));
    if (rc == 0)
        rc = open_one(&producer, argv[1], FAB_PRODUCER);
    if (rc == 0)
        rc = open_one(&worker, argv[1], FAB_WORKER);
    if (rc == 0)
        rc = measure(producer, worker, batch, atof(argv[3]), &ns, &reads);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", argv[0], fab_errmsg());
    else
        printf("%.4f %.4f\n", ns, reads);
    fab_close(worker);
    fab_close(producer);
    return rc < 0;
}

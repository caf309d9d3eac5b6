/* SPDX-License-Identifier: MIT
 *
 * start.c - from nothing to the first task's answer: fabricd started (1,048,576 slots), a worker
 * and a producer attached, feb(48) run. What a restart costs.
 */
#include <errno.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

/* The first answer's moment goes to *at. */
static int one_task(const struct settings *st, const struct fixture *fx, uint64_t *at)
{
    struct worker_spec w = {.address = fx->local, .key = fx->key, .batch = 1, .core = st->far_core};
    struct fab_options po = {.roles = FAB_PRODUCER, .name = "bench"};
    struct job job = job_feb();
    struct fab_task t = job_task(&job);
    struct fab_outcome o;
    fab_t *f = NULL;
    fab_id id;
    int pid = worker_start(&w), rc = pid < 0 ? pid : fab_open(&f, fx->local, &po);
    if (rc == 0)
        rc = fab_submit(f, &t, 1, &id, FAB_FOREVER) == 1 ? 0 : -EIO;
    if (rc == 0)
        rc = fab_wait(f, id, &o, 5000000000);
    *at = clock_ns();
    if (rc == 0)
        rc = job_check(&job, &o);
    fab_close(f);
    child_stop(pid);
    return rc;
}

/* arg: the host to listen on for remote peers, NULL: none */
static int first_task(const struct settings *st, const void *arg, double *ns)
{
    struct fixture f;
    uint64_t from = clock_ns(), to = from;
    int rc = fixture_start_on(&f, st->build, "tcp", arg, "[segment]\nslots = 1048576\n");
    if (rc < 0)
        return rc;
    rc = one_task(st, &f, &to);
    *ns = (double)(to - from);
    (void)fixture_stop(&f);
    return rc;
}

int bench_start(const struct settings *st, struct report *rep)
{
    static const char loopback[] = "127.0.0.1";
    static const struct probe p[] = {
        {.name = "start.first_task",
         .unit = "ns",
         .fn = first_task,
         .less_is_better = true,
         .note = "1,048,576 slots; a worker, a producer, one task answered"},
        {.name = "start.first_task.tcp",
         .unit = "ns",
         .fn = first_task,
         .arg = loopback,
         .less_is_better = true,
         .note = "the same of a fabricd that listens for remote peers"},
    };
    return group_wanted(st, "start", true) ? run_probes(st, rep, p, 2, st->turns) : 0;
}

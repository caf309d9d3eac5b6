/* SPDX-License-Identifier: MIT
 *
 * start.c - from nothing to the first task's answer: fabricd started (1,048,576 slots), a worker
 * and a producer attached, feb(48) run. What a restart costs.
 */
#include <errno.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

static int first_task(const struct settings *st, const void *arg, double *ns)
{
    struct fixture f;
    struct samples one;
    uint64_t from = clock_ns();
    /* arg: the host to listen on for remote peers, NULL: none */
    int rc = fixture_start_on(&f, st->build, "tcp", arg, "[segment]\nslots = 1048576\n");
    if (rc < 0)
        return rc;
    rc = samples_init(&one, 1);
    if (rc == 0)
        rc = measure_task_rtt(st, &f, f.local, &one);
    *ns = (double)(clock_ns() - from);
    samples_free(&one);
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
         .note = "1,048,576 slots; a worker, a producer, one task answered, all closed"},
        {.name = "start.first_task.tcp",
         .unit = "ns",
         .fn = first_task,
         .arg = loopback,
         .less_is_better = true,
         .note = "the same of a fabricd that listens for remote peers"},
    };
    return group_wanted(st, "start", true) ? run_probes(st, rep, p, 2, st->turns) : 0;
}

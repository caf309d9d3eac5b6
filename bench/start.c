/* SPDX-License-Identifier: MIT
 *
 * start.c - from nothing to the first task's answer: fabricd started (1,048,576 slots), a worker and
 * a producer attached, feb(48) run. What a restart costs.
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
    (void)arg;
    int rc = fixture_start(&f, st->build, "[segment]\nslots = 1048576\n");
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
    static const struct probe p = {
        .name = "start.first_task",
        .unit = "ns",
        .fn = first_task,
        .less_is_better = true,
        .note = "fabricd with 1,048,576 slots, a worker, a producer, one task answered, all closed"};
    return group_wanted(st, "start", true) ? run_probes(st, rep, &p, 1, st->turns) : 0;
}

/* SPDX-License-Identifier: MIT
 *
 * latency.c - round trips of tasks, one at a time: feb(48), 8 bytes out, 8 bytes back, every answer
 * checked.
 */
#include <errno.h>
#include "bench/bench.h"
#include "core/error.h"

#define ANSWER 106373551u

static const int64_t goats = 48;

struct job job_feb(void)
{
    return (struct job){
        .kernel = fab_kernel_id("feb"), .expect = ANSWER, .arg = &goats, .len = sizeof goats};
}

struct fab_task job_task(const struct job *j)
{
    return (struct fab_task){
        .kernel = j->kernel, .arg = j->arg, .len = j->len, .priority = FAB_PRIORITY_NORMAL};
}

int job_check(const struct job *j, const struct fab_outcome *o)
{
    bool right = o->status == FAB_COMPLETED && o->len == (j->res_len ? j->res_len : 8);
    if (right && j->res_len)
        right = kernel_sink(fab_data(o), o->len) == j->expect;
    else if (right && !j->any_answer)
        right = o->small == j->expect;
    if (!right)
        return err_set(-EIO, "a wrong answer: status %u, %u bytes, %llu", o->status, o->len,
                       (unsigned long long)o->small);
    return 0;
}

int measure_task_rtt(const struct settings *st, const struct fixture *fx, const char *worker_at,
                     struct samples *out)
{
    struct worker_spec w = {.address = worker_at, .key = fx->key, .batch = 1, .core = st->far_core};
    struct fab_options po = {.roles = FAB_PRODUCER, .name = "bench"};
    struct job job = job_feb();
    struct fab_task t = job_task(&job);
    size_t warm = out->n / 5;
    fab_t *f = NULL;
    int pid = worker_start(&w);
    pin_near(st);
    int rc = pid < 0 ? pid : fab_open(&f, fx->local, &po);
    for (size_t i = 0; rc == 0 && i < out->n + warm; i++) {
        struct fab_outcome o;
        fab_id id;
        uint64_t from = stamp();
        if (fab_submit(f, &t, 1, &id, FAB_FOREVER) != 1)
            rc = -EIO;
        if (rc == 0)
            rc = fab_wait(f, id, &o, 5000000000);
        uint64_t to = stamp();
        if (rc == 0)
            rc = job_check(&job, &o);
        if (i >= warm)
            samples_put(out, i - warm, stamp_ns(from, to));
    }
    fab_close(f);
    child_stop(pid);
    return rc;
}

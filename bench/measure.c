/* SPDX-License-Identifier: MIT
 *
 * measure.c - round trip and throughput of tasks: feb(48), 8 bytes out, 8 bytes back, every answer
 * checked.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

#define ANSWER    106373551u
#define BATCH_MAX 256u

static const int64_t goats = 48;

static struct fab_task task(void)
{
    return (struct fab_task){.kernel = fab_kernel_id("feb"),
                             .arg = &goats,
                             .len = sizeof goats,
                             .priority = FAB_PRIORITY_NORMAL};
}

static int check(const struct fab_outcome *o)
{
    if (o->status != FAB_COMPLETED || o->len != 8 || o->small != ANSWER)
        return err_set(-EIO, "a wrong answer: status %u, %u bytes, %llu", o->status, o->len,
                       (unsigned long long)o->small);
    return 0;
}

static int open_producer(fab_t **f, const struct settings *st, const struct fixture *fx,
                         int64_t spin_ns)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "bench", .spin_ns = spin_ns};
    pin_near(st);
    return fab_open(f, fx->local, &o);
}

int measure_task_rtt(const struct settings *st, const struct fixture *fx, const char *worker_at,
                     int64_t spin_ns, struct samples *out)
{
    struct fab_task t = task();
    size_t warm = out->n / 5;
    fab_t *f = NULL;
    int pid = worker_start(st, worker_at, fx->key, 1, spin_ns);
    int rc = pid < 0 ? pid : open_producer(&f, st, fx, spin_ns);
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
            rc = check(&o);
        if (i >= warm)
            samples_put(out, i - warm, stamp_ns(from, to));
    }
    fab_close(f);
    child_stop(pid);
    return rc;
}

double measure_rate(const struct settings *st, const struct fixture *fx, const char *worker_at,
                    unsigned batch)
{
    struct fab_task t[BATCH_MAX];
    struct fab_outcome o[BATCH_MAX];
    uint64_t start = 0, now = 0, limit = (uint64_t)(st->seconds * 1e9), warm = limit / 5;
    uint64_t sent = 0, got = 0, base = 0;
    bool remote = strncmp(worker_at, "unix:", 5) != 0;
    uint64_t window = remote ? 4096 : batch == 1 ? 64 : batch * 4 < 1024 ? batch * 4 : 1024;
    fab_t *f = NULL;
    for (unsigned i = 0; i < batch; i++)
        t[i] = task();
    int pid = worker_start(st, worker_at, fx->key, batch, 0);
    int rc = pid < 0 ? pid : open_producer(&f, st, fx, 0);
    uint64_t first = clock_ns();
    while (rc == 0 && (base == 0 || now - start < limit)) {
        while (sent - got + batch <= window) {
            long n = fab_submit(f, t, batch, NULL, FAB_FOREVER);
            if (n < 0)
                rc = (int)n;
            if (n < 0)
                break;
            sent += (uint64_t)n;
        }
        long n = rc == 0 ? fab_wait_any(f, o, batch < 16 ? 16 : batch, 5000000000) : rc;
        if (n < 0)
            rc = (int)n;
        for (long i = 0; rc == 0 && i < n; i++)
            rc = check(&o[i]);
        got += n > 0 ? (uint64_t)n : 0;
        now = clock_ns();
        if (base == 0 && now - first > warm) {
            base = got;
            start = now;
        }
    }
    double rate = rc < 0 ? -1 : (double)(got - base) / ((double)(now - start) / 1e9);
    while (rc == 0 && fab_outstanding(f) > 0)
        rc = fab_wait_any(f, o, BATCH_MAX, 5000000000) < 0 ? -EIO : 0;
    fab_close(f);
    child_stop(pid);
    return rate;
}

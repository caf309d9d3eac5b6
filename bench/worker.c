/* SPDX-License-Identifier: MIT
 *
 * worker.c - a worker process for the measurements: the loop of fabworker without its options.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"
#include "core/kernel.h"

#define BATCH_MAX 256u

static int run_each(fab_t *f, struct kernel_ctx *ctx, const struct fab_lease *l, long n)
{
    int rc = 0;
    for (long i = 0; rc == 0 && i < n; i++) {
        const struct kernel *k = kernel_by_id(l[i].kernel);
        const void *res;
        long len = k ? k->run(ctx, fab_arg(&l[i]), l[i].len, &res) : -ENOENT;
        rc = len < 0 ? fab_fail(f, &l[i], ctx->error) : fab_complete(f, &l[i], res, (uint32_t)len);
    }
    return rc;
}

/* Computes the batch first, then completes it as one. */
static int run_together(fab_t *f, struct kernel_ctx *ctx, const struct fab_lease *l, long n)
{
    uint64_t small[BATCH_MAX];
    struct fab_result result[BATCH_MAX];
    for (long i = 0; i < n; i++) {
        const struct kernel *k = kernel_by_id(l[i].kernel);
        const void *res;
        if (!k || k->run(ctx, fab_arg(&l[i]), l[i].len, &res) != sizeof small[i])
            return err_set(-EINVAL, "a batch is completed as one where each result has 8 bytes");
        memcpy(&small[i], res, sizeof small[i]);
        result[i] = (struct fab_result){.data = &small[i], .len = sizeof small[i]};
    }
    long done = fab_complete_many(f, l, result, (size_t)n);
    return done < 0 ? (int)done : 0;
}

/* Holding no task. */
static void wait_pause(struct worker_share *share)
{
    at_store(&share->paused, 1);
    while (at_load(&share->pause) && !at_load_rlx(&share->stop))
        nap_ns(1000000);
    at_store(&share->paused, 0);
}

static unsigned batch_of(const struct worker_spec *w)
{
    unsigned n = w->share ? at_load_rlx(&w->share->batch) : 0; /* a number, changed in a pause */
    n = n ? n : w->batch;
    return n < BATCH_MAX ? n : BATCH_MAX;
}

static void work(fab_t *f, const struct worker_spec *w)
{
    struct kernel_ctx ctx = {0};
    struct fab_lease lease[BATCH_MAX];
    int64_t patience = w->share ? 20000000 : FAB_FOREVER;
    while (!w->share || !at_load_rlx(&w->share->stop)) { /* a one-way flag */
        if (w->share && at_load_rlx(&w->share->pause)) /* a flag; what it orders: wait_pause() */
            wait_pause(w->share);
        long n = fab_claim(f, 0, lease, batch_of(w), patience);
        if (n == -ETIMEDOUT)
            continue;
        if (n < 0)
            return;
        if ((w->together ? run_together(f, &ctx, lease, n) : run_each(f, &ctx, lease, n)) < 0)
            return;
        if (w->share)
            at_add_rlx(&w->share->done, (uint64_t)n); /* a count; nothing is read by its order */
    }
}

static void child(const struct worker_spec *w, int ready)
{
    struct fab_options o = {
        .roles = FAB_WORKER, .name = "bench", .key_file = w->key, .spin_ns = w->spin_ns};
    fab_t *f;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (w->core >= 0)
        (void)!topo_pin(w->core); /* allowed: it comes from our own affinity mask */
    if (kernels_register() < 0 || fab_open(&f, w->address, &o) < 0 || write(ready, "!", 1) != 1) {
        fprintf(stderr, "fabbench: the worker: %s\n", fab_errmsg());
        _exit(1);
    }
    work(f, w);
    fab_close(f);
    _exit(0);
}

void worker_pause(struct worker_share *share)
{
    at_store(&share->pause, 1);
    while (!at_load(&share->paused))
        nap_ns(100000);
}

void worker_go_on(struct worker_share *share, unsigned batch)
{
    at_store_rlx(&share->batch, batch); /* it reads it after it has seen pause */
    at_store(&share->pause, 0);
    while (at_load(&share->paused))
        cpu_relax();
}

void worker_stop(const struct worker_spec *w, int pid)
{
    if (pid <= 0)
        return;
    at_store(&w->share->stop, 1);
    waitpid(pid, NULL, 0);
    at_store(&w->share->stop, 0);
}

int worker_start(const struct worker_spec *w)
{
    int ready[2];
    char ok = 0;
    if (pipe2(ready, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        child(w, ready[1]);
    close(ready[1]);
    if (read(ready[0], &ok, 1) != 1) {
        child_stop(pid);
        pid = err_set(-EIO, "the worker did not start");
    }
    close(ready[0]);
    return pid;
}

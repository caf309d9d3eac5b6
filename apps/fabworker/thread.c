/* SPDX-License-Identifier: MIT
 *
 * thread.c - one worker thread: claim, run, complete.
 *
 * How many tasks to claim at once follows how long they take: short ones in batches, long ones
 * (over LONG_NS) one by one, since whatever stands behind a long task in a batch waits for it
 * although other workers are free. When tasks turn out long in the middle of a batch, the rest of
 * it is given back.
 *
 * Failure: a handle that stops working is opened again (connect.c); what it held goes to other
 * workers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "apps/fabworker/isolate.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"

#define LONG_NS       20000
#define GROW_ROUNDS   4  /* batches of short tasks before the next is twice as large */
#define SHRINK_ROUNDS 16 /* as many more after a long task */
/* A batch that lasts longer (WORKER_BATCH_MOST_NS) gives back what it has not started. Looked at by
 * the coarse clock, which steps by up to 4 ms and costs next to nothing. */
/* Buffers beyond this are given back after the task that needed them. */
#define KEEP_MAX (16u << 20)
/* Patience with a full arena: others take their results meanwhile. */
#define ROOM_WAIT_NS 2000000000ull

static uint64_t coarse_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- one task ---- */

/* The argument where nobody else can change it; NULL when memory is out. */
static const void *private_argument(struct worker *w, const struct fab_lease *l)
{
    if (l->len <= sizeof l->small)
        return fab_arg(l);
    if (l->len > w->copy_cap) {
        free(w->copy);
        w->copy = malloc(l->len);
        w->copy_cap = w->copy ? l->len : 0;
        if (!w->copy)
            return NULL;
    }
    memcpy(w->copy, fab_arg(l), l->len);
    return w->copy;
}

static void shrink_buffers(struct worker *w)
{
    if (w->ctx.cap > KEEP_MAX) {
        kernel_ctx_free(&w->ctx);
    }
    if (w->shown.cap > KEEP_MAX) {
        kernel_ctx_free(&w->shown);
        memset(&w->shown, 0, sizeof w->shown);
    }
    if (w->copy_cap > KEEP_MAX) {
        free(w->copy);
        w->copy = NULL;
        w->copy_cap = 0;
    }
}

int worker_fail(struct worker *w, const struct fab_lease *l, const char *why)
{
    w->counters.failed++;
    return fab_fail(w->f, l, why);
}

/* Completes; waits a while for room when the arena is full of results that nobody has taken yet. */
int worker_complete(struct worker *w, const struct fab_lease *l, const void *res, uint32_t len)
{
    uint64_t until = 0;
    char why[128];
    int rc;
    while ((rc = fab_complete(w->f, l, res, len)) == -ENOSPC) {
        uint64_t now = clock_ns();
        if (until == 0)
            until = now + ROOM_WAIT_NS;
        if (now >= until || worker_stopping(w->sh))
            break;
        if (fab_wait_room(w->f, (int64_t)(until - now)) < 0)
            break;
    }
    if (rc == -ENOSPC || rc == -EMSGSIZE) {
        snprintf(why, sizeof why,
                 "no room in the fabric for a result of %u bytes; enlarge segment.arena", len);
        return worker_fail(w, l, why);
    }
    w->counters.completed += rc == 0;
    return rc;
}

/* What a kernel that takes long asks: kernel_ctx. */
static bool is_cancelled(void *arg)
{
    struct worker *w = arg;
    return fab_cancelled(w->f, w->running) != 0;
}

static bool sleep_until(void *arg, uint64_t until_ns)
{
    const struct worker *w = arg;
    uint64_t now = clock_ns();
    int rc = until_ns > now ? fab_attend(w->f, NULL, 0, -1, (int64_t)(until_ns - now)) : 0;
    return rc == 0 || rc == -ETIMEDOUT;
}

static int run_task(struct worker *w, const struct fab_lease *l)
{
    const struct kernel *k = w->kernel;
    const void *res = NULL, *arg = private_argument(w, l);
    if (!k || k->id != l->kernel)
        w->kernel = k = kernel_by_id(l->kernel);
    w->counters.tasks++;
    if (!k) {
        if (w->sh->o->print)
            print_task(w, NULL, fab_arg(l), l->len, NULL, -1, w->sh->unknown);
        return worker_fail(w, l, w->sh->unknown);
    }
    if (!arg)
        return worker_fail(w, l, "the worker has no memory for the argument");
    w->ctx.error[0] = 0;
    w->running = l;
    long n = k->run(&w->ctx, arg, l->len, &res);
    if (n > (long)FAB_ARG_MAX)
        n = err_set(-EMSGSIZE, "the result is too long");
    const char *why = n >= 0 ? NULL : w->ctx.error[0] ? w->ctx.error : err_text((int)n);
    if (w->sh->o->print)
        print_task(w, k, arg, l->len, res, n, why);
    return n < 0 ? worker_fail(w, l, why) : worker_complete(w, l, res, (uint32_t)n);
}

/* ---- a batch ---- */

/* Gives leases [from, n) back, best first so that they keep their order. */
static int release_rest(struct worker *w, long from, long n)
{
    for (long i = from; i < n; i++) {
        int rc = fab_release(w->f, &w->lease[i]);
        if (rc < 0 && rc != -ESTALE)
            return rc;
        w->counters.released++;
    }
    return 0;
}

static void adapt(struct worker *w, uint32_t ran, uint64_t ns)
{
    uint32_t most = w->sh->o->batch;
    if (ran == 0)
        return;
    if (ns / ran > LONG_NS) {
        w->batch = 1;
        w->fast_rounds = -SHRINK_ROUNDS;
    } else if (w->batch < most && ++w->fast_rounds >= GROW_ROUNDS) {
        w->batch = 2 * w->batch < most ? 2 * w->batch : most;
        w->fast_rounds = 0;
    }
}

/* The same with kernels in a process of their own. */
static int run_isolated(struct worker *w, long n, uint32_t *ran)
{
    uint64_t spent;
    int rc = isolate_batch(w, n, ran, &spent);
    if (rc == 0)
        rc = release_rest(w, *ran, n);
    adapt(w, *ran, spent);
    print_flush(w);
    shrink_buffers(w);
    return rc;
}

/* Runs the n tasks in w->lease. *ran gets how many were started. < 0: the handle is of no use any
 * more. */
static int run_batch(struct worker *w, long n, uint32_t *ran)
{
    uint64_t start = clock_ns(), coarse = coarse_ns();
    int rc = 0;
    long i, gone = 0;
    for (i = 0; i < n && rc == 0; i++) {
        const struct fab_lease *l = &w->lease[i];
        if (worker_stopping(w->sh) || (i > 0 && coarse_ns() - coarse > WORKER_BATCH_MOST_NS))
            break;
        /* A change of kernel may be one from short to long: results at hand must not wait behind
         * it. */
        if (i > 0 && l->kernel != l[-1].kernel && (rc = fab_flush(w->f)) < 0)
            break;
        if (w->begins && fab_begin(w->f, l) == -ESTALE) { /* another worker was idle */
            gone++;
            continue;
        }
        rc = run_task(w, l);
        if (rc == -ESTALE) {
            w->counters.dropped++;
            rc = 0;
        }
    }
    *ran = (uint32_t)(i - gone);
    w->counters.released += (uint64_t)gone;
    if (rc == 0)
        rc = release_rest(w, i, n);
    adapt(w, *ran, clock_ns() - start);
    print_flush(w);
    shrink_buffers(w);
    return rc;
}

/* ---- idle time ---- */

static void busy_begin(struct shared *sh)
{
    if (sh->o->idle_ns >= 0)
        at_add(&sh->busy, 1);
}

static void busy_end(struct shared *sh)
{
    if (sh->o->idle_ns < 0)
        return;
    at_store(&sh->last_task_ns, clock_ns());
    at_sub(&sh->busy, 1); /* after the stamp: worker_idle() reads them the other way round */
}

bool worker_idle(const struct shared *sh)
{
    if (sh->o->idle_ns < 0 || at_load(&sh->busy) > 0)
        return false;
    uint64_t last = at_load(&sh->last_task_ns), now = clock_ns();
    return now > last && now - last >= (uint64_t)sh->o->idle_ns;
}

static int64_t wait_time(const struct shared *sh)
{
    int64_t idle = sh->o->idle_ns;
    return idle < 0 || idle > WORKER_WAIT_NS ? WORKER_WAIT_NS : idle < 1000000 ? 1000000 : idle;
}

/* ---- the thread ---- */

static void work(struct worker *w)
{
    struct shared *sh = w->sh;
    while (!worker_stopping(sh)) {
        uint32_t ran = 0, want = w->batch;
        int rc =
            sh->budget.limited ? fab_flush(w->f) : 0; /* reserving may wait for other threads */
        if (rc == 0 && (want = budget_reserve(sh, want)) == 0) {
            worker_stop(sh, 0); /* others may be waiting for a fabric that is away */
            return;
        }
        if (rc == 0) {
            long n = fab_claim(w->f, w->queue, w->lease, want, wait_time(sh));
            if (n > 0) {
                w->wait_ns = WORKER_AGAIN_FIRST_NS;
                busy_begin(sh);
                rc = w->iso ? run_isolated(w, n, &ran) : run_batch(w, n, &ran);
                busy_end(sh);
            } else if (n == -ETIMEDOUT || n == -EAGAIN || n == -EINTR || n == 0) {
                w->wait_ns = WORKER_AGAIN_FIRST_NS;
                if (worker_idle(sh))
                    worker_stop(sh, 0);
            } else {
                rc = (int)n;
            }
            budget_settle(sh, want, ran);
        }
        if (rc < 0 && worker_reconnect(w, rc) < 0)
            return;
    }
}

/* Pins the thread, then allocates what it works with: from its own node. */
static int prepare(struct worker *w)
{
    int rc = topo_pin(w->core);
    if (rc == 0)
        rc = topo_prefer(topo_node_of(w->core));
    if (rc < 0)
        return rc;
    w->ctx.cancelled = is_cancelled;
    w->ctx.sleep = sleep_until;
    w->ctx.arg = w;
    w->lease = calloc(WORKER_BATCH_MAX, sizeof *w->lease);
    return w->lease ? 0 : err_set(-ENOMEM, "no memory for the leases");
}

static void say_ready(struct shared *sh)
{
    if (at_add(&sh->ready, 1) + 1 == sh->threads)
        log_info("ready: %u thread%s on core%s %s, queue %s", sh->threads,
                 sh->threads == 1 ? "" : "s", sh->threads == 1 ? "" : "s", sh->core_list,
                 sh->o->queue ? sh->o->queue : "the first");
}

void *worker_main(void *arg)
{
    struct worker *w = arg;
    int rc = prepare(w);
    if (rc < 0 && worker_stop(w->sh, 1))
        log_error("core %d: %s", w->core, err_text(rc));
    if (rc == 0 && worker_connect(w) == 0) {
        at_store(&w->sh->last_task_ns, clock_ns());
        say_ready(w->sh);
        work(w);
    }
    if (w->iso)
        isolate_stop(w->iso);
    if (w->f && fab_flush(w->f) < 0)
        log_debug("core %d: %s", w->core, fab_errmsg()); /* the leases go to others */
    fab_close(w->f);
    w->f = NULL;
    kernel_ctx_free(&w->ctx);
    kernel_ctx_free(&w->shown);
    text_free(&w->lines);
    free(w->copy);
    free(w->lease);
    if (at_sub(&w->sh->alive, 1) == 1)
        pthread_kill(w->sh->main, WORKER_SIGNAL);
    return NULL;
}

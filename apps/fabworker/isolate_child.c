/* SPDX-License-Identifier: MIT
 *
 * isolate_child.c - the process that runs the kernels of one worker thread; see isolate.h.
 *
 * Threads: one. Failure: it may die anywhere; the parent sees `started` and `done`.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "apps/fabworker/isolate.h"
#include "core/clock.h"
#include "core/wake.h"

#define TELL_NS 100000u /* results wait no longer for those after them */
#define HOUR_NS 3600000000000ull

struct child {
    struct isolate_shared *s;
    uint8_t *base;
    struct kernel_ctx ctx;
    const struct kernel *kernel;
    int bell;
    uint64_t out; /* where the next result goes */
};

static void tell(const struct child *c)
{
    struct isolate_shared *s = c->s;
    uint64_t one = 1;
    at_add(&s->told, 1);
    switch (at_load(&s->parked)) {
    case ISOLATE_ON_FUTEX:
        futex_wake(&s->told, 1);
        break;
    case ISOLATE_ON_BELL:
        (void)!write(c->bell, &one, sizeof one);
        break;
    }
}

/* Bytes to where the parent finds them; an argument that is the result stays where it is. */
static uint64_t put(struct child *c, const void *p, uint64_t len)
{
    uint64_t at = (uint64_t)((uintptr_t)p - (uintptr_t)c->base);
    if ((uintptr_t)p >= (uintptr_t)c->base && at < ISOLATE_RES)
        return at;
    at = c->out;
    if (len)
        memcpy(c->base + at, p, len);
    c->out += (len + 63) & ~63ull;
    return at;
}

static void run(struct child *c, struct isolate_task *t)
{
    const void *res = NULL;
    const struct kernel *k = c->kernel;
    long n;
    c->ctx.error[0] = 0;
    if (!k || k->id != t->kernel)
        c->kernel = k = kernel_by_id(t->kernel);
    n = k ? k->run(&c->ctx, c->base + t->arg_at, t->arg_len, &res) : -ENOENT;
    if (n > (long)FAB_ARG_MAX)
        n = -EMSGSIZE;
    t->text_len = n < 0 ? (uint32_t)strnlen(c->ctx.error, sizeof c->ctx.error - 1) : 0;
    t->res_at = n < 0 ? put(c, c->ctx.error, t->text_len) : put(c, res, (uint64_t)n);
    t->res_len = n;
}

static void run_batch(struct child *c)
{
    struct isolate_shared *s = c->s;
    uint32_t n = at_load(&s->n);
    uint64_t start = clock_ns(), last = start, now;
    c->out = ISOLATE_RES;
    for (uint32_t i = 0; i < n && i < WORKER_BATCH_MAX; i++) {
        struct isolate_task *t = &s->task[i];
        if (i > 0 && (at_load(&s->stop) || c->out - ISOLATE_RES > ISOLATE_CUT))
            break;
        /* a change of kernel may be one from short to long */
        if (i > 0 && t->kernel != t[-1].kernel)
            tell(c);
        at_store(&s->started, i + 1);
        if (at_load(&s->skip[i])) {
            t->res_len = -ECANCELED;
            t->text_len = 0;
        } else {
            run(c, t);
        }
        now = clock_ns();
        at_store(&s->spent_ns, now - start);
        at_store(&s->done, i + 1); /* with the result before it */
        if (i + 1 < n && (at_load(&s->eager) || now - last > TELL_NS)) {
            tell(c);
            last = now;
        }
    }
    if (c->ctx.cap > ISOLATE_CUT) {
        kernel_ctx_free(&c->ctx);
        memset(&c->ctx, 0, sizeof c->ctx);
    }
}

/* Nothing is inherited but stderr and the bell. */
static void close_all(int bell)
{
    int null = open("/dev/null", O_RDONLY);
    if (null > 0)
        dup2(null, 0);
    dup2(2, 1); /* stdout is the worker's alone */
    close_range(3, (unsigned)bell - 1, 0);
    close_range((unsigned)bell + 1, ~0u, 0);
}

_Noreturn void isolate_child(const struct isolate *iso, pid_t parent)
{
    struct child c = {.bell = iso->bell};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* it died before we could ask to be told */
    c.s = iso->s;
    c.base = (uint8_t *)iso->s;
    (void)madvise(c.base, ISOLATE_BYTES, MADV_DONTDUMP); /* a crash shall not take long */
    close_all(iso->bell);
    if (topo_pin(iso->core) < 0)
        _exit(1);
    (void)!topo_prefer(topo_node_of(iso->core));
    for (uint32_t last = 0;;) {
        uint32_t go = at_load(&c.s->go);
        if (go == last) {
            (void)futex_sleep(&c.s->go, last, HOUR_NS);
            continue;
        }
        last = go;
        run_batch(&c);
        at_store(&c.s->ended, go);
        tell(&c);
    }
}

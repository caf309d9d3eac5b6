/* SPDX-License-Identifier: MIT
 *
 * rate.c - how many tasks a second are leased and answered: producer processes keep a window of
 * tasks outstanding, worker processes run them, this process reads the producers' counts twice.
 *
 * Threads: this one sleeps meanwhile; each producer and worker is a child on a core of its own
 * while there are enough. Failure: a child that fails ends with its message on stderr and the rate
 * is -1.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"

#define BATCH_MAX 256u
#define ROLES_MAX 64u

struct tally {
    struct {
        _Alignas(HOT_LINE) _Atomic uint64_t got;
    } of[ROLES_MAX];
    _Alignas(HOT_LINE) _Atomic uint32_t stop;
};

static uint64_t window_of(const struct load *l)
{
    if (l->window)
        return l->window < l->batch ? l->batch : l->window;
    if (strncmp(l->worker_at, "unix:", 5) != 0)
        return 4096;
    return l->batch == 1 ? 64 : l->batch * 4 < 1024 ? l->batch * 4 : 1024;
}

static int take(fab_t *f, const struct load *l, uint64_t *got)
{
    struct fab_outcome o[BATCH_MAX];
    long n = fab_wait_any(f, o, l->batch < 16 ? 16 : l->batch, 5000000000);
    int rc = n < 0 ? (int)n : 0;
    for (long i = 0; rc == 0 && i < n; i++)
        rc = job_check(&l->job, &o[i]);
    *got += n > 0 ? (uint64_t)n : 0;
    return rc;
}

/* The next task's argument in the fabric's own memory. 1; 0: there is none now. */
static int make_in_place(fab_t *f, const struct job *j, struct fab_task *t)
{
    void *arg;
    int rc = fab_arg_new(f, j->len, &arg, 0);
    if (rc == -EAGAIN)
        return 0;
    if (rc < 0)
        return rc;
    kernel_sink_make(arg, j->arg, j->len);
    t->arg = arg;
    t->flags = FAB_IN_PLACE;
    return 1;
}

static int produce(fab_t *f, const struct load *l, struct tally *y, unsigned me)
{
    struct fab_task t[BATCH_MAX];
    uint64_t sent = 0, got = 0, window = window_of(l);
    int rc = 0;
    for (unsigned i = 0; i < l->batch; i++)
        t[i] = job_task(&l->job);
    while (rc == 0 && !at_load_rlx(&y->stop)) { /* a one-way flag */
        while (sent - got + l->batch <= window) {
            if (l->job.in_place && (rc = make_in_place(f, &l->job, t)) <= 0)
                break;
            long n = fab_submit(f, t, l->batch, NULL, FAB_FOREVER);
            if (n < 0)
                return (int)n;
            sent += (uint64_t)n;
        }
        if (rc < 0)
            break;
        rc = take(f, l, &got);
        at_store_rlx(&y->of[me].got, got); /* a count; nothing is read by its order */
    }
    while (rc == 0 && fab_outstanding(f) > 0)
        rc = take(f, l, &got);
    return rc;
}

static pid_t producer_start(const struct settings *st, const struct fixture *fx,
                            const struct load *l, struct tally *y, unsigned me)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "bench"};
    fab_t *f;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)!topo_pin(core_of(st, me)); /* allowed: it comes from our own affinity mask */
    int rc = fab_open(&f, fx->local, &o);
    if (rc == 0)
        rc = produce(f, l, y, me);
    if (rc < 0)
        fprintf(stderr, "fabbench: a producer: %s\n", err_text(rc));
    else
        fab_close(f);
    _exit(rc < 0);
}

static uint64_t total(const struct tally *y, unsigned producers)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < producers; i++)
        sum += at_load_rlx(&y->of[i].got);
    return sum;
}

#define FEWEST  100 /* answers that make a rate */
#define LONGEST 20  /* times the usual length, to get them */

/* Two readings with the usual length between them; more where tasks are long or the machine busy.
 */
static double watch(const struct load *l, const struct tally *y)
{
    uint64_t limit = (uint64_t)(l->seconds * 1e9), to, has;
    nap_ns(limit / 5);
    uint64_t from = clock_ns(), had = total(y, l->producers);
    do {
        nap_ns(limit);
        to = clock_ns();
        has = total(y, l->producers);
    } while (has - had < FEWEST && to - from < LONGEST * limit);
    if (has == had)
        return err_set(-ETIMEDOUT, "no task was answered in %.1f s", (double)(to - from) / 1e9);
    return (double)(has - had) / ((double)(to - from) / 1e9);
}

double measure_rate(const struct settings *st, const struct fixture *fx, const struct load *l)
{
    int worker[ROLES_MAX], rc = 0;
    pid_t producer[ROLES_MAX];
    unsigned workers = 0, producers = 0;
    double rate = -1;
    struct tally *y =
        mmap(NULL, sizeof *y, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (y == MAP_FAILED || l->producers > ROLES_MAX || l->workers > ROLES_MAX)
        return err_set(-ENOMEM, "no memory for the counts"), -1;
    unsigned first = l->every_core ? 0 : l->producers;
    for (; rc == 0 && workers < l->workers; workers++) {
        struct worker_spec w = {.address = l->worker_at,
                                .key = fx->key,
                                .batch = l->batch,
                                .together = l->together && l->batch > 1,
                                .core = core_of(st, first + workers)};
        worker[workers] = worker_start(&w);
        rc = worker[workers] < 0 ? worker[workers] : 0;
    }
    for (; rc == 0 && producers < l->producers; producers++) {
        producer[producers] = producer_start(st, fx, l, y, producers);
        rc = producer[producers] < 0 ? -EAGAIN : 0;
    }
    if (rc == 0)
        rate = watch(l, y);
    at_store(&y->stop, 1);
    for (unsigned i = 0; i < producers; i++) {
        int status = 1;
        if (producer[i] > 0)
            waitpid(producer[i], &status, 0);
        if (status != 0)
            rate = err_set(-EIO, "a producer failed");
    }
    for (unsigned i = 0; i < workers; i++)
        child_stop(worker[i]);
    munmap(y, sizeof *y);
    return rate;
}

/* SPDX-License-Identifier: MIT
 *
 * parked.c - what waking costs: a task for a worker that sleeps, beside a bare futex between the
 * same two cores, one of this and one of that in turns.
 *
 * Asleep is not assumed but seen. A round begins only when the far side's parked word says so and
 * the kernel shows its thread asleep (state S in /proc/PID/stat); a round in which the near side
 * was not put to sleep either (its count of voluntary switches did not move) is left out of the
 * round trips. So all four figures are of rounds with the same beginning.
 *
 * Threads: this one; the bare futex's far side and the worker are children on the far core.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/local.h"
#include "core/wake.h"

enum { FUTEX_RTT, TASK_RTT, FUTEX_WAKE, TASK_START, KINDS };
static const char *const names[KINDS] = {"shm.futex_pingpong", "shm.parked_rtt", "shm.futex_wake",
                                         "shm.parked_start"};
static const char *const notes[KINDS] = {"both sides asleep", "both sides asleep, and seen to be",
                                         "futex wake to running, one way",
                                         "submit to the kernel's start, worker asleep"};

struct bare {
    _Alignas(HOT_LINE) _Atomic uint32_t to, fro;
    _Alignas(HOT_LINE) _Atomic uint64_t at; /* tick at which the far side ran */
};

struct pair {
    struct bare *m;
    pid_t echo, worker;
    int echo_stat, worker_stat; /* /proc/PID/stat */
    fab_t *f;
    struct job job;
    uint32_t round;
    uint64_t awake; /* rounds left out */
};

static void echo_child(const struct settings *st, struct bare *m)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin_far(st);
    for (uint32_t i = 1;; i++) {
        while (at_load(&m->to) != i)
            (void)futex_sleep(&m->to, i - 1, 1000000000);
        at_store(&m->at, stamp());
        at_store(&m->fro, i);
        futex_wake(&m->fro, 1);
    }
}

static int open_stat(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool asleep(int stat)
{
    char text[512];
    ssize_t n = pread(stat, text, sizeof text - 1, 0);
    if (n <= 0)
        return false;
    text[n] = 0;
    const char *p = strrchr(text, ')');
    return p && p[1] == ' ' && p[2] == 'S';
}

/* The far side sleeps, and nobody is about to wake it. -ETIMEDOUT after a second. */
static int await_asleep(const struct pair *p, bool task)
{
    uint64_t until = clock_ns() + 1000000000u;
    const struct local *l = (const struct local *)p->f; /* unix: addresses open nothing else */
    while (clock_ns() < until) {
        bool parked = !task || (at_load(&l->seg->queue[0].parked) & QUEUE_PARKED_WORKERS);
        if (parked && asleep(task ? p->worker_stat : p->echo_stat))
            return 0;
        nap_ns(20000);
    }
    return err_set(-ETIMEDOUT, "the far side did not go to sleep within a second");
}

static long slept(void)
{
    struct rusage u;
    getrusage(RUSAGE_THREAD, &u);
    return u.ru_nvcsw;
}

static void futex_round(struct pair *p, uint64_t *rtt, uint64_t *wake)
{
    uint32_t i = ++p->round;
    uint64_t t = stamp();
    at_store(&p->m->to, i);
    futex_wake(&p->m->to, 1);
    while (at_load(&p->m->fro) != i)
        (void)futex_sleep(&p->m->fro, i - 1, 1000000000);
    *rtt = stamp_ns(t, stamp());
    *wake = stamp_ns(t, at_load(&p->m->at));
}

static int task_round(struct pair *p, uint64_t *rtt, uint64_t *start)
{
    struct fab_task t = job_task(&p->job);
    struct fab_outcome o;
    fab_id id;
    uint64_t from = stamp();
    if (fab_submit(p->f, &t, 1, &id, FAB_FOREVER) != 1)
        return -EIO;
    int rc = fab_wait(p->f, id, &o, 5000000000);
    uint64_t to = stamp();
    if (rc == 0)
        rc = job_check(&p->job, &o);
    *rtt = stamp_ns(from, to);
    *start = rc == 0 ? stamp_ns(from, o.small) : 0;
    return rc;
}

/* Adds one round of the bare futex (task false) or of the fabric to its two series. */
static int round_of(struct pair *p, bool task, struct samples *out)
{
    uint64_t rtt = 0, wake = 0;
    struct samples *r = &out[task ? TASK_RTT : FUTEX_RTT],
                   *w = &out[task ? TASK_START : FUTEX_WAKE];
    int rc = await_asleep(p, task);
    long before = slept();
    if (rc == 0 && task)
        rc = task_round(p, &rtt, &wake);
    else if (rc == 0)
        futex_round(p, &rtt, &wake);
    if (rc < 0)
        return rc;
    if (w->n < w->room)
        w->ns[w->n++] = wake;
    if (slept() == before)
        p->awake++;
    else if (r->n < r->room)
        r->ns[r->n++] = rtt;
    return 0;
}

static int pair_start(const struct settings *st, const struct fixture *fx, struct pair *p)
{
    struct worker_spec w = {
        .address = fx->local, .key = fx->key, .batch = 1, .spin_ns = -1, .core = st->far_core};
    struct fab_options po = {.roles = FAB_PRODUCER, .name = "bench", .spin_ns = -1};
    *p = (struct pair){.echo_stat = -1, .worker_stat = -1};
    p->job = (struct job){.kernel = fab_kernel_id("bench-when"), .arg = "", .any_answer = true};
    p->m = mmap(NULL, sizeof *p->m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->m == MAP_FAILED)
        return -ENOMEM;
    p->echo = fork();
    if (p->echo == 0)
        echo_child(st, p->m);
    p->worker = worker_start(&w);
    if (p->echo < 0 || p->worker < 0)
        return err_set(-EIO, "the far sides did not start");
    p->echo_stat = open_stat(p->echo);
    p->worker_stat = open_stat(p->worker);
    if (p->echo_stat < 0 || p->worker_stat < 0)
        return err_set(-EIO, "/proc/PID/stat can't be read");
    pin_near(st);
    return fab_open(&p->f, fx->local, &po);
}

static void pair_stop(struct pair *p)
{
    fab_close(p->f);
    child_stop(p->echo);
    child_stop(p->worker);
    if (p->echo_stat >= 0)
        close(p->echo_stat);
    if (p->worker_stat >= 0)
        close(p->worker_stat);
    if (p->m != MAP_FAILED)
        munmap(p->m, sizeof *p->m);
}

static int turn(const struct settings *st, const struct fixture *fx, size_t rounds,
                struct samples *out, uint64_t *awake)
{
    struct pair p;
    int rc = pair_start(st, fx, &p);
    for (int k = 0; k < KINDS; k++)
        out[k].n = 0;
    for (size_t i = 0; rc == 0 && i < rounds + rounds / 5; i++) {
        if (i == rounds / 5) /* warm */
            for (int k = 0; k < KINDS; k++)
                out[k].n = 0;
        rc = round_of(&p, i % 2 == 0, out);
        if (rc == 0)
            rc = round_of(&p, i % 2 == 1, out);
    }
    *awake += p.awake;
    pair_stop(&p);
    if (rc == 0 && (out[FUTEX_RTT].n < 10 || out[TASK_RTT].n < 10))
        rc = err_set(-EIO, "the near side was hardly ever put to sleep");
    return rc;
}

int bench_parked(const struct settings *st, struct report *rep, const struct fixture *f)
{
    struct latency lat[KINDS][TURNS_MAX];
    struct samples out[KINDS] = {0};
    uint64_t awake = 0;
    size_t rounds = st->rounds / 80;
    bool any = false;
    int rc = 0;
    for (int k = 0; k < KINDS; k++)
        any = any || wanted(st, names[k]);
    if (!any)
        return 0;
    for (int k = 0; k < KINDS && rc == 0; k++)
        rc = samples_init(&out[k], rounds * 2);
    for (unsigned t = 0; t < st->turns && rc == 0; t++) {
        progress("shm.parked_rtt", t + 1, st->turns);
        rc = turn(st, f, rounds, out, &awake);
        for (int k = 0; k < KINDS && rc == 0; k++)
            lat[k][t] = samples_quantiles(&out[k]);
    }
    for (int k = 0; k < KINDS && rc == 0; k++) {
        struct row *w = report_latency(rep, names[k], lat[k], st->turns,
                                       k == TASK_RTT     ? names[FUTEX_RTT]
                                       : k == TASK_START ? names[FUTEX_WAKE]
                                                         : NULL);
        w->bare = k == FUTEX_RTT || k == FUTEX_WAKE;
        snprintf(w->note, sizeof w->note, "%s", notes[k]);
        if (k == TASK_RTT && awake)
            snprintf(w->note, sizeof w->note,
                     "%s; %llu rounds left out, the near side stayed awake", notes[k],
                     (unsigned long long)awake);
    }
    if (rc < 0)
        fprintf(stderr, "fabbench: shm.parked_rtt: %s\n", err_text(rc));
    for (int k = 0; k < KINDS; k++)
        samples_free(&out[k]);
    return rc;
}

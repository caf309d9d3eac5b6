/* SPDX-License-Identifier: MIT
 *
 * microsecond.c - priority, delay, cancel and time limit at tasks of a microsecond and full load:
 * two workers, a backlog of tens of thousands of tasks all the time. What must be so is counted in
 * tasks, not in seconds, where it can be: the machine may have other work.
 *
 * Workers are processes of the test's own: they run for a microsecond and answer with the time at
 * which they started; what ran is counted in shared memory.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/atomic.h"
#include "core/clock.h"
#include "core/fabric.h"
#include "tests/common/fabricd.h"

#define SECOND  1000000000ll
#define PATIENT (30 * SECOND)
#define WORKERS 2
#define BACKLOG 60000
#define BATCH   16
#define TAGS    100000

enum { PLAIN, LONG }; /* the argument */

struct shared {
    _Atomic uint32_t runs[TAGS], turn[TAGS]; /* how often it ran; as how manieth of all, last */
    _Atomic uint32_t started, long_done, stop;
};

static struct fixture fx;
static struct shared *sh;
static pid_t workers[WORKERS];

static void spin_ns(uint64_t ns)
{
    uint64_t until = clock_ns() + ns;
    while (clock_ns() < until)
        cpu_relax();
}

static void work(void)
{
    struct fab_options o = {.roles = FAB_WORKER, .name = "microsecond"};
    struct fab_lease l[BATCH];
    fab_t *f;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (fab_open(&f, fx.local, &o) < 0)
        _exit(1);
    for (;;) {
        long n = fab_claim(f, 0, l, BATCH, FAB_FOREVER);
        if (n < 0)
            _exit(2);
        for (long i = 0; i < n; i++) {
            uint64_t now = clock_ns();
            const uint32_t *arg = fab_arg(&l[i]); /* what, tag */
            if (arg[1] < TAGS) {
                at_store(&sh->turn[arg[1]], at_add(&sh->started, 1));
                at_add(&sh->runs[arg[1]], 1);
            }
            if (arg[0] == LONG) {
                while (!at_load(&sh->stop))
                    cpu_relax();
                at_store(&sh->long_done, 1);
            } else {
                spin_ns(1000);
            }
            (void)!fab_complete(f, &l[i], &now, 8);
        }
    }
}

static fab_t *begin(void)
{
    struct fab_options o = {.roles = FAB_PRODUCER, .name = "producer"};
    fab_t *f;
    fabricd_up(&fx, "[segment]\nslots = 131072\n");
    sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(sh, MAP_FAILED);
    cr_assert_eq(fab_open(&f, fx.local, &o), 0, "%s", fab_errmsg());
    return f;
}

static void start_workers(void)
{
    for (int i = 0; i < WORKERS; i++)
        if ((workers[i] = fork()) == 0)
            work();
}

static void end(fab_t *f)
{
    at_store(&sh->stop, 1);
    fab_close(f);
    for (int i = 0; i < WORKERS; i++)
        child_stop(workers[i]);
    fabricd_down(&fx);
    munmap(sh, sizeof *sh);
}

static fab_id put(fab_t *f, uint32_t what, uint32_t tag, uint8_t priority,
                  const struct fab_terms *terms)
{
    uint32_t arg[2] = {what, tag};
    struct fab_task t = {.kernel = 1,
                         .arg = arg,
                         .len = sizeof arg,
                         .priority = priority,
                         .tag = tag,
                         .terms = terms};
    fab_id id = 0;
    cr_assert_eq(fab_submit(f, &t, 1, &id, PATIENT), 1, "%s", fab_errmsg());
    return id;
}

/* Tags of the backlog begin at `from`. */
static void put_backlog(fab_t *f, uint32_t from, uint32_t n, uint8_t priority)
{
    for (uint32_t i = 0; i < n; i++)
        (void)put(f, PLAIN, from + i, priority, NULL);
}

static uint32_t ran(uint32_t from, uint32_t n)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += at_load(&sh->runs[from + i]);
    return sum;
}

/* Takes n outcomes; those below `tags` are given to look(). */
static void take(fab_t *f, uint32_t n, void (*look)(const struct fab_outcome *o))
{
    struct fab_outcome o[64];
    while (n > 0) {
        long k = fab_wait_any(f, o, n < 64 ? n : 64, PATIENT);
        cr_assert_gt(k, 0, "%s", fab_errmsg());
        for (long i = 0; i < k; i++)
            look(&o[i]);
        n -= (uint32_t)k;
    }
}

static void completed(const struct fab_outcome *o)
{
    cr_assert_eq(o->status, FAB_COMPLETED);
}

Test(microsecond, better_priorities_overtake_a_backlog, .timeout = 60)
{
    enum { URGENT = 1000 };
    fab_t *f = begin();
    struct fab_outcome o;
    fab_id id[URGENT];
    put_backlog(f, URGENT, BACKLOG, 3);
    start_workers();
    for (uint32_t i = 0; i < URGENT; i++)
        id[i] = put(f, PLAIN, i, 0, NULL);
    uint32_t before = at_load(&sh->started), late = 0;
    for (uint32_t i = 0; i < URGENT; i++) {
        cr_assert_eq(fab_wait(f, id[i], &o, PATIENT), 0, "%s", fab_errmsg());
        completed(&o);
        /* of the backlog a batch or two of each worker's, and the guard's one in 32 looks, go
         * before */
        late += at_load(&sh->turn[i]) > before + URGENT + 200;
    }
    cr_assert_lt(before, BACKLOG / 2, "the backlog was too short: %u", before);
    /* a worker that has claimed a batch may have to wait for a processor */
    cr_assert_leq(late, WORKERS * BATCH, "%u of %u urgent ones were overtaken", late, URGENT);
    take(f, BACKLOG, completed);
    end(f);
}

static uint32_t low_left;
static void count_low(const struct fab_outcome *o)
{
    completed(o);
    low_left -= o->tag >= BACKLOG;
}

Test(microsecond, the_lowest_priority_is_not_starved, .timeout = 60)
{
    enum { LOW = 50, MOST = 1000000 };
    fab_t *f = begin();
    uint32_t n;
    low_left = LOW;
    put_backlog(f, BACKLOG, LOW, 3);
    put_backlog(f, 0, BACKLOG, 0);
    start_workers();
    /* A stream of the best priority that is never empty, though this process may have to wait for a
     * processor: as many come in as go out. */
    for (n = 0; low_left > 0 && n < MOST; n += 64) {
        take(f, 64, count_low);
        put_backlog(f, n % (BACKLOG - 64), 64, 0);
    }
    cr_assert_eq(low_left, 0, "%u of %d were not run while %u better ones were", low_left, LOW, n);
    take(f, (uint32_t)fab_outstanding(f), count_low);
    end(f);
}

#define DELAYED_FROM 90000u
static uint64_t not_before[200], latest;
static void check_start(const struct fab_outcome *o)
{
    uint64_t started;
    completed(o);
    if (o->tag < DELAYED_FROM)
        return;
    memcpy(&started, fab_data(o), 8);
    uint64_t at = not_before[o->tag - DELAYED_FROM];
    cr_assert_geq(started, at, "%llu ns too early", (unsigned long long)(at - started));
    if (started - at > latest)
        latest = started - at;
}

Test(microsecond, delayed_tasks_start_neither_early_nor_late, .timeout = 60)
{
    enum { DELAYED = 200 };
    fab_t *f = begin();
    struct fab_terms terms = {.delay_ns = 20000000};
    uint32_t tag = 0;
    start_workers();
    put_backlog(f, 0, 4000, 3);
    tag = 4000;
    for (uint32_t i = 0; i < DELAYED; i++) {
        not_before[i] = clock_ns() + terms.delay_ns;
        (void)put(f, PLAIN, DELAYED_FROM + i, 0, &terms);
        take(f, 20, check_start);
        put_backlog(f, tag, 20, 3);
        tag += 20;
    }
    uint32_t at_end;
    do { /* the load goes on until all of them have run */
        take(f, 64, check_start);
        put_backlog(f, tag % 80000, 64, 3);
        tag += 64;
        at_end = ran(DELAYED_FROM, DELAYED);
    } while (at_end < DELAYED && tag < 4000000);
    cr_assert_eq(at_end, DELAYED);
    take(f, (uint32_t)fab_outstanding(f), check_start);
    cr_log_info("the latest of %d started %.2f ms after its time\n", DELAYED, (double)latest / 1e6);
    cr_assert_lt(latest, (uint64_t)SECOND, "%.1f ms late", (double)latest / 1e6);
    end(f);
}

static uint32_t cancelled;
static void check_cancelled(const struct fab_outcome *o)
{
    uint32_t runs = at_load(&sh->runs[o->tag]);
    cr_assert(o->status == FAB_COMPLETED || o->status == FAB_CANCELLED);
    cr_assert_eq(runs, o->status == FAB_COMPLETED, "status %u ran %u times", o->status, runs);
    cancelled += o->status == FAB_CANCELLED;
}

Test(microsecond, what_is_cancelled_does_not_run, .timeout = 60)
{
    enum { N = 20000 };
    static fab_id id[N];
    fab_t *f = begin();
    uint32_t withdrawn = 0;
    for (uint32_t i = 0; i < N; i++)
        id[i] = put(f, PLAIN, i, 1, NULL);
    start_workers();
    for (uint32_t i = N; i-- > 0;) /* from the far end, towards the workers */
        if (i % 2)
            withdrawn += fab_cancel(f, id[i]) == 0 && !at_load(&sh->runs[i]);
    take(f, N, check_cancelled);
    cr_assert_gt(cancelled, 0);
    cr_assert_leq(withdrawn, cancelled + WORKERS * BATCH);
    end(f);
}

static uint32_t overrun;
static void count_overrun(const struct fab_outcome *o)
{
    cr_assert_eq(o->status, o->tag == TAGS - 1 ? FAB_OVERRUN : FAB_COMPLETED);
    overrun += o->status == FAB_OVERRUN;
}

Test(microsecond, a_time_limit_ends_a_task_while_others_stream, .timeout = 60)
{
    fab_t *f = begin();
    struct fab_terms terms = {.limit_ns = 1000000};
    uint32_t tag = 0;
    start_workers();
    put_backlog(f, 0, 4000, 1);
    tag = 4000;
    (void)put(f, LONG, TAGS - 1, 0, &terms); /* without the limit it never ends */
    while (!overrun && tag < 40000000) {
        take(f, 64, count_overrun);
        put_backlog(f, tag % 80000, 64, 1);
        tag += 64;
    }
    cr_assert_eq(overrun, 1);
    cr_assert_eq(at_load(&sh->long_done), 0);
    take(f, 1000, count_overrun); /* and the others stream on, at the other worker */
    at_store(&sh->stop, 1);
    take(f, (uint32_t)fab_outstanding(f), count_overrun);
    end(f);
}

/* SPDX-License-Identifier: MIT
 *
 * test_wake.c - sleeping and waking: nothing is missed, nobody is woken in vain for ever, spinning
 * learns.
 */
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include "core/clock.h"
#include "core/topology.h"
#include "core/wake.h"
#include "unit.h"

static const struct wake_out nobody = {-1};

/* ---- futex ---- */

Test(futex, a_changed_word_is_not_slept_on)
{
    _Atomic uint32_t word = 5;
    uint64_t start = clock_ns();
    cr_assert_eq(futex_sleep(&word, 4, 10 * UNIT_SECOND), 0);
    cr_assert_lt((int64_t)(clock_ns() - start), UNIT_SECOND);
    start = clock_ns();
    cr_assert_eq(futex_sleep(&word, 5, 20000000), -ETIMEDOUT);
    cr_assert_geq((int64_t)(clock_ns() - start), 20000000);
    cr_assert_eq(futex_sleep(&word, 5, 0), -ETIMEDOUT);
    cr_assert_eq(futex_wake(&word, 10), 0, "nobody sleeps there");
}

/* ---- who is woken ---- */

struct sleeper {
    const struct segment *s;
    _Atomic uint32_t *asleep;
};

/* A worker's way to sleep, without the work. */
static void *sleep_on_queue(void *arg)
{
    struct sleeper *x = arg;
    struct seg_queue *q = &x->s->queue[0];
    uint32_t seq = at_load(&q->seq);
    at_or(&q->parked, QUEUE_PARKED_WORKERS);
    at_add(x->asleep, 1);
    while (at_load(&q->seq) == seq)
        (void)futex_sleep(&q->seq, seq, 20 * (uint64_t)UNIT_SECOND);
    at_sub(x->asleep, 1);
    return NULL;
}

/* Wakes until n threads that announced their sleep have ended it; a thread may still be on its way
 * into the kernel. */
static void expect_awake(const struct segment *s, _Atomic uint32_t *asleep)
{
    for (int i = 0; i < 10000 && at_load(asleep) > 0; i++) {
        queue_wake_all(&s->queue[0]);
        usleep(1000);
    }
    cr_assert_eq(at_load(asleep), 0);
}

Test(wake, all_sleepers_of_a_queue, .timeout = 30)
{
    struct segment s;
    static _Atomic uint32_t asleep;
    pthread_t thread[4];
    unit_segment(&s, 64, 2, 0, 1);
    struct sleeper x = {&s, &asleep};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, sleep_on_queue, &x), 0);
    while (at_load(&asleep) < 4)
        usleep(1000);
    expect_awake(&s, &asleep);
    cr_assert_eq(at_load(&s.queue[0].parked), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    segment_unmap(&s);
}

Test(wake, costs_nothing_while_nobody_sleeps)
{
    struct segment s;
    unit_segment(&s, 64, 2, 0, 1);
    uint32_t seq = at_load(&s.queue[0].seq), bell = at_load(&s.participant[0].bell_seq);
    queue_wake(&s, &s.queue[0], &nobody, 5);
    bell_ring(&s, &s.participant[0], &nobody);
    cr_assert_eq(at_load(&s.queue[0].seq), seq);
    cr_assert_eq(at_load(&s.participant[0].bell_seq), bell);
    segment_unmap(&s);
}

static uint64_t rings(int fd)
{
    uint64_t n = 0;
    return read(fd, &n, sizeof n) == sizeof n ? n : 0;
}

Test(wake, the_daemon_is_rung_once_a_sleep)
{
    struct segment s;
    struct wake_out out = {eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    unit_segment(&s, 64, 2, 0, 1);
    struct seg_queue *q = &s.queue[0];
    at_store(&q->parked, QUEUE_PARKED_DAEMON);
    queue_wake(&s, q, &out, 1);
    cr_assert_eq(rings(out.daemon_fd), 0, "it is not asleep");

    at_store(&s.head->daemon_parked, 1);
    at_store(&q->parked, QUEUE_PARKED_DAEMON);
    queue_wake(&s, q, &out, 1);
    cr_assert_eq(rings(out.daemon_fd), 1);
    cr_assert_eq(at_load(&q->parked), 0);
    at_store(&q->parked, QUEUE_PARKED_DAEMON);
    queue_wake(&s, q, &out, 1);
    cr_assert_eq(rings(out.daemon_fd), 0, "it has been rung for this sleep");

    /* a participant of the daemon's: its bell is the daemon's */
    at_store(&s.head->daemon_parked, 1);
    at_store(&s.participant[1].bell_kind, BELL_DAEMON);
    at_store(&s.participant[1].bell_parked, 1);
    bell_ring(&s, &s.participant[1], &out);
    cr_assert_eq(rings(out.daemon_fd), 1);
    cr_assert_eq(at_load(&s.participant[1].bell_parked), 0);
    cr_assert_eq(at_load(&s.head->daemon_parked), 0);

    /* a full counter and a missing descriptor are no trouble */
    uint64_t full = UINT64_MAX - 1;
    cr_assert_eq(write(out.daemon_fd, &full, sizeof full), (ssize_t)sizeof full);
    at_store(&s.head->daemon_parked, 1);
    at_store(&q->parked, QUEUE_PARKED_DAEMON);
    queue_wake(&s, q, &out, 1);
    at_store(&q->parked, QUEUE_PARKED_DAEMON);
    queue_wake(&s, q, &nobody, 1);
    close(out.daemon_fd);
    segment_unmap(&s);
}

/* Workers first; the daemon's links only for what the workers asleep leave over. */
Test(wake, the_daemon_is_left_alone_while_workers_suffice, .timeout = 30)
{
    struct segment s;
    static _Atomic uint32_t asleep;
    struct wake_out out = {eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    pthread_t thread;
    unit_segment(&s, 64, 2, 0, 1);
    struct sleeper x = {&s, &asleep};
    struct seg_queue *q = &s.queue[0];
    for (int round = 0; round < 20; round++) {
        cr_assert_eq(pthread_create(&thread, NULL, sleep_on_queue, &x), 0);
        while (at_load(&asleep) < 1)
            usleep(100);
        usleep(2000); /* into the kernel */
        at_store(&s.head->daemon_parked, 1);
        at_or(&q->parked, QUEUE_PARKED_DAEMON);
        queue_wake(&s, q, &out, 1);
        pthread_join(thread, NULL);
        uint64_t rung = rings(out.daemon_fd);
        /* either the sleeper was found in the kernel and the daemon kept for later, or it was not
         * and the daemon was rung */
        if (rung == 0)
            cr_assert(at_load(&q->parked) & QUEUE_PARKED_DAEMON);
        else
            cr_assert_eq(rung, 1);
    }
    close(out.daemon_fd);
    segment_unmap(&s);
}

/* ---- the net ---- */

Test(wake, the_net_counts_what_no_wake_up_announced)
{
    struct segment s;
    unit_segment(&s, 64, 2, 0, 1);
    _Atomic uint32_t *seq = &s.queue[0].seq;
    wake_net_caught(&s, seq, at_load(seq));
    cr_assert_eq(at_load(&s.head->net_catches), 1);
    wake_net_caught(&s, seq, at_load(seq) - 1);
    cr_assert_eq(at_load(&s.head->net_catches), 1, "it was only just on its way");
    segment_unmap(&s);
}

struct claimer {
    fab_t *f;
    long rc;
};

static void *claim_one(void *arg)
{
    struct claimer *x = arg;
    struct fab_lease l;
    x->rc = fab_claim(x->f, 0, &l, 1, 10 * UNIT_SECOND);
    if (x->rc == 1)
        (void)!fab_complete(x->f, &l, NULL, 0);
    return NULL;
}

/* A task whose wake-up is taken away: the net must catch it soon, and say so. This is what makes
 * the zeroes below worth something. */
Test(wake, a_lost_wake_up_is_caught_and_counted, .timeout = 30)
{
    struct segment s;
    struct fab_task t = {.flags = FAB_NO_WAIT};
    unit_segment(&s, 64, 4, 0, 1);
    fab_t *p = unit_handle(&s, "producer", -1);
    struct claimer x = {.f = unit_handle(&s, "worker", -1)};
    /* not in every round is the worker asleep already when its mark is taken away */
    for (int round = 0; round < 50 && at_load(&s.head->net_catches) == 0; round++) {
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, claim_one, &x), 0);
        while (at_load(&s.queue[0].parked) == 0)
            usleep(1000);
        at_store(&s.queue[0].parked, 0);
        uint64_t start = clock_ns();
        cr_assert_eq(fab_submit(p, &t, 1, NULL, 0), 1);
        pthread_join(thread, NULL);
        cr_assert_eq(x.rc, 1);
        cr_assert_lt(clock_ns() - start, 2 * WAKE_NET_NS);
    }
    cr_assert_gt(at_load(&s.head->net_catches), 0);
    fab_close(p);
    fab_close(x.f);
    segment_unmap(&s);
}

/* ---- spinning ---- */

Test(spin, a_budget_is_kept)
{
    struct spin sp;
    uint64_t hz = clock_ticks_hz();
    spin_init(&sp, hz, 2000000);
    for (int i = 0; i < 3; i++) {
        uint64_t start = clock_ns();
        spin_start(&sp);
        while (spin_on(&sp))
            ;
        uint64_t took = clock_ns() - start;
        cr_assert(took >= 1900000, "%llu ns", (unsigned long long)took);
        spin_miss(&sp);
    }
    spin_init(&sp, hz, -1);
    spin_start(&sp);
    int rounds = 0;
    while (spin_on(&sp))
        rounds++;
    cr_assert_lt(rounds, 17, "none at all");
}

Test(spin, learns_from_hits_and_misses)
{
    struct spin sp;
    uint64_t hz = 1000000000;
    spin_init(&sp, hz, 0);
    cr_assert_eq(sp.ticks, 50000);
    for (int i = 0; i < 20; i++)
        spin_miss(&sp);
    cr_assert_eq(sp.ticks, 1000, "never less");
    spin_hit(&sp);
    cr_assert_eq(sp.ticks, 2000);
    for (int i = 0; i < 20; i++)
        spin_hit(&sp);
    cr_assert_eq(sp.ticks, 50000, "never more");
    spin_init(&sp, hz, 7000);
    spin_miss(&sp);
    spin_hit(&sp);
    cr_assert_eq(sp.ticks, 7000, "what was asked for is fixed");
}

Test(spin, a_busy_wait_ends_at_its_time_without_having_slept)
{
    struct segment s;
    unit_segment(&s, 64, 2, 0, 1);
    fab_t *f = unit_handle(&s, "busy", FAB_SPIN_ALWAYS);
    struct rusage before, after;
    struct fab_lease l;
    struct fab_task t = {.kernel = 1};
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(getrusage(RUSAGE_THREAD, &before), 0);
    uint64_t start = clock_ns();
    cr_assert_eq(fab_claim(f, 0, &l, 1, 30000000), -ETIMEDOUT);
    cr_assert_eq(fab_submit(f, &t, 1, &id, 0), 1);
    cr_assert_eq(fab_wait(f, id, &o, 30000000), -ETIMEDOUT);
    cr_assert_eq(fab_wait_any(f, &o, 1, 30000000), -ETIMEDOUT);
    uint64_t took = clock_ns() - start;
    cr_assert_eq(getrusage(RUSAGE_THREAD, &after), 0);
    cr_assert_geq(took, 90000000u);
    cr_assert_lt(took, 2000000000u);
    cr_assert_leq(after.ru_nvcsw - before.ru_nvcsw, 1, "%ld sleeps", after.ru_nvcsw - before.ru_nvcsw);
    fab_close(f);
    segment_unmap(&s);
}

/* ---- no wake-up is lost ---- */

struct player {
    fab_t *f;
    uint32_t rounds, delay; /* most rounds of delay before each completion */
    int core;               /* -1: any */
    _Atomic uint32_t *errors;
};

static void idle_for(uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++)
        cpu_relax();
}

static void *player_thread(void *arg)
{
    struct player *p = arg;
    struct fab_lease l;
    uint64_t seed = 3;
    if (p->core >= 0 && topo_pin(p->core) < 0)
        at_add(p->errors, 1);
    for (uint32_t i = 0; i < p->rounds; i++) {
        if (fab_claim(p->f, 0, &l, 1, 10 * UNIT_SECOND) != 1) {
            at_add(p->errors, 1);
            break;
        }
        if (p->delay)
            idle_for((uint32_t)(unit_random(&seed) % p->delay));
        if (fab_complete(p->f, &l, l.small, 8) < 0)
            at_add(p->errors, 1);
    }
    return NULL;
}

/* One task at a time there and back. Returns how many sleeps were ended by a wake-up, on both
 * sides. */
static uint32_t ping_pong(uint32_t rounds, uint32_t delay, int core)
{
    struct segment s;
    static _Atomic uint32_t errors;
    pthread_t thread;
    uint64_t seed = 5;
    unit_segment(&s, 64, 4, 0, 1);
    fab_t *p = unit_handle(&s, "producer", -1);
    struct player x = {unit_handle(&s, "worker", -1), rounds, delay, core, &errors};
    if (core >= 0)
        cr_assert_eq(topo_pin(core), 0);
    cr_assert_eq(pthread_create(&thread, NULL, player_thread, &x), 0);
    for (uint64_t i = 0; i < rounds; i++) {
        struct fab_task t = {.arg = &i, .len = 8};
        struct fab_outcome o;
        fab_id id;
        if (delay)
            idle_for((uint32_t)(unit_random(&seed) % delay));
        cr_assert_eq(fab_submit(p, &t, 1, &id, 0), 1);
        int rc = fab_wait(p, id, &o, 10 * UNIT_SECOND);
        cr_assert_eq(rc, 0, "round %llu: %s", (unsigned long long)i, fab_errmsg());
        cr_assert_eq(o.small, i);
    }
    pthread_join(thread, NULL);
    cr_assert_eq(at_load(&errors), 0);
    cr_assert_eq(at_load(&s.head->net_catches), 0);
    uint32_t woken = at_load(&s.queue[0].seq) + at_load(&s.participant[unit_id(p)].bell_seq);
    fab_close(p);
    fab_close(x.f);
    segment_unmap(&s);
    return woken;
}

/* On one core the other side can only run while this one sleeps. */
Test(wake, ping_pong_on_one_core_loses_none, .timeout = 60)
{
    struct cores c;
    cr_assert_eq(topo_allowed(&c), 0);
    cr_assert_gt(ping_pong(100000, 0, c.core[0]), 100000, "it hardly slept");
}

/* Delays about as long as the way into sleep: wake-ups meet every step of it. */
Test(wake, ping_pong_with_delays_loses_none, .timeout = 60)
{
    struct cores c;
    cr_assert_eq(topo_allowed(&c), 0);
    uint32_t woken = ping_pong(100000, 300, -1);
    if (c.n > 1)
        cr_assert_gt(woken, 1000, "it hardly slept");
}

/* Several sleepers on both sides, batches of all sizes: the wake-ups must reach as many as there is
 * work for. */
Test(wake, crowds_lose_none, .timeout = 60)
{
    struct segment s;
    static _Atomic uint32_t errors;
    enum { WORKERS = 3, BATCHES = 8000, BATCH = 6 };
    pthread_t thread[WORKERS];
    struct player x[WORKERS];
    unit_segment(&s, 64, 8, 0, 1);
    fab_t *p = unit_handle(&s, "producer", -1);
    for (uint32_t i = 0; i < WORKERS; i++) {
        x[i] = (struct player){unit_handle(&s, "worker", -1), BATCHES * BATCH / WORKERS, 100, -1,
                               &errors};
        cr_assert_eq(pthread_create(&thread[i], NULL, player_thread, &x[i]), 0);
    }
    for (uint32_t i = 0; i < BATCHES; i++) {
        uint64_t v = i;
        struct fab_task t[BATCH];
        struct fab_outcome o[BATCH];
        fab_id id[BATCH];
        for (int k = 0; k < BATCH; k++)
            t[k] = (struct fab_task){.arg = &v, .len = 8};
        cr_assert_eq(fab_submit(p, t, BATCH, id, 0), BATCH);
        for (long done = 0; done < BATCH;) {
            long n = fab_wait_any(p, o, BATCH, 10 * UNIT_SECOND);
            cr_assert_gt(n, 0, "batch %u: %s", i, fab_errmsg());
            for (long k = 0; k < n; k++)
                cr_assert_eq(o[k].small, i);
            done += n;
        }
    }
    for (uint32_t i = 0; i < WORKERS; i++)
        pthread_join(thread[i], NULL);
    cr_assert_eq(at_load(&errors), 0);
    cr_assert_eq(at_load(&s.head->net_catches), 0);
    fab_close(p);
    for (uint32_t i = 0; i < WORKERS; i++)
        fab_close(x[i].f);
    segment_unmap(&s);
}

/* ---- sharing a core ---- */

#define HANDOVERS 2000

struct relay {
    int core;
    uint32_t mine; /* whose turn is even, whose is odd */
    _Atomic uint32_t *turn;
};

/* Passes the turn on each time it comes, waiting by looks alone. */
static void *run_relay(void *arg)
{
    struct relay *r = arg;
    struct spin sp;
    cr_assert_eq(topo_pin(r->core), 0);
    spin_init(&sp, clock_ticks_hz(), FAB_SPIN_ALWAYS);
    spin_start(&sp);
    for (uint32_t n = at_load(r->turn); n < HANDOVERS; n = at_load(r->turn)) {
        if (n % 2 == r->mine) {
            at_store(r->turn, n + 1);
            spin_start(&sp);
        } else {
            (void)spin_on(&sp);
            spin_share(&sp);
        }
    }
    return NULL;
}

static int first_core(void)
{
    struct cores c;
    cr_assert_eq(topo_allowed(&c), 0);
    return c.core[0];
}

/* A handover a time slice, some milliseconds, would be 5 seconds and more. */
Test(share, two_that_poll_on_one_core_do_not_wait_for_time_slices, .timeout = 60)
{
    _Atomic uint32_t turn = 0;
    struct relay a = {first_core(), 0, &turn}, b = {a.core, 1, &turn};
    pthread_t other;
    uint64_t start = clock_ns();
    cr_assert_eq(pthread_create(&other, NULL, run_relay, &b), 0);
    run_relay(&a);
    pthread_join(other, NULL);
    uint64_t took = clock_ns() - start;
    cr_assert_lt(took, 2 * UNIT_SECOND, "%d handovers in %llu ns", HANDOVERS,
                 (unsigned long long)took);
}

struct hog {
    int core;
    _Atomic uint32_t stop;
};

static void *compute(void *arg)
{
    struct hog *h = arg;
    cr_assert_eq(topo_pin(h->core), 0);
    while (!at_load(&h->stop))
        ;
    return NULL;
}

static uint64_t own_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * UNIT_SECOND + (uint64_t)t.tv_nsec;
}

/* Who yields to one who never does gets next to nothing; half of the core is everybody's right. What
 * others on the machine take, they take from both. */
Test(share, one_that_computes_does_not_get_it_all, .timeout = 60)
{
    struct hog h = {.core = first_core()};
    struct spin sp;
    pthread_t other;
    clockid_t clock;
    struct timespec t;
    cr_assert_eq(topo_pin(h.core), 0);
    cr_assert_eq(pthread_create(&other, NULL, compute, &h), 0);
    cr_assert_eq(pthread_getcpuclockid(other, &clock), 0);
    spin_init(&sp, clock_ticks_hz(), FAB_SPIN_ALWAYS);
    spin_start(&sp);
    uint64_t mine = own_ns();
    for (uint64_t end = clock_ns() + UNIT_SECOND; clock_ns() < end;) {
        (void)spin_on(&sp);
        spin_share(&sp);
    }
    mine = own_ns() - mine;
    cr_assert_eq(clock_gettime(clock, &t), 0);
    uint64_t its = (uint64_t)t.tv_sec * UNIT_SECOND + (uint64_t)t.tv_nsec;
    at_store(&h.stop, 1);
    pthread_join(other, NULL);
    cr_assert_gt(mine * 4, its, "%llu ns beside %llu", (unsigned long long)mine,
                 (unsigned long long)its);
}

/* SPDX-License-Identifier: MIT
 *
 * actors.c - the programs of a schedule: remote producers, remote workers, remote handles that are
 * both, a local worker and a local producer. Written like users' programs, with calls that block;
 * each opens a new handle when its link broke, and starts again when it was killed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/error.h"
#include "core/participant.h"
#include "core/undertaker.h"
#include "tests/sim/world.h"
#include "transport/remote.h"

#define LEASES_MAX 24
#define BATCH_MAX  6
#define ARG_MAX    (300u << 10)
#define RESULT_MAX 16384u
#define REMOTE_MAX 5

/* One program: what it has still to do outlives its process. */
struct program {
    struct actor *actor;
    uint32_t roles, quota; /* tasks still to submit */
    uint32_t handle;
    const char *client; /* NULL: none */
    bool begins;        /* FAB_BEGINS */
    bool lazy;          /* takes its time with every task */
    bool done_producing;
    uint64_t
        backoff; /* grows while the fabric is full: fabricd may look for room at its tick only */
    uint8_t *arg[BATCH_MAX],
        *result; /* bytes for calls that may sleep; kept for the next schedule */
};

static struct program program[ACTORS_MAX];
static uint32_t programs, remotes;

/* ---- producing ---- */

static uint32_t pick_len(void)
{
    static const uint32_t lens[] = {8, 8, 8, 8, 16, 40, 64, 65, 300, 1200, 5000, 20000};
    return sim_chance(2) ? ARG_MAX : lens[sim_roll(sizeof lens / sizeof *lens)];
}

static int64_t pick_timeout(bool may_wait_long)
{
    uint64_t r = sim_roll(4);
    return r == 0 ? 0 : r == 1 && may_wait_long ? FAB_FOREVER : (int64_t)(1 + sim_roll(30000));
}

static bool gone(const struct program *p, long rc)
{
    if (rc == -EPIPE || p->actor->killed)
        return true;
    if (rc < 0 && rc != -EAGAIN && rc != -ETIMEDOUT && rc != -ENOENT && rc != -EBUSY &&
        rc != -ESTALE) /* a lease that ended with its link */
        sim_fail("%s", err_text((int)rc));
    return false;
}

/* fabricd has told it that its session is over. */
static bool dropped(const struct actor *a)
{
    for (const struct line *l = world.lines; l; l = l->next)
        if (l->client == a && l->over)
            return true;
    return false;
}

/* The link is gone for p's handle, or p is killed. */
static void note_end(struct program *p, fab_t *f)
{
    world.oracle.handle[p->handle].killed = p->actor->killed;
    world.oracle.handle[p->handle].broken = true;
    if (!world.faults)
        sim_fail("the link broke without any fault: %s", fab_errmsg());
    if (!p->actor->killed && ((struct remote *)f)->broken == -EPROTO)
        sim_fail("%s", fab_errmsg());
    if (!p->actor->killed && p->roles & FAB_PRODUCER && world.patient && !dropped(p->actor))
        sim_fail("it gave up though there was time: %s", fab_errmsg());
}

static long submit(struct program *p, fab_t *f, bool room)
{
    struct fab_task t[BATCH_MAX];
    fab_id id[BATCH_MAX];
    uint32_t n = 1 + (uint32_t)sim_roll(BATCH_MAX), number[BATCH_MAX];
    n = n < p->quota ? n : p->quota;
    for (uint32_t i = 0; i < n; i++) {
        t[i] = (struct fab_task){.kernel = 1 + sim_roll(3),
                                 .len = pick_len(),
                                 .flags = sim_chance(150) ? FAB_NO_WAIT : 0,
                                 .queue = (uint8_t)sim_roll(world.queues),
                                 .priority = (uint8_t)sim_roll(FAB_PRIORITIES)};
        number[i] = oracle_offer(p->handle, &t[i], p->arg[i]);
    }
    /* local handles sleep in the kernel, where no virtual time passes: they only try */
    bool remote = world.oracle.handle[p->handle].remote;
    /* and outcomes that wait for a handle with a client id hold memory until they are taken */
    long rc = fab_submit(f, t, n, id, remote ? pick_timeout(room && !p->client) : 0);
    if (p->actor->killed) {
        for (uint32_t i = 0; i < n; i++)
            oracle_unsure(number[i]);
        return -EPIPE;
    }
    bool well = !(remote && ((struct remote *)f)->broken);
    for (uint32_t i = 0; i < n; i++) {
        if ((long)i < rc)
            oracle_accepted(number[i]);
        else /* an argument that can never fit is refused here, or answered by the daemon */
            oracle_refused(number[i], well);
        memset(p->arg[i], 0xdd, t[i].len < 64 ? t[i].len : 64); /* they were copied */
    }
    p->quota -= rc > 0 ? (uint32_t)rc : 0;
    bool full = rc == -EAGAIN || rc == -ETIMEDOUT;
    p->backoff = !full ? 0 : p->backoff < 50000000 ? p->backoff * 2 + 100 : p->backoff;
    if (full)
        sim_sleep(sim_roll(p->backoff + 1));
    if (rc == -EMSGSIZE)
        return 0;
    if (rc > 0 && !(t[0].flags & FAB_NO_WAIT) && sim_chance(100)) {
        oracle_cancel(number[0]);
        int crc = fab_cancel(f, id[0]);
        return crc < 0 ? crc : rc;
    }
    return rc;
}

static long take(struct program *p, fab_t *f, int64_t timeout)
{
    struct fab_outcome o[8];
    long n = fab_wait_any(f, o, 1 + sim_roll(8), timeout);
    struct handle *h = &world.oracle.handle[p->handle];
    if (h->remote && ((struct remote *)f)->broken)
        h->broken = true;
    for (long i = 0; i < n; i++) /* of one that was just killed, too: they have been handed out */
        oracle_outcome(p->handle, &o[i]);
    return n;
}

/* A few calls of a producer. < 0: the link is gone, or it was killed. */
static long produce(struct program *p, fab_t *f)
{
    size_t before = fab_outstanding(f);
    long rc = 0;
    if (p->quota > 0 && sim_roll(3) > 0) {
        rc = submit(p, f, before + 1 < world.submit_window);
    } else if (before > 0) {
        rc = take(p, f, pick_timeout(!(p->roles & FAB_WORKER)));
    }
    if (gone(p, rc))
        return -EPIPE;
    sim_sleep(sim_roll(p->lazy ? 8000 : 1500));
    return p->actor->killed ? -EPIPE : 0;
}

/* Everything is submitted and answered. */
static bool produced(struct program *p, const fab_t *f)
{
    return p->quota == 0 && fab_outstanding(f) == 0;
}

static void finish_producing(struct program *p)
{
    if (!p->done_producing)
        world.producers_done++;
    p->done_producing = true;
}

/* ---- working ---- */

/* Ends one lease; the first of several in a hurry. */
static int end_lease(struct program *p, fab_t *f, const struct fab_lease *l)
{
    char text[64];
    if (p->actor->killed) /* frees its memory; nothing of it leaves here any more */
        return fab_release(f, l);
    if (sim_chance(30)) {
        oracle_released(l);
        return fab_release(f, l);
    }
    oracle_begin(l);
    sim_sleep(sim_chance(20) ? sim_roll(100000) : sim_roll(p->lazy ? 6000 : 800));
    if (p->actor->killed)
        return fab_release(f, l);
    if (sim_chance(40)) {
        oracle_failing(l, text);
        return fab_fail(f, l, text);
    }
    uint32_t len = oracle_result(l, p->result, RESULT_MAX);
    int rc = fab_complete(f, l, p->result, len);
    if (rc == -ENOSPC) { /* local: no room for the result; still held */
        oracle_failing(l, text);
        rc = fab_fail(f, l, text);
    }
    return rc;
}

static long work(struct program *p, fab_t *f, uint32_t queue, int64_t timeout)
{
    struct fab_lease l[LEASES_MAX];
    long n = fab_claim(f, queue, l, 1 + sim_roll(LEASES_MAX), timeout), end = 0;
    for (long i = 0; i < n; i++) {
        if (p->begins && !p->actor->killed && fab_begin(f, &l[i]) == -ESTALE) {
            world.asked_back++;
            continue;
        }
        int rc = end_lease(p, f, &l[i]);
        if (rc < 0)
            end = rc;
    }
    if (n < 0 && gone(p, n))
        return -EPIPE;
    return p->actor->killed || gone(p, end) ? -EPIPE : n;
}

/* ---- remote programs ---- */

/* Until its link breaks, it is killed, or there is nothing left to do (0). */
static int use_remote(struct program *p, fab_t *f)
{
    for (;;) {
        if (p->roles & FAB_PRODUCER) {
            if (produce(p, f) < 0)
                return -EPIPE;
            if (produced(p, f)) {
                oracle_drained(p->handle);
                finish_producing(p);
                if (!(p->roles & FAB_WORKER))
                    return 0;
            }
        }
        if (p->roles & FAB_WORKER) {
            if (world.stop)
                return 0;
            uint32_t queue = (uint32_t)sim_roll(world.queues);
            if (work(p, f, queue, pick_timeout(false)) < 0 &&
                (p->actor->killed || ((struct remote *)f)->broken))
                return -EPIPE;
        }
    }
}

static void drain(struct program *p, fab_t *f)
{
    long rc;
    while ((rc = take(p, f, 0)) > 0)
        ;
    if (rc != -ENOENT)
        sim_fail("after the link broke: %s", fab_errmsg());
    oracle_drained(p->handle);
}

/* Something was done to a line that a used. */
static bool harmed(const struct actor *a)
{
    for (const struct line *l = world.lines; l; l = l->next)
        if (l->client == a && l->harmed)
            return true;
    return false;
}

static void remote_body(struct actor *a)
{
    struct program *p = a->arg;
    struct fab_options opts = {
        .roles = p->roles, .flags = p->begins ? FAB_BEGINS : 0, .name = a->name, .spin_ns = -1,
        .client = p->client};
    fab_t *f;
    while (!(world.stop || (p->done_producing && !(p->roles & FAB_WORKER)))) {
        a->killed = false;
        if (remote_open(&f, "tcp", "sim", "1", &opts) < 0) {
            a->killed = false;
            sim_sleep(1 + sim_roll(50000));
            continue;
        }
        uint32_t before = p->handle;
        p->handle = oracle_handle(true);
        if (p->client && before)
            oracle_taken_up(p->handle, before, fab_outstanding(f));
        int rc = use_remote(p, f);
        if (rc < 0) {
            note_end(p, f);
            sim_trace("%s", a->killed ? "killed" : "link lost");
            if (!a->killed && p->roles & FAB_PRODUCER)
                drain(p, f);
        }
        fab_close(f);
        world.oracle.handle[p->handle].harmed = harmed(a);
        if (harmed(a) || a->killed) /* tasks nobody waits for may have been lost by the closing */
            world.oracle.handle[p->handle].broken = true;
        a->killed = false;
        sim_sleep(1 + sim_roll(30000));
    }
}

bool actors_dropped(uint32_t handle)
{
    for (uint32_t i = 0; i < programs; i++)
        if (program[i].handle == handle && dropped(program[i].actor))
            return true;
    return false;
}

bool actors_harmed(uint32_t handle)
{
    for (uint32_t i = 0; i < programs; i++)
        if (program[i].handle == handle && harmed(program[i].actor))
            return true;
    return world.oracle.handle[handle].harmed;
}

bool actor_kill(uint32_t i)
{
    struct actor *a = program[i].actor;
    if (a->killed || a->done)
        return false;
    for (struct line *l = world.lines; l; l = l->next) {
        if (l->client != a || !l->client_dom) /* it may have two: one that is dead, and the next */
            continue;
        sim_trace("kill %s, link %u", a->name, l->number);
        net_kill(l->client_dom);
        l->harmed = true;
        l->client_end_due = sim_now() + 1 + sim_roll(20000);
        sim_wake(world.host, l->client_end_due);
        a->killed = true;
        sim_wake(a, sim_now());
    }
    return a->killed;
}

void actor_stop(uint32_t i, uint64_t ns)
{
    struct actor *a = program[i].actor;
    if (a->killed || a->done || a->stopped_until > sim_now())
        return;
    for (struct line *l = world.lines; l; l = l->next)
        if (l->client == a && l->client_dom)
            l->harmed = true;
    sim_trace("stop %s", a->name);
    a->stopped_until = sim_now() + ns;
    sim_wake(world.beats, a->stopped_until);
}

uint32_t actors_remote(void)
{
    return remotes;
}

/* ---- local programs ---- */

static fab_t *open_local(const char *name)
{
    struct participant_info info = {.pid = (uint32_t)getpid(), .roles = 3, .name = name};
    struct local *l;
    uint32_t generation;
    int me = participant_add(&world.seg, &info, &generation);
    if (me < 0 ||
        local_open(&l, &world.seg, (uint32_t)me, generation, world.out.daemon_fd, -1, -1) < 0)
        sim_fail("a local handle: %s", fab_errmsg());
    return &l->base;
}

static void close_local(fab_t *f)
{
    struct undertaker_report rep;
    uint32_t id = ((struct local *)f)->me;
    fab_close(f);
    undertaker_recover(&world.seg, &world.out, world.me, id, false, &rep);
}

/* One of the remote programs may come back yet, for the sake of a task that nobody waits for. */
static bool remotes_left(void)
{
    for (uint32_t i = 0; i < remotes; i++)
        if (!program[i].actor->done)
            return true;
    return false;
}

static void local_worker(struct actor *a)
{
    struct program *p = a->arg;
    fab_t *f = open_local(a->name);
    bool last;
    long n;
    /* goes on after the others, until it finds nothing: orphans are to be run, too */
    do {
        last = world.stop && !world.peers && !world.dead && !remotes_left() &&
               !at_load(&world.seg.head->audit_wanted);
        n = 0;
        for (uint32_t q = 0; q < world.queues; q++)
            n += work(p, f, q, 0) > 0;
        sim_sleep(sim_roll(world.calm ? 3000 : p->lazy ? 200000 : 20000) + 1);
    } while (!last || n > 0);
    close_local(f);
}

static void local_producer(struct actor *a)
{
    struct program *p = a->arg;
    fab_t *f = open_local(a->name);
    p->handle = oracle_handle(false);
    while (!produced(p, f)) {
        long rc = p->quota > 0 && sim_roll(2) ? submit(p, f, false) : 0;
        if (fab_outstanding(f) > 0)
            rc = take(p, f, 0);
        if (gone(p, rc))
            sim_fail("the local handle broke: %s", fab_errmsg());
        sim_sleep(1 + sim_roll(4000));
    }
    oracle_drained(p->handle);
    finish_producing(p);
    close_local(f);
}

/* ---- all of them ---- */

static void add(const char *name, void (*body)(struct actor *), uint32_t roles, uint32_t quota)
{
    struct program *p = &program[programs++];
    p->roles = roles;
    p->quota = quota;
    p->lazy = sim_chance(300);
    p->done_producing = false;
    p->handle = 0;
    p->client = NULL;
    p->begins = sim_roll(2);
    p->backoff = 0;
    for (uint32_t i = 0; i < BATCH_MAX && roles & FAB_PRODUCER; i++)
        if (!p->arg[i] && !(p->arg[i] = malloc(ARG_MAX)))
            abort();
    if (!p->result && !(p->result = malloc(RESULT_MAX)))
        abort();
    p->actor = sim_actor(name, false, body, p);
    p->actor->wake_at = sim_roll(50000);
    world.producers += (roles & FAB_PRODUCER) != 0;
}

void actors_clear(void)
{
    programs = remotes = 0;
}

void actors_adopt(struct actor *a)
{
    program[programs++].actor = a;
    remotes++;
}

void actors_open(void)
{
    static const char *const names[] = {"remote-a", "remote-b", "remote-c", "remote-d", "remote-e"};
    programs = 0;
    remotes = 1 + (uint32_t)sim_roll(REMOTE_MAX);
    for (uint32_t i = 0; i < remotes; i++) {
        uint32_t roles = i == 0 ? FAB_PRODUCER : 1 + (uint32_t)sim_roll(3);
        add(names[i], remote_body, roles, roles & FAB_PRODUCER ? 10 + (uint32_t)sim_roll(120) : 0);
        if (roles & FAB_PRODUCER && sim_roll(2))
            program[programs - 1].client = names[i];
    }
    add("worker", local_worker, FAB_WORKER, 0);
    if (sim_chance(300))
        add("producer", local_producer, FAB_PRODUCER, 10 + (uint32_t)sim_roll(100));
}

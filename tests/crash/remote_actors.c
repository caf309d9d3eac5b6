/* SPDX-License-Identifier: MIT
 *
 * remote_actors.c - see remote.h. A task's number is the first 4 bytes of its argument and of its
 * result, and its tag; sizes follow from the number, so that whoever sees a task can check it.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fabric.h"
#include "tests/common/dice.h"
#include "tests/crash/bytes.h"
#include "tests/crash/remote.h"

#define SECOND 1000000000ll
/* In a note's status. */
#define LOCALLY 0x80u

void remote_trouble(struct remote_stage *st, const char *fmt, ...)
{
    va_list ap;
    if (at_add(&st->trouble, 1) > 0)
        return;
    va_start(ap, fmt);
    vsnprintf(st->what, sizeof st->what, fmt, ap);
    va_end(ap);
}

/* In the slot, in the wide, in a block, over a lane's cell, whole chunks. */
static uint32_t size_of(uint32_t n, bool result)
{
    uint64_t h = (n * 2u + result + 1) * 0x9e3779b97f4a7c15ull;
    uint32_t kind = (uint32_t)(h >> 40) % 1024, more = (uint32_t)(h >> 20);
    if (kind < 512)
        return 4 + more % 5;
    if (kind < 768)
        return 9 + more % 56;
    if (kind < 1012)
        return 65 + more % 2000;
    return kind < 1022 ? 4000 + more % 12000 : 20000 + more % (REMOTE_LARGE - 20000);
}

static bool good(const uint8_t *p, uint32_t n, uint32_t len, bool result)
{
    return len == size_of(n, result) && bytes_good(p, n, len, result);
}

/* A handle, however long fabricd is down, and while it has not noticed yet that the last one with
 * this client id is dead. */
static fab_t *open_handle(struct remote_stage *st, unsigned i, bool remote, const char *client)
{
    struct fab_options o = {.roles = IS_PRODUCER(i) ? FAB_PRODUCER : FAB_WORKER,
                            .name = "actor",
                            .spin_ns = 2000,
                            .client = client,
                            .key_file = st->key,
                            .timeout_ns = 5 * SECOND};
    fab_t *f = NULL;
    for (uint64_t until = clock_ns() + 40ull * SECOND; clock_ns() < until;) {
        if (fab_open(&f, remote ? st->remote : st->local, &o) == 0)
            return f;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* nothing tells of a new fabricd */
    }
    remote_trouble(st, "actor %u: no fabricd for 40 s: %s", i, fab_errmsg());
    return NULL;
}

/* ---- producers ---- */

struct producer {
    struct remote_stage *st;
    struct remote_actor *me;
    unsigned i;
    bool remote;
    const char *client;
    fab_t *f;
    uint64_t dice;
    fab_id id[REMOTE_WINDOW]; /* for cancelling */
    uint32_t ids;
};

static void told(struct producer *p, const struct fab_outcome *o, struct note *t)
{
    struct remote_stage *st = p->st;
    uint32_t n = (uint32_t)o->tag, me = note_by(p->i, p->me->life), by = at_load(&t->by);
    bool again = at_add(&t->told, 1) != 0;
    if (by >> 24 != p->i + 1 || (!p->client && by != me))
        remote_trouble(st, "actor %u is told of task %u, which is %#x's", p->i, n, by);
    else if (again && (!p->client || at_load(&t->told_to) == me))
        remote_trouble(st, "actor %u: task %u was answered twice (status %u)", p->i, n, o->status);
    else if (again && at_load(&t->status) & LOCALLY)
        remote_trouble(st, "task %u was taken here, and is told again", n);
    else if (again && at_load(&t->status) != o->status)
        remote_trouble(st, "task %u was told as %u, and to the successor as %u", n,
                       at_load(&t->status), o->status);
    at_add(&st->told_again, again);
    at_store(&t->told_to, me);
    at_store(&t->status, (uint8_t)(o->status | (p->remote ? 0 : LOCALLY)));
    at_add(&p->me->told, 1);
}

static void outcome(struct producer *p, const struct fab_outcome *o)
{
    struct remote_stage *st = p->st;
    uint32_t n = (uint32_t)o->tag;
    if (n >= NOTES_MAX || R_NO_WAIT(n)) {
        remote_trouble(st, "an outcome of task %u, which nobody waits for (status %u)", n, o->status);
        return;
    }
    struct note *t = &st->note[n];
    told(p, o, t);
    switch (o->status) {
    case FAB_COMPLETED:
        if (R_POISONED(n) || !at_load(&t->ran) || !good(fab_data(o), n, o->len, true))
            remote_trouble(st, "task %u: a result of %u bytes that nobody computed", n, o->len);
        break;
    case FAB_FAILED:
        if (o->len != 6 || memcmp(fab_data(o), "wanted", 6) != 0 || !at_load(&t->started))
            remote_trouble(st, "task %u failed: %.*s", n, (int)o->len, (const char *)fab_data(o));
        break;
    case FAB_DEAD:
        at_add(&p->me->dead, 1);
        if (!R_POISONED(n) && o->attempts < 3)
            remote_trouble(st, "task %u was given up after %u attempts", n, o->attempts);
        break;
    case FAB_CANCELLED:
        at_add(&p->me->cancelled, 1);
        break;
    case FAB_DUPLICATE:
        at_add(&st->duplicates, 1);
        if (!R_KEY(n) || at_load(&t->started))
            remote_trouble(st, "task %u is called a duplicate", n);
        break;
    case FAB_EXPIRED:
    case FAB_OVERRUN:
        at_add(&p->me->ended, 1);
        if (o->status == FAB_EXPIRED ? R_EXPIRY(n) : R_LIMIT(n))
            break;
        /* fall through */
    default:
        remote_trouble(st, "actor %u, task %u: status %u", p->i, n, o->status);
    }
}

static struct fab_terms terms_for(const struct remote_stage *st, uint32_t n)
{
    if (R_KEY(n))
        return (struct fab_terms){.key = (uint64_t)(st->round + 1) << 32 | R_KEY_OF(n),
                                  .dedup_ns = 600ull * SECOND,
                                  .retries = n / 32 % 2};
    return (struct fab_terms){.retries = 2,
                              .delay_ns = n / 16 % 4 * 500000,
                              .backoff_ns = n / 16 % 3 * 100000,
                              .limit_ns = R_LIMIT(n) ? 3000000 : 0,
                              .expire_ns = R_EXPIRY(n) ? 3000000 : 0};
}

static bool submit_some(struct producer *p)
{
    static uint8_t arg[6][REMOTE_LARGE];
    struct remote_stage *st = p->st;
    struct fab_terms terms[6];
    struct fab_task t[6];
    fab_id id[6];
    uint32_t want = 1 + (uint32_t)(roll(&p->dice) % 6);
    for (uint32_t k = 0; k < want; k++) {
        uint32_t n = at_add(&st->next, 1), len = size_of(n, false);
        if (n >= NOTES_MAX)
            return true; /* the round ends: the driver sees it */
        bytes_fill(arg[k], n, len, false);
        terms[k] = terms_for(st, n);
        at_store(&st->note[n].by, note_by(p->i, p->me->life));
        t[k] = (struct fab_task){.kernel = 1,
                                 .arg = arg[k],
                                 .len = len,
                                 .priority = (uint8_t)(roll(&p->dice) % FAB_PRIORITIES),
                                 .tag = n,
                                 .terms = R_TERMS(n) || R_KEY(n) ? &terms[k] : NULL,
                                 .flags = R_NO_WAIT(n) ? FAB_NO_WAIT : 0};
    }
    long k = fab_submit(p->f, t, want, id, 30 * SECOND);
    if (k < 0) {
        remote_trouble(st, "actor %u: submit: %s", p->i, fab_errmsg());
        return false;
    }
    at_add(&p->me->accepted, (uint64_t)k);
    for (long m = 0; m < k; m++) {
        at_store(&st->note[t[m].tag].accepted, 1);
        if (!R_NO_WAIT(t[m].tag) && !R_KEY(t[m].tag)) /* withdrawn, a key would go back */
            p->id[p->ids++ % REMOTE_WINDOW] = id[m];
    }
    return true;
}

static bool take_some(struct producer *p, int64_t timeout)
{
    struct fab_outcome o[16];
    /* the wanderer one by one: what it may take along when it dies is to be counted */
    long k = fab_wait_any(p->f, o, p->client ? 1 : 1 + roll(&p->dice) % 16, timeout);
    if (k == -EAGAIN || k == -ENOENT)
        return true;
    if (k < 0) {
        remote_trouble(p->st, "actor %u waits for %zu tasks in vain: %s", p->i,
                       fab_outstanding(p->f), fab_errmsg());
        return false;
    }
    for (long m = 0; m < k; m++)
        outcome(p, &o[m]);
    at_store(&p->me->plan.taking, 0);
    return true;
}

/* Another life in the same process. What a plain one leaves behind is nobody's; the wanderer leaves
 * with nothing outstanding, since its farewell withdraws all. */
static bool leave_and_return(struct producer *p)
{
    bool fine = true;
    while (fine && p->client && fab_outstanding(p->f) > 0)
        fine = take_some(p, 40 * SECOND);
    if (!fine)
        return false;
    fab_close(p->f);
    p->ids = 0;
    p->me->life++;
    p->f = open_handle(p->st, p->i, p->remote, p->client);
    at_add(&p->me->links, p->remote);
    return p->f != NULL;
}

/* A plain life that ends in order has been told of all that was accepted. */
static void check_life(const struct producer *p)
{
    uint32_t last = at_load(&p->st->next);
    for (uint32_t n = 0; n < last && n < NOTES_MAX; n++) {
        const struct note *t = &p->st->note[n];
        if (at_load(&t->by) == note_by(p->i, p->me->life) && at_load(&t->accepted) &&
            !R_NO_WAIT(n) && !at_load(&t->told))
            remote_trouble(p->st, "actor %u: task %u was accepted and never answered", p->i, n);
    }
}

static int produce(struct producer *p)
{
    bool fine;
    p->f = open_handle(p->st, p->i, p->remote, p->client);
    fine = p->f != NULL;
    at_add(&p->me->links, p->remote);
    if (fine)
        at_add(&p->me->taken_up, fab_outstanding(p->f));
    while (fine && !at_load(&p->st->stop)) {
        if (fab_outstanding(p->f) < REMOTE_WINDOW)
            fine = submit_some(p);
        if (fine && p->ids && roll(&p->dice) % 8 == 0)
            (void)!fab_cancel(p->f, p->id[roll(&p->dice) % (p->ids < REMOTE_WINDOW ? p->ids : REMOTE_WINDOW)]);
        if (fine)
            fine = take_some(p, fab_outstanding(p->f) < REMOTE_WINDOW ? 0 : 40 * SECOND);
        if (fine && roll(&p->dice) % 1024 == 0)
            fine = leave_and_return(p);
    }
    while (fine && fab_outstanding(p->f) > 0)
        fine = take_some(p, 40 * SECOND);
    if (fine)
        check_life(p);
    fab_close(p->f);
    return !fine;
}

void remote_check_told(struct remote_stage *st)
{
    uint32_t last = at_load(&st->next), untold = 0;
    for (uint32_t n = 0; n < last && n < NOTES_MAX; n++) {
        const struct note *t = &st->note[n];
        if (at_load(&t->by) >> 24 == WANDERER + 1 && at_load(&t->started) && !R_NO_WAIT(n) &&
            !at_load(&t->told) && ++untold > st->taken_along)
            remote_trouble(st, "task %u, of life %u, was run and its outcome is nobody's (%u so; %u "
                           "may have been taken)", n, at_load(&t->by) & 0xffffff, untold,
                           st->taken_along);
    }
}

/* ---- workers ---- */

bool remote_started(struct remote_stage *st, const void *arg, uint32_t len, uint32_t *n)
{
    uint32_t first = 0;
    if (len < 4)
        return false;
    memcpy(n, arg, 4);
    if (*n >= NOTES_MAX || !at_load(&st->note[*n].by) || !good(arg, *n, len, false))
        return false;
    at_store(&st->note[*n].started, 1);
    if (R_KEY(*n) && !at_cas(&st->runner[R_KEY_OF(*n)], &first, *n + 1) && first != *n + 1)
        remote_trouble(st, "tasks %u and %u have the same key, and both were started", first - 1, *n);
    return true;
}

/* Ends a lease in some way. The fabric's answer. */
static int end_lease(struct remote_stage *st, struct remote_actor *me, fab_t *f,
                     const struct fab_lease *l, uint32_t n, uint32_t what)
{
    static uint8_t res[REMOTE_LARGE];
    int rc;
    if (what == 0)
        return fab_release(f, l);
    if (what == 1 || (fab_cancelled(f, l) && what % 2))
        return fab_fail(f, l, "wanted");
    if (what == 2 && n % 8 == 0)
        return fab_crash(f, l, "as ordered");
    if (what == 3 && R_LIMIT(n))
        return fab_overrun(f, l);
    uint32_t len = size_of(n, true);
    bytes_fill(res, n, len, true);
    at_store(&st->note[n].ran, 1);
    at_add(&me->ran, 1);
    do
        rc = fab_complete(f, l, res, len);
    while (rc == -ENOSPC && fab_wait_room(f, 20 * SECOND) == 0);
    return rc;
}

/* 0, or -EPIPE: the link is gone, and all leases with it. */
static int work_on(struct remote_stage *st, struct remote_actor *me, fab_t *f, bool remote,
                   const struct fab_lease *l, uint64_t *dice)
{
    uint32_t n, what = (uint32_t)(roll(dice) % 32);
    if (!remote_started(st, fab_arg(l), l->len, &n)) {
        remote_trouble(st, "a lease of %u bytes is no task's argument", l->len);
        return -EPROTO;
    }
    if (R_POISONED(n))
        kill(getpid(), SIGKILL);
    if (R_LIMIT(n) && what < 6)
        usleep(2500 + 300 * what); /* near its limit */
    int rc = end_lease(st, me, f, l, n, what);
    if (rc == -ESTALE && (R_LIMIT(n) || remote)) /* it took too long, or its link has ended */
        return 0;
    if (rc < 0 && !(remote && rc == -EPIPE))
        remote_trouble(st, "the lease of task %u ended with: %s", n, fab_errmsg());
    return rc;
}

static int work(struct remote_stage *st, unsigned i, struct remote_actor *me, uint64_t dice)
{
    struct fab_lease l[8];
    bool remote = IS_REMOTE(i);
    fab_t *f = open_handle(st, i, remote, NULL);
    at_add(&me->links, remote);
    while (f && !(at_load(&st->stop) & 2)) {
        long k = fab_claim(f, 0, l, 1 + roll(&dice) % 8, SECOND / 50), rc = k;
        if (k == -ETIMEDOUT)
            continue;
        for (long m = 0; m < k && (rc == -EPIPE || rc >= 0); m++)
            rc = work_on(st, me, f, remote, &l[m], &dice); /* -EPIPE: frees what the lease holds */
        if (rc < 0 && !(remote && rc == -EPIPE)) {
            remote_trouble(st, "worker %u: %s", i, fab_errmsg());
            break;
        }
        if (rc == -EPIPE || roll(&dice) % 1024 == 0) {
            fab_close(f);
            f = open_handle(st, i, remote, NULL);
            at_add(&me->links, remote);
        }
    }
    bool fine = f && !at_load(&st->trouble);
    fab_close(f);
    return !fine;
}

int remote_actor_run(struct remote_stage *st, unsigned i)
{
    struct remote_actor *me = &st->actor[i];
    uint64_t dice =
        (st->seed + 1) * 0x9e3779b97f4a7c15ull ^ (i + 1) * 0xd1b54a32d192ed03ull ^ me->life;
    dice = dice ? dice : 1;
    (void)roll(&dice);
    crash_obey(&me->plan);
    if (!IS_PRODUCER(i))
        return work(st, i, me, dice);
    struct producer p = {.st = st,
                         .me = me,
                         .i = i,
                         .dice = dice,
                         .client = i == WANDERER ? "wanderer" : NULL,
                         .remote = i == WANDERER ? roll(&dice) % 4 != 0 : IS_REMOTE(i)};
    return produce(&p);
}

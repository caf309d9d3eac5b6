/* SPDX-License-Identifier: MIT
 *
 * actors.c - see actors.h.
 *
 * A task's number is the first 4 bytes of its argument and result and its tag; sizes follow from
 * the number, so that whoever sees a task can check all of it. A quarter of a promille have sizes
 * that take whole chunks of the arena.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/fabric.h"
#include "core/local.h"
#include "tests/common/dice.h"
#include "tests/crash/actors.h"
#include "tests/crash/bytes.h"

#define SECOND 1000000000ll

void stage_trouble(struct stage *st, const char *fmt, ...)
{
    va_list ap;
    if (at_add(&st->trouble, 1) > 0)
        return;
    va_start(ap, fmt);
    vsnprintf(st->what, sizeof st->what, fmt, ap);
    va_end(ap);
}

void stage_started(struct stage *st, uint32_t n)
{
    uint32_t first = 0;
    if (HAS_KEY(n) && !at_cas(&st->runner[KEY_OF(n)], &first, n + 1) && first != n + 1)
        stage_trouble(st, "tasks %u and %u have the same key, and both were started", first - 1, n);
}

uint32_t task_size(uint32_t n, bool result)
{
    uint64_t h = (n * 2u + result + 1) * 0x9e3779b97f4a7c15ull;
    uint32_t kind = (uint32_t)(h >> 40) % 4096, more = (uint32_t)(h >> 20);
    if (kind < 2048)
        return 4 + more % 5; /* in the slot */
    if (kind < 3072)
        return 9 + more % 56; /* in the wide */
    if (kind < 4090)
        return 65 + more % 3000;
    return 20000 + more % (LARGE_MAX - 20000);
}

static bool good(const uint8_t *p, uint32_t n, uint32_t len, bool result)
{
    return len == task_size(n, result) && bytes_good(p, n, len, result);
}

/* Whoever stopped the queue may have died of it. */
static void go_on(fab_t *f)
{
    if (f)
        (void)!fab_queue_set(f, 0, FAB_QUEUE_RUNNING, 0);
}

/* A handle, however long fabricd is down. */
static fab_t *open_handle(struct stage *st, uint32_t roles, const char *client)
{
    struct fab_options o = {.roles = roles, .name = "actor", .spin_ns = 2000, .client = client};
    fab_t *f = NULL;
    for (uint64_t until = clock_ns() + 30ull * SECOND; clock_ns() < until;) {
        if (fab_open(&f, st->address, &o) == 0) {
            go_on(f);
            return f;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* nothing tells of a new fabricd */
    }
    stage_trouble(st, "no fabricd for 30 s: %s", fab_errmsg());
    return NULL;
}

/* ---- producers ---- */

struct producer {
    struct stage *st;
    struct actor *me;
    fab_t *f;
    uint64_t dice;
    fab_id id[WINDOW]; /* for cancelling */
    uint32_t ids;
};

static void outcome(struct producer *p, const struct fab_outcome *o)
{
    uint32_t n = (uint32_t)o->tag;
    if (n >= TASKS_MAX || at_add(&p->st->answered[n], 1) != 0) {
        stage_trouble(p->st, "task %u was answered twice (status %u)", n, o->status);
        return;
    }
    at_add(&p->me->answered, 1);
    switch (o->status) {
    case FAB_COMPLETED:
        if (POISONED(n))
            stage_trouble(p->st, "task %u kills its workers and has a result", n);
        if (!at_load(&p->st->ran[n]))
            stage_trouble(p->st, "task %u has a result and was not run", n);
        if (!good(fab_data(o), n, o->len, true))
            stage_trouble(p->st, "task %u: a wrong result of %u bytes", n, o->len);
        break;
    case FAB_FAILED:
        at_add(&p->me->failed, 1);
        if (o->len != 6 || memcmp(fab_data(o), "wanted", 6) != 0)
            stage_trouble(p->st, "task %u failed: %.*s", n, (int)o->len, (const char *)fab_data(o));
        break;
    case FAB_DEAD:
        at_add(&p->me->dead, 1);
        if (!POISONED(n) && o->attempts < 3)
            stage_trouble(p->st, "task %u was given up after %u attempts", n, o->attempts);
        break;
    case FAB_CANCELLED:
        at_add(&p->me->cancelled, 1);
        break;
    case FAB_DUPLICATE:
        at_add(&p->st->duplicates, 1);
        if (!HAS_KEY(n) || o->attempts || at_load(&p->st->ran[n]))
            stage_trouble(p->st, "task %u is called a duplicate", n);
        break;
    case FAB_EXPIRED:
    case FAB_OVERRUN:
        at_add(&p->me->ended, 1);
        if (o->status == FAB_EXPIRED ? HAS_EXPIRY(n) : HAS_LIMIT(n))
            break;
        /* fall through */
    default:
        stage_trouble(p->st, "task %u: status %u", n, o->status);
    }
}

static struct fab_terms terms_for(const struct stage *st, uint32_t n)
{
    if (HAS_KEY(n))
        return (struct fab_terms){.key = (uint64_t)(st->round + 1) << 32 | KEY_OF(n),
                                  .dedup_ns = KEY_WINDOW,
                                  .retries = n / 32 % 2};
    return (struct fab_terms){.retries = 2,
                              .delay_ns = n / 16 % 4 * 500000,
                              .backoff_ns = n / 16 % 3 * 100000,
                              .limit_ns = HAS_LIMIT(n) ? 2000000 : 0,
                              .expire_ns = HAS_EXPIRY(n) ? 3000000 : 0};
}

/* Some arguments lie where they are to be before they are submitted. */
static void place_some(struct producer *p, struct fab_task *t)
{
    void *own;
    if (roll(&p->dice) % 4 || fab_arg_new(p->f, t->len, &own, 0) < 0)
        return;
    memcpy(own, t->arg, t->len);
    t->arg = own;
    t->flags |= FAB_IN_PLACE;
}

static void drop_rest(struct producer *p, const struct fab_task *t, uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < n; i++)
        if (t[i].flags & FAB_IN_PLACE)
            fab_arg_drop(p->f, (void *)(uintptr_t)t[i].arg);
}

static bool submit_some(struct producer *p)
{
    static uint8_t arg[8][LARGE_MAX];
    struct fab_terms terms[8];
    struct fab_task t[8];
    fab_id id[8];
    uint32_t want = 1 + (uint32_t)(roll(&p->dice) % 8), queue = 0;
    for (uint32_t i = 0; i < want; i++) {
        uint32_t n = at_add(&p->st->next, 1), len = task_size(n, false);
        if (n >= TASKS_MAX)
            return false;
        bytes_fill(arg[i], n, len, false);
        terms[i] = terms_for(p->st, n);
        t[i] = (struct fab_task){.kernel = 1,
                                 .arg = arg[i],
                                 .len = len,
                                 .queue = (uint8_t)queue,
                                 .priority = (uint8_t)(roll(&p->dice) % FAB_PRIORITIES),
                                 .tag = n,
                                 .terms = HAS_TERMS(n) || HAS_KEY(n) ? &terms[i] : NULL,
                                 .flags = roll(&p->dice) % 16 == 0 ? FAB_NO_WAIT : 0};
        place_some(p, &t[i]);
    }
    long k = fab_submit(p->f, t, want, id, 20 * SECOND);
    drop_rest(p, t, k < 0 ? 0 : (uint32_t)k, want);
    if (k < 0) {
        stage_trouble(p->st, "submit: %s", fab_errmsg());
        return false;
    }
    at_add(&p->me->accepted, (uint64_t)k);
    for (long i = 0; i < k; i++)
        if (HAS_KEY(t[i].tag)) /* not to be withdrawn: that would give the key back */
            at_store(&p->st->promised[KEY_OF(t[i].tag)], 1);
        else if (!(t[i].flags & FAB_NO_WAIT))
            p->id[p->ids++ % WINDOW] = id[i];
    return true;
}

static bool take_some(struct producer *p, int64_t timeout)
{
    struct fab_outcome o[16];
    long k = fab_wait_any(p->f, o, 16, timeout);
    if (k == -EAGAIN || k == -ENOENT)
        return true;
    if (k < 0) {
        stage_trouble(p->st, "a producer waits for %zu tasks in vain: %s", fab_outstanding(p->f),
                      fab_errmsg());
        return false;
    }
    for (long i = 0; i < k; i++)
        outcome(p, &o[i]);
    return true;
}

/* Mostly thrown away: of those that are started again some kill more workers. */
static void clear_letters(struct producer *p)
{
    if (roll(&p->dice) % 4 == 0)
        (void)!fab_dead_kick(p->f, 0, FAB_ANY_QUEUE, 0);
    else
        (void)!fab_dead_purge(p->f, 0, FAB_ANY_QUEUE, 0);
}

/* With a client id it goes on with the tasks of the one that was killed before it. */
static int produce(struct stage *st, struct actor *me, uint64_t dice, const char *client)
{
    struct producer p = {
        .st = st, .me = me, .dice = dice, .f = open_handle(st, FAB_PRODUCER, client)};
    bool fine = p.f != NULL;
    at_store(&me->working, 1);
    if (fine)
        at_add(&me->taken_up, fab_outstanding(p.f));
    while (fine && !at_load(&st->stop)) {
        if (fab_outstanding(p.f) < WINDOW)
            fine = submit_some(&p);
        if (fine && p.ids && roll(&p.dice) % 8 == 0)
            (void)!fab_cancel(p.f, p.id[roll(&p.dice) % (p.ids < WINDOW ? p.ids : WINDOW)]);
        if (fine)
            fine = take_some(&p, fab_outstanding(p.f) < WINDOW ? 0 : 30 * SECOND);
        if (fine && roll(&p.dice) % 64 == 0) {
            (void)!fab_queue_set(p.f, 0, FAB_QUEUE_PAUSED, 0);
            go_on(p.f);
        }
        if (fine && roll(&p.dice) % 64 == 0)
            clear_letters(&p);
        if (fine && roll(&p.dice) % 512 == 0) { /* leaves with tasks outstanding, comes back */
            fab_close(p.f);
            p.ids = 0;
            p.f = open_handle(st, FAB_PRODUCER, client);
            fine = p.f != NULL;
        }
    }
    while (fine && fab_outstanding(p.f) > 0)
        fine = take_some(&p, 30 * SECOND);
    fab_close(p.f);
    return !fine;
}

/* ---- workers ---- */

/* The task's number, when what we were given is its argument. */
static bool known(struct stage *st, fab_t *f, const struct fab_lease *l, uint32_t *number)
{
    const uint8_t *arg = fab_arg(l);
    uint32_t n;
    memcpy(&n, arg, 4);
    *number = n;
    if (n >= TASKS_MAX || !good(arg, n, l->len, false)) {
        struct local *h = (struct local *)f;
        const struct seg_slot *sl = &h->seg->slot[l->ref[0]];
        uint64_t b = l->len > 64 ? at_load(&h->seg->block_word[sl->arg % (h->seg->chunks * 256)]) : 0;
        stage_trouble(st,
                      "a lease of %u bytes is not the argument of task %u: slot %u, word %llx, leased "
                      "as %llx, meta %llx, tag %llu (%u bytes), block %llu is %llx (state %u owner %u "
                      "slot %u epoch %x)",
                      l->len, n, (unsigned)l->ref[0], (unsigned long long)at_load(&sl->state),
                      (unsigned long long)l->ref[1], (unsigned long long)at_load(&sl->meta),
                      (unsigned long long)sl->tag, task_size((uint32_t)sl->tag, false),
                      (unsigned long long)sl->arg, (unsigned long long)b, block_state(b),
                      block_owner(b), block_slot(b), block_epoch(b));
        return false;
    }
    return true;
}

static bool work_on(struct stage *st, struct actor *me, fab_t *f, const struct fab_lease *l,
                    uint64_t *dice)
{
    static uint8_t res[LARGE_MAX];
    uint32_t n, len, what = (uint32_t)(roll(dice) % 32);
    int rc;
    if (!known(st, f, l, &n))
        return false;
    stage_started(st, n);
    if (POISONED(n))
        kill(getpid(), SIGKILL);
    if (HAS_LIMIT(n) && what < 6)
        usleep(1500 + 300 * what); /* near its limit */
    if (fab_cancelled(f, l) && what % 2) {
        rc = fab_fail(f, l, "wanted");
    } else if (what == 0) {
        rc = fab_release(f, l);
    } else if (what == 2 && n % 8 == 0) {
        rc = fab_crash(f, l, "as ordered");
    } else if (what == 3 && HAS_LIMIT(n)) {
        rc = fab_overrun(f, l);
    } else if (what == 1) {
        rc = fab_fail(f, l, "wanted");
    } else {
        len = task_size(n, true);
        bytes_fill(res, n, len, true);
        at_add(&st->ran[n], 1);
        at_add(&me->ran, 1);
        do
            rc = fab_complete(f, l, res, len);
        while (rc == -ENOSPC && fab_wait_room(f, 20 * SECOND) == 0);
    }
    if (rc == -ESTALE && HAS_LIMIT(n)) /* it took too long */
        return true;
    if (rc < 0)
        stage_trouble(st, "the lease of task %u ended with: %s", n, fab_errmsg());
    return rc == 0;
}

#define TOGETHER_MAX 4096u

/* Whether the batch may be completed as one: nothing is special about any of its tasks. */
static bool all_plain(struct stage *st, fab_t *f, const struct fab_lease *l, long k, uint32_t *n)
{
    for (long i = 0; i < k; i++)
        if (!known(st, f, &l[i], &n[i]) || POISONED(n[i]) || HAS_LIMIT(n[i]) || task_size(n[i], true) > TOGETHER_MAX)
            return false;
    return true;
}

static bool complete_all(struct stage *st, struct actor *me, fab_t *f, const struct fab_lease *l, long k,
                         const uint32_t *n)
{
    static uint8_t res[8][TOGETHER_MAX];
    struct fab_result r[8];
    long done = 0, rc = 0;
    for (long i = 0; i < k; i++) {
        uint32_t len = task_size(n[i], true);
        bytes_fill(res[i], n[i], len, true);
        r[i] = (struct fab_result){.data = res[i], .len = len};
        stage_started(st, n[i]);
        at_add(&st->ran[n[i]], 1);
        at_add(&me->ran, 1);
    }
    for (; done < k && rc >= 0; done += rc > 0 ? rc : 0) {
        rc = fab_complete_many(f, l + done, r + done, (size_t)(k - done));
        if (rc == -ENOSPC)
            rc = fab_wait_room(f, 20 * SECOND);
    }
    if (rc < 0)
        stage_trouble(st, "the leases of a batch ended with: %s", fab_errmsg());
    return rc >= 0;
}

static int work(struct stage *st, struct actor *me, uint64_t dice)
{
    struct fab_lease l[8];
    uint32_t number[8];
    fab_t *f = open_handle(st, FAB_WORKER, NULL);
    bool fine = f != NULL;
    at_store(&me->working, 1);
    while (fine && !(at_load(&st->stop) & 2)) {
        long k = fab_claim(f, 0, l, 1 + roll(&dice) % 8, SECOND / 50);
        if (k == -ETIMEDOUT)
            continue;
        if (k < 0)
            stage_trouble(st, "claim: %s", fab_errmsg());
        if (k > 1 && roll(&dice) % 4 == 0 && all_plain(st, f, l, k, number))
            fine = complete_all(st, me, f, l, k, number);
        else
            for (long i = 0; i < k; i++)
                fine = work_on(st, me, f, &l[i], &dice) && fine;
        fine = fine && k > 0;
        if (fine && roll(&dice) % 1024 == 0) {
            fab_close(f);
            f = open_handle(st, FAB_WORKER, NULL);
            fine = f != NULL;
        }
    }
    fab_close(f);
    return !fine;
}

int actor_run(struct stage *st, unsigned i)
{
    struct actor *me = &st->actor[i];
    uint64_t dice = (st->seed + 1) * 0x9e3779b97f4a7c15ull ^ (i + 1) * 0xd1b54a32d192ed03ull ^ me->life;
    dice = dice ? dice : 1;
    (void)roll(&dice);
    crash_obey(&me->plan);
    return i < PRODUCERS ? produce(st, me, dice, i == 0 ? "the first" : NULL) : work(st, me, dice);
}

/* SPDX-License-Identifier: MIT
 *
 * claim.c - the worker's side of a local handle, first half: claim (complete.c ends leases).
 *
 * A claim takes hints from the queue's ready rings, best priority first, and wins each task with
 * one CAS on its slot. While a worker spins without work it also watches the slot it
 * completed last: a producer that submits one task at a time uses the same slot again, and the
 * worker then finds the task in the line it watches instead of after a second miss by way of the
 * ring. The ring's entry for it is stale by then and is skipped like any other.
 *
 * Failure: a death after the ring's entries were taken and before the CAS leaves READY slots
 * without an entry; a death with a lease leaves LEASED slots; both are the undertaker's.
 */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/dead.h"
#include "core/dedup.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/pair.h"
#include "core/queue.h"
#include "core/ring.h"
#include "core/terms.h"

#define CLAIM_BATCH 64u
/* Looks at a hole in the ring before it is closed; the producer that made it is a few instructions
 * from filling it, or not running. */
#define HOLE_PATIENCE 64
/* Looks at the watched slot before the rings are looked at again (a microsecond or so), and tasks
 * found there in a row before their stale entries are cleared away. */
#define HOT_ROUNDS 64
#define HOT_STREAK 64
/* Every so many looks at the rings one starts with the lowest priority. */
#define STARVATION_GUARD 32
/* Tasks that wait longer than so many others have left the caches. */
#define DEEP 4096u

/* Copies what the worker needs of a task we hold. False: the slot's numbers make no sense. */
static bool read_task(struct local *l, uint32_t slot, uint64_t w, uint64_t meta,
                      struct fab_lease *lease)
{
    const struct seg_slot *sl = &l->seg->slot[slot];
    uint32_t raw = sl->arg_len, len = slot_arg_len(raw); /* read once */
    lease->ref[0] = slot;
    lease->ref[1] = w;
    lease->ref[2] = l->claimed_at;
    lease->kernel = sl->kernel;
    lease->len = len;
    lease->arg = NULL;
    lease->due_ns = 0;
    if (__builtin_expect((raw & ARG_TERMS) != 0, 0) && terms_of(l->seg, slot)->limit_ns)
        lease->due_ns = terms_of(l->seg, slot)->due_ns;
    lease->attempt = (uint16_t)(slot_attempt(w));
    lease->queue = (uint8_t)meta_queue(meta);
    lease->priority = (uint8_t)meta_priority(meta);
    switch (slot_arg_place(raw)) {
    case PLACE_SLOT:
        lease->small[0] = sl->arg;
        return true;
    case PLACE_WIDE:
        memcpy(lease->small, l->seg->wide[slot].bytes, sizeof lease->small);
        return true;
    case PLACE_BLOCK:
        break;
    }
    lease->arg = arena_data(l->seg, sl->arg, len);
    if (lease->arg && len <= sizeof lease->small) /* with terms in the wide; fab_arg() looks here */
        memcpy(lease->small, lease->arg, len);
    return lease->arg != NULL;
}

/* We hold the lease (word w) of a task that has terms. False: it has expired, and its outcome is
 * told. */
static bool start_terms(struct local *l, uint32_t slot, uint64_t w, uint64_t meta)
{
    struct seg_terms *t = terms_of(l->seg, slot);
    uint64_t expires = t->expires_ns, limit = t->limit_ns, now = clock_ns(), expect = w;
    uint32_t producer = meta_producer(meta);
    bool ended;
    if (limit) {
        t->due_ns = now + limit;
        terms_note(l->seg, &l->out, slot);
    }
    if (!expires || now < expires)
        return true;
    /* It will not be started any more, whoever claims it next: time doesn't go back. */
    dedup_never_started(l->seg, t->dedup, slot,
                        slot_word(slot_epoch(w), l->me, slot_attempt(w) - 1, SLOT_LEASED));
    if (meta_flags(meta) & (META_NO_WAIT | META_ORPHAN)) {
        ended = lease_free(l, slot, w);
    } else {
        uint64_t done = slot_word(slot_epoch(w), producer, slot_attempt(w) - 1, SLOT_EXPIRED);
        ended = at_cas(&l->seg->slot[slot].state, &expect, done);
        if (ended && meta_flags(at_load(&l->seg->slot[slot].meta)) & META_ORPHAN)
            (void)lease_free(l, slot, done); /* as in finish() */
        else if (ended && producer < l->seg->participants)
            bell_ring(l->seg, &l->seg->participant[producer], &l->out);
    }
    if (!ended) /* we were stopped for longer than its limit */
        lease_overrun(l, slot, slot_epoch(w));
    return false;
}

/* After READY -> LEASED(me), whose word is now w. */
SELDOM static bool take_lease(struct local *l, uint32_t slot, uint64_t w, struct fab_lease *lease)
{
    CRASH_POINT("claim.leased");
    uint64_t meta = at_load_rlx(&l->seg->slot[slot].meta); /* ours */
    if (__builtin_expect((l->seg->slot[slot].arg_len & ARG_TERMS) != 0, 0) &&
        !start_terms(l, slot, w, meta))
        return false;
    /* given back just before its producer cancelled it */
    if (__builtin_expect((meta_flags(meta) & META_CANCEL) != 0, 0)) {
        if (!lease_end(l, slot, w, SLOT_CANCELLED))
            lease_overrun(l, slot, slot_epoch(w));
        return false;
    }
    if (read_task(l, slot, w, meta, lease))
        return true;
    at_store(&l->seg->head->check_wanted, 1);
    (void)!local_fail(&l->base, lease, "the task's argument was damaged in the segment");
    return false;
}

/* WON_ALONE, TO_GO_ALONE: a worker has died with this task, so that it goes alone: should this one
 * die, too, it is known of which. */
enum won { WON_NOT, WON, WON_ALONE, TO_GO_ALONE };

/* Slots out of a ring, not yet looked at. */
struct hints {
    const uint32_t *slot;
    uint32_t n;
};

/* In meta: queue and priority, and the marks of tasks that win() must look at more closely. */
#define META_WIN_MASK (0xffffull << 32 | (uint64_t)(META_TERMS | META_CANCEL | META_SUSPECT) << 16)

static_assert(offsetof(struct fab_lease, len) - offsetof(struct fab_lease, arg) == 8 &&
                  offsetof(struct fab_lease, priority) + 1 - offsetof(struct fab_lease, len) == 8,
              "lease_plain() writes arg, len, attempt, queue and priority as one");
static_assert(offsetof(struct seg_slot, arg) - offsetof(struct seg_slot, kernel) == 8 &&
                  offsetof(struct fab_lease, small) - offsetof(struct fab_lease, kernel) == 8,
              "lease_plain() copies kernel and argument as one");

/* What all of a ring's plain tasks have in common. */
struct plain {
    uint64_t low;    /* the lower half of their leases' words */
    uint64_t wanted; /* of their meta, under META_WIN_MASK */
    pair rest;       /* of their leases from arg on, for arguments of 8 bytes */
    uint64_t claimed;
};

static inline struct plain plain_of(const struct local *l, uint32_t queue, uint32_t priority)
{
    return (struct plain){.low = l->lease_low | 1u << 8,
                          .wanted = slot_meta(0, queue, priority, 0),
                          .rest = pair_of(0, (uint64_t)priority << 56 | (uint64_t)queue << 48 | 1ull << 32 | 8),
                          .claimed = l->claimed_at};
}

/* The lease of a plain task, whose word is now w. False: its argument needs a block after all. */
static inline bool lease_plain(const struct segment *s, const struct seg_slot *sl, uint32_t slot, uint64_t w,
                               const struct plain *p, struct fab_lease *lease)
{
    uint32_t len = sl->arg_len; /* read once */
    lease->ref[0] = slot;
    lease->ref[1] = w;
    lease->ref[2] = p->claimed;
    pair_copy(&lease->kernel, &sl->kernel);
    pair_put(&lease->arg, p->rest);
    lease->due_ns = 0;
    if (__builtin_expect(len == 8, 1))
        return true;
    lease->len = len;
    if (len > 64)
        return false;
    if (len > 8)
        memcpy(lease->small, s->wide[slot].bytes, sizeof lease->small);
    return true;
}

/* The same as win() for first attempts of plain tasks (submit.c) of the ring's queue and priority, for as
 * long as it meets such tasks. Returns how many were won. *hints: the first one and how many; afterwards
 * those that are left, of which the first leads to something else, for win() to tell. */
LOOP_OF_ITS_OWN static uint32_t win_run(struct local *l, uint32_t queue, uint32_t priority,
                                        struct hints *hints, struct fab_lease *lease)
{
    const struct segment *const s = l->seg;
    struct seg_slot *const slots = s->slot;
    const struct plain p = plain_of(l, queue, priority);
    const uint32_t *hint = hints->slot, *const end = hint + hints->n;
    struct fab_lease *next = lease;
    for (; hint < end; hint++) {
        uint32_t slot = *hint;
        struct seg_slot *sl = &slots[slot];
        /* acquire: pairs with the producer's release of READY (submit.c) */
        uint64_t w = at_load_acq(&sl->state);
        uint64_t meta = at_load_rlx(&sl->meta); /* the CAS tells whether it belongs to w */
        uint64_t mine = (w & ~0xffffffffull) | p.low;
        if ((w & (SLOT_ATTEMPT_MASK | 0x7f)) != SLOT_READY || (meta & META_WIN_MASK) != p.wanted ||
            !at_cas(&sl->state, &w, mine))
            break;
        CRASH_POINT("claim.leased");
        if (lease_plain(s, sl, slot, mine, &p, next) || take_lease(l, slot, mine, next))
            next++; /* else it has come to nothing */
    }
    hints->n = (uint32_t)(end - hint);
    hints->slot = hint;
    return (uint32_t)(next - lease);
}

/* READY -> LEASED(me). first: the batch is empty so far. */
SELDOM static enum won win(struct local *l, uint32_t slot, uint32_t queue, bool first,
                           struct fab_lease *lease)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    /* acquire: pairs with the producer's release of READY (submit.c) */
    uint64_t w = at_load_acq(&sl->state);
    if (slot_state(w) != SLOT_READY)
        return WON_NOT;
    uint64_t meta = at_load_rlx(&sl->meta); /* the CAS tells whether it belongs to w */
    if (meta_queue(meta) != queue)
        return WON_NOT;
    bool suspect = (meta_flags(meta) & META_SUSPECT) != 0;
    if (__builtin_expect(suspect && !first, 0))
        return TO_GO_ALONE;
    uint64_t mine = slot_word(slot_epoch(w), l->me, slot_attempt(w) + 1, SLOT_LEASED);
    if (!at_cas(&sl->state, &w, mine) || !take_lease(l, slot, mine, lease))
        return WON_NOT;
    return __builtin_expect(suspect, 0) ? WON_ALONE : WON;
}

/* Entries of READY tasks that we took out of the ring and leave to others. */
static void put_back(struct local *l, uint32_t queue, struct seg_ring *r, const uint32_t *hint,
                     uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!ring_put(l->seg, r, hint[i]))
            at_store(&l->seg->head->audit_wanted, 1);
    if (n > 0) /* who looked meanwhile may have gone to sleep */
        queue_wake(l->seg, &l->seg->queue[queue], &l->out, n);
}

/* Looked at now and then: tail's line belongs to the producers. */
SELDOM static void look_how_deep(struct local *l, uint32_t queue)
{
    uint32_t used = queue_priorities(l->seg, queue);
    l->deep = false;
    for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
        l->deep |= (used >> pr & 1) && ring_depth(segment_ready_ring(l->seg, queue, pr)) > DEEP;
}

/* batch_n: how many the batch has already. */
static uint32_t claim_ring(struct local *l, uint32_t queue, uint32_t priority,
                           struct fab_lease *lease, uint32_t batch_n, uint32_t max)
{
    uint32_t hint[CLAIM_BATCH], won = 0;
    struct seg_ring *r = segment_ready_ring(l->seg, queue, priority);
    while (won < max && !l->alone && ring_ready(l->seg, r)) {
        uint32_t want = max - won < CLAIM_BATCH ? max - won : CLAIM_BATCH;
        struct hints left = {hint, ring_take(l->seg, r, hint, want)};
        if (l->deep)
            ring_fetch_ahead(l->seg, r, left.n);
        l->claimed_at = clock_ticks();
        while ((won += win_run(l, queue, priority, &left, lease + won), left.n > 0)) {
            enum won how = win(l, *left.slot, queue, batch_n + won == 0, &lease[won]);
            won += how == WON || how == WON_ALONE;
            if (how != TO_GO_ALONE)
                left = (struct hints){left.slot + 1, left.n - 1};
            if (__builtin_expect(how >= WON_ALONE, 0)) { /* the rest is not for this batch */
                put_back(l, queue, r, left.slot, left.n);
                l->alone = true;
                break;
            }
        }
    }
    return won;
}

/* The best priority first; but now and then one task of the lowest that has any, so that a stream
 * of better ones never starves it. */
static uint32_t claim_rings(struct local *l, uint32_t queue, struct fab_lease *lease, uint32_t max)
{
    uint32_t won = 0;
    if (queue_paused(l->seg, queue))
        return 0;
    if (__builtin_expect(l->alone, 0)) /* there may be more of its kind: don't put back many */
        max = 1;
    l->alone = false;
    uint32_t used = queue_priorities(l->seg, queue);
    if (++l->claims % STARVATION_GUARD == 0) {
        look_how_deep(l, queue);
        for (uint32_t pr = SEG_PRIORITIES - 1; pr > 0 && won == 0; pr--)
            if (used >> pr & 1)
                won = claim_ring(l, queue, pr, lease, 0, 1);
    }
    for (; used && won < max; used &= used - 1)
        won += claim_ring(l, queue, (uint32_t)__builtin_ctz(used), lease + won, won, max - won);
    return won;
}

static bool rings_empty(const struct local *l, uint32_t queue)
{
    for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
        if (ring_depth(segment_ready_ring(l->seg, queue, pr))) {
            queue_use(l->seg, queue, pr); /* or the claim would not look there */
            return false;
        }
    return true;
}

/* S2 of wake.h: nothing that may be claimed. The control word first: see queue.h. */
static bool no_work(const struct local *l, uint32_t queue)
{
    return at_load(&l->seg->queue[queue].control) == QUEUE_PAUSED || rings_empty(l, queue);
}

static bool rings_ready(const struct local *l, uint32_t queue)
{
    for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
        if (ring_ready(l->seg, segment_ready_ring(l->seg, queue, pr)))
            return true;
    return false;
}

/* Watches the slot completed last for its producer's next task. What that task's word will be is
 * known, so the look is the CAS itself: it brings the line over in the state the claim needs, where
 * a load would bring it shared and the claim would cost a second trip between the cores (measured
 * with cores 260 ns apart: 312 ns a round trip by loads, 237 by CAS). */
static bool claim_hot(struct local *l, uint32_t queue, struct fab_lease *lease)
{
    if (l->hot >= l->seg->slots || meta_queue(l->hot_meta) != queue || queue_paused(l->seg, queue))
        return false;
    uint64_t ready = local_hot_word(l), w = ready;
    struct seg_slot *sl = &l->seg->slot[l->hot];
    uint64_t mine = (ready & ~0xffffffffull) | l->lease_low | 1u << 8;
    if (!at_cas(&sl->state, &w, mine)) {
        /* Neither the outcome we left nor the stock's word: the slot has gone other ways. */
        if (slot_next_epoch(w) != slot_epoch(ready) || slot_owner(w) != slot_owner(ready))
            l->hot = l->seg->slots;
        return false;
    }
    CRASH_POINT("claim.leased");
    /* SOLO: a first attempt without terms */
    struct plain p = plain_of(l, queue, meta_priority(at_load_rlx(&sl->meta)));
    return lease_plain(l->seg, sl, l->hot, mine, &p, lease) || take_lease(l, l->hot, mine, lease);
}

/* While one finds its tasks in the slot it watches, the rings are left to the producer: looking at
 * them would take away the line it publishes in. But not for long: others may submit, and each such
 * task leaves a stale entry behind. */
static bool stay_hot(struct local *l, uint32_t queue, struct fab_lease *lease)
{
    if (l->streak == 0 || l->streak >= HOT_STREAK)
        return false;
    patience_wait(l->hot_patience);
    for (uint32_t i = 0; i < HOT_ROUNDS; i++) {
        /* The time before the look stands for the time of the claim, so that reading the clock is
         * no part of what the producer waits for. */
        l->claimed_at = clock_ticks();
        if (claim_hot(l, queue, lease)) {
            patience_learn(&l->hot_patience, i + 1);
            l->streak++;
            return true;
        }
        cpu_relax();
    }
    return false;
}

/* Something is on its way into a ring but does not arrive: let its producer run, then close the
 * hole. */
static void wait_at_hole(struct local *l, uint32_t queue, uint32_t *patience)
{
    if (++*patience < HOLE_PATIENCE) {
        sched_yield();
        return;
    }
    *patience = 0;
    uint32_t closed = 0;
    for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
        closed += ring_close_holes(l->seg, segment_ready_ring(l->seg, queue, pr));
    if (closed == 0) /* a hole that can't be closed is damage */
        at_store(&l->seg->head->check_wanted, 1);
}

/* A wait that does not sleep asks whether it still makes sense. */
static int fabric_there(const struct local *l)
{
    if (local_fabric_gone(l))
        return err_set(-EPIPE, "the fabric is closed");
    if (local_daemon_gone(l))
        return err_set(-EPIPE, "fabricd is gone and there is nothing left to do");
    return 0;
}

/* Sleeps until somebody submits to the queue; returns 0, or -EPIPE. */
static int park(struct local *l, struct seg_queue *q, uint32_t queue, uint64_t ns,
                uint32_t *patience)
{
    uint32_t seq = at_load(&q->seq);
    at_or(&q->parked, QUEUE_PARKED_WORKERS); /* S1 */
    CRASH_POINT("park.s1");
    if (!no_work(l, queue)) { /* S2 */
        if (!rings_ready(l, queue))
            wait_at_hole(l, queue, patience);
        return 0;
    }
    if (at_load_rlx(&l->seg->head->state) == SEG_CLOSED) /* one-way flag */
        return err_set(-EPIPE, "the fabric is closed");
    int rc = futex_sleep(&q->seq, seq, ns); /* S3 */
    CRASH_POINT("park.woken");
    l->woken = true;
    if (rc == -ETIMEDOUT && !queue_paused(l->seg, queue) && rings_ready(l, queue))
        wake_net_caught(l->seg, &q->seq, seq);
    else if (rc == -ETIMEDOUT && local_daemon_gone(l))
        return err_set(-EPIPE, "fabricd is gone and there is nothing left to do");
    return 0;
}

static long claimed(struct local *l, uint32_t queue, uint32_t n)
{
    struct seg_queue *q = &l->seg->queue[queue];
    if (at_load_rlx(&l->self->queue) != queue)
        at_store_rlx(&l->self->queue, queue); /* for status */
    /* Whoever woke us may have had more tasks than sleepers he woke: the next sleeper is ours to
     * wake. */
    if (l->woken) {
        l->woken = false;
        if (rings_ready(l, queue))
            queue_wake(l->seg, q, &l->out, 1);
    }
    return n;
}

long local_claim(fab_t *f, uint32_t queue, struct fab_lease *lease, size_t max, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = 0;
    uint32_t n, patience = 0, want = max < CLAIM_BATCH ? (uint32_t)max : CLAIM_BATCH;
    if (queue >= l->seg->queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", queue, l->seg->queues);
    if (timeout_ns != 0 && stay_hot(l, queue, lease))
        return 1;
    l->streak = 0;
    n = claim_rings(l, queue, lease, want);
    if (n)
        return claimed(l, queue, n);
    if (timeout_ns == 0)
        return deadline_error(0, "no task is waiting");
    spin_start(&l->spin);
    for (;;) {
        if (claim_hot(l, queue, lease)) {
            l->claimed_at = lease->ref[2] = clock_ticks();
            l->streak = 1;
            return claimed(l, queue, 1);
        }
        n = claim_rings(l, queue, lease, want);
        if (n) {
            if (deadline == 0)
                spin_hit(&l->spin);
            return claimed(l, queue, n);
        }
        if (spin_on(&l->spin))
            continue;
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        uint64_t now = clock_ns();
        if (now >= deadline)
            return deadline_error(timeout_ns, "no task came");
        uint64_t net = deadline - now < WAKE_NET_NS ? deadline - now : WAKE_NET_NS;
        int rc =
            l->spin.busy ? fabric_there(l) : park(l, &l->seg->queue[queue], queue, net, &patience);
        if (rc < 0)
            return rc;
        spin_miss(&l->spin);
        spin_start(&l->spin);
    }
}

bool local_arm_queue(struct local *l, uint32_t queue)
{
    if (queue >= l->seg->queues)
        return true;
    at_or(&l->seg->queue[queue].parked, QUEUE_PARKED_DAEMON); /* S1 */
    return no_work(l, queue);                                 /* S2 */
}

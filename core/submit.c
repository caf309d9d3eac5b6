/* SPDX-License-Identifier: MIT
 *
 * submit.c - the producer's side of a local handle, first half: submit and cancel.
 *
 * A submit fills slots of the handle's stock, makes them READY, publishes them in the
 * ready ring and looks for sleepers. Outcomes are outcome.c's.
 *
 * Order: a handle's tasks of one queue and priority are published in the order of submission.
 *
 * Failure: death before READY leaves FILLING slots, death after it leaves tasks that run without a
 * waiter; both are the undertaker's.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/local.h"
#include "core/ring.h"
#include "core/terms.h"

#define PUBLISH_BATCH 64u

/* ---- the list of outstanding tasks ---- */

static void tasks_add(struct local *l, uint32_t slot, uint32_t epoch, uint64_t tag)
{
    uint32_t head = l->seg->slots, last = l->tasks.at[head].prev;
    l->tasks.at[slot].prev = last;
    l->tasks.at[slot].next = head;
    l->tasks.at[slot].epoch = epoch;
    l->tasks.at[slot].tag = tag;
    l->tasks.at[last].next = slot;
    l->tasks.at[head].prev = slot;
    l->tasks.n++;
}

/* ---- submit ---- */

static int check_task(const struct local *l, const struct fab_task *t)
{
    if (t->queue >= l->seg->queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", t->queue, l->seg->queues);
    if (t->priority >= FAB_PRIORITIES)
        return err_set(-EINVAL, "priority %u: use 0 to %d", t->priority, FAB_PRIORITIES - 1);
    if (t->flags & ~(unsigned)FAB_NO_WAIT)
        return err_set(-EINVAL, "unknown task flags %#x", t->flags);
    if (t->len > FAB_ARG_MAX)
        return err_set(-EMSGSIZE, "an argument of %u bytes is over the limit of %u", t->len,
                       FAB_ARG_MAX);
    return t->terms ? terms_check(t->terms) : 0;
}

/* Copies the argument to where its length says; -ENOSPC, -EMSGSIZE from the arena. */
static int put_argument(struct local *l, uint32_t slot, uint32_t epoch, const struct fab_task *t)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint32_t unit;
    int rc;
    switch (slot_arg_place(t->len | (t->terms ? ARG_TERMS : 0))) {
    case PLACE_SLOT:
        if (t->len == 8)
            memcpy(&sl->arg, t->arg, 8); /* the common case, one move */
        else if (t->len)
            memcpy(&sl->arg, t->arg, t->len);
        return 0;
    case PLACE_WIDE:
        memcpy(l->seg->wide[slot].bytes, t->arg, t->len);
        return 0;
    case PLACE_BLOCK:
        break;
    }
    rc = arena_alloc(l->seg, &l->arena, l->me, t->len, &unit);
    if (rc < 0)
        return rc;
    memcpy(l->seg->arena + (uint64_t)unit * ARENA_BLOCK_MIN, t->arg, t->len);
    arena_attach(l->seg, unit, BLOCK_ARG, l->me, slot, epoch);
    sl->arg = unit;
    return 0;
}

static bool is_delayed(const struct fab_task *t)
{
    return t->terms && t->terms->delay_ns > 0;
}

/* FILLING -> READY (or DELAYED) with everything in it. */
static int fill_slot(struct local *l, uint32_t slot, const struct fab_task *t, uint64_t now,
                     bool solo, uint32_t *epoch_out)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t w =
        at_load_rlx(&sl->state); /* ours: nobody else changes a slot of a live owner's stock */
    uint32_t epoch = slot_next_epoch(w), flags = 0, mark = 0;
    int rc = put_argument(l, slot, epoch, t);
    if (rc < 0)
        return rc;
    if (t->flags & FAB_NO_WAIT)
        flags |= META_NO_WAIT;
    if (t->terms)
        flags |= META_TERMS;
    if (solo && meta_queue(at_load_rlx(&sl->meta)) == t->queue) /* still the former task's */
        mark = SLOT_SOLO;
    CRASH_POINT("submit.argument");
    sl->kernel = t->kernel;
    sl->arg_len = t->len | (t->terms ? ARG_TERMS : 0);
    if (t->terms)
        terms_put(l->seg, slot, t->terms);
    sl->res_len = 0;
    sl->tag = t->tag;
    sl->stamp = now;
    at_store_rlx(&sl->meta, slot_meta(l->me, t->queue, t->priority, flags));
    /* release: pairs with the claimer's acquire of the state (claim.c) */
    at_store_rel(&sl->state, slot_word(epoch, l->me, 0, is_delayed(t) ? SLOT_DELAYED : SLOT_READY) |
                                 mark);
    CRASH_POINT("submit.ready");
    *epoch_out = epoch;
    return 0;
}

/* Clears stale entries (of tasks that were withdrawn, or found without the ring) out of a ring that
 * has no room: what is in it is taken out and what is still READY put back, in order, but for the
 * slots in `mine`, which are put next. Death in between loses entries, which the audit puts back.
 */
static void clear_stale(struct local *l, uint32_t queue, uint32_t priority, const uint32_t *mine,
                        uint32_t count)
{
    const struct segment *s = l->seg;
    struct seg_ring *r = segment_ready_ring(s, queue, priority);
    uint32_t hint[PUBLISH_BATCH], n;
    uint64_t left = ring_depth(r);
    while (left > 0 &&
           (n = ring_take(s, r, hint, left < PUBLISH_BATCH ? (uint32_t)left : PUBLISH_BATCH)) > 0) {
        left -= n;
        for (uint32_t i = 0; i < n; i++) {
            /* acquire: pairs with the producer's release of READY */
            uint64_t w = at_load_acq(&s->slot[hint[i]].state),
                     m = at_load_rlx(&s->slot[hint[i]].meta);
            bool live = slot_state(w) == SLOT_READY && meta_queue(m) == queue &&
                        meta_priority(m) == priority;
            for (uint32_t k = 0; live && k < count; k++)
                live = mine[k] != hint[i];
            if (live && !ring_put(s, r, hint[i]))
                at_store(&s->head->audit_wanted, 1);
        }
    }
    l->known_head[queue][priority] = at_load_rlx(&r->head); /* our own copy */
    queue_wake(s, &s->queue[queue], &l->out,
               1); /* somebody may have found the ring empty meanwhile */
}

/* Publishes n READY slots of one queue and priority. Those the ring has no room for are taken back,
 * unless somebody found and claimed them already; returns how many of them (the first so many)
 * count as submitted. */
static uint32_t publish(struct local *l, const struct fab_task *t, const uint32_t *slot,
                        const uint32_t *epoch, uint32_t n)
{
    const struct segment *s = l->seg;
    struct seg_ring *r = segment_ready_ring(s, t->queue, t->priority);
    uint64_t *known_head = &l->known_head[t->queue][t->priority];
    uint32_t done = ring_put_many(s, r, known_head, slot, n);
    if (done < n) {
        clear_stale(l, t->queue, t->priority, slot + done, n - done);
        done += ring_put_many(s, r, known_head, slot + done, n - done);
    }
    for (uint32_t i = n; i > done; i--) {
        uint64_t w = at_load(&s->slot[slot[i - 1]].state);
        /* With the next epoch: who has read the word must not win the slot's next task by it. */
        if (slot_state(w) != SLOT_READY || slot_epoch(w) != epoch[i - 1] ||
            !at_cas(&s->slot[slot[i - 1]].state, &w,
                    slot_word(slot_epoch_after(epoch[i - 1]), l->me, 0, SLOT_FILLING))) {
            /* claimed by way of a stale entry: it and all before it count as submitted */
            at_store(&s->head->audit_wanted, 1);
            return i;
        }
        if (slot_arg_place(s->slot[slot[i - 1]].arg_len) == PLACE_BLOCK)
            arena_free(s, &l->arena, l->me, s->slot[slot[i - 1]].arg, slot[i - 1], epoch[i - 1]);
        slot_stock_settle(s, &l->stock, l->me);
        l->stock.slot[l->stock.n++] = slot[i - 1];
    }
    return done;
}

/* One group: consecutive tasks of the same queue and priority, at most PUBLISH_BATCH. Returns how
 * many were accepted, 0 when the fabric is full, < 0 when the first can't be. */
static long submit_group(struct local *l, const struct fab_task *t, size_t n, fab_id *ids)
{
    uint32_t slot[PUBLISH_BATCH], epoch[PUBLISH_BATCH], k = 0;
    uint64_t now;
    bool solo;
    int rc = check_task(l, t);
    if (rc < 0)
        return rc;
    if (n > PUBLISH_BATCH)
        n = PUBLISH_BATCH;
    if (l->stock.n < n && slot_stock_refill(l->seg, &l->stock, l->me, (uint32_t)n) == 0)
        return 0;
    /* A task with none before it that could be overtaken may be found without the ring (claim.c).
     */
    solo = n == 1 && l->tasks.n == 0 && !l->unwaited && !t->terms;
    if (t->terms)
        n = 1; /* such tasks go one by one */
    /* The clock costs as much as a good part of a round trip: of tasks that come one at a time
     * every eighth is timed (stamp 0: not this one). */
    now = solo && (l->stamped++ & 7) ? 0 : clock_ticks();
    while (k < n && l->stock.n > 0 && t[k].queue == t[0].queue && t[k].priority == t[0].priority) {
        uint32_t sl = l->stock.slot[l->stock.n - 1];
        if (k > 0 && (t[k].terms || check_task(l, &t[k]) < 0))
            break;
        rc = fill_slot(l, sl, &t[k], now, solo, &epoch[k]);
        if (rc < 0)
            break;
        l->stock.n--;
        l->stock.lazy = false;
        slot[k++] = sl;
    }
    if (k == 0)
        return rc == -ENOSPC ? 0 : rc;
    k = is_delayed(t) ? k : publish(l, t, slot, epoch, k);
    if (t->terms && k > 0)
        terms_note(l->seg, &l->out, slot[0]);
    CRASH_POINT("submit.published");
    for (uint32_t i = 0; i < k; i++) {
        if (t[i].flags & FAB_NO_WAIT)
            l->unwaited = true;
        else
            tasks_add(l, slot[i], epoch[i], t[i].tag);
        if (ids)
            ids[i] = (fab_id)epoch[i] << 32 | slot[i];
    }
    if (k) {
        queue_wake(l->seg, &l->seg->queue[t->queue], &l->out, k);
        CRASH_POINT("submit.woken");
        /* relaxed: our own counter, read by status alone */
        _Atomic uint64_t *c = &l->self->counts[t->queue].submitted;
        at_store_rlx(c, at_load_rlx(c) + k);
    }
    return k;
}

long local_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = 0;
    size_t done = 0;
    if (at_load_rlx(&l->seg->head->state) != SEG_RUNNING) /* one-way flag */
        return err_set(-EPIPE, "the fabric is %s and takes no tasks",
                       local_fabric_gone(l) ? "closed" : "draining");
    for (;;) {
        long k = submit_group(l, t + done, n - done, ids ? ids + done : NULL);
        if (k < 0)
            return done ? (long)done : k;
        done += (size_t)k;
        if (done == n || (k == 0 && done > 0))
            return (long)done;
        if (k > 0)
            continue;
        if (timeout_ns == 0)
            return deadline_error(0, "the fabric is full");
        if (deadline == 0) {
            deadline = deadline_of(timeout_ns);
            spin_start(&l->spin);
        }
        if (spin_on(&l->spin))
            continue;
        if (local_fabric_gone(l))
            return err_set(-EPIPE, "the fabric is closed");
        if (clock_ns() >= deadline)
            return deadline_error(timeout_ns, "the fabric stayed full");
        /* Nobody announces free slots (that would cost every taker a look): sleep on our own bell,
         * which our next outcome rings, a millisecond at most. */
        (void)futex_sleep(&l->self->bell_seq, at_load(&l->self->bell_seq), 1000000);
    }
}

/* ---- cancel ---- */

int local_cancel(fab_t *f, fab_id id)
{
    struct local *l = (struct local *)f;
    uint32_t slot = (uint32_t)id;
    if (slot >= l->seg->slots || l->tasks.at[slot].epoch == 0 ||
        l->tasks.at[slot].epoch != (uint32_t)(id >> 32))
        return err_set(-ENOENT, "no such task is outstanding");
    uint64_t w = at_load(&l->seg->slot[slot].state);
    if ((slot_state(w) != SLOT_READY && slot_state(w) != SLOT_DELAYED) ||
        slot_epoch(w) != (uint32_t)(id >> 32))
        return err_set(-EBUSY, "the task has been started");
    /* READY is anybody's: the CAS decides between the claimer and us. Its hint in the ring becomes
     * stale. */
    if (!at_cas(&l->seg->slot[slot].state, &w,
                slot_word(slot_epoch(w), l->me, slot_attempt(w), SLOT_CANCELLED)))
        return err_set(-EBUSY, "the task has just been started");
    CRASH_POINT("cancel.done");
    _Atomic uint64_t *c =
        &l->self->counts[meta_queue(at_load_rlx(&l->seg->slot[slot].meta)) % SEG_QUEUES_MAX]
             .cancelled;
    at_store_rlx(c, at_load_rlx(c) + 1); /* our own counter */
    return 0;
}

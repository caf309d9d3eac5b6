/* SPDX-License-Identifier: MIT
 *
 * submit.c - the producer's side of a local handle: submit, wait, cancel.
 *
 * A submit fills slots of the handle's stock, makes them READY, publishes them in the
 * ready ring and looks for sleepers. A wait looks at the slots themselves: the
 * outcome stands in the task's own slot, so there is no second queue and a
 * worker's completion costs one line.
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
/* How many unfinished tasks a partial look passes before it gives up: completions come mostly in
 * order, and a look at an unfinished slot takes its line away from the worker. */
#define LOOK_AHEAD  4u
#define LOOK_CURSOR 32u

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

static void tasks_remove(struct local *l, uint32_t slot)
{
    uint32_t prev = l->tasks.at[slot].prev, next = l->tasks.at[slot].next;
    l->tasks.at[prev].next = next;
    l->tasks.at[next].prev = prev;
    l->tasks.at[slot].epoch = 0;
    if (l->tasks.cursor == slot)
        l->tasks.cursor = next;
    l->tasks.n--;
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

static bool fabric_gone(const struct local *l)
{
    return at_load_rlx(&l->seg->head->state) ==
           SEG_CLOSED; /* a one-way flag, nothing hangs on its order */
}

long local_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = 0;
    size_t done = 0;
    if (at_load_rlx(&l->seg->head->state) != SEG_RUNNING) /* one-way flag */
        return err_set(-EPIPE, "the fabric is %s and takes no tasks",
                       fabric_gone(l) ? "closed" : "draining");
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
        if (fabric_gone(l))
            return err_set(-EPIPE, "the fabric is closed");
        if (clock_ns() >= deadline)
            return deadline_error(timeout_ns, "the fabric stayed full");
        /* Nobody announces free slots (that would cost every taker a look): sleep on our own bell,
         * which our next outcome rings, a millisecond at most. */
        (void)futex_sleep(&l->self->bell_seq, at_load(&l->self->bell_seq), 1000000);
    }
}

/* ---- outcomes ---- */

/* Slots whose bytes the caller could read until now go back to the stock. */
static void free_held(struct local *l)
{
    while (l->held_n > 0) {
        uint32_t slot = l->held[--l->held_n];
        struct seg_slot *sl = &l->seg->slot[slot];
        uint64_t w = at_load_rlx(&sl->state); /* ours */
        if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
            arena_free(l->seg, &l->arena, l->me, sl->res, slot, slot_epoch(w));
        CRASH_POINT("take.held");
        slot_give(l->seg, &l->stock, l->me, slot);
    }
}

void local_let_go(struct local *l)
{
    free_held(l);
}

/* Where the result's bytes are, NULL when the slot's numbers make no sense. */
static const void *result_bytes(struct local *l, uint32_t slot, uint32_t arg_len, uint32_t res_len)
{
    switch (slot_res_place(arg_len, res_len)) {
    case PLACE_SLOT:
        return &l->seg->slot[slot].res;
    case PLACE_WIDE:
        return l->seg->wide[slot].bytes;
    case PLACE_BLOCK:
        break;
    }
    return arena_data(l->seg, l->seg->slot[slot].res, res_len);
}

/* The outcome of an attempt that took too long is taken. False: its worker has not noticed yet, the
 * slot is his. */
static bool part_with_zombie(const struct local *l, uint32_t slot, uint64_t w)
{
    /* one more look is enough: the worker's notice makes us the owner, and that is final */
    for (int i = 0; i < 2 && slot_owner(w) != l->me; i++)
        if (at_cas(&l->seg->slot[slot].state, &w,
                   slot_word(slot_epoch(w), slot_owner(w), slot_attempt(w), SLOT_ZOMBIE)))
            return false;
    return slot_owner(w) == l->me;
}

/* Takes the outcome of our task in this slot, whose state word w is one. */
static void take(struct local *l, uint32_t slot, uint64_t w, struct fab_outcome *o)
{
    static const uint16_t status[SLOT_STATES] = {[SLOT_DONE] = FAB_COMPLETED,
                                                 [SLOT_FAILED] = FAB_FAILED,
                                                 [SLOT_CANCELLED] = FAB_CANCELLED,
                                                 [SLOT_DEAD] = FAB_DEAD,
                                                 [SLOT_EXPIRED] = FAB_EXPIRED,
                                                 [SLOT_OVERRUN] = FAB_OVERRUN};
    struct seg_slot *sl = &l->seg->slot[slot];
    /* read once: the segment is not to be trusted */
    uint32_t arg_len = sl->arg_len, res_len = sl->res_len;
    bool overrun = slot_state(w) == SLOT_OVERRUN;
    if (slot_state(w) == SLOT_CANCELLED || slot_state(w) == SLOT_EXPIRED || overrun)
        res_len = 0; /* what an attempt may have left there is no result */
    o->id = (fab_id)slot_epoch(w) << 32 | slot;
    o->tag = sl->tag;
    o->status = status[slot_state(w)];
    o->attempts = (uint16_t)slot_attempt(w);
    o->len = res_len;
    o->data = NULL;
    if (res_len <= 8) {
        o->small = sl->res;
    } else {
        o->data = result_bytes(l, slot, arg_len, res_len);
        if (!o->data) {
            o->status = FAB_FAILED;
            o->len = 0;
        }
    }
    CRASH_POINT("take.read");
    tasks_remove(l, slot);
    if (overrun) {
        o->data = terms_overrun_text();
        o->len = (uint32_t)strlen(o->data);
        if (!part_with_zombie(l, slot, w))
            return; /* the argument is that worker's, too, until it has noticed */
    }
    if (slot_arg_place(arg_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->arg, slot, slot_epoch(w));
    if (o->len > 8 && !overrun)
        l->held[l->held_n++] = slot;
    else
        slot_give(l->seg, &l->stock, l->me, slot);
    CRASH_POINT("take.given");
}

/* The state word of our task's slot if it is an outcome, else 0. A slot that left our hands without
 * one (damage) counts as lost: made into a FAILED one so that the producer does not wait for ever.
 */
static uint64_t outcome_of(struct local *l, uint32_t slot)
{
    /* seq_cst: S2 of wake.h when it stands behind bell_parked; acquire besides, for the result's
     * bytes */
    uint64_t w = at_load(&l->seg->slot[slot].state);
    return slot_is_outcome(w) && slot_epoch(w) == l->tasks.at[slot].epoch ? w : 0;
}

/* fabricd has died, and with it who would bring this task back: nobody has started it, or whoever
 * did is dead, too. A worker that lives will finish what it has begun. */
static bool abandoned(const struct local *l, uint32_t slot)
{
    uint64_t w = at_load(&l->seg->slot[slot].state);
    if (slot_state(w) == SLOT_READY || slot_state(w) == SLOT_DELAYED)
        return true;
    if (slot_state(w) != SLOT_LEASED || slot_owner(w) >= l->seg->participants)
        return false;
    uint32_t pid = l->seg->participant[slot_owner(w)].pid; /* read once */
    return pid == 0 || pid > INT32_MAX || (kill((pid_t)pid, 0) < 0 && errno == ESRCH);
}

/* The slot no longer holds our task, and it has no outcome: somebody wrote over it. Asked after
 * sleeps that ended by time. */
static bool damaged(const struct local *l, uint32_t slot)
{
    const struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t w = at_load(&sl->state);
    uint32_t st = slot_state(w);
    return slot_epoch(w) != l->tasks.at[slot].epoch || st < SLOT_READY || st >= SLOT_STATES ||
           meta_producer(at_load(&sl->meta)) != l->me;
}

/* Tells of such a task and leaves its slot alone: it is not ours any more. */
static void take_lost(struct local *l, uint32_t slot, struct fab_outcome *o)
{
    *o = (struct fab_outcome){.id = (fab_id)l->tasks.at[slot].epoch << 32 | slot,
                              .tag = l->tasks.at[slot].tag,
                              .status = FAB_LOST};
    tasks_remove(l, slot);
    at_add(&l->seg->head->damage, 1);
    at_store(&l->seg->head->check_wanted, 1);
}

static size_t take_damaged(struct local *l, struct fab_outcome *out, size_t max)
{
    uint32_t head = l->seg->slots;
    size_t n = 0;
    for (uint32_t slot = l->tasks.at[head].next, next; slot != head && n < max; slot = next) {
        next = l->tasks.at[slot].next;
        if (damaged(l, slot))
            take_lost(l, slot, &out[n++]);
    }
    return n;
}

static int fabricd_gone(void)
{
    return err_set(-EPIPE, "fabricd is gone, and nobody runs the task");
}

/* After a wait. A wake-up too many is all that an old 1 would cost; the line is left alone when
 * nothing was set, since every worker that completes a task of ours reads it. */
static void unpark(struct local *l)
{
    if (!l->parked)
        return;
    l->parked = false;
    at_store_rlx(&l->self->bell_parked, 0); /* nobody relies on when it is seen */
}

int local_wait(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint32_t slot = (uint32_t)id;
    uint64_t deadline = 0, w;
    free_held(l);
    if (slot >= l->seg->slots || l->tasks.at[slot].epoch == 0 ||
        l->tasks.at[slot].epoch != (uint32_t)(id >> 32))
        return err_set(-ENOENT, "no such task is outstanding");
    spin_start(&l->spin);
    while (!(w = outcome_of(l, slot))) {
        if (timeout_ns == 0)
            return deadline_error(0, "the task is not done");
        if (spin_on(&l->spin))
            continue;
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        uint64_t now = clock_ns(), net = WAKE_NET_NS;
        if (now >= deadline)
            return deadline_error(timeout_ns, "the task was not done");
        if (fabric_gone(l))
            return err_set(-EPIPE, "the fabric is closed");
        if (deadline - now < net)
            net = deadline - now;
        uint32_t seq = at_load(&l->self->bell_seq);
        l->parked = true;
        at_store(&l->self->bell_parked, 1); /* S1 */
        if ((w = outcome_of(l, slot)))      /* S2 */
            break;
        int rc = futex_sleep(&l->self->bell_seq, seq, net); /* S3 */
        if (rc == -ETIMEDOUT && net == WAKE_NET_NS && outcome_of(l, slot))
            wake_net_caught(l->seg, &l->self->bell_seq, seq);
        else if (rc == -ETIMEDOUT && damaged(l, slot)) {
            unpark(l);
            take_lost(l, slot, out);
            return 0;
        } else if (rc == -ETIMEDOUT && local_daemon_gone(l) && abandoned(l, slot))
            return fabricd_gone();
        spin_miss(&l->spin);
        spin_start(&l->spin);
    }
    if (deadline == 0)
        spin_hit(&l->spin);
    unpark(l);
    take(l, slot, w, out);
    return 0;
}

/* Looks at outstanding tasks from `slot` on, takes what is done; stops after `misses` unfinished
 * ones. */
static size_t look(struct local *l, uint32_t slot, uint32_t misses, struct fab_outcome *out,
                   size_t max, uint32_t *stopped_at)
{
    uint32_t head = l->seg->slots;
    size_t n = 0;
    while (slot != head && misses > 0 && n < max && l->held_n < LOCAL_HELD_MAX) {
        uint32_t next = l->tasks.at[slot].next;
        uint64_t w = outcome_of(l, slot);
        if (w)
            take(l, slot, w, &out[n++]);
        else
            misses--;
        slot = next;
    }
    *stopped_at = slot;
    return n;
}

/* A cheap look: the oldest tasks, and now and then some more from where the last look ended. */
static size_t look_around(struct local *l, struct fab_outcome *out, size_t max)
{
    uint32_t head = l->seg->slots, end;
    size_t n = look(l, l->tasks.at[head].next, LOOK_AHEAD, out, max, &end);
    if (n > 0 || end == head || (l->spin.round & 7) != 1)
        return n;
    uint32_t from = l->tasks.cursor == head ? l->tasks.at[head].next : l->tasks.cursor;
    n = look(l, from, LOOK_CURSOR, out, max, &end);
    l->tasks.cursor = end;
    return n;
}

long local_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint32_t head = l->seg->slots, end;
    uint64_t deadline = 0;
    size_t n;
    free_held(l);
    if (l->tasks.n == 0)
        return err_set(-ENOENT, "no task is outstanding");
    spin_start(&l->spin);
    l->spin.round = timeout_ns == 0; /* a try looks further, too */
    while ((n = look_around(l, out, max)) == 0) {
        if (timeout_ns == 0)
            return deadline_error(0, "no task is done");
        if (spin_on(&l->spin))
            continue;
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        uint64_t now = clock_ns(), net = WAKE_NET_NS;
        if (now >= deadline)
            return deadline_error(timeout_ns, "no task was done");
        if (fabric_gone(l))
            return err_set(-EPIPE, "the fabric is closed");
        if (deadline - now < net)
            net = deadline - now;
        uint32_t seq = at_load(&l->self->bell_seq);
        l->parked = true;
        at_store(&l->self->bell_parked, 1);                              /* S1 */
        n = look(l, l->tasks.at[head].next, UINT32_MAX, out, max, &end); /* S2: all of them */
        if (n > 0)
            break;
        int rc = futex_sleep(&l->self->bell_seq, seq, net); /* S3 */
        spin_miss(&l->spin);
        spin_start(&l->spin);
        n = look(l, l->tasks.at[head].next, UINT32_MAX, out, max, &end);
        if (n > 0 && rc == -ETIMEDOUT && net == WAKE_NET_NS)
            wake_net_caught(l->seg, &l->self->bell_seq, seq);
        if (n == 0 && rc == -ETIMEDOUT)
            n = take_damaged(l, out, max);
        if (n > 0)
            break;
        if (rc == -ETIMEDOUT && local_daemon_gone(l) && abandoned(l, l->tasks.at[head].next))
            return fabricd_gone();
    }
    if (deadline == 0)
        spin_hit(&l->spin);
    unpark(l);
    return (long)n;
}

bool local_arm_bell(struct local *l)
{
    uint32_t head = l->seg->slots;
    at_store(&l->self->bell_parked, 1); /* S1 */
    for (uint32_t slot = l->tasks.at[head].next; slot != head; slot = l->tasks.at[slot].next)
        if (outcome_of(l, slot)) /* S2 */
            return false;
    return true;
}

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

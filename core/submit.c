/* SPDX-License-Identifier: MIT
 *
 * submit.c - the producer's side of a local handle, first half: submit (cancel.c cancels).
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
#include <stdio.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/dedup.h"
#include "core/error.h"
#include "core/local.h"
#include "core/queue.h"
#include "core/ring.h"
#include "core/room.h"
#include "core/terms.h"

#define PUBLISH_BATCH 64u

/* ---- submit ---- */

static int check_task(const struct local *l, const struct fab_task *t)
{
    if (t->queue >= l->seg->queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", t->queue, l->seg->queues);
    if (queue_draining(l->seg, t->queue))
        return queue_refuses(l->seg, t->queue);
    if (t->priority >= FAB_PRIORITIES)
        return err_set(-EINVAL, "priority %u: use 0 to %d", t->priority, FAB_PRIORITIES - 1);
    if (t->flags & ~(unsigned)FAB_NO_WAIT)
        return err_set(-EINVAL, "unknown task flags %#x", t->flags);
    if (t->len > FAB_ARG_MAX)
        return err_set(-EMSGSIZE, "an argument of %u bytes is over the limit of %u", t->len,
                       FAB_ARG_MAX);
    if (!t->terms)
        return 0;
    if (t->terms->key && !l->seg->dedup_keys)
        return err_set(-ENOTSUP, "this fabric keeps no keys: segment.dedup_keys is 0 in fabricd's "
                                 "configuration");
    return terms_check(t->terms);
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
    if (!quota_arena(l, t->len)) {
        l->lack = LACK_ARENA_SHARE;
        return -ENOSPC;
    }
    rc = arena_alloc(l->seg, &l->arena, l->me, t->len, &unit);
    if (rc < 0) {
        l->lack = LACK_ARENA;
        return rc;
    }
    quota_arena_add(l, t->len);
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
    if (t->terms) {
        terms_put(l->seg, slot, t->terms);
        terms_of(l->seg, slot)->dedup = l->key_entry;
    }
    sl->res_len = 0;
    sl->tag = t->tag;
    if (__builtin_expect(l->linked, 0))
        l->seg->ref[slot] = l->ref;
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
    if (done < n && l->key_entry) { /* others may have been told already that it will be run */
        at_store(&s->head->audit_wanted, 1);
        return n;
    }
    if (done < n)
        l->lack = LACK_RING;
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
        if (slot_arg_place(s->slot[slot[i - 1]].arg_len) == PLACE_BLOCK) {
            arena_free(s, &l->arena, l->me, s->slot[slot[i - 1]].arg, slot[i - 1], epoch[i - 1]);
            quota_arena_sub(l, slot_arg_len(s->slot[slot[i - 1]].arg_len));
        }
        slot_stock_settle(s, &l->stock, l->me);
        l->stock.slot[l->stock.n++] = slot[i - 1];
    }
    return done;
}

/* ---- keys ---- */

/* The slot at the top of the stock, which has entered a key in vain, gets another epoch: dedup.h. */
static void renew_top(struct local *l)
{
    _Atomic uint64_t *state = &l->seg->slot[l->stock.slot[l->stock.n - 1]].state;
    /* relaxed, release: as slot_stock_settle() */
    at_store_rel(state, slot_word(slot_epoch_after(slot_epoch(at_load_rlx(state))), l->me, 0,
                                  SLOT_FILLING));
}

/* A task whose key another one has: it is its own outcome at once. */
static void be_duplicate(struct local *l, const struct fab_task *t, fab_id *id)
{
    _Atomic uint64_t *c = &l->self->counts[t->queue].duplicates;
    at_store_rlx(c, at_load_rlx(c) + 1); /* our own counter, read by status alone */
    uint32_t slot = l->stock.slot[l->stock.n - 1];
    struct seg_slot *sl = &l->seg->slot[slot];
    uint32_t epoch = slot_epoch(at_load_rlx(&sl->state)); /* ours */
    renew_top(l);
    if (t->flags & FAB_NO_WAIT) {
        if (id)
            *id = (fab_id)epoch << 32 | slot; /* nobody's any more */
        return;
    }
    epoch = slot_epoch(at_load_rlx(&sl->state));
    l->stock.n--;
    sl->kernel = t->kernel;
    sl->arg_len = sl->res_len = 0;
    sl->tag = t->tag;
    if (l->linked)
        l->seg->ref[slot] = l->ref;
    at_store_rlx(&sl->meta, slot_meta(l->me, t->queue, t->priority, 0));
    at_store_rel(&sl->state, slot_word(epoch, l->me, 0, SLOT_DUPLICATE)); /* for the undertaker */
    CRASH_POINT("dedup.duplicate");
    local_tasks_add(l, slot, epoch, t->tag);
    if (id)
        *id = (fab_id)epoch << 32 | slot;
}

enum entered { ENTERED, ENTERED_NOT_NOW, ENTERED_TWICE };

/* Enters the key of the task that the slot at the top of the stock will hold. ENTERED_TWICE: it is a
 * duplicate, and told. */
static enum entered enter_key(struct local *l, const struct fab_task *t, fab_id *id)
{
    slot_stock_settle(l->seg, &l->stock, l->me); /* the undertaker reads its word */
    uint32_t slot = l->stock.slot[l->stock.n - 1], entry;
    uint32_t epoch = slot_epoch(at_load_rlx(&l->seg->slot[slot].state)); /* ours */
    switch (dedup_enter(l->seg, l->me, slot, epoch, t->queue, t->terms->key, t->terms->dedup_ns,
                        &entry, &l->lack_until)) {
    case KEY_ENTERED:
        l->key_entry = entry + 1;
        return ENTERED;
    case KEY_DUPLICATE:
        be_duplicate(l, t, id);
        return ENTERED_TWICE;
    case KEY_BUSY:
        renew_top(l);
        l->lack = LACK_KEY_BUSY;
        return ENTERED_NOT_NOW;
    case KEY_FULL:
        break;
    }
    l->lack = LACK_KEYS;
    return ENTERED_NOT_NOW;
}

/* The end of a submit that has entered a key; k: whether its task was accepted. */
static void leave_key(struct local *l, uint32_t slot, uint32_t epoch, bool accepted)
{
    uint32_t entry = l->key_entry - 1;
    l->key_entry = 0;
    if (accepted) {
        dedup_confirm(l->seg, l->me, entry, slot, epoch);
        return;
    }
    dedup_release(l->seg, entry, slot, epoch);
    renew_top(l);
}

/* ---- groups ---- */

/* One group: consecutive tasks of the same queue and priority, at most PUBLISH_BATCH. Returns how
 * many were accepted, 0 when the fabric is full, < 0 when the first can't be. */
static long submit_group(struct local *l, const struct fab_task *t, size_t n, fab_id *ids)
{
    uint32_t slot[PUBLISH_BATCH], epoch[PUBLISH_BATCH], k = 0;
    uint64_t now;
    bool solo, own;
    int rc = check_task(l, t);
    if (rc < 0)
        return rc;
    if (n > PUBLISH_BATCH)
        n = PUBLISH_BATCH;
    if (l->stock.n < n && quota_refill(l, (uint32_t)n, &own) == 0) {
        l->lack = own ? LACK_SHARE : LACK_SLOTS;
        return 0;
    }
    if (t->terms && t->terms->key) {
        enum entered how = enter_key(l, t, ids);
        if (how != ENTERED)
            return how == ENTERED_TWICE; /* it has its outcome, which counts as accepted */
    }
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
    if (k == 0) {
        if (l->key_entry)
            leave_key(l, l->stock.slot[l->stock.n - 1],
                      slot_epoch(at_load_rlx(&l->seg->slot[l->stock.slot[l->stock.n - 1]].state)),
                      false);
        return rc == -ENOSPC ? 0 : rc;
    }
    k = is_delayed(t) ? k : publish(l, t, slot, epoch, k);
    if (t->terms && k > 0)
        terms_note(l->seg, &l->out, slot[0]);
    CRASH_POINT("submit.published");
    if (l->key_entry)
        leave_key(l, slot[0], epoch[0], true);
    for (uint32_t i = 0; i < k; i++) {
        if (t[i].flags & FAB_NO_WAIT)
            l->unwaited = true;
        else
            local_tasks_add(l, slot[i], epoch[i], t[i].tag);
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

/* ---- waiting for room ---- */

/* One sentence for who waits: which limit it is, and what helps. */
static const char *lack_text(const struct local *l, char text[256])
{
    const struct segment *s = l->seg;
    switch (l->lack) {
    case LACK_SLOTS:
        snprintf(text, 256, "the fabric is full: all %u slots (segment.slots) are in use", s->slots);
        break;
    case LACK_SHARE:
        snprintf(text, 256,
                 "this producer holds its share of the fabric, %u of %u slots "
                 "(segment.producer_share): take outcomes, or let its tasks be done",
                 s->producer_share, s->slots);
        break;
    case LACK_RING:
        snprintf(text, 256, "the queue's ring of ready tasks has no room");
        break;
    case LACK_ARENA:
        snprintf(text, 256, "the fabric's memory for large arguments (segment.arena) is full");
        break;
    case LACK_ARENA_SHARE:
        snprintf(text, 256,
                 "this producer's arguments hold its share of segment.arena, %llu bytes "
                 "(segment.producer_share): take outcomes, or let its tasks be done",
                 (unsigned long long)quota_arena_share(s));
        break;
    case LACK_KEYS:
        snprintf(text, 256,
                 "no entry is free for another key until one expires: raise segment.dedup_keys "
                 "(%u now), or shorten the windows", s->dedup_keys);
        break;
    case LACK_KEY_BUSY:
        snprintf(text, 256, "another task with the same key is just being submitted");
        break;
    }
    return text;
}

/* How long what it waits for may take to be there without being announced: free slots and blocks are
 * (room.h); WAKE_NET_NS is the net. */
static uint64_t unannounced_ns(const struct local *l, uint64_t now)
{
    switch (l->lack) {
    case LACK_SLOTS:
    case LACK_ARENA:
        return WAKE_NET_NS;
    case LACK_KEYS: /* time alone helps */
        return l->lack_until <= now                 ? 1
               : l->lack_until - now < WAKE_NET_NS ? l->lack_until - now
                                                   : WAKE_NET_NS;
    case LACK_SHARE:
    case LACK_ARENA_SHARE:
        return 10000000; /* the room of our own tasks may be in a worker's stock: count again */
    default:
        return 1000000;
    }
}

static enum room room_of(enum lack lack)
{
    return lack == LACK_ARENA || lack == LACK_ARENA_SHARE ? ROOM_ARENA : ROOM_SLOTS;
}

/* S3 of room.h; the try before was S2. */
static void sleep_for_room(struct local *l, uint32_t seq, uint64_t now, uint64_t deadline)
{
    struct seg_room *room = &l->seg->head->room[room_of(l->lack)];
    uint64_t ns = unannounced_ns(l, now);
    bool net = l->lack == LACK_SLOTS && deadline - now > ns;
    if (deadline - now < ns)
        ns = deadline - now;
    /* seq_cst loads: the try's own are weaker */
    if (l->lack == LACK_SLOTS && ring_depth(l->seg->free_ring) > 0)
        return;
    if (futex_sleep(&room->seq, seq, ns) == -ETIMEDOUT && net &&
        ring_ready(l->seg, l->seg->free_ring))
        wake_net_caught(l->seg, &room->seq, seq);
}

/* One step of waiting after a try that took nothing: spins, then announces itself, then sleeps. 0: try
 * again; < 0: the wait is over. */
static int wait_step(struct local *l, int64_t timeout_ns, uint64_t *deadline, int *armed)
{
    char text[256];
    if (timeout_ns == 0)
        return deadline_error(0, lack_text(l, text));
    if (*deadline == 0) {
        *deadline = deadline_of(timeout_ns);
        spin_start(&l->spin);
    }
    bool own = l->lack == LACK_SHARE ? quota_own_hands(l)
                                     : l->lack == LACK_ARENA_SHARE && !l->unwaited;
    if (own && timeout_ns < 0)
        return err_set(-EDEADLK, "waiting would never end: %s", lack_text(l, text));
    if (spin_on(&l->spin))
        return 0;
    if (local_fabric_gone(l))
        return err_set(-EPIPE, "the fabric is closed");
    uint64_t now = clock_ns();
    if (now >= *deadline)
        return deadline_error(timeout_ns, lack_text(l, text));
    if (*armed != (int)room_of(l->lack)) {
        *armed = (int)room_of(l->lack);
        l->room_seq = room_want(l->seg, room_of(l->lack)); /* S1 */
        CRASH_POINT("room.wanted");
        return 0; /* S2 */
    }
    sleep_for_room(l, l->room_seq, now, *deadline);
    *armed = -1;
    return 0;
}

int local_wait_room(fab_t *f, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = deadline_of(timeout_ns);
    if (!l->room_armed) {
        l->room_seq = room_want(l->seg, ROOM_ARENA); /* S1; the caller's next try is S2 */
        l->room_armed = true;
        return 0;
    }
    l->room_armed = false;
    for (;;) {
        uint64_t now = clock_ns();
        if (now >= deadline)
            return deadline_error(timeout_ns, "no memory was given back");
        if (local_fabric_gone(l))
            return err_set(-EPIPE, "the fabric is closed");
        uint64_t ns = deadline - now < WAKE_NET_NS ? deadline - now : WAKE_NET_NS;
        if (futex_sleep(&l->seg->head->room[ROOM_ARENA].seq, l->room_seq, ns) == 0 ||
            ns == WAKE_NET_NS)
            return 0;
    }
}

long local_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = 0;
    size_t done = 0;
    int armed = -1;
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
        int rc = wait_step(l, timeout_ns, &deadline, &armed);
        if (rc < 0)
            return rc;
    }
}

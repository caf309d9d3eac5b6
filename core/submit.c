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
#include <stddef.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/dedup.h"
#include "core/error.h"
#include "core/local.h"
#include "core/pair.h"
#include "core/queue.h"
#include "core/ring.h"
#include "core/stages.h"
#include "core/terms.h"

#define PUBLISH_BATCH 64u

/* Tasks that were written together and are published together: consecutive ones of a submit, of one
 * queue and priority. */
struct group {
    uint64_t submitted; /* ticks, the same for all */
    uint32_t room;      /* how long they waited for it (stages.h) */
    bool solo;          /* SLOT_SOLO, if the slot's former task was in the same queue */
    const fab_id *id;   /* of a run (fill_run()): where they are outstanding */
    fab_id ids[PUBLISH_BATCH]; /* of others */
};

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
    if (l->given && l->given == t->arg) {
        unit = (uint32_t)(((uintptr_t)l->given - (uintptr_t)l->seg->arena) / ARENA_BLOCK_MIN);
        l->given = NULL;
        l->given_slot = slot + 1;
        l->given_unit = unit;
    } else {
        rc = arena_alloc(l->seg, &l->arena, l->me, t->len, &unit);
        if (rc < 0) {
            l->lack = LACK_ARENA;
            return rc;
        }
        memcpy(l->seg->arena + (uint64_t)unit * ARENA_BLOCK_MIN, t->arg, t->len);
    }
    quota_arena_add(l, t->len);
    arena_attach(l->seg, unit, BLOCK_ARG, l->me, slot, epoch);
    sl->arg = unit;
    return 0;
}

static bool is_delayed(const struct fab_task *t)
{
    return t->terms && t->terms->delay_ns > 0;
}

static_assert(offsetof(struct seg_slot, stamp) - offsetof(struct seg_slot, arg_len) == 8,
              "write_task() writes the lengths and the stamp as one");

/* FILLING -> the state of the word, with everything in it; the argument is there. */
static inline void write_task(struct seg_slot *sl, const struct fab_task *t, pair lens_and_stamp,
                              uint64_t meta, uint64_t word)
{
    CRASH_POINT("submit.argument");
    sl->kernel = t->kernel;
    pair_put(&sl->arg_len, lens_and_stamp);
    sl->tag = t->tag;
    at_store_rlx(&sl->meta, meta);
    /* release: pairs with the claimer's acquire of the state (claim.c) */
    at_store_rel(&sl->state, word);
    CRASH_POINT("submit.ready");
}

/* FILLING -> READY (or DELAYED). id: its entry in our stock, where nobody else
 * changes it while we live. */
static int fill_slot(struct local *l, fab_id id, const struct fab_task *t, const struct group *g)
{
    uint32_t slot = (uint32_t)id, epoch = (uint32_t)(id >> 32), flags = 0, mark = 0;
    struct seg_slot *sl = &l->seg->slot[slot];
    int rc = put_argument(l, slot, epoch, t);
    if (rc < 0)
        return rc;
    if (t->flags & FAB_NO_WAIT)
        flags |= META_NO_WAIT;
    if (t->terms)
        flags |= META_TERMS;
    if (g->solo && meta_queue(at_load_rlx(&sl->meta)) == t->queue) /* still the former task's */
        mark = SLOT_SOLO;
    if (t->terms) {
        terms_put(l->seg, slot, t->terms);
        terms_of(l->seg, slot)->dedup = l->key_entry;
    }
    if (__builtin_expect(l->linked, 0))
        l->seg->ref[slot] = l->ref;
    write_task(sl, t, pair_of(t->len | (t->terms ? ARG_TERMS : 0), g->submitted),
               slot_meta(l->me, t->queue, t->priority, flags),
               slot_word(epoch, l->me, 0, is_delayed(t) ? SLOT_DELAYED : SLOT_READY) | mark);
    return 0;
}

/* A task that was written, and its outcome will be waited for. */
static inline void expect_outcome(struct local *l, fab_id id, uint64_t tag, uint32_t room)
{
    outstanding_add(&l->tasks, id, tag);
    outstanding_waited(&l->tasks, id, room);
}

/* ---- plain tasks: no terms, an argument that needs no block, an outcome that is waited for ----
 */

static_assert(offsetof(struct fab_task, priority) + 1 - offsetof(struct fab_task, len) == 8,
              "task_kind() reads len, flags, queue and priority as one number");

/* What the tasks of a run have in common. */
static inline uint64_t task_kind(const struct fab_task *t)
{
    uint64_t kind;
    memcpy(&kind, &t->len, sizeof kind);
    return kind;
}

static inline bool is_plain(const struct fab_task *t)
{
    return !t->terms && t->len <= sizeof(struct seg_wide) && !(t->flags & FAB_NO_WAIT);
}

static inline void put_small_argument(const struct segment *s, uint32_t slot,
                                      const struct fab_task *t, uint32_t len)
{
    if (len == 8)
        memcpy(&s->slot[slot].arg, t->arg, 8); /* the common case, one move */
    else if (len > 8)
        memcpy(s->wide[slot].bytes, t->arg, len);
    else if (len)
        memcpy(&s->slot[slot].arg, t->arg, len);
}

/* The loop of fill_run(): writes the first of at most n tasks, and those behind it that are plain ones of the
 * same kind, and returns how many. eight: all arguments have 8 bytes; linked: l->linked. Both are constants
 * where it is called: what is in the loop is half of what a submit costs. */
static inline __attribute__((always_inline)) uint32_t fill_each(const struct local *l, const struct fab_task *t,
                                                                uint32_t n, uint64_t submitted, bool eight,
                                                                bool linked)
{
    const struct segment *s = l->seg;
    struct seg_slot *const slots = s->slot;
    uint64_t *const ids = &l->tasks.id[l->tasks.tail & l->tasks.mask];
    uint64_t *const tags = linked ? NULL : &l->tasks.tag[l->tasks.tail & l->tasks.mask];
    uint32_t *const where = l->tasks.pos, from = l->tasks.tail;
    const uint64_t ready = slot_word(0, l->me, 0, SLOT_READY), kind = task_kind(t), len = eight ? 8 : t->len,
                   meta = slot_meta(l->me, t->queue, t->priority, 0);
    const pair lens_and_stamp = pair_of(len, submitted);
    const uint64_t *top = l->stock.id + l->stock.n;
    uint32_t k = 0;
    do {
        uint64_t id = *--top;
        uint32_t slot = (uint32_t)id;
        struct seg_slot *sl = &slots[slot];
        if (eight)
            memcpy(&sl->arg, t->arg, 8);
        else
            put_small_argument(s, slot, t, (uint32_t)len);
        if (linked)
            s->ref[slot] = l->ref;
        else
            tags[k] = t->tag;
        write_task(sl, t, lens_and_stamp, meta, id - slot + ready);
        ids[k] = id;
        where[slot] = from + k;
        k++;
        t++;
    } while (k < n && task_kind(t) == kind && !t->terms);
    return k;
}

LOOP_OF_ITS_OWN static uint32_t fill_eights(const struct local *l, const struct fab_task *t, uint32_t n,
                                            uint64_t submitted)
{
    return fill_each(l, t, n, submitted, true, false);
}

LOOP_OF_ITS_OWN static uint32_t fill_others(const struct local *l, const struct fab_task *t, uint32_t n,
                                            uint64_t submitted)
{
    return l->linked ? fill_each(l, t, n, submitted, false, true) : fill_each(l, t, n, submitted, false, false);
}

/* The same as fill_slot() for a run of plain tasks of one kind: how many of the n there are, at most as many
 * as the list of outstanding ones has in one piece. It has room for them, and the stock as many slots. They
 * are outstanding then. */
static inline uint32_t fill_run(struct local *l, const struct fab_task *t, uint32_t n, struct group *g)
{
    struct outstanding *o = &l->tasks;
    n = outstanding_piece(o, n);
    uint32_t k = t->len == 8 && !l->linked ? fill_eights(l, t, n, g->submitted)
                                           : fill_others(l, t, n, g->submitted);
    g->id = &o->id[o->tail & o->mask];
    for (uint32_t i = 0; g->room && i < k; i++)
        outstanding_waited(o, g->id[i], g->room);
    l->stock.n -= k;
    o->tail += k;
    o->n += k;
    return k;
}

/* Clears stale entries (of tasks that were withdrawn, or found without the ring) out of a ring that
 * has no room: what is in it is taken out and what is still READY put back, in order, but for the
 * tasks in `mine`, which are put next. Death in between loses entries, which the audit puts back.
 */
static void clear_stale(struct local *l, uint32_t queue, uint32_t priority, const fab_id *mine,
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
                live = (uint32_t)mine[k] != hint[i];
            if (live && !ring_put(s, r, hint[i]))
                at_store(&s->head->audit_wanted, 1);
        }
    }
    l->known_head[queue][priority] = at_load_rlx(&r->head); /* our own copy */
    queue_wake(s, &s->queue[queue], &l->out,
               1); /* somebody may have found the ring empty meanwhile */
}

/* The ring had room for the first `done` of a group alone: takes the others back, unless somebody
 * found and claimed them already. Returns how many (the first so many) count as submitted. */
SELDOM static uint32_t take_back(struct local *l, const struct group *g, uint32_t done, uint32_t n,
                                 uint32_t given_slot)
{
    const struct segment *s = l->seg;
    uint32_t left = done;
    for (uint32_t i = n; i > done; i--) {
        fab_id id = g->id[i - 1];
        uint32_t slot = (uint32_t)id, epoch = (uint32_t)(id >> 32);
        struct seg_slot *sl = &s->slot[slot];
        uint64_t w = at_load(&sl->state);
        /* With the next epoch: who has read the word must not win the slot's next task by it. */
        if (slot_state(w) != SLOT_READY || slot_epoch(w) != epoch ||
            !at_cas(&sl->state, &w, slot_word(slot_epoch_after(epoch), l->me, 0, SLOT_FILLING))) {
            /* claimed by way of a stale entry: it and all before it count as submitted */
            at_store(&s->head->audit_wanted, 1);
            left = i;
            break;
        }
        if (slot_arg_place(sl->arg_len) == PLACE_BLOCK) {
            if (given_slot == slot + 1) /* it is still the argument's only copy */
                arena_attach(s, l->given_unit, BLOCK_HELD, l->me, 0, 0);
            else
                arena_free(s, &l->arena, l->me, sl->arg, slot, epoch);
            quota_arena_sub(l, slot_arg_len(sl->arg_len));
        }
        l->stock.id[l->stock.n++] = slot_id_after(id); /* it came from there */
        local_unlist(l, id);
    }
    return left;
}

/* The rest of publish() when the ring has no room for all of them by its head: `done` are in. */
SELDOM static uint32_t publish_rest(struct local *l, const struct fab_task *t, const struct group *g,
                                    uint32_t n, uint32_t done, uint32_t given_slot)
{
    const struct segment *s = l->seg;
    clear_stale(l, t->queue, t->priority, g->id + done, n - done);
    done += ring_put_many(s, segment_ready_ring(s, t->queue, t->priority),
                          &l->known_head[t->queue][t->priority], g->id + done, n - done);
    if (done < n && l->key_entry) { /* others may have been told already that it will be run */
        at_store(&s->head->audit_wanted, 1);
        return n;
    }
    if (done < n)
        l->lack = LACK_RING;
    return done < n ? take_back(l, g, done, n, given_slot) : n;
}

/* Publishes n READY slots of one queue and priority; returns how many (the first so many) count as
 * submitted. */
static inline uint32_t publish(struct local *l, const struct fab_task *t, const struct group *g, uint32_t n)
{
    const struct segment *s = l->seg;
    uint32_t given_slot = l->given_slot;
    uint32_t done = ring_put_many(s, segment_ready_ring(s, t->queue, t->priority),
                                  &l->known_head[t->queue][t->priority], g->id, n);
    l->given_slot = 0;
    return __builtin_expect(done == n, 1) ? n : publish_rest(l, t, g, n, done, given_slot);
}

/* ---- keys ---- */

static fab_id *stock_top(struct local *l)
{
    return &l->stock.id[l->stock.n - 1];
}

/* The slot at the top of the stock, which has entered a key in vain, gets another epoch: dedup.h.
 */
static void renew_top(struct local *l)
{
    fab_id *top = stock_top(l);
    *top = slot_id_after(*top);
    /* release: as settle() in slot.c */
    at_store_rel(&l->seg->slot[(uint32_t)*top].state,
                 slot_word((uint32_t)(*top >> 32), l->me, 0, SLOT_FILLING));
}

/* A task whose key another one has: it is its own outcome at once. */
static void be_duplicate(struct local *l, const struct fab_task *t, fab_id *id)
{
    _Atomic uint64_t *c = &l->self->counts[t->queue].duplicates;
    at_store_rlx(c, at_load_rlx(c) + 1); /* our own counter, read by status alone */
    fab_id mine = *stock_top(l);
    uint32_t slot = (uint32_t)mine;
    struct seg_slot *sl = &l->seg->slot[slot];
    renew_top(l);
    if (t->flags & FAB_NO_WAIT) {
        if (id)
            *id = mine; /* nobody's any more */
        return;
    }
    mine = *stock_top(l);
    l->stock.n--;
    sl->kernel = t->kernel;
    sl->arg_len = sl->res_len = 0;
    sl->tag = t->tag;
    sl->stamp = 0;
    if (l->linked)
        l->seg->ref[slot] = l->ref;
    at_store_rlx(&sl->meta, slot_meta(l->me, t->queue, t->priority, 0));
    /* release: for the undertaker */
    at_store_rel(&sl->state, slot_word((uint32_t)(mine >> 32), l->me, 0, SLOT_DUPLICATE));
    CRASH_POINT("dedup.duplicate");
    expect_outcome(l, mine, t->tag, 0);
    if (id)
        *id = mine;
}

enum entered { ENTERED, ENTERED_NOT_NOW, ENTERED_TWICE };

/* Enters the key of the task that the slot at the top of the stock will hold. ENTERED_TWICE: it is
 * a duplicate, and told. */
static enum entered enter_key(struct local *l, const struct fab_task *t, fab_id *id)
{
    slot_settle_top(l->seg, &l->stock, l->me); /* the undertaker reads its word */
    fab_id mine = *stock_top(l);
    uint32_t entry;
    switch (dedup_enter(l->seg, l->me, (uint32_t)mine, (uint32_t)(mine >> 32), t->queue, t->terms->key, t->terms->dedup_ns,
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
static void leave_key(struct local *l, fab_id id, bool accepted)
{
    uint32_t slot = (uint32_t)id, epoch = (uint32_t)(id >> 32), entry = l->key_entry - 1;
    l->key_entry = 0;
    if (accepted) {
        dedup_confirm(l->seg, l->me, entry, slot, epoch);
        return;
    }
    dedup_release(l->seg, entry, slot, epoch);
    renew_top(l);
}

/* ---- groups ---- */

/* Tasks that can't go the short way. Returns how many were written, or why the first was not: 0 for
 * want of room. */
LOOP_OF_ITS_OWN static long fill_slots(struct local *l, const struct fab_task *t, uint32_t n,
                                       struct group *g)
{
    uint32_t k = 0;
    int rc = 0;
    g->id = g->ids;
    if (t->terms)
        n = 1; /* such tasks go one by one */
    while (k < n && t[k].queue == t->queue && t[k].priority == t->priority) {
        fab_id id = *stock_top(l);
        if (k > 0 && (t[k].terms || check_task(l, &t[k]) < 0))
            break;
        rc = fill_slot(l, id, &t[k], g);
        if (rc < 0)
            break;
        l->stock.n--;
        if (t[k].flags & FAB_NO_WAIT)
            l->unwaited = true;
        else
            expect_outcome(l, id, t[k].tag, g->room);
        g->ids[k++] = id;
    }
    if (k == 0 && l->key_entry)
        leave_key(l, *stock_top(l), false);
    if (k == 0)
        return rc == -ENOSPC ? 0 : rc;
    return k;
}

/* k tasks were published in the queue: its workers are to know, and status. */
static inline void tell(struct local *l, uint32_t queue, uint32_t k)
{
    queue_wake(l->seg, &l->seg->queue[queue], &l->out, k);
    CRASH_POINT("submit.woken");
    /* relaxed: our own counter, read by status alone */
    _Atomic uint64_t *c = &l->self->counts[queue].submitted;
    at_store_rlx(c, at_load_rlx(c) + k);
    if (at_load_rlx(&l->self->submits_to) != queue)
        at_store_rlx(&l->self->submits_to, queue); /* for status */
}

/* One group: at most PUBLISH_BATCH of the tasks. Returns how many were accepted, 0 when the fabric
 * is full, < 0 when the first can't be. */
static long submit_group(struct local *l, const struct fab_task *t, size_t n, fab_id *ids,
                         struct group *g)
{
    bool own;
    long k = check_task(l, t);
    if (k < 0)
        return k;
    if (n > PUBLISH_BATCH)
        n = PUBLISH_BATCH;
    if (l->stock.n < n && quota_refill(l, (uint32_t)n, &own) < n) {
        n = l->stock.n;
        if (n == 0) {
            l->lack = own ? LACK_SHARE : LACK_SLOTS;
            return 0;
        }
    }
    if (!outstanding_reserve(&l->tasks, (uint32_t)n))
        return err_set(-ENOMEM, "no memory for more outstanding tasks");
    if (t->terms && t->terms->key) {
        enum entered how = enter_key(l, t, ids);
        if (how != ENTERED)
            return how == ENTERED_TWICE; /* it has its outcome, which counts as accepted */
    }
    /* A task with none before it that could be overtaken may be found without the ring (claim.c).
     */
    queue_use(l->seg, t->queue,
              t->priority); /* before they are READY: our death may leave them so */
    g->solo = n == 1 && l->tasks.n == 0 && !l->unwaited && !t->terms;
    if (n > 1 && is_plain(t))
        k = fill_run(l, t, (uint32_t)n, g);
    else if ((k = fill_slots(l, t, (uint32_t)n, g)) <= 0)
        return k;
    if (ids)
        memcpy(ids, g->id, (size_t)k * sizeof *ids);
    if (!is_delayed(t))
        k = publish(l, t, g, (uint32_t)k);
    if (t->terms && k > 0)
        terms_note(l->seg, &l->out, (uint32_t)g->id[0]);
    CRASH_POINT("submit.published");
    if (l->key_entry)
        leave_key(l, g->id[0], true);
    if (k)
        tell(l, t->queue, (uint32_t)k);
    return k;
}

/* ---- one task ---- */

/* One plain task of 8 bytes, of a kind that was there before, and room for it: what most round
 * trips begin with. */
static inline bool can_go_alone(const struct local *l, const struct fab_task *t)
{
    const struct segment *s = l->seg;
    return t->len == 8 && !t->flags && !t->terms && !l->linked && l->stock.n > 0 &&
           l->tasks.tail - l->tasks.head <= l->tasks.mask &&
           t->queue < s->queues && t->priority < FAB_PRIORITIES && !queue_draining(s, t->queue) &&
           (queue_priorities(s, t->queue) >> t->priority & 1);
}

/* The same as submit_group() does for it, in one piece: its steps are half of the instructions of a
 * round trip. Nothing stands before READY that can stand after it: the worker may be waiting. */
static int submit_alone(struct local *l, const struct fab_task *t, fab_id *id, struct group *g)
{
    const struct segment *s = l->seg;
    fab_id mine = *stock_top(l);
    uint32_t slot = (uint32_t)mine, q = t->queue, pr = t->priority;
    struct seg_slot *sl = &s->slot[slot];
    /* the worker that completed the slot's last task may be watching it: one trip of the line, not
     * two */
    cpu_prefetch_write(sl);
    uint64_t ready = mine - slot + slot_word(0, l->me, 0, SLOT_READY);
    if (l->tasks.n == 0 && !l->unwaited && meta_queue(at_load_rlx(&sl->meta)) == q)
        ready |= SLOT_SOLO; /* as in submit_group(), fill_slot() */
    memcpy(&sl->arg, t->arg, 8);
    write_task(sl, t, pair_of(8, g->submitted), slot_meta(l->me, q, pr, 0), ready);
    l->stock.n--;
    expect_outcome(l, mine, t->tag, 0);
    if (id)
        *id = mine;
    if (__builtin_expect(
            ring_put_many(s, segment_ready_ring(s, q, pr), &l->known_head[q][pr], &mine, 1) == 0,
            0)) {
        g->id = g->ids;
        g->ids[0] = mine;
        if (publish(l, t, g, 1) == 0)
            return 0;
    }
    CRASH_POINT("submit.published");
    tell(l, q, 1);
    return 1;
}

long local_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = 0;
    size_t done = 0;
    int armed = -1;
    struct group g;
    if (at_load_rlx(&l->seg->head->state) != SEG_RUNNING) /* one-way flag */
        return err_set(-EPIPE, "the fabric is %s and takes no tasks",
                       local_fabric_gone(l) ? "closed" : "draining");
    g.submitted = clock_ticks();
    g.room = 0;
    if (n == 1 && can_go_alone(l, t) && submit_alone(l, t, ids, &g) == 1)
        return 1;
    for (;;) {
        long k = submit_group(l, t + done, n - done, ids ? ids + done : NULL, &g);
        if (k < 0)
            return done ? (long)done : k;
        done += (size_t)k;
        if (done == n || (k == 0 && done > 0))
            return (long)done;
        int rc = k > 0 ? 0 : submit_wait(l, timeout_ns, &deadline, &armed);
        if (rc < 0)
            return rc;
        g.room = room_pack(clock_ticks() - g.submitted);
    }
}

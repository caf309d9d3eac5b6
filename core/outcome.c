/* SPDX-License-Identifier: MIT
 *
 * outcome.c - the producer's side of a local handle, second half: waiting for outcomes and taking
 * them.
 *
 * A wait looks at the tasks' own slots: the outcome stands there, so there is no second queue and a
 * worker's completion costs one line.
 *
 * Threads: the handle's. Failure: death between an outcome and its taking leaves outcomes nobody
 * waits for; the undertaker frees them. A task whose slot was written over ends as FAB_LOST.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/dead.h"
#include "core/error.h"
#include "core/local.h"
#include "core/pair.h"
#include "core/stages.h"
#include "core/terms.h"

/* How many unfinished tasks a partial look passes before it gives up: completions come mostly in
 * order, and a look at an unfinished slot takes its line away from the worker. */
#define LOOK_AHEAD  4u
#define LOOK_CURSOR 32u

/* A task that was given up, its outcome taken, is kept as a dead letter. Where no more are kept,
 * its slot does not go by its old word, as others do: after our death that would be taken for a
 * letter. */
static void bury(struct local *l, uint32_t slot)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t w = at_load_rlx(&sl->state); /* ours */
    uint32_t epoch = slot_epoch(w);
    if (dead_bury(l->seg, slot, w, NOBODY, DEAD_NOTED) ||
        !at_cas(&sl->state, &w, slot_word(epoch, l->me, 0, SLOT_FILLING)))
        return;
    CRASH_POINT("take.dropped");
    if (slot_arg_place(sl->arg_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->arg, slot, epoch);
    if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->res, slot, epoch);
    /* release: what we read of the task stays before it; ours, nobody else changes it */
    at_store_rel(&sl->state, slot_word(slot_epoch_after(epoch), l->me, 0, SLOT_FILLING));
    slot_give(l->seg, &l->stock, l->me, slot_id(slot, epoch));
}

/* Slots whose bytes the caller could read until now go back to the stock. */
static void free_held(struct local *l)
{
    while (l->held_n > 0) {
        uint32_t slot = l->held[--l->held_n];
        struct seg_slot *sl = &l->seg->slot[slot];
        uint64_t w = at_load_rlx(&sl->state); /* ours: an outcome, or ZOMBIE (take) */
        if (slot_state(w) == SLOT_DEAD) {
            bury(l, slot);
            continue;
        }
        if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
            arena_free(l->seg, &l->arena, l->me, sl->res, slot, slot_epoch(w));
        CRASH_POINT("take.held");
        slot_give(l->seg, &l->stock, l->me, slot_id(slot, slot_epoch(w)));
    }
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

/* Reads the outcome of our task in this slot, whose state word w is one, and takes it off the list
 * of outstanding ones. Returns its arg_len as it was read. */
SELDOM static uint32_t read_outcome(struct local *l, uint32_t slot, uint64_t w,
                                    struct fab_outcome *o)
{
    static const uint16_t status[SLOT_STATES] = {
        [SLOT_DONE] = FAB_COMPLETED,      [SLOT_FAILED] = FAB_FAILED,
        [SLOT_CANCELLED] = FAB_CANCELLED, [SLOT_DEAD] = FAB_DEAD,
        [SLOT_EXPIRED] = FAB_EXPIRED,     [SLOT_OVERRUN] = FAB_OVERRUN,
        [SLOT_DUPLICATE] = FAB_DUPLICATE};
    struct seg_slot *sl = &l->seg->slot[slot];
    /* read once: the segment is not to be trusted */
    uint32_t arg_len = sl->arg_len, res_len = sl->res_len;
    bool overrun = slot_state(w) == SLOT_OVERRUN;
    if (slot_state(w) == SLOT_CANCELLED || slot_state(w) == SLOT_EXPIRED ||
        slot_state(w) == SLOT_DUPLICATE || overrun)
        res_len = 0; /* what an attempt may have left there is no result */
    o->id = slot_id(slot, slot_epoch(w));
    o->tag = sl->tag;
    o->kernel = sl->kernel;
    o->status = status[slot_state(w)];
    o->attempts = (uint16_t)slot_attempt(w);
    o->len = res_len;
    o->data = NULL;
    o->taken = l->taken_at;
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
    local_unlist(l, o->id);
    if (!l->linked && slot_arg_place(arg_len) == PLACE_BLOCK)
        quota_arena_sub(l, slot_arg_len(arg_len));
    if (overrun) {
        o->data = terms_overrun_text();
        o->len = (uint32_t)strlen(o->data);
    }
    return arg_len;
}

/* Takes the outcome of our task in this slot, whose state word w is one. */
SELDOM static void take(struct local *l, uint32_t slot, uint64_t w, struct fab_outcome *o)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint32_t arg_len = read_outcome(l, slot, w, o);
    bool overrun = slot_state(w) == SLOT_OVERRUN, dead = slot_state(w) == SLOT_DEAD;
    if (overrun && !part_with_zombie(l, slot, w))
        return; /* the argument is that worker's, too, until it has noticed */
    if (dead && o->len <= 8) {
        bury(l, slot);
        return;
    }
    /* With a client id what is taken must look so at once. Its text stays where it is; only who
     * purges the letter before the caller has read on could overwrite it. */
    if (dead && l->named && dead_bury(l->seg, slot, w, NOBODY, DEAD_NOTED))
        return;
    dead = dead && !l->named; /* else: no letter, an outcome like others */
    if (slot_arg_place(arg_len) == PLACE_BLOCK && !dead)
        arena_free(l->seg, &l->arena, l->me, sl->arg, slot, slot_epoch(w));
    if (o->len > 8 && !overrun) {
        l->held[l->held_n++] = slot;
        if (l->named) /* taken, though the caller still reads it; ours alone: a plain store will do
                       */
            at_store(&sl->state, slot_word(slot_epoch(w), l->me, slot_attempt(w), SLOT_ZOMBIE));
    } else {
        slot_give(l->seg, &l->stock, l->me, o->id);
        if (l->named)
            slot_settle_top(l->seg, &l->stock, l->me);
    }
    CRASH_POINT("take.given");
}

void local_unlist(struct local *l, fab_id id)
{
    uint32_t pos;
    if (outstanding_find(&l->tasks, id, &pos))
        outstanding_remove(&l->tasks, pos);
}

void local_list(struct local *l, fab_id id)
{
    if ((uint32_t)id < l->seg->slots && id >> 32 != 0 && !outstanding_in_slot(&l->tasks, (uint32_t)id) &&
        outstanding_reserve(&l->tasks, 1)) /* there is: local_link() */
        outstanding_add(&l->tasks, id, 0);
}

bool local_drop(struct local *l, fab_id id)
{
    uint32_t slot = (uint32_t)id;
    if (slot >= l->seg->slots)
        return false;
    struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t w = at_load(&sl->state);
    uint32_t arg_len = sl->arg_len, res_len = sl->res_len, st = slot_state(w); /* read once */
    if (!slot_is_outcome(w) || slot_epoch(w) != (uint32_t)(id >> 32) ||
        meta_producer(at_load_rlx(&sl->meta)) != l->me)
        return false;
    local_unlist(l, id);
    if (slot_arg_place(arg_len) == PLACE_BLOCK)
        quota_arena_sub(l, slot_arg_len(arg_len));
    if (st == SLOT_OVERRUN && !part_with_zombie(l, slot, w))
        return true; /* its late worker frees it when it notices */
    if (st == SLOT_DEAD && dead_bury(l->seg, slot, w, NOBODY, DEAD_NOTED))
        return true;
    if (slot_arg_place(arg_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->arg, slot, slot_epoch(w));
    if ((st == SLOT_DONE || st == SLOT_FAILED || st == SLOT_DEAD) &&
        slot_res_place(arg_len, res_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->res, slot, slot_epoch(w));
    CRASH_POINT("drop.freed");
    slot_give(l->seg, &l->stock, l->me, id);
    slot_settle_top(l->seg, &l->stock, l->me);
    CRASH_POINT("drop.given");
    return true;
}

int local_take_up(struct local *l)
{
    const struct segment *s = l->seg;
    for (uint32_t i = 0; i < s->slots; i++) {
        /* acquire: pairs with the producer's release of READY; a task of ours stays ours until we
         * take its outcome, whatever its state does meanwhile */
        uint64_t w = at_load_acq(&s->slot[i].state), m = at_load_rlx(&s->slot[i].meta);
        if (slot_state(w) < SLOT_READY || slot_state(w) >= SLOT_STATES ||
            meta_producer(m) != l->me || meta_flags(m) & (META_NO_WAIT | META_ORPHAN) ||
            slot_epoch(w) == 0 || slot_epoch(at_load(&s->slot[i].state)) != slot_epoch(w))
            continue;
        uint32_t arg_len = s->slot[i].arg_len; /* read once */
        if (!outstanding_reserve(&l->tasks, 1))
            return err_set(-ENOMEM, "no memory for the tasks of before");
        outstanding_add(&l->tasks, slot_id(i, slot_epoch(w)), s->slot[i].tag);
        if (slot_arg_place(arg_len) == PLACE_BLOCK)
            quota_arena_add(l, slot_arg_len(arg_len));
    }
    return 0;
}

/* The state word of our task's slot if it is an outcome, else 0. */
static uint64_t outcome_of(const struct local *l, fab_id id)
{
    /* seq_cst: S2 of wake.h when it stands behind bell_parked; acquire besides, for the result's
     * bytes */
    uint64_t w = at_load(&l->seg->slot[(uint32_t)id].state);
    return slot_is_outcome(w) && slot_epoch(w) == (uint32_t)(id >> 32) ? w : 0;
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
static bool damaged(const struct local *l, fab_id id)
{
    const struct seg_slot *sl = &l->seg->slot[(uint32_t)id];
    uint64_t w = at_load(&sl->state);
    uint32_t st = slot_state(w);
    return slot_epoch(w) != (uint32_t)(id >> 32) || st < SLOT_READY || st >= SLOT_STATES ||
           meta_producer(at_load(&sl->meta)) != l->me;
}

/* Tells of such a task and leaves its slot alone: it is not ours any more. */
static void take_lost(struct local *l, uint32_t pos, struct fab_outcome *o)
{
    *o = (struct fab_outcome){.id = outstanding_at(&l->tasks, pos),
                              .tag = l->tasks.tag ? l->tasks.tag[pos & l->tasks.mask] : 0,
                              .status = FAB_LOST};
    outstanding_remove(&l->tasks, pos);
    at_add(&l->seg->head->damage, 1);
    at_store(&l->seg->head->check_wanted, 1);
}

static size_t take_damaged(struct local *l, struct fab_outcome *out, size_t max)
{
    size_t n = 0;
    for (uint32_t pos = l->tasks.head, end = l->tasks.tail; pos != end && n < max; pos++) {
        fab_id id = outstanding_at(&l->tasks, pos);
        if (id && damaged(l, id))
            take_lost(l, pos, &out[n++]);
    }
    return n;
}

/* ---- where the time went ---- */

/* One of n outcomes that were taken at once goes into this producer's histograms. gap: ticks since the
 * take before. */
SELDOM static void measure(struct local *l, const struct fab_outcome *out, size_t n, uint64_t gap)
{
    const struct fab_outcome *o = &out[span_pick(&l->taken, (uint32_t)n)];
    const struct segment *s = l->seg;
    uint32_t slot = (uint32_t)o->id, weight = span_weight(&l->taken, (uint32_t)n, gap);
    if (o->status != FAB_COMPLETED || l->linked || slot_epoch(s->times[slot].lease) != (uint32_t)(o->id >> 32))
        return;
    span_add(l, SPAN_ROOM, (uint64_t)outstanding_room(&l->tasks, o->id) << ROOM_UNIT_SHIFT, weight);
    span_add(l, SPAN_FETCH, span_between(s->times[slot].finished, o->taken), weight);
    span_add(l, SPAN_ROUND, span_between(s->slot[slot].stamp, o->taken), weight);
}

/* n outcomes were taken, the take before was at `before`. */
static inline void taken(struct local *l, const struct fab_outcome *out, size_t n, uint64_t before)
{
    if (n > 0 && span_due(&l->taken, (uint32_t)n, l->taken_at - before))
        measure(l, out, n, l->taken_at - before);
}

static_assert(offsetof(struct fab_outcome, len) - offsetof(struct fab_outcome, data) == 8 &&
                  offsetof(struct fab_outcome, attempts) + 2 - offsetof(struct fab_outcome, len) == 8,
              "take_plain() writes data, len, status and attempts as one");
static_assert(offsetof(struct seg_slot, res) - offsetof(struct seg_slot, tag) == 8 &&
                  offsetof(struct fab_outcome, small) - offsetof(struct fab_outcome, tag) == 8,
              "take_plain() copies tag and result as one");

/* The common outcome: DONE at the first attempt, with an argument and a result that need no block, of a
 * handle of the plain kind. Its word, less the slot's number, plus the id: */
static inline uint64_t plain_word(const struct local *l)
{
    return slot_word(0, l->me, 1, SLOT_DONE);
}

/* Reads it. The task stays outstanding: the caller takes it out, with its neighbours. False: nothing has
 * happened, take() has to look. */
static inline bool take_plain(const struct seg_slot *sl, fab_id id, uint64_t now, struct fab_outcome *o)
{
    const uint64_t eights = 8ull << 32 | 8;
    uint64_t lens; /* read once */
    memcpy(&lens, &sl->arg_len, sizeof lens);
    pair_put(&o->data, pair_of(0, 1ull << 48 | (uint64_t)FAB_COMPLETED << 32 | 8));
    if (__builtin_expect(lens != eights, 0)) {
        if (lens >> 32 > 8 || (uint32_t)lens > 64)
            return false;
        o->len = (uint32_t)(lens >> 32);
    }
    o->id = id;
    o->kernel = sl->kernel;
    pair_copy(&o->tag, &sl->tag);
    o->taken = now;
    CRASH_POINT("take.read");
    return true;
}

static inline bool is_plain_handle(const struct local *l)
{
    return !l->linked && !l->named;
}

/* At most so many of a run of tasks from pos on can be taken as one. */
static inline size_t look_most(const struct local *l, uint32_t pos, size_t max)
{
    const struct outstanding *o = &l->tasks;
    uint32_t in_array = o->mask + 1 - (pos & o->mask), room = l->stock.cap - l->stock.n;
    max = max < room ? max : room;
    max = max < in_array ? max : in_array;
    return max < o->tail - pos ? max : o->tail - pos;
}

/* The same as look() for as long as it meets common outcomes, from pos on. Returns how many it took. */
LOOP_OF_ITS_OWN static size_t look_plain(struct local *l, uint32_t pos, struct fab_outcome *out, size_t max)
{
    struct seg_slot *const slots = l->seg->slot;
    const uint64_t *const ids = &l->tasks.id[pos & l->tasks.mask], done = plain_word(l);
    uint64_t *const stock = l->stock.id + l->stock.n;
    const size_t most = look_most(l, pos, max);
    size_t n = 0;
    if (!ids[0] || at_load_rlx(&slots[(uint32_t)ids[0]].state) != ids[0] - (uint32_t)ids[0] + done)
        return 0; /* relaxed: looked at again */
    const uint64_t now = clock_ticks();
    for (; n < most; n++) {
        uint64_t id = ids[n];
        uint32_t slot = (uint32_t)id;
        const struct seg_slot *sl = &slots[slot];
        /* acquire: pairs with the worker's CAS to DONE. A miss is looked at again, by outcome_of(),
         * which is S2 of wake.h where that is needed. */
        if (at_load_acq(&sl->state) != id - slot + done || !id || !take_plain(sl, id, now, &out[n]))
            break;
        stock[n] = slot_id_after(id);
        CRASH_POINT("take.given");
    }
    if (n == 0)
        return 0;
    outstanding_remove_run(&l->tasks, pos, (uint32_t)n);
    l->taken_at = now;
    l->stock.n += (uint32_t)n;
    l->stock.lazy = true;
    return n;
}

/* ---- waiting ---- */

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

/* Before a wait sleeps: the time-out is looked at, and starts when it is looked at first, so that a
 * short wait reads no clock. *net gets how long to sleep at most. miss: what the time-out says. */
static int may_sleep(struct local *l, int64_t timeout_ns, uint64_t *deadline, uint64_t *net,
                     const char *miss)
{
    if (*deadline == 0)
        *deadline = deadline_of(timeout_ns);
    slot_stock_settle(l->seg, &l->stock, l->me); /* for who looks at the segment meanwhile */
    uint64_t now = clock_ns();
    if (now >= *deadline)
        return deadline_error(timeout_ns, miss);
    if (local_fabric_gone(l))
        return err_set(-EPIPE, "the fabric is closed");
    *net = l->spin.busy ? 0 : *deadline - now < WAKE_NET_NS ? *deadline - now : WAKE_NET_NS;
    return 0;
}

int local_wait(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint32_t slot = (uint32_t)id, pos;
    uint64_t deadline = 0, net = 0, w;
    uint64_t before = l->taken_at;
    free_held(l);
    if (!outstanding_find(&l->tasks, id, &pos))
        return err_set(-ENOENT, "no such task is outstanding");
    spin_start(&l->spin);
    uint32_t looks = 1;
    if (timeout_ns != 0)
        patience_wait(l->wait_patience);
    for (; !(w = outcome_of(l, id)); looks++) {
        if (timeout_ns == 0)
            return deadline_error(0, "the task is not done");
        if (spin_on(&l->spin))
            continue;
        int rc = may_sleep(l, timeout_ns, &deadline, &net, "the task was not done");
        if (rc < 0)
            return rc;
        uint32_t seq = at_load(&l->self->bell_seq);
        l->parked = true;
        at_store(&l->self->bell_parked, 1); /* S1 */
        if ((w = outcome_of(l, id)))      /* S2 */
            break;
        rc = futex_sleep(&l->self->bell_seq, seq, net); /* S3 */
        if (rc == -ETIMEDOUT && net == WAKE_NET_NS && outcome_of(l, id))
            wake_net_caught(l->seg, &l->self->bell_seq, seq);
        else if (rc == -ETIMEDOUT && damaged(l, id)) {
            unpark(l);
            take_lost(l, pos, out);
            return 0;
        } else if (rc == -ETIMEDOUT && local_daemon_gone(l) && abandoned(l, slot))
            return fabricd_gone();
        spin_miss(&l->spin);
        spin_start(&l->spin);
    }
    if (deadline == 0) {
        spin_hit(&l->spin);
        patience_learn(&l->wait_patience, looks);
    }
    unpark(l);
    l->taken_at = clock_ticks();
    if (w == id - slot + plain_word(l) && is_plain_handle(l) &&
        take_plain(&l->seg->slot[slot], id, l->taken_at, out)) {
        outstanding_remove(&l->tasks, pos);
        slot_give(l->seg, &l->stock, l->me, id);
        CRASH_POINT("take.given");
    } else {
        take(l, slot, w, out);
    }
    taken(l, out, 1, before);
    return 0;
}

/* Looks at outstanding tasks from pos on, takes (a link: reads) what is done; stops after `misses`
 * unfinished ones. */
static size_t look(struct local *l, uint32_t pos, uint32_t misses, struct fab_outcome *out,
                   size_t max, uint32_t *stopped_at)
{
    const bool plain = is_plain_handle(l);
    size_t n = 0;
    while (pos != l->tasks.tail && misses > 0 && n < max && l->held_n < LOCAL_HELD_MAX) {
        if (!outstanding_at(&l->tasks, pos)) {
            pos++;
            continue;
        }
        size_t k = plain ? look_plain(l, pos, out + n, max - n) : 0;
        n += k;
        pos += (uint32_t)k;
        if (k > 0)
            continue;
        fab_id id = outstanding_at(&l->tasks, pos++);
        uint64_t w = outcome_of(l, id);
        if (w && n == 0)
            l->taken_at = clock_ticks();
        if (!w)
            misses--;
        else if (l->linked)
            (void)read_outcome(l, (uint32_t)id, w, &out[n++]);
        else
            take(l, (uint32_t)id, w, &out[n++]);
    }
    *stopped_at = pos;
    return n;
}

/* A cheap look: the oldest tasks, and now and then some more from where the last look ended. */
static size_t look_around(struct local *l, struct fab_outcome *out, size_t max)
{
    struct outstanding *o = &l->tasks;
    uint32_t end;
    size_t n = look(l, o->head, LOOK_AHEAD, out, max, &end);
    if (n > 0 || end == o->tail || (l->spin.round & 7) != 1)
        return n;
    return look(l, outstanding_has(o, o->cursor) ? o->cursor : o->head, LOOK_CURSOR, out, max, &o->cursor);
}

long local_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint32_t end;
    uint64_t deadline = 0, net = 0, before = l->taken_at;
    size_t n;
    free_held(l);
    if (l->tasks.n == 0)
        return err_set(-ENOENT, "no task is outstanding");
    outstanding_tidy(&l->tasks);
    n = is_plain_handle(l) ? look_plain(l, l->tasks.head, out, max) : 0;
    if (n < max && l->tasks.n > 0)
        n += look(l, l->tasks.head, 1, out + n, max - n, &end);
    if (n > 0) { /* no need to wait */
        taken(l, out, n, before);
        return (long)n;
    }
    spin_start(&l->spin);
    l->spin.round = timeout_ns == 0; /* a try looks further, too */
    while ((n = look_around(l, out, max)) == 0) {
        if (timeout_ns == 0)
            return deadline_error(0, "no task is done");
        if (spin_on(&l->spin))
            continue;
        int rc = may_sleep(l, timeout_ns, &deadline, &net, "no task was done");
        if (rc < 0)
            return rc;
        uint32_t seq = at_load(&l->self->bell_seq);
        l->parked = true;
        at_store(&l->self->bell_parked, 1);                              /* S1 */
        n = look(l, l->tasks.head, UINT32_MAX, out, max, &end); /* S2: all of them */
        if (n > 0)
            break;
        rc = futex_sleep(&l->self->bell_seq, seq, net); /* S3 */
        spin_miss(&l->spin);
        spin_start(&l->spin);
        n = look(l, l->tasks.head, UINT32_MAX, out, max, &end);
        if (n > 0 && rc == -ETIMEDOUT && net == WAKE_NET_NS)
            wake_net_caught(l->seg, &l->self->bell_seq, seq);
        if (n == 0 && rc == -ETIMEDOUT)
            n = take_damaged(l, out, max);
        if (n > 0)
            break;
        if (rc == -ETIMEDOUT && local_daemon_gone(l) && abandoned(l, (uint32_t)outstanding_at(&l->tasks, l->tasks.head)))
            return fabricd_gone();
    }
    if (deadline == 0)
        spin_hit(&l->spin);
    unpark(l);
    taken(l, out, n, before);
    return (long)n;
}

size_t local_read_any(struct local *l, struct fab_outcome *out, size_t max)
{
    if (l->tasks.n == 0)
        return 0;
    outstanding_tidy(&l->tasks);
    l->spin.round = 1; /* a try looks further, too */
    return look_around(l, out, max);
}

bool local_arm_bell(struct local *l)
{
    at_store(&l->self->bell_parked, 1); /* S1 */
    for (uint32_t pos = l->tasks.head; pos != l->tasks.tail; pos++) {
        fab_id id = outstanding_at(&l->tasks, pos);
        if (id && outcome_of(l, id)) /* S2 */
            return false;
    }
    return true;
}

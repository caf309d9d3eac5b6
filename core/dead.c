/* SPDX-License-Identifier: MIT
 *
 * dead.c - burying, kicking and purging dead letters; see dead.h.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include "core/arena.h"
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/dead.h"
#include "core/error.h"
#include "core/queue.h"
#include "core/ring.h"
#include "core/room.h"
#include "core/terms.h"

/* ---- the counter ---- */

static bool count_one(const struct segment *s)
{
    if (s->dead_letters == 0)
        return false;
    if (at_add(&s->head->dead_letters, 1) < s->dead_letters)
        return true;
    at_sub(&s->head->dead_letters, 1);
    at_add_rlx(&s->head->dead_dropped, 1); /* a statistic */
    return false;
}

/* Not below 0: an audit may have counted it away already. */
static void uncount_one(const struct segment *s)
{
    uint32_t n = at_load(&s->head->dead_letters);
    while (n > 0 && !at_cas(&s->head->dead_letters, &n, n - 1))
        ;
}

void dead_recount(const struct segment *s, uint32_t before, uint32_t counted)
{
    /* Changed meanwhile: the next audit. */
    if (before != counted)
        (void)at_cas(&s->head->dead_letters, &before, counted);
}

/* ---- burying ---- */

void dead_note(const struct segment *s, uint32_t slot, uint64_t w, uint32_t worker,
               enum dead_cause cause)
{
    struct timespec now;
    if (s->dead_letters == 0)
        return;
    struct seg_grave *g = &s->grave[slot];
    clock_gettime(CLOCK_REALTIME, &now);
    g->epoch = 0; /* half of it is nothing */
    g->cause = (uint8_t)cause;
    g->died_unix_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    g->pid = 0;
    g->worker[0] = g->peer[0] = 0;
    if (worker < s->participants) {
        const struct seg_participant *p = &s->participant[worker];
        memcpy(g->worker, p->name, sizeof g->worker);
        if (p->remote)
            memcpy(g->peer, p->link.peer, sizeof g->peer);
        else
            g->pid = p->pid;
    }
    g->epoch = slot_epoch(w);
}

/* For whoever counts what a producer has in the fabric: this is not its any more. */
static void mark_unwaited(struct seg_slot *sl)
{
    uint64_t meta = at_load(&sl->meta);
    while (!(meta_flags(meta) & META_ORPHAN) &&
           !at_cas(&sl->meta, &meta, meta | (uint64_t)META_ORPHAN << 16))
        ;
}

bool dead_bury(const struct segment *s, uint32_t slot, uint64_t w, uint32_t worker,
               enum dead_cause cause)
{
    struct seg_slot *sl = &s->slot[slot];
    if (!count_one(s))
        return false;
    CRASH_POINT("dead.counted");
    if (cause != DEAD_NOTED)
        dead_note(s, slot, w, worker, cause);
    if (at_load(&sl->state) == w) /* else the slot may not be the caller's any more */
        mark_unwaited(sl);
    CRASH_POINT("dead.noted");
    if (at_cas(&sl->state, &w, slot_word(slot_epoch(w), NOBODY, slot_attempt(w), SLOT_BURIED))) {
        CRASH_POINT("dead.buried");
        return true;
    }
    uncount_one(s);
    return false;
}

static void drop_result(const struct segment *s, const struct wake_out *out, uint32_t me,
                        uint32_t slot, uint64_t w)
{
    struct seg_slot *sl = &s->slot[slot];
    if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK) {
        arena_free(s, NULL, me, sl->res, slot, slot_epoch(w));
        room_made(s, out, ROOM_ARENA); /* fabricd's links have not been told */
    }
    sl->res_len = 0;
}

bool dead_bury_zombie(const struct segment *s, const struct wake_out *out, uint32_t me,
                      uint32_t slot, uint64_t w, uint32_t worker)
{
    uint64_t meta = at_load(&s->slot[slot].meta);
    /* its producer has the outcome, or had: then it made itself the owner (take() of outcome.c) */
    if (!(meta_flags(meta) & (META_NO_WAIT | META_ORPHAN)) || slot_owner(w) == meta_producer(meta))
        return false;
    drop_result(s, out, me, slot, w); /* a late one is no result */
    return dead_bury(s, slot, w, worker, DEAD_OVERRUN);
}

void dead_let_go(const struct segment *s, uint32_t slot, uint64_t w)
{
    at_cas(&s->slot[slot].state, &w,
           slot_word(slot_epoch(w), NOBODY, slot_attempt(w), SLOT_BURIED));
}

/* ---- kicking and purging ---- */

static int is_busy(uint64_t id)
{
    return err_set(-EBUSY, "somebody else is kicking or purging dead letter %u-%u now",
                   (uint32_t)(id >> 32), (uint32_t)id);
}

int dead_find(const struct segment *s, uint64_t id, uint32_t *slot, uint64_t *w)
{
    *slot = (uint32_t)id;
    *w = *slot < s->slots ? at_load(&s->slot[*slot].state) : 0;
    if (slot_state(*w) != SLOT_BURIED || slot_epoch(*w) != (uint32_t)(id >> 32))
        return err_set(-ENOENT, "there is no dead letter %u-%u (fabctl dead list shows them)",
                       (uint32_t)(id >> 32), (uint32_t)id);
    return 0;
}

/* Makes a READY task of the letter that we own by word w. */
static void prepare(const struct segment *s, const struct wake_out *out, uint32_t me,
                    uint32_t slot, uint64_t w, uint64_t meta)
{
    struct seg_slot *sl = &s->slot[slot];
    drop_result(s, out, me, slot, w);
    if (sl->arg_len & ARG_TERMS) {
        struct seg_terms *t = terms_of(s, slot);
        t->failures = 0;
        t->not_before_ns = t->expires_ns = t->due_ns = 0; /* it has been asked for now */
    }
    at_store(&sl->meta,
             slot_meta(meta_producer(meta), meta_queue(meta), meta_priority(meta),
                       (meta_flags(meta) & META_TERMS) | META_NO_WAIT | META_ORPHAN));
    sl->stamp = clock_ticks();
    s->grave[slot].epoch = 0;
}

static int kick_one(const struct segment *s, const struct wake_out *out, uint32_t me,
                    uint32_t slot, uint64_t w)
{
    struct seg_slot *sl = &s->slot[slot];
    uint64_t meta = at_load(&sl->meta), id = (uint64_t)slot_epoch(w) << 32 | slot;
    uint32_t q = meta_queue(meta), pr = meta_priority(meta);
    uint64_t mine = slot_word(slot_epoch(w), me, slot_attempt(w), SLOT_BURIED);
    if (q >= s->queues || pr >= SEG_PRIORITIES)
        return err_set(-EPROTO, "the letter's slot is damaged");
    if (queue_draining(s, q))
        return queue_refuses(s, q);
    if (slot_owner(w) != NOBODY || !at_cas(&sl->state, &w, mine))
        return is_busy(id);
    CRASH_POINT("dead.taken");
    prepare(s, out, me, slot, mine, meta);
    CRASH_POINT("dead.prepared");
    if (!at_cas(&sl->state, &mine, slot_word(slot_epoch(mine), NOBODY, 0, SLOT_READY)))
        return err_set(-EPROTO, "the letter's slot is damaged");
    uncount_one(s);
    CRASH_POINT("dead.kicked");
    if (!ring_put(s, segment_ready_ring(s, q, pr), slot))
        at_store(&s->head->audit_wanted, 1);
    queue_wake(s, &s->queue[q], out, 1);
    return 0;
}

/* The slot is ours as any FILLING one is: should we die, the undertaker frees it with its blocks. */
static int purge_one(const struct segment *s, const struct wake_out *out, uint32_t me,
                     uint32_t slot, uint64_t w)
{
    struct seg_slot *sl = &s->slot[slot];
    uint64_t mine = slot_word(slot_epoch(w), me, 0, SLOT_FILLING);
    if (slot_owner(w) != NOBODY || !at_cas(&sl->state, &w, mine))
        return is_busy((uint64_t)slot_epoch(w) << 32 | slot);
    CRASH_POINT("dead.purging");
    uncount_one(s);
    if (slot_arg_place(sl->arg_len) == PLACE_BLOCK)
        arena_free(s, NULL, me, sl->arg, slot, slot_epoch(w));
    if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
        arena_free(s, NULL, me, sl->res, slot, slot_epoch(w));
    CRASH_POINT("dead.purged");
    (void)slot_to_free(s, slot, mine);
    room_made(s, out, ROOM_SLOTS); /* for fabricd's links, which the two before do not tell */
    room_made(s, out, ROOM_ARENA);
    return 0;
}

/* All of a queue: those that are in somebody's hands, and those of a draining queue, are left. */
static int for_all(const struct segment *s, const struct wake_out *out, uint32_t me, uint32_t queue,
                   bool kick, uint64_t *done)
{
    if (queue != DEAD_ANY_QUEUE && queue >= s->queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", queue, s->queues);
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load(&s->slot[i].state);
        if (slot_state(w) != SLOT_BURIED ||
            (queue != DEAD_ANY_QUEUE && meta_queue(at_load(&s->slot[i].meta)) != queue))
            continue;
        *done += (kick ? kick_one(s, out, me, i, w) : purge_one(s, out, me, i, w)) == 0;
    }
    return 0;
}

int dead_kick(const struct segment *s, const struct wake_out *out, uint32_t me, uint64_t id,
              uint32_t queue, uint64_t *done)
{
    uint32_t slot;
    uint64_t w;
    *done = 0;
    if (at_load(&s->head->state) != SEG_RUNNING)
        return err_set(-EPIPE, "the fabric is draining or closed and takes no tasks");
    if (queue < s->queues && queue_draining(s, queue))
        return queue_refuses(s, queue);
    if (id == 0)
        return for_all(s, out, me, queue, true, done);
    int rc = dead_find(s, id, &slot, &w);
    if (rc == 0)
        rc = kick_one(s, out, me, slot, w);
    *done = rc == 0;
    return rc;
}

int dead_purge(const struct segment *s, const struct wake_out *out, uint32_t me, uint64_t id,
               uint32_t queue, uint64_t *done)
{
    uint32_t slot;
    uint64_t w;
    *done = 0;
    if (id == 0)
        return for_all(s, out, me, queue, false, done);
    int rc = dead_find(s, id, &slot, &w);
    if (rc == 0)
        rc = purge_one(s, out, me, slot, w);
    *done = rc == 0;
    return rc;
}

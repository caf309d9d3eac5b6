/* SPDX-License-Identifier: MIT
 *
 * cancel.c - withdrawing tasks that wait, and stopping those that run.
 *
 * A task that nobody has started is taken out by one CAS. One that is being run gets a mark
 * (META_CANCEL) in its meta word: its worker sees the mark when it looks (fab_cancelled()), and
 * every end of the attempt but a result ends the task as CANCELLED. A result that comes first
 * wins. So:
 *
 *   producer                           whoever gives the task back
 *   M1  meta |= META_CANCEL            R1  state LEASED -> READY, DELAYED   (CAS)
 *   M2  look at the state; a task      R2  look at the mark; when it is there,
 *       that waits: -> CANCELLED           READY, DELAYED -> CANCELLED
 *
 * All four are seq_cst: one of the two sees the other. A death between R1 and R2 leaves a marked
 * task waiting; a claimer ends it instead of running it, and the undertaker's audit does.
 *
 * The mark is the producer's to set, who alone lets the slot have its next task; the undertaker
 * writes to the same word, so both use read-modify-writes.
 *
 * Threads: the handle's. Failure: a producer that dies after M1 leaves an orphan with a mark.
 */
#include <errno.h>
#include "core/crashpoint.h"
#include "core/dead.h"
#include "core/dedup.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/ring.h"
#include "core/terms.h"

static void count_cancelled(struct local *l, uint32_t queue)
{
    _Atomic uint64_t *c = &l->self->counts[queue % SEG_QUEUES_MAX].cancelled;
    at_store_rlx(c, at_load_rlx(c) + 1); /* our own counter, read by status alone */
}

/* ---- the producer ---- */

/* Its worker may sleep and have the kernel run elsewhere: a local one in fab_attend(), on its bell.
 * One behind a link is told by fabricd, which looks at slots in the timer ring. */
static void tell_worker(struct local *l, uint32_t slot, uint64_t w)
{
    if (slot_owner(w) >= l->seg->participants)
        return;
    struct seg_participant *p = &l->seg->participant[slot_owner(w)];
    if (at_load_rlx(&p->bell_kind) == BELL_DAEMON) { /* written before the participant was LIVE */
        terms_note(l->seg, &l->out, slot);
        return;
    }
    at_add(&p->bell_seq, 1);
    CRASH_POINT("cancel.rung");
    futex_wake(&p->bell_seq, 1);
}

static int cancel(struct local *l, fab_id id, bool running)
{
    uint32_t slot = (uint32_t)id, epoch = (uint32_t)(id >> 32), pos;
    bool marked = false;
    if (!outstanding_find(&l->tasks, id, &pos))
        return err_set(-ENOENT, "no such task is outstanding");
    struct seg_slot *sl = &l->seg->slot[slot];
    for (;;) {
        uint64_t w = at_load(&sl->state); /* M2 behind a mark */
        uint32_t st = slot_epoch(w) == epoch ? slot_state(w) : SLOT_FREE;
        if (st == SLOT_READY || st == SLOT_DELAYED) {
            /* Anybody's: the CAS decides between the claimer and us. The hint in the ring becomes
             * stale. */
            if (!at_cas(&sl->state, &w,
                        slot_word(epoch, l->me, slot_attempt(w), SLOT_CANCELLED)))
                continue;
            CRASH_POINT("cancel.done");
            if (meta_flags(at_load_rlx(&sl->meta)) & META_TERMS) /* ours */
                dedup_never_started(l->seg, terms_of(l->seg, slot)->dedup, slot, w);
            count_cancelled(l, meta_queue(at_load_rlx(&sl->meta))); /* ours */
            return 0;
        }
        if (st != SLOT_LEASED)
            return marked ? 0 : err_set(-EBUSY, "the task is done");
        if (!running)
            return err_set(-EBUSY, "the task has been started");
        if (marked) {
            tell_worker(l, slot, w);
            return 0;
        }
        at_or(&sl->meta, (uint64_t)META_CANCEL << 16); /* M1 */
        CRASH_POINT("cancel.marked");
        marked = true;
    }
}

int local_cancel(fab_t *f, fab_id id)
{
    return cancel((struct local *)f, id, true);
}

int local_withdraw(fab_t *f, fab_id id)
{
    return cancel((struct local *)f, id, false);
}

/* ---- the worker ---- */

int local_cancelled(fab_t *f, const struct fab_lease *lease)
{
    const struct local *l = (const struct local *)f;
    if (lease->ref[0] >= l->seg->slots)
        return 0;
    const struct seg_slot *sl = &l->seg->slot[lease->ref[0]];
    /* relaxed: it is asked again and again; the end of the lease is a CAS, which tells for sure */
    return at_load_rlx(&sl->state) != lease->ref[1] ||
           (meta_flags(at_load_rlx(&sl->meta)) & META_CANCEL) != 0;
}

int lease_check(struct local *l, const struct fab_lease *lease)
{
    uint64_t w = lease->ref[1];
    if (lease->ref[0] >= l->seg->slots || slot_state(w) != SLOT_LEASED || slot_owner(w) != l->me)
        return err_set(-EINVAL, "not a lease of this handle");
    /* relaxed: a first look; the CAS that ends the lease decides */
    return at_load_rlx(&l->seg->slot[lease->ref[0]].state) == w ? 0 : lease_lost(l, lease);
}

/* The lease w of a task that nobody waits for ends so. */
static bool free_or_bury(struct local *l, uint32_t slot, uint64_t w, enum slot_state as)
{
    if (as == SLOT_DEAD || as == SLOT_OVERRUN) {
        if (as == SLOT_OVERRUN) /* an attempt before may have left an error's length */
            l->seg->slot[slot].res_len = 0;
        if (dead_bury(l->seg, slot, w, l->me, as == SLOT_DEAD ? DEAD_CRASHED : DEAD_OVERRUN))
            return true;
    }
    return lease_free(l, slot, w);
}

/* from -> done, an outcome; w is the lease that we have, or had until we wrote `from`. */
static bool publish(struct local *l, uint32_t slot, uint64_t from, uint64_t done, uint64_t w)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t expect = from;
    uint32_t producer = slot_owner(done);
    /* seq_cst: W1 of wake.h */
    if (!at_cas(&sl->state, &expect, done))
        return false;
    CRASH_POINT("lease.ended");
    /* as in finish() of claim.c: the undertaker or we free what has lost its producer meanwhile */
    if (meta_flags(at_load(&sl->meta)) & META_ORPHAN) {
        expect = done;
        if (at_cas(&sl->state, &expect, w)) {
            CRASH_POINT("lease.orphan");
            if (!free_or_bury(l, slot, w, slot_state(done)))
                lease_overrun(l, slot, slot_epoch(w)); /* its limit ended the lease once more */
        }
    } else if (producer < l->seg->participants) {
        bell_ring(l->seg, &l->seg->participant[producer], &l->out);
    }
    return true;
}

bool lease_end(struct local *l, uint32_t slot, uint64_t w, enum slot_state as)
{
    uint64_t meta = at_load_rlx(&l->seg->slot[slot].meta); /* the task is ours */
    if (meta_flags(meta) & (META_NO_WAIT | META_ORPHAN))
        return free_or_bury(l, slot, w, as);
    if (as == SLOT_DEAD) /* for the time after it is taken */
        dead_note(l->seg, slot, w, l->me, DEAD_CRASHED);
    return publish(l, slot, w, slot_word(slot_epoch(w), meta_producer(meta), slot_attempt(w), as), w);
}

int lease_back(struct local *l, uint32_t slot, uint64_t w, enum slot_state as)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t meta = at_load_rlx(&sl->meta); /* the task is ours; R2 looks again */
    uint32_t q = meta_queue(meta), pr = meta_priority(meta), producer = meta_producer(meta);
    uint64_t expect = w, back = slot_word(slot_epoch(w), producer, slot_attempt(w), as);
    if (q >= l->seg->queues || pr >= SEG_PRIORITIES)
        return err_set(-EPROTO, "the task's slot is damaged");
    if (meta_flags(meta) & META_CANCEL) {
        if (!lease_end(l, slot, w, SLOT_CANCELLED))
            return -ESTALE;
        count_cancelled(l, q);
        return 1;
    }
    if (!at_cas(&sl->state, &expect, back)) /* R1 */
        return -ESTALE;
    CRASH_POINT("release.ready");
    if ((meta_flags(at_load(&sl->meta)) & META_CANCEL) && /* R2 */
        publish(l, slot, back, slot_word(slot_epoch(w), producer, slot_attempt(w), SLOT_CANCELLED),
                w)) {
        count_cancelled(l, q);
        return 1;
    }
    if (as == SLOT_READY) {
        if (!ring_put(l->seg, segment_ready_ring(l->seg, q, pr), slot))
            at_store(&l->seg->head->audit_wanted,
                     1); /* READY without an entry: fabricd's audit puts it in */
        CRASH_POINT("release.put");
        queue_wake(l->seg, &l->seg->queue[q], &l->out, 1);
    }
    if (meta_flags(meta) & META_TERMS)
        terms_note(l->seg, &l->out, slot); /* it may expire, or has to wait */
    return 0;
}

int lease_cancel(struct local *l, const struct fab_lease *lease)
{
    uint32_t slot = (uint32_t)lease->ref[0];
    if (!lease_end(l, slot, lease->ref[1], SLOT_CANCELLED))
        return lease_lost(l, lease);
    count_cancelled(l, lease->queue);
    return 0;
}

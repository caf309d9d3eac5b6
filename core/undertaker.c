/* SPDX-License-Identifier: MIT
 *
 * undertaker.c - recovery after a death, in this order, each step relying on those before:
 *
 *   1  mark the entry DEAD
 *   2  mark its tasks as orphans (META_ORPHAN), so that workers free them when they complete
 *   3  blocks it held or had attached without publishing them
 *   4  keys: what its unfinished submits had entered (dedup.h), while their slots still tell
 *   5  its slots: FILLING -> FREE; LEASED -> READY, attempt kept (the next claim counts it up), or
 *      DEAD, or BURIED (dead.h) when nobody waits; outcomes nobody can take any more -> FREE, but
 *      DEAD -> BURIED
 *   6  holes it may have left in rings: all unpublished positions (a live producer takes another)
 *   7  the audit: READY and FREE slots that stand in no ring are put in again; dead letters are
 *      counted
 *   8  wake sleepers: one that it was woken for may sleep on
 *   9  free the entry
 *
 * Of a participant that is kept (FATE_KEEP_*) steps 1, 2 and the outcomes of 4 are left out, and 8
 * makes its entry KEPT. Cut off before that, it is LIVE by its word with nobody behind it, as
 * before.
 *
 * Cost: a scan of the slots (64 bytes each) and of the rings between head and tail.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/arena.h"
#include "core/crashpoint.h"
#include "core/dead.h"
#include "core/dedup.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/room.h"
#include "core/slot.h"
#include "core/terms.h"
#include "core/undertaker.h"

#define NO_LEASE UINT32_MAX
#define SEVERAL  (UINT32_MAX - 1)

struct job {
    const struct segment *s;
    const struct wake_out *out;
    uint32_t me;
    const uint8_t *fate; /* enum fate of each participant; NULL: nobody has one */
    uint32_t *lease; /* the one lease found so far of each that crashed, or NO_LEASE or SEVERAL */
    struct undertaker_report *report;
};

static enum fate fate_of(const struct job *j, uint32_t participant)
{
    return j->fate && participant < j->s->participants ? (enum fate)j->fate[participant]
                                                       : FATE_NONE;
}

static bool keeps(enum fate f)
{
    return f == FATE_KEEP_LEFT || f == FATE_KEEP_CRASHED;
}

static bool crashed_by(enum fate f)
{
    return f == FATE_CRASHED || f == FATE_KEEP_CRASHED;
}

/* ---- blocks ---- */

/* An outcome that a living producer with a client id has taken and still reads: take() of outcome.c. */
static bool is_being_read(const struct job *j, uint32_t slot, uint64_t w)
{
    uint32_t owner = slot_owner(w);
    return slot_state(w) == SLOT_ZOMBIE && fate_of(j, owner) == FATE_NONE &&
           owner == meta_producer(at_load(&j->s->slot[slot].meta));
}

/* A block owned by the dead is kept when a task still needs it: an argument of a task that goes on,
 * a published result. */
static bool block_needed(const struct job *j, uint64_t w)
{
    if (block_state(w) == BLOCK_HELD || block_slot(w) >= j->s->slots)
        return false;
    uint64_t sw = at_load(&j->s->slot[block_slot(w)].state);
    if ((slot_epoch(sw) & 0xfffff) != block_epoch(w))
        return false;
    uint32_t st = slot_state(sw);
    if (block_state(w) == BLOCK_ARG)
        return st >= SLOT_ZOMBIE && st < SLOT_STATES;
    return slot_is_outcome(sw) || st == SLOT_BURIED || is_being_read(j, block_slot(w), sw);
}

static void recover_blocks(const struct job *j)
{
    /* of free chunks, too: a death while one was being reclaimed leaves its blocks held */
    for (uint32_t u = 0; u < j->s->chunks * ARENA_CHUNK_BLOCKS; u++) {
        uint64_t w = at_load(&j->s->block_word[u]);
        if (block_state(w) == BLOCK_FREE || fate_of(j, block_owner(w)) == FATE_NONE ||
            block_needed(j, w))
            continue;
        arena_reap(j->s, j->me, u, w);
        CRASH_POINT("undertaker.block");
        j->report->blocks++;
    }
    for (uint32_t i = 0; i < j->s->participants; i++)
        if (j->fate[i] != FATE_NONE)
            arena_reap_chunks(j->s, i);
}

/* ---- slots ---- */

static void free_blocks_of(const struct job *j, uint32_t slot, uint64_t w)
{
    const struct seg_slot *sl = &j->s->slot[slot];
    if (slot_arg_place(sl->arg_len) == PLACE_BLOCK)
        arena_free(j->s, NULL, j->me, sl->arg, slot, slot_epoch(w));
    if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
        arena_free(j->s, NULL, j->me, sl->res, slot, slot_epoch(w));
}

static void requeue(const struct job *j, uint32_t slot, uint64_t meta)
{
    uint32_t q = meta_queue(meta), pr = meta_priority(meta);
    if (q >= j->s->queues || pr >= SEG_PRIORITIES)
        return; /* damaged: nobody could claim it */
    if (ring_put(j->s, segment_ready_ring(j->s, q, pr), slot))
        queue_wake(j->s, &j->s->queue[q], j->out, 1);
    else
        at_store(&j->s->head->audit_wanted, 1);
}

/* The result of a task whose workers died too often: a sentence in place of a result. */
static void put_dead_text(const struct job *j, uint32_t slot, uint32_t crashes)
{
    struct seg_slot *sl = &j->s->slot[slot];
    char text[64] = {0};
    int len = snprintf(text, sizeof text, "its worker died %u times while running it", crashes);
    if (slot_arg_place(sl->arg_len) == PLACE_WIDE ||
        (sl->arg_len & ARG_TERMS)) { /* the wide is taken; 8 bytes are always there */
        memcpy(&sl->res, "crashed", 8);
        sl->res_len = 7;
        return;
    }
    memcpy(j->s->wide[slot].bytes, text, sizeof text);
    sl->res_len = (uint32_t)len;
}

/* A task that waits, with word w, whose producer had set the mark while it was being run: R2 of
 * cancel.c. */
static bool end_if_cancelled(const struct job *j, uint32_t slot, uint64_t w)
{
    /* one that nobody waits for is freed by its claimer */
    if ((meta_flags(at_load(&j->s->slot[slot].meta)) & (META_CANCEL | META_NO_WAIT | META_ORPHAN)) !=
            META_CANCEL ||
        !undertaker_end(j->s, j->out, j->me, slot, w, SLOT_CANCELLED))
        return false;
    j->report->cancelled++;
    return true;
}

/* Counts a crash against the task, once an attempt, should we be cut off and come here again. Of
 * several leases nobody knows which one its worker died of: the first time none is charged, and from
 * then on each is claimed alone (claim.c). One of a worker that holds several all the same is
 * charged with the rest of them, so that there is an end to it. The lease is ours while the dead
 * holds it. */
static uint32_t charge(struct seg_slot *sl, uint32_t attempt, bool alone)
{
    uint64_t meta = at_load(&sl->meta), m;
    do {
        if (meta_counted(meta) == (attempt & 0xff))
            break;
        m = alone || meta_flags(meta) & META_SUSPECT ? meta_count_crash(meta, attempt)
                                                     : meta_spare_crash(meta, attempt);
    } while (!at_cas(&sl->meta, &meta, m | (uint64_t)META_SUSPECT << 16)); /* its producer's mark */
    CRASH_POINT("undertaker.counted");
    return meta_crashes(at_load(&sl->meta));
}

static void recover_lease(const struct job *j, uint32_t slot, uint64_t w, bool alone)
{
    struct seg_slot *sl = &j->s->slot[slot];
    uint64_t meta = at_load(&sl->meta);
    uint32_t producer = meta_producer(meta), crashes = meta_crashes(meta);
    if (crashed_by(fate_of(j, slot_owner(w))))
        crashes = charge(sl, slot_attempt(w), alone);
    struct seg_terms *terms = sl->arg_len & ARG_TERMS ? terms_of(j->s, slot) : NULL;
    uint32_t budget = terms && terms->crashes ? terms->crashes : SLOT_CRASH_BUDGET;
    enum slot_state as = SLOT_READY;
    if (meta_flags(meta) & META_CANCEL) {
        j->report->cancelled += undertaker_end(j->s, j->out, j->me, slot, w, SLOT_CANCELLED);
        return;
    }
    if (crashes >= budget) {
        put_dead_text(j, slot, crashes);
        CRASH_POINT("undertaker.dead_text");
        if (meta_flags(meta) & (META_NO_WAIT | META_ORPHAN)) {
            if (!dead_bury(j->s, slot, w, slot_owner(w), DEAD_CRASHED)) {
                free_blocks_of(j, slot, w);
                (void)slot_to_free(j->s, slot, w);
            }
        } else {
            dead_note(j->s, slot, w, slot_owner(w), DEAD_CRASHED); /* for the time after it is taken */
            if (at_cas(&sl->state, &w,
                       slot_word(slot_epoch(w), producer, slot_attempt(w), SLOT_DEAD)) &&
                producer < j->s->participants)
                bell_ring(j->s, &j->s->participant[producer], j->out);
        }
        j->report->dead++;
        return;
    }
    if (terms && terms->backoff_ns) {
        terms->not_before_ns = terms_pause_end(terms, crashes);
        as = SLOT_DELAYED;
    }
    if (at_cas(&sl->state, &w, slot_word(slot_epoch(w), producer, slot_attempt(w), as))) {
        j->report->leases++;
        CRASH_POINT("undertaker.returned");
        if (end_if_cancelled(j, slot, slot_word(slot_epoch(w), producer, slot_attempt(w), as)))
            return;
        if (as == SLOT_READY)
            requeue(j, slot, meta);
        if (terms)
            terms_note(j->s, j->out, slot);
    }
}

/* The first one that is found of a crash waits until it is known whether there are more. */
static void recover_leases(const struct job *j, uint32_t slot, uint64_t w)
{
    if (!crashed_by(fate_of(j, slot_owner(w)))) {
        recover_lease(j, slot, w, true);
        return;
    }
    uint32_t *first = &j->lease[slot_owner(w)], had = *first;
    *first = had == NO_LEASE ? slot : SEVERAL;
    if (had == NO_LEASE)
        return;
    if (had != SEVERAL)
        recover_lease(j, had, at_load(&j->s->slot[had].state), false);
    recover_lease(j, slot, w, false);
}

static void recover_lone_leases(const struct job *j)
{
    for (uint32_t i = 0; i < j->s->participants; i++)
        if (j->lease[i] < j->s->slots)
            recover_lease(j, j->lease[i], at_load(&j->s->slot[j->lease[i]].state), true);
}

static void recover_own(const struct job *j, uint32_t slot, uint64_t w)
{
    uint32_t producer = meta_producer(at_load(&j->s->slot[slot].meta));
    uint32_t dead = slot_owner(w);
    if (slot_state(w) == SLOT_OVERRUN) {
        /* its late worker won't write any more: the slot is the producer's alone */
        if (dead == producer ||
            at_cas(&j->s->slot[slot].state, &w,
                   slot_word(slot_epoch(w), producer, slot_attempt(w), SLOT_OVERRUN)))
            return;
        /* its producer has taken the outcome in between, and left the slot to the dead */
        if (slot_state(w) != SLOT_ZOMBIE || slot_owner(w) != dead)
            return;
    }
    if (slot_state(w) == SLOT_BURIED) {
        dead_let_go(j->s, slot, w);
    } else if (slot_state(w) == SLOT_ZOMBIE &&
               dead_bury_zombie(j->s, NULL, j->me, slot, w, slot_owner(w))) {
        j->report->dead++;
    } else if (slot_state(w) == SLOT_FILLING || slot_state(w) == SLOT_ZOMBIE) {
        /* A worker that died while it freed a task nobody waits for: the argument is the
         * producer's, who may live. What is not attached to this slot and epoch stays. */
        free_blocks_of(j, slot, w);
        CRASH_POINT("undertaker.filling");
        if (slot_to_free(j->s, slot, w))
            j->report->filling++;
    } else if (slot_state(w) == SLOT_LEASED) {
        recover_leases(j, slot, w);
    }
}

/* A task whose producer is gone, with its meta word. Its mark comes first: a worker that completes
 * it looks at the mark after it has changed the state, we look at the state after the mark. */
static void orphan(const struct job *j, uint32_t slot, uint64_t meta)
{
    struct seg_slot *sl = &j->s->slot[slot];
    uint64_t w = at_load(&sl->state);
    if (slot_state(w) < SLOT_READY || slot_state(w) >= SLOT_STATES || slot_state(w) == SLOT_BURIED)
        return;
    /* Not a task that a living producer has filled in since our look at the meta word. */
    uint32_t producer = meta_producer(meta), epoch = slot_epoch(w);
    while (!at_cas(&sl->meta, &meta, meta | (uint64_t)META_ORPHAN << 16))
        if (meta_producer(meta) != producer)
            return;
    CRASH_POINT("undertaker.orphan");
    w = at_load(&sl->state);
    if (slot_epoch(w) != epoch)
        return; /* its worker has freed it, and the slot has somebody else's task now */
    if (slot_state(w) == SLOT_OVERRUN && slot_owner(w) != producer &&
        at_cas(&sl->state, &w,
               slot_word(slot_epoch(w), slot_owner(w), slot_attempt(w), SLOT_ZOMBIE)))
        return; /* its late worker's, until that notices */
    if (slot_state(w) == SLOT_DEAD && dead_bury(j->s, slot, w, NOBODY, DEAD_NOTED)) {
        j->report->outcomes++;
    } else if (slot_is_outcome(w)) {
        /* Its worker may have seen the mark, too: who takes it out of its state frees it. A death
         * of ours leaves it FILLING and fabricd's, for the next one to free. */
        uint64_t taken = slot_word(slot_epoch(w), j->me, 0, SLOT_FILLING);
        if (!at_cas(&sl->state, &w, taken))
            return;
        free_blocks_of(j, slot, taken);
        CRASH_POINT("undertaker.outcome");
        if (slot_to_free(j->s, slot, taken))
            j->report->outcomes++;
    } else {
        j->report->orphans++;
    }
}

static void recover_slots(const struct job *j)
{
    for (uint32_t i = 0; i < j->s->slots; i++) {
        struct seg_slot *sl = &j->s->slot[i];
        uint64_t w = at_load(&sl->state);
        if (slot_state(w) == SLOT_FREE)
            continue;
        if (fate_of(j, slot_owner(w)) != FATE_NONE &&
            (slot_state(w) <= SLOT_LEASED || slot_state(w) == SLOT_OVERRUN ||
             slot_state(w) == SLOT_BURIED))
            recover_own(j, i, w);
        uint64_t meta = at_load(&sl->meta);
        enum fate producers = fate_of(j, meta_producer(meta));
        /* or an outcome that a worker has published between the mark and its own death */
        if ((producers != FATE_NONE && !keeps(producers)) ||
            (slot_is_outcome(w) && (meta_flags(meta) & META_ORPHAN)))
            orphan(j, i, meta);
    }
    recover_lone_leases(j);
}

/* ---- rings ---- */

struct seen {
    uint64_t *bits;
    const struct segment *s;
    uint32_t queue, priority; /* of the ring that is being looked at */
};

static void mark(void *arg, uint32_t slot)
{
    struct seen *seen = arg;
    seen->bits[slot / 64] |= 1ull << (slot % 64);
}

/* A stale entry in another queue's ring does not lead to the task. */
static void mark_own(void *arg, uint32_t slot)
{
    const struct seen *seen = arg;
    uint64_t meta = at_load(&seen->s->slot[slot].meta);
    if (meta_queue(meta) == seen->queue && meta_priority(meta) == seen->priority)
        mark(arg, slot);
}

static bool in_bits(const struct seen *seen, uint32_t slot)
{
    return seen->bits[slot / 64] >> (slot % 64) & 1;
}

static void scan_rings(const struct segment *s, struct seen *ready, struct seen *freed)
{
    memset(ready->bits, 0, s->slots / 8);
    memset(freed->bits, 0, s->slots / 8);
    for (uint32_t q = 0; q < s->queues; q++)
        for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++) {
            ready->queue = q;
            ready->priority = pr;
            ring_scan(s, segment_ready_ring(s, q, pr), mark_own, ready);
        }
    ring_scan(s, s->free_ring, mark, freed);
}

/* READY or FREE by its word w, and in no ring by the last scan. */
static bool is_missing(const struct seen *ready, const struct seen *freed, uint32_t slot,
                       uint64_t w)
{
    return (slot_state(w) == SLOT_READY && !in_bits(ready, slot)) ||
           (slot_state(w) == SLOT_FREE && !in_bits(freed, slot));
}

/* The rings are looked at twice. A living producer's slots become READY after the first look by the
 * thousand; they were put into the ring before the second. Put in again, they would fill it with
 * entries that nobody takes out while no worker is there. */
void undertaker_audit(const struct segment *s, const struct wake_out *out,
                      struct undertaker_report *report)
{
    struct job j = {.s = s, .out = out, .report = report};
    struct seen ready = {.bits = calloc(s->slots / 64, 8), .s = s},
                freed = {.bits = calloc(s->slots / 64, 8)},
                missing = {.bits = calloc(s->slots / 64, 8)};
    bool any = false, renew = false;
    if (!ready.bits || !freed.bits || !missing.bits) {
        at_store(&s->head->audit_wanted, 1); /* no memory now: again in a second */
        goto out;
    }
    scan_rings(s, &ready, &freed);
    uint32_t letters = at_load(&s->head->dead_letters), buried = 0;
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load(&s->slot[i].state);
        buried += slot_state(w) == SLOT_BURIED;
        /* who gave it back did not come to look at the mark */
        if ((slot_state(w) == SLOT_READY || slot_state(w) == SLOT_DELAYED) &&
            end_if_cancelled(&j, i, w))
            continue;
        /* The dead may not have come to tell the timers of it. */
        if (slot_state(w) == SLOT_DELAYED ||
            (slot_state(w) == SLOT_READY &&
             (meta_flags(at_load(&s->slot[i].meta)) & META_TERMS)))
            at_store(&s->head->scan_wanted, 1);
        if (is_missing(&ready, &freed, i, w)) {
            mark(&missing, i);
            any = true;
        }
    }
    dead_recount(s, letters, buried);
    if (any)
        scan_rings(s, &ready, &freed);
    for (uint32_t i = 0; any && i < s->slots; i++) {
        if (!in_bits(&missing, i))
            continue;
        uint64_t w = at_load(&s->slot[i].state);
        if (!is_missing(&ready, &freed, i, w))
            continue;
        report->requeued++;
        if (slot_state(w) == SLOT_FREE) {
            renew = renew || !ring_put(s, s->free_ring, i);
            continue;
        }
        requeue(&j, i, at_load(&s->slot[i].meta));
        CRASH_POINT("undertaker.audited");
    }
    if (renew)
        slot_renew_free_ring(s);
    at_add(&s->head->requeued_hints, report->requeued);
    room_made(s, NULL, ROOM_SLOTS);
out:
    free(ready.bits);
    free(freed.bits);
    free(missing.bits);
}

/* The dead may have taken a sleeper's mark and not woken it, or been woken in another's place: the
 * marks say nothing now. */
static void wake_everybody(const struct segment *s, const struct wake_out *out)
{
    for (uint32_t q = 0; q < s->queues; q++)
        queue_wake_all(&s->queue[q]);
    for (uint32_t i = 0; i < s->participants; i++) {
        struct seg_participant *p = &s->participant[i];
        if (participant_life(at_load(&p->life)) != LIFE_LIVE || p->remote)
            continue;
        at_add(&p->bell_seq, 1);
        futex_wake(&p->bell_seq, 1);
    }
    room_wake_all(s, out);
}

bool undertaker_end(const struct segment *s, const struct wake_out *out, uint32_t me, uint32_t slot,
                    uint64_t w, enum slot_state as)
{
    struct undertaker_report report = {0};
    struct job j = {.s = s, .out = out, .me = me, .report = &report};
    uint64_t meta = at_load(&s->slot[slot].meta);
    uint32_t producer = meta_producer(meta), owner = as == SLOT_OVERRUN ? slot_owner(w) : producer;
    bool wanted = !(meta_flags(meta) & (META_NO_WAIT | META_ORPHAN));
    if (!wanted)
        as = as == SLOT_OVERRUN ? SLOT_ZOMBIE : SLOT_FILLING;
    if (as == SLOT_FILLING)
        owner = me;
    /* Its time is over: nobody will start it any more, so the key goes first. */
    if ((meta_flags(meta) & META_TERMS) && slot_state(w) != SLOT_LEASED)
        dedup_never_started(s, terms_of(s, slot)->dedup, slot, w);
    if (!at_cas(&s->slot[slot].state, &w, slot_word(slot_epoch(w), owner, slot_attempt(w), as)))
        return false;
    if (as == SLOT_FILLING)
        recover_own(&j, slot, slot_word(slot_epoch(w), me, slot_attempt(w), SLOT_FILLING));
    else if (wanted && producer < s->participants)
        bell_ring(s, &s->participant[producer], out);
    return true;
}

void undertaker_stray(const struct segment *s, const struct wake_out *out, uint32_t me,
                      uint32_t slot, uint64_t w)
{
    struct undertaker_report report = {0};
    struct job j = {.s = s, .out = out, .me = me, .report = &report};
    if (slot_state(w) == SLOT_FILLING || slot_state(w) == SLOT_LEASED ||
        slot_state(w) == SLOT_ZOMBIE || slot_state(w) == SLOT_BURIED)
        recover_own(&j, slot, w);
    else
        orphan(&j, slot, at_load(&s->slot[slot].meta));
}

void undertaker_recover_many(const struct segment *s, const struct wake_out *out, uint32_t me,
                             const uint8_t *fate, struct undertaker_report *report)
{
    uint32_t lease[SEG_PARTICIPANTS_MAX], crashed = 0;
    struct job j = {
        .s = s, .out = out, .me = me, .fate = fate, .lease = lease, .report = report};
    memset(lease, 0xff, s->participants * sizeof *lease); /* NO_LEASE */
    memset(report, 0, sizeof *report);
    for (uint32_t i = 0; i < s->participants; i++)
        if (fate[i] != FATE_NONE && !keeps((enum fate)fate[i]))
            participant_dead(s, i);
    CRASH_POINT("undertaker.marked");
    recover_blocks(&j);
    CRASH_POINT("undertaker.blocks");
    (void)dedup_settle(s, fate);
    CRASH_POINT("undertaker.keys");
    recover_slots(&j);
    CRASH_POINT("undertaker.slots");
    for (uint32_t q = 0; q < s->queues; q++)
        for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
            report->holes += ring_close_holes(s, segment_ready_ring(s, q, pr));
    report->holes += ring_close_holes(s, s->free_ring);
    report->holes += ring_close_holes(s, s->timer_ring);
    CRASH_POINT("undertaker.holes");
    undertaker_audit(s, out, report);
    CRASH_POINT("undertaker.audit");
    wake_everybody(s, out);
    for (uint32_t i = 0; i < s->participants; i++) {
        if (fate[i] == FATE_NONE)
            continue;
        crashed += crashed_by((enum fate)fate[i]);
        if (keeps((enum fate)fate[i]))
            participant_keep(s, i);
        else
            participant_remove(s, i);
    }
    at_add(&s->head->recovered_leases, report->leases);
    at_add(&s->head->dead_participants, crashed);
}

void undertaker_recover(const struct segment *s, const struct wake_out *out, uint32_t me,
                        uint32_t dead, bool crashed, struct undertaker_report *report)
{
    uint8_t fate[SEG_PARTICIPANTS_MAX];
    memset(fate, FATE_NONE, s->participants);
    fate[dead] = crashed ? FATE_CRASHED : FATE_LEFT;
    undertaker_recover_many(s, out, me, fate, report);
}

void undertaker_keep(const struct segment *s, const struct wake_out *out, uint32_t me,
                     uint32_t dead, bool crashed, uint64_t until_ns,
                     struct undertaker_report *report)
{
    uint8_t fate[SEG_PARTICIPANTS_MAX];
    memset(fate, FATE_NONE, s->participants);
    fate[dead] = crashed ? FATE_KEEP_CRASHED : FATE_KEEP_LEFT;
    at_store(&s->participant[dead].identity.keep_until_ns, until_ns);
    undertaker_recover_many(s, out, me, fate, report);
}

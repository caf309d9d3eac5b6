/* SPDX-License-Identifier: MIT
 *
 * complete.c - the worker's side of a local handle, second half: the ends of a lease - complete,
 * fail, release.
 *
 * A completion writes the result into the task's slot and makes it DONE by one CAS; the producer
 * watches the slot itself.
 *
 * Threads: the handle's. Failure: a death before that CAS leaves a LEASED slot, which the
 * undertaker gives to another worker; a lease that was taken away meanwhile ends as -ESTALE, and
 * what was written is let go.
 */
#include <errno.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/dead.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/participant.h"
#include "core/stages.h"
#include "core/terms.h"

static void bump(_Atomic uint64_t *c, uint64_t n)
{
    at_store_rlx(c, at_load_rlx(c) + n); /* our own counter, read by status alone */
}

/* Frees a task whose lease we hold (word w) with everything attached to it. The lease goes first: a
 * death in between must not bring back a task whose argument is gone. The FILLING slot that it
 * leaves instead is freed by the undertaker, with its blocks. */
bool lease_free(struct local *l, uint32_t slot, uint64_t w)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint32_t epoch = slot_epoch(w);
    if (!at_cas(&sl->state, &w, slot_word(epoch, l->me, 0, SLOT_FILLING)))
        return false;
    CRASH_POINT("complete.unwanted");
    if (slot_arg_place(sl->arg_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->arg, slot, epoch);
    if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->res, slot, epoch);
    CRASH_POINT("complete.freed");
    /* release: what we read of the task stays before it; ours, nobody else changes it */
    at_store_rel(&sl->state, slot_word(slot_epoch_after(epoch), l->me, 0, SLOT_FILLING));
    slot_give(l->seg, &l->stock, l->me, slot_id(slot, epoch));
    return true;
}

/* Our lease of {slot, epoch} was ended because it took too long. That we know it now frees the slot
 * for others: see slot.h. */
void lease_overrun(struct local *l, uint32_t slot, uint32_t epoch)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint64_t w = at_load(&sl->state);
    uint32_t producer = meta_producer(at_load_rlx(&sl->meta)); /* the slot's task is still ours */
    if (slot_state(w) == SLOT_OVERRUN && slot_owner(w) == l->me && slot_epoch(w) == epoch &&
        at_cas(&sl->state, &w, slot_word(epoch, producer, slot_attempt(w), SLOT_OVERRUN)))
        return;
    /* or the producer has taken the outcome meanwhile */
    if (slot_state(w) == SLOT_ZOMBIE && slot_owner(w) == l->me && slot_epoch(w) == epoch &&
        !dead_bury_zombie(l->seg, &l->out, l->me, slot, w, l->me))
        (void)lease_free(l, slot, w);
}

int lease_lost(struct local *l, const struct fab_lease *lease)
{
    lease_overrun(l, (uint32_t)lease->ref[0], slot_epoch(lease->ref[1]));
    at_add_rlx(&l->seg->head->late_results, 1);
    return err_set(-ESTALE, "the lease is no longer held");
}

/* Puts result bytes where their length says; the slot is ours. */
int lease_put_result(struct local *l, uint32_t slot, uint64_t w, const void *res, uint32_t len)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    uint32_t unit, arg_len = sl->arg_len;
    int rc;
    switch (slot_res_place(arg_len, len)) {
    case PLACE_SLOT:
        if (len == 8)
            memcpy(&sl->res, res, 8); /* the common case, one move */
        else if (len)
            memcpy(&sl->res, res, len);
        break;
    case PLACE_WIDE:
        memcpy(l->seg->wide[slot].bytes, res, len);
        break;
    case PLACE_BLOCK:
        if (l->given && l->given == res) {
            unit = (uint32_t)(((uintptr_t)l->given - (uintptr_t)l->seg->arena) / ARENA_BLOCK_MIN);
            l->given = NULL;
        } else {
            rc = arena_alloc(l->seg, &l->arena, l->me, len, &unit);
            if (rc < 0)
                return rc;
            memcpy(l->seg->arena + (uint64_t)unit * ARENA_BLOCK_MIN, res, len);
        }
        arena_attach(l->seg, unit, BLOCK_RES, l->me, slot, slot_epoch(w));
        sl->res = unit;
        break;
    }
    sl->res_len = len;
    return 0;
}

/* ---- where the time went ---- */

/* The task's own record, before the outcome is published. A task of a batch starts when the one
 * before it ended. */
static inline void put_times(struct local *l, uint64_t slot, uint64_t w, uint64_t claimed,
                             uint64_t now)
{
    struct seg_times *t = &l->seg->times[slot];
    t->claimed = claimed;
    t->started = l->free_at > claimed ? l->free_at : claimed;
    t->finished = now;
    t->lease = w;
    l->finished_at = now;
    l->free_at = now & l->follow_mask;
}

/* Adds a finished task to this worker's histograms. Stands behind the publication of the outcome,
 * off the path of whoever waits for it. gap: ticks since the task before. */
static void measure(struct local *l, const struct seg_times *t, uint64_t stamp, uint64_t gap)
{
    uint32_t n = span_weight(&l->finished, 1, gap);
    span_add(l, SPAN_WAIT, span_between(stamp, t->claimed), n);
    span_add(l, SPAN_HELD, span_between(t->claimed, t->started), n);
    span_add(l, SPAN_RUN, span_between(t->started, t->finished), n);
    span_add(l, SPAN_TOTAL, span_between(stamp, t->finished), n);
}

/* ---- ends ---- */

/* After an error: another attempt, now or after a pause, if the terms allow one. */
static bool try_again(struct local *l, uint32_t slot, uint64_t w, uint64_t meta)
{
    struct seg_slot *sl = &l->seg->slot[slot];
    struct seg_terms *t = terms_of(l->seg, slot);
    uint32_t q = meta_queue(meta), pr = meta_priority(meta);
    if (t->failures >= t->retries || q >= l->seg->queues || pr >= SEG_PRIORITIES)
        return false;
    if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
        arena_free(l->seg, &l->arena, l->me, sl->res, slot, slot_epoch(w));
    t->failures++;
    t->not_before_ns = terms_pause_end(t, t->failures);
    /* -ESTALE: the caller's CAS fails, too, and tells */
    return lease_back(l, slot, w, t->backoff_ns ? SLOT_DELAYED : SLOT_READY) >= 0;
}

/* The one end of a lease that has an outcome: LEASED(me) -> DONE or FAILED, or FREE when nobody
 * wants it. */
SELDOM static int finish(struct local *l, const struct fab_lease *lease, enum slot_state as,
                         const void *res, uint32_t len)
{
    uint64_t w = lease->ref[1], expect = w;
    if (lease->ref[0] >= l->seg->slots)
        return err_set(-EINVAL, "not a lease of this handle");
    uint32_t slot = (uint32_t)lease->ref[0];
    struct seg_slot *sl = &l->seg->slot[slot];
    /* relaxed: a first look; the CAS below decides */
    if (slot_state(w) != SLOT_LEASED || slot_owner(w) != l->me || at_load_rlx(&sl->state) != w) {
        return lease_lost(l, lease);
    }
    uint64_t meta = at_load_rlx(&sl->meta), stamp = sl->stamp, now = clock_ticks();
    uint32_t producer = meta_producer(meta);
    int rc = lease_put_result(l, slot, w, res, len);
    CRASH_POINT("complete.result");
    if (rc < 0)
        return rc;
    uint64_t gap = now - l->finished_at;
    put_times(l, slot, w, lease->ref[2], now);
    struct seg_times times =
        l->seg->times[slot]; /* once the outcome is out the next may write there */
    if (as == SLOT_FAILED && (sl->arg_len & ARG_TERMS) && try_again(l, slot, w, meta))
        goto counted;
    if (meta_flags(meta) & (META_NO_WAIT | META_ORPHAN)) {
        if (as == SLOT_FAILED && dead_bury(l->seg, slot, w, l->me, DEAD_FAILED))
            goto counted;
        if (!lease_free(l, slot, w))
            return lease_lost(l, lease);
        goto counted;
    }
    uint64_t done = slot_word(slot_epoch(w), producer, slot_attempt(w), as);
    /* seq_cst: releases the result's bytes to the producer, and W1 of wake.h */
    if (!at_cas(&sl->state, &expect, done)) {
        if (slot_res_place(sl->arg_len, len) == PLACE_BLOCK)
            arena_free(l->seg, &l->arena, l->me, sl->res, slot, slot_epoch(w));
        return lease_lost(l, lease);
    }
    CRASH_POINT("complete.done");
    /* The producer may have died meanwhile: the undertaker marks its tasks as orphans before it
     * looks at their states, we look at the mark after we changed the state; one of us frees it. */
    if (__builtin_expect((meta_flags(at_load(&sl->meta)) & META_ORPHAN) != 0, 0)) {
        (void)lease_free(
            l, slot, done); /* not by way of the lease: its time limit could end that once more */
    } else if (producer < l->seg->participants) {
        bell_ring(l->seg, &l->seg->participant[producer], &l->out);
    }
    l->hot = slot;
    l->hot_word = w;
    l->hot_meta = meta;
counted:
    bump(as == SLOT_DONE ? &l->self->counts[lease->queue % SEG_QUEUES_MAX].completed
                         : &l->self->counts[lease->queue % SEG_QUEUES_MAX].failed,
         1);
    if (span_due(&l->finished, 1, gap))
        measure(l, &times, stamp, gap);
    return 0;
}

/* What is seldom to be done after a completion: the producer is gone, or sleeps. */
SELDOM static int complete_rest(struct local *l, uint32_t slot, uint64_t done)
{
    if (meta_flags(at_load(&l->seg->slot[slot].meta)) & META_ORPHAN) /* as in finish() */
        (void)lease_free(l, slot, done);
    else
        bell_ring(l->seg, &l->seg->participant[meta_producer(l->hot_meta)], &l->out);
    return 0;
}

/* The common end stands here: a result of 8 bytes that somebody waits for. finish() does the
 * others, and those whose turn it is to be put into a histogram, and tells when the lease is not
 * held. No function is called on this way but as its end: what a call needs saved would be a tenth
 * of it. */
int local_complete(fab_t *f, const struct fab_lease *lease, const void *res, uint32_t len)
{
    struct local *l = (struct local *)f;
    const struct segment *s = l->seg;
    uint64_t slot = lease->ref[0], w = lease->ref[1], expect = w, now = clock_ticks();
    if (slot >= s->slots || len != 8 || ((uint32_t)w & ~SLOT_ATTEMPT_MASK) != l->lease_low ||
        span_turn(&l->finished, now - l->finished_at))
        return finish(l, lease, SLOT_DONE, res, len);
    struct seg_slot *sl = &s->slot[slot];
    uint64_t meta = at_load_rlx(&sl->meta);
    uint32_t producer = meta_producer(meta);
    /* relaxed: a first look; the CAS below decides */
    if (at_load_rlx(&sl->state) != w || meta_flags(meta) & (META_NO_WAIT | META_ORPHAN) ||
        producer >= s->participants)
        return finish(l, lease, SLOT_DONE, res, len);
    memcpy(&sl->res, res, 8);
    sl->res_len = 8;
    put_times(l, slot, w, lease->ref[2], now);
    uint64_t done =
        (w & (~0xffffffffull | SLOT_ATTEMPT_MASK)) | (uint64_t)(producer + 1) << 16 | SLOT_DONE;
    CRASH_POINT("complete.result");
    /* seq_cst: releases the result's bytes to the producer, and W1 of wake.h */
    if (!at_cas(&sl->state, &expect, done))
        return finish(l, lease, SLOT_DONE, res, len);
    CRASH_POINT("complete.done");
    l->hot = (uint32_t)slot;
    l->hot_word = w;
    l->hot_meta = meta;
    bump(&l->self->counts[meta_queue(meta) % SEG_QUEUES_MAX].completed, 1);
    l->finished.n++;
    /* seq_cst loads: finish() has why; W2 of wake.h */
    if ((meta_flags(at_load(&sl->meta)) & META_ORPHAN) |
        at_load(&s->participant[producer].bell_parked))
        return complete_rest(l, (uint32_t)slot, done);
    return 0;
}

/* ---- many at once ---- */

/* Results that are completed one after the other: of 8 bytes, for first attempts of one producer's tasks in
 * one queue that were claimed together. */
struct run {
    const struct fab_lease *lease;
    const struct fab_result *res;
    size_t n;
    uint64_t meta; /* the tasks', all the same */
    uint64_t now;
    /* The time of a batch is shared out evenly, since nobody has looked at the clock between its tasks: */
    uint64_t from, step;
    /* A link's tasks were run elsewhere, side by side: how long each, in ticks; UINT64_MAX: not known. Else NULL. */
    const uint64_t *ran;
};

/* now, from, step of all that is left. */
static void share_time(const struct local *l, struct run *run)
{
    uint64_t claimed = run->lease->ref[2];
    run->now = clock_ticks();
    run->from = l->free_at > claimed ? l->free_at : claimed;
    run->step = run->now > run->from ? (run->now - run->from) / run->n : 0;
}

static inline uint64_t began(uint64_t now, uint64_t ran)
{
    return ran <= now ? now - ran : 0; /* 0: as soon as it was claimed */
}

/* local_complete() for as long as the run goes. Returns how many; the next is something else. What does not
 * differ from task to task stands before the loop or behind it. ran: of run, or NULL as a constant. */
static inline __attribute__((always_inline)) size_t complete_run(const struct local *l, struct run *run,
                                                                 const uint64_t *ran)
{
    const struct segment *s = l->seg;
    struct seg_slot *const slots = s->slot;
    struct seg_times *const times = s->times;
    const uint64_t meta = run->meta, step = run->step, now = run->now, claimed = run->lease->ref[2];
    const uint32_t count = s->slots, low = l->lease_low | 1u << 8;
    /* what makes DONE of the word of such a lease, whose lower half is known */
    const uint64_t turn = low ^ ((meta_producer(meta) + 1) << 16 | 1u << 8 | SLOT_DONE);
    const struct fab_lease *lease = run->lease, *const end = lease + run->n;
    const struct fab_result *res = run->res;
    uint64_t at = run->from;
    for (; lease < end; lease++, res++) {
        uint64_t slot = lease->ref[0], w = lease->ref[1], expect = w;
        if (slot >= count || res->len != 8 || (uint32_t)w != low || lease->ref[2] != claimed)
            break;
        struct seg_slot *sl = &slots[slot];
        /* relaxed: a first look; the CAS below decides */
        if (at_load_rlx(&sl->state) != w || at_load_rlx(&sl->meta) != meta)
            break;
        memcpy(&sl->res, res->data, 8);
        sl->res_len = 8;
        struct seg_times *t = &times[slot];
        if (ran) {
            at = began(now, *ran++);
            at = at > claimed ? at : claimed;
        }
        t->claimed = claimed;
        t->started = at;
        at += step;
        t->finished = ran ? now : at;
        t->lease = w;
        CRASH_POINT("complete.result");
        /* seq_cst: releases the result's bytes to the producer, and W1 of wake.h */
        if (!at_cas(&sl->state, &expect, w ^ turn))
            break;
        CRASH_POINT("complete.done");
    }
    return (size_t)(lease - run->lease);
}

LOOP_OF_ITS_OWN static size_t complete_here(const struct local *l, struct run *run)
{
    return complete_run(l, run, NULL);
}

LOOP_OF_ITS_OWN static size_t complete_elsewhere(const struct local *l, struct run *run)
{
    return complete_run(l, run, run->ran);
}

/* The producer of a run has died: as in finish(), for those of its tasks that have the mark by now. */
SELDOM static void free_orphans(struct local *l, const struct run *run, size_t k)
{
    for (size_t i = 0; i < k; i++) {
        uint32_t slot = (uint32_t)run->lease[i].ref[0];
        uint64_t w = run->lease[i].ref[1];
        if (meta_flags(at_load(&l->seg->slot[slot].meta)) & META_ORPHAN)
            (void)lease_free(
                l, slot, slot_word(slot_epoch(w), meta_producer(run->meta), slot_attempt(w), SLOT_DONE));
    }
}

/* Puts one of a run's tasks into the histograms, each in turn. stamp: its own, from before it was out. */
static void measure_run(struct local *l, const struct run *run, size_t pick, uint64_t stamp, uint64_t gap)
{
    uint64_t claimed = run->lease[pick].ref[2], at = run->from + pick * run->step;
    if (run->ran)
        at = began(run->now, run->ran[pick]);
    struct seg_times t = {.claimed = claimed,
                          .started = at > claimed ? at : claimed,
                          .finished = run->ran ? run->now : at + run->step};
    measure(l, &t, stamp, gap);
}

/* The run that begins at the first of those that are left, as far as it goes. Returns its length: 0 when it
 * can't even begin. */
static size_t run_of(struct local *l, struct run *run)
{
    const struct segment *s = l->seg;
    const struct fab_lease *lease = run->lease;
    size_t pick = span_pick(&l->finished, run->n < UINT32_MAX ? (uint32_t)run->n : UINT32_MAX);
    if (lease->ref[0] >= s->slots || lease[pick].ref[0] >= s->slots)
        return 0;
    /* relaxed, read once: complete_run() compares each task's with it */
    run->meta = at_load_rlx(&s->slot[lease->ref[0]].meta);
    uint32_t producer = meta_producer(run->meta);
    if (meta_flags(run->meta) & (META_NO_WAIT | META_ORPHAN) || producer >= s->participants)
        return 0;
    struct seg_participant *p = &s->participant[producer];
    uint64_t life = at_load(&p->life);
    if (run->from < lease->ref[2])
        run->from = lease->ref[2];
    uint64_t gap = run->now - l->finished_at, stamp = s->slot[lease[pick].ref[0]].stamp;
    size_t k = run->ran ? complete_elsewhere(l, run) : complete_here(l, run);
    if (k == 0)
        return 0;
    l->finished_at = run->now;
    l->free_at = run->now & l->follow_mask;
    l->hot = (uint32_t)lease[k - 1].ref[0];
    l->hot_word = lease[k - 1].ref[1];
    l->hot_meta = run->meta;
    bump(&l->self->counts[meta_queue(run->meta) % SEG_QUEUES_MAX].completed, k);
    /* Instead of at each task's mark, as in finish(), we look whether their producer has lived all the while:
     * its life ends before the undertaker sets a mark, and he looks at the states behind that. */
    if (participant_life(life) != LIFE_LIVE || at_load(&p->life) != life)
        free_orphans(l, run, k);
    bell_ring(s, p, &l->out); /* W2 of wake.h, for all of them */
    if (span_due(&l->finished, (uint32_t)k, gap) && pick < k)
        measure_run(l, run, pick, stamp, gap);
    return k;
}

static inline void go_on(struct run *run, size_t k)
{
    run->lease += k;
    run->res += k;
    run->n -= k;
    run->from += k * run->step;
    if (run->ran)
        run->ran += k;
}

long local_complete_ran(struct local *l, const struct fab_lease *lease, const struct fab_result *res,
                        const uint64_t *ran, size_t n)
{
    struct run run = {.lease = lease, .res = res, .n = n, .ran = ran};
    if (n == 0)
        return 0;
    share_time(l, &run);
    while (run.n > 0) {
        size_t k = run_of(l, &run);
        go_on(&run, k);
        if (k > 0)
            continue;
        int rc = result_fits(run.res->len);
        if (ran)
            l->free_at = began(clock_ticks(), *run.ran);
        if (rc == 0)
            rc = local_complete(&l->base, run.lease, run.res->data, run.res->len);
        if (rc < 0 && rc != -ESTALE)
            return run.n < n ? (long)(n - run.n) : rc;
        go_on(&run, 1);
        if (run.n > 0)
            share_time(l, &run);
    }
    return (long)n;
}

long local_complete_many(fab_t *f, const struct fab_lease *lease, const struct fab_result *res, size_t n)
{
    return local_complete_ran((struct local *)f, lease, res, NULL, n);
}

int local_fail(fab_t *f, const struct fab_lease *lease, const char *message)
{
    struct local *l = (struct local *)f;
    size_t len = strnlen(message, 255);
    int rc = lease_check(l, lease);
    if (rc < 0)
        return rc;
    if (local_cancelled(f, lease))
        return lease_cancel(l, lease);
    rc = finish(l, lease, SLOT_FAILED, message, (uint32_t)len);
    if (rc == -ENOSPC || rc == -EMSGSIZE) /* no room for the sentence: the first word of it is
                                             better than no outcome */
        rc = finish(l, lease, SLOT_FAILED, message, len < 8 ? (uint32_t)len : 8);
    return rc;
}

int local_release(fab_t *f, const struct fab_lease *lease)
{
    struct local *l = (struct local *)f;
    int rc = lease_check(l, lease);
    if (rc < 0)
        return rc;
    rc = lease_back(l, (uint32_t)lease->ref[0], lease->ref[1], SLOT_READY);
    if (rc == -ESTALE)
        return lease_lost(l, lease);
    if (rc == 0)
        bump(&l->self->counts[lease->queue % SEG_QUEUES_MAX].released, 1);
    return rc < 0 ? rc : 0;
}

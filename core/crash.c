/* SPDX-License-Identifier: MIT
 *
 * crash.c - leases that end because their kernel did: it crashed, or ran into its time limit, in a
 * process of its own that is gone now, while the worker that holds the lease goes on.
 *
 * A crash counts against the task's budget exactly as its worker's death would (undertaker.c): once
 * an attempt, noted in the meta word before the state changes, so that a death of the worker in
 * between is not a second one.
 *
 * Threads: the handle's. Failure: a death leaves a LEASED slot, with or without a result block
 * attached; both are the undertaker's.
 */
#include <errno.h>
#include <stdio.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/lease.h"
#include "core/terms.h"

static void bump(_Atomic uint64_t *c)
{
    at_store_rlx(c, at_load_rlx(c) + 1); /* our own counter, read by status alone */
}

static uint32_t count_crash(struct local *l, uint32_t slot, uint32_t attempt)
{
    _Atomic uint64_t *word = &l->seg->slot[slot].meta;
    uint64_t meta = at_load(word);
    /* again when its producer has set a mark in between */
    while (meta_counted(meta) != (attempt & 0xff) &&
           !at_cas(word, &meta, meta_count_crash(meta, attempt)))
        ;
    CRASH_POINT("crash.counted");
    return meta_crashes(at_load(word));
}

static int give_up(struct local *l, const struct fab_lease *lease, const char *text,
                   uint32_t crashes)
{
    uint32_t slot = (uint32_t)lease->ref[0];
    uint64_t w = lease->ref[1];
    struct seg_slot *sl = &l->seg->slot[slot];
    char why[256];
    int len = snprintf(why, sizeof why, "%.200s (%u time%s)", text, crashes, crashes == 1 ? "" : "s");
    if (lease_put_result(l, slot, w, why, (uint32_t)len) < 0)
        (void)!lease_put_result(l, slot, w, "crashed", 7); /* 8 bytes are always there */
    CRASH_POINT("crash.text");
    if (!lease_end(l, slot, w, SLOT_DEAD)) {
        if (slot_res_place(sl->arg_len, sl->res_len) == PLACE_BLOCK)
            arena_free(l->seg, &l->arena, l->me, sl->res, slot, slot_epoch(w));
        return lease_lost(l, lease);
    }
    bump(&l->self->counts[lease->queue % SEG_QUEUES_MAX].failed);
    return 0;
}

int local_crash(fab_t *f, const struct fab_lease *lease, const char *text)
{
    struct local *l = (struct local *)f;
    int rc = lease_check(l, lease);
    if (rc < 0)
        return rc;
    uint32_t slot = (uint32_t)lease->ref[0], crashes;
    uint64_t w = lease->ref[1];
    struct seg_slot *sl = &l->seg->slot[slot];
    struct seg_terms *terms = sl->arg_len & ARG_TERMS ? terms_of(l->seg, slot) : NULL;
    uint32_t budget = terms && terms->crashes ? terms->crashes : SLOT_CRASH_BUDGET;
    crashes = count_crash(l, slot, slot_attempt(w));
    if (meta_flags(at_load_rlx(&sl->meta)) & META_CANCEL) /* lease_end() and _back() look, too */
        return lease_cancel(l, lease);
    if (crashes >= budget)
        return give_up(l, lease, text, crashes);
    if (terms && terms->backoff_ns)
        terms->not_before_ns = terms_pause_end(terms, crashes);
    rc = lease_back(l, slot, w, terms && terms->backoff_ns ? SLOT_DELAYED : SLOT_READY);
    if (rc == -ESTALE)
        return lease_lost(l, lease);
    if (rc == 0)
        bump(&l->self->counts[lease->queue % SEG_QUEUES_MAX].released);
    return rc < 0 ? rc : 0;
}

int local_overrun(fab_t *f, const struct fab_lease *lease)
{
    struct local *l = (struct local *)f;
    int rc = lease_check(l, lease);
    if (rc < 0)
        return rc;
    uint32_t slot = (uint32_t)lease->ref[0];
    if (!(l->seg->slot[slot].arg_len & ARG_TERMS) || !terms_of(l->seg, slot)->limit_ns)
        return err_set(-EINVAL, "the task has no time limit");
    /* fabricd's timer may have been first; then the lease is lost, and its outcome is the same */
    if (!lease_end(l, slot, lease->ref[1], SLOT_OVERRUN))
        return lease_lost(l, lease);
    bump(&l->self->counts[lease->queue % SEG_QUEUES_MAX].failed);
    return 0;
}

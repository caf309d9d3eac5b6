/* SPDX-License-Identifier: MIT
 *
 * link_worker.c - the worker's half of a link: WANT, DONE, RELEASE in; LEASE, RECALL out. See link.h.
 *
 * A task that its producer cancels while the peer has it: CANCEL out (link_cancel()); its end comes
 * in as any other, and cancel.c of the core sees the mark.
 *
 * A lease is named on the wire by its place in a table and a generation, so that a peer can end
 * only what it was given, and once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/link_parts.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/pages.h"

/* What a peer says of its time per task is used in sums. */
#define TASK_NS_MAX 3600000000000ull

/* ---- worker: WANT, DONE, RELEASE in; LEASE out ---- */

static struct link_lease *lease_of(struct link *k, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    if (!k->lease || i >= k->lease_window || k->lease[i].generation != (uint32_t)(ref >> 32) ||
        !(k->lease[i].generation & 1))
        return NULL;
    return &k->lease[i];
}

void worker_prefetch(const struct link *k, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    if (i < k->lease_window && k->lease[i].ref[0] < k->seg->slots) {
        cpu_prefetch_write(&k->seg->slot[k->lease[i].ref[0]]);
        cpu_prefetch_write(&k->seg->times[k->lease[i].ref[0]]);
    }
}

static int make_leases(struct link *k)
{
    k->lease = pages_new(k->lease_window * sizeof *k->lease);
    if (k->lease)
        k->claimed = pages_new(LINK_BATCH * sizeof *k->claimed);
    if (!k->claimed)
        return err_set(-ENOMEM, "no memory for %u leases", k->lease_window);
    k->lease_free = LINK_NONE;
    return 0;
}

int worker_on_want(struct link *k, const struct record *r)
{
    if (!(k->local->self->roles & FAB_WORKER))
        return err_set(-EPROTO, "a peer that is no worker wants leases");
    if (r->queue >= k->seg->queues)
        return err_set(-EPROTO, "queue %u: the fabric has %u", r->queue, k->seg->queues);
    k->want = r->len < k->lease_window ? r->len : k->lease_window;
    k->want_queue = r->queue;
    k->task_ns = r->ref < TASK_NS_MAX ? r->ref : TASK_NS_MAX;
    /* A RECALL on its way is to be answered first: what was wanted before it is void. */
    if (k->want == 0 && k->recall == RECALL_SENT)
        k->recall = RECALL_DONE;
    else if (k->want > 0 && k->recall != RECALL_SENT && !(k->recall == RECALL_DUE && k->revoked > 0))
        k->recall = RECALL_NONE;
    return k->claimed ? 0 : make_leases(k);
}

int worker_on_echo(struct link *k, const struct record *r)
{
    int rc = link_put(k, r);
    return rc < 0 ? rc : 0;
}

static void end_lease(struct link *k, struct link_lease *own)
{
    own->generation++; /* even: free */
    k->cancels -= own->cancelled;
    k->revoked -= own->revoked;
    own->cancelled = own->revoked = false;
    own->next = k->lease_free;
    k->lease_free = (uint32_t)(own - k->lease);
    k->in_flight--;
}

/* How long its worker was at a task, in ticks; UINT64_MAX: it was not told. Many in a row took as long. */
static uint64_t ran_ticks(struct link *k, uint8_t code)
{
    k->ran_code = code;
    k->ran_ticks = code ? (uint64_t)((double)rec_time_ns(code) * k->ticks_per_ns) : UINT64_MAX;
    return k->ran_ticks;
}

/* When it was started, if its end is heard now; the ways there and back come before. 0: not told. The clock
 * is not read for it: the end before in this batch was a moment ago. */
static uint64_t started_at(struct link *k, uint8_t code)
{
    uint64_t heard = k->local->finished_at > k->read_at ? k->local->finished_at : k->read_at;
    uint64_t ticks = ran_ticks(k, code);
    return ticks < heard ? heard - ticks : 0;
}

/* The lease whose end the record tells. Its end while its argument is being sent would leave that memory to
 * others. -EPROTO: the peer does not hold it. */
static int lease_to_end(struct link *k, const struct record *r, struct link_lease **own)
{
    *own = lease_of(k, r->ref);
    return *own && !link_still_leaving(k, REC_LEASE, r->ref)
               ? 0
               : err_set(-EPROTO, "a result for a lease this peer does not hold");
}

int worker_on_done(struct link *k, const struct record *r, const void *data)
{
    struct link_lease *own;
    char text[256];
    int rc = lease_to_end(k, r, &own);
    if (rc < 0)
        return rc;
    struct fab_lease l = {.ref = {own->ref[0], own->ref[1], own->ref[2]}, .queue = own->queue};
    if (own->revoked) {
        end_lease(k, own);
        return 0;
    }
    k->local->free_at = started_at(k, (uint8_t)r->attempts); /* no earlier than claimed: put_times() */
    if (r->type == REC_RELEASE) {
        rc = local_release(&k->local->base, &l);
    } else if (!data && r->len) {
        rc = local_fail(&k->local->base, &l, err_text(link_too_large(k, r->len)));
    } else if (r->priority == FAB_COMPLETED) {
        k->local->given = data && local_is_block(k->local, data) ? data : NULL;
        rc = local_complete(&k->local->base, &l, data, r->len);
        k->local->given = NULL;
        if (rc == -ENOSPC || rc == -EMSGSIZE) /* the sentence says what does not fit */
            rc = local_fail(&k->local->base, &l, err_text(rc));
    } else if (r->priority == FAB_OVERRUN) {
        rc = local_overrun(&k->local->base, &l);
        if (rc == -EINVAL) /* it has no limit: the peer is wrong */
            rc = local_fail(&k->local->base, &l, err_text(rc));
    } else {
        snprintf(text, sizeof text, "%.*s", (int)(r->len < 255 ? r->len : 255), (const char *)data);
        rc = r->priority == FAB_DEAD ? local_crash(&k->local->base, &l, text)
                                     : local_fail(&k->local->base, &l, text);
    }
    CRASH_POINT("worker.done");
    end_lease(k, own);
    return rc == -ESTALE ? 0 : rc; /* late: dropped and counted */
}

int worker_settle(struct link *k, struct worker_done *d)
{
    uint32_t n = d->n;
    d->n = 0;
    long done = n ? local_complete_ran(k->local, d->lease, d->result, d->ran, n) : 0;
    CRASH_POINT("worker.done");
    if (done < 0)
        return (int)done;
    return (uint32_t)done == n ? 0 : err_set(-EIO, "a result of 8 bytes was refused");
}

int worker_gather(struct link *k, struct worker_done *d, const struct record *r)
{
    if (r->type != REC_DONE || r->flags & REC_BIG || r->priority != FAB_COMPLETED || r->len != sizeof *d->bytes)
        return 0;
    struct link_lease *own;
    int rc = lease_to_end(k, r, &own);
    if (rc < 0)
        return rc;
    if (!own->revoked) {
        struct fab_lease *l = &d->lease[d->n];
        memcpy(l->ref, own->ref, sizeof l->ref);
        l->queue = own->queue;
        memcpy(&d->bytes[d->n], r->payload, sizeof *d->bytes); /* read once: the peer may write there */
        d->result[d->n] = (struct fab_result){.data = &d->bytes[d->n], .len = sizeof *d->bytes};
        d->ran[d->n] = r->attempts == k->ran_code ? k->ran_ticks : ran_ticks(k, (uint8_t)r->attempts);
        d->n++;
    }
    end_lease(k, own); /* now: a second result for it would be one too many */
    rc = d->n == LINK_DONE_MAX ? worker_settle(k, d) : 0;
    return rc < 0 ? rc : 1;
}

/* ---- after a move ---- */

bool worker_on_named(struct link *k, uint64_t ref)
{
    struct link_lease *own = lease_of(k, ref);
    struct fab_lease l;
    if (!own || own->named)
        return false;
    if (own->revoked) {
        end_lease(k, own);
        return false;
    }
    own->named = true;
    /* it may have been told so, or that was lost */
    l = (struct fab_lease){.ref = {own->ref[0], own->ref[1]}, .queue = own->queue};
    if (!own->cancelled && local_cancelled(&k->local->base, &l)) {
        own->cancelled = true;
        k->cancels++;
    }
    return true;
}

void worker_drop_unnamed(struct link *k)
{
    for (uint32_t i = 0; k->lease && i < k->lease_used; i++) {
        struct link_lease *own = &k->lease[i];
        struct fab_lease l = {.ref = {own->ref[0], own->ref[1]}, .queue = own->queue};
        bool named = own->named;
        own->named = false;
        if (!(own->generation & 1) || named)
            continue;
        int rc = own->revoked ? 0 : local_release(&k->local->base, &l);
        if (rc < 0 && rc != -ESTALE)
            continue; /* its slot is damaged: it ends with the link */
        end_lease(k, own);
        CRASH_POINT("worker.unnamed");
    }
}

/* How long the attempt may take from now, ahead of its lease. */
static int send_limit(struct link *k, const struct fab_lease *l, uint64_t ref)
{
    uint8_t bytes[REC_TERMS_LEN];
    uint64_t now = clock_ns();
    struct fab_terms t = {.limit_ns = l->due_ns > now ? l->due_ns - now : 1};
    struct record r = {.type = REC_TERMS, .len = sizeof bytes, .ref = ref, .payload = bytes};
    rec_put_terms(bytes, &t);
    return link_put(k, &r);
}

void link_cancel(struct link *k, uint32_t slot, uint64_t word)
{
    for (uint32_t i = 0; k->lease && i < k->lease_used; i++) {
        struct link_lease *own = &k->lease[i];
        if ((own->generation & 1) && !own->revoked && own->ref[0] == slot && own->ref[1] == word) {
            k->cancels += !own->cancelled;
            own->cancelled = true;
        }
    }
}

/* 1: all are told; 0: no room now. */
static int send_cancels(struct link *k)
{
    for (uint32_t i = 0; k->cancels > 0 && i < k->lease_used; i++) {
        struct link_lease *own = &k->lease[i];
        struct record r = {.type = REC_CANCEL, .ref = (uint64_t)own->generation << 32 | i};
        if (!own->cancelled)
            continue;
        int rc = link_put(k, &r);
        if (rc <= 0)
            return rc;
        own->cancelled = false;
        k->cancels--;
        CRASH_POINT("worker.cancelled");
    }
    return 1;
}

/* ---- giving back ---- */

bool worker_waits(const struct link *k)
{
    return k->alone && k->in_flight > k->claimed_n - k->claimed_at;
}

void link_recall(struct link *k)
{
    if (worker_waits(k))
        worker_let_go(k);
    if (k->recall == RECALL_NONE && k->lane)
        k->recall = RECALL_DUE;
}

/* 1: said; 0: no room now. Behind all leases, so that it means every one of them. */
static int send_recall(struct link *k)
{
    struct record r = {.type = REC_RECALL};
    if (k->claimed_at < k->claimed_n || k->big_out.first)
        return 0;
    int rc = link_put(k, &r);
    if (rc == 1) {
        k->recall = RECALL_SENT;
        k->recall_ns = clock_ns();
    }
    return rc;
}

static bool is_held(const struct link_lease *own)
{
    return (own->generation & 1) && !own->revoked;
}

static const struct link_lease *oldest_lease(const struct link *k)
{
    const struct link_lease *found = NULL;
    for (uint32_t i = 0; k->lease && i < k->lease_used; i++) {
        const struct link_lease *own = &k->lease[i];
        if (is_held(own) && (!found || (int32_t)(own->order - found->order) < 0))
            found = own;
    }
    return found;
}

uint32_t link_revoke(struct link *k)
{
    const struct link_lease *oldest = oldest_lease(k);
    uint32_t n = 0;
    worker_let_go(k);
    for (uint32_t i = 0; oldest && i < k->lease_used; i++) {
        struct link_lease *own = &k->lease[i];
        if (!is_held(own) || own == oldest ||
            link_still_leaving(k, REC_LEASE, (uint64_t)own->generation << 32 | i))
            continue;
        struct fab_lease l = {.ref = {own->ref[0], own->ref[1], own->ref[2]}, .queue = own->queue};
        int rc = local_release(&k->local->base, &l);
        if (rc < 0 && rc != -ESTALE)
            continue; /* its slot is damaged: it ends with the link */
        k->cancels -= own->cancelled;
        own->cancelled = false;
        own->revoked = true;
        k->revoked++;
        n++;
    }
    if (n > 0)
        link_recall(k); /* and nothing more before it has answered */
    return n;
}

/* The place used last that is free, or else the first that never was. There is one: no more are in
 * flight than wanted. */
static uint32_t free_place(const struct link *k)
{
    return k->lease_free != LINK_NONE ? k->lease_free : k->lease_used;
}

static int send_lease(struct link *k, const struct fab_lease *l)
{
    uint32_t place = free_place(k);
    struct link_lease *own = &k->lease[place];
    uint64_t ref = (uint64_t)(own->generation + 1) << 32 | place;
    struct record r = {.type = REC_LEASE,
                       .queue = l->queue,
                       .priority = l->priority,
                       .attempts = l->attempt,
                       .len = l->len,
                       .ref = ref,
                       .kernel = l->kernel};
    int rc;
    if (local_cancelled(&k->local->base, l)) { /* it waited here, and ends here */
        k->in_flight--;
        rc = local_release(&k->local->base, l);
        return rc < 0 && rc != -ESTALE ? rc : 1;
    }
    if (l->due_ns && (rc = send_limit(k, l, ref)) <= 0)
        return rc;
    /* A large argument stays where it is in the segment while its lease is held: sent from there.
     */
    rc = link_put_any(k, &r, fab_arg(l));
    if (rc <= 0)
        return rc;
    CRASH_POINT("worker.sent");
    if (place == k->lease_free)
        k->lease_free = own->next;
    else
        k->lease_used++;
    own->generation++;
    own->ref[0] = l->ref[0];
    own->ref[1] = l->ref[1];
    own->ref[2] = l->ref[2];
    own->queue = l->queue;
    own->order = k->sent++;
    return 1;
}

bool worker_claims(const struct link *k)
{
    return k->in_flight < k->want && k->big_out.n < LINK_BIG_AHEAD && k->recall == RECALL_NONE &&
           !k->deaf && !worker_waits(k);
}

long worker_send(struct link *k)
{
    long n = k->cancels;
    int told = send_cancels(k);
    if (told <= 0)
        return told < 0 ? told : n - k->cancels;
    for (;;) {
        bool waits = worker_waits(k);
        while (!waits && k->claimed_at < k->claimed_n) {
            int rc = send_lease(k, &k->claimed[k->claimed_at]);
            if (rc <= 0)
                return rc < 0 ? rc : n;
            k->claimed_at++;
            n++;
        }
        if (k->recall == RECALL_DUE) {
            int rc = send_recall(k);
            return rc < 0 ? rc : n + rc;
        }
        /* Claim only what can go out at once: a task that waits here could be run elsewhere. Small
         * ones go past a large one that is on its way. */
        if (!worker_claims(k) ||
            (!lane_tx_room(k->lane, 128) &&
             (lane_tx_flush(k->lane) != 1 || !lane_tx_room(k->lane, 128))))
            return n;
        uint32_t max = k->want - k->in_flight < LINK_BATCH ? k->want - k->in_flight : LINK_BATCH;
        if (k->big_out.first)
            max = 1; /* it may be large, too */
        long got = local_claim(&k->local->base, k->want_queue, k->claimed, max, 0);
        if (got <= 0)
            return n;
        if (k->in_flight == 0)
            k->busy_ns = clock_ns();
        k->claimed_n = (uint32_t)got;
        k->claimed_at = 0;
        k->in_flight += (uint32_t)got;
        k->alone = got == 1 && k->local->alone; /* its peer should die of nothing else meanwhile */
        CRASH_POINT("worker.claimed");
    }
}

void worker_let_go(struct link *k)
{
    while (k->claimed_at < k->claimed_n) {
        (void)!local_release(&k->local->base, &k->claimed[k->claimed_at++]);
        k->in_flight--;
    }
    CRASH_POINT("worker.let_go");
}

void worker_close(struct link *k)
{
    for (int i = 0; i < 2; i++)
        free(k->unknown[i].ref);
    pages_free(k->lease, k->lease_window * sizeof *k->lease);
    pages_free(k->claimed, LINK_BATCH * sizeof *k->claimed);
}

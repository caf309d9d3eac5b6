/* SPDX-License-Identifier: MIT
 *
 * remote_claim.c - the worker's side of a remote handle.
 *
 * The worker tells the daemon how many leases it wants to have at hand (WANT); the daemon keeps
 * that many on their way or with us. How many, and how they are given back: remote_flow.c.
 *
 * While the thread sleeps for an outcome or for room, it has none at hand: remote_give_back().
 *
 * Completions gather in the lane's batch and go out when it is full, when no more leases are at
 * hand, or after 50 us of further work (flush_ticks). On a wire so long that the credits are used up
 * before the first ones are back, the second half of them has to last a round trip: else eight
 * results would be on their way, and the worker would wait with all its leases at hand.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "transport/remote.h"

int remote_lease(struct remote *r, const struct record *rec, uint8_t *data)
{
    if (r->lease_n == r->lease_cap) {
        free(data);
        return err_set(-EPROTO, "more leases than this side ever wanted");
    }
    struct rlease *own = &r->lease[(r->lease_head + r->lease_n) % r->lease_cap];
    struct fab_lease *l = &own->lease;
    own->data = NULL;
    l->ref[0] = rec->ref;
    l->ref[1] = 0;
    l->ref[2] = r->leases;
    l->kernel = rec->kernel;
    l->len = rec->len;
    l->attempt = rec->attempts;
    l->queue = rec->queue;
    l->priority = rec->priority;
    l->due_ns = remote_due(r, rec->ref);
    if (rec->len == 8 && !data) {
        memcpy(l->small, rec->payload, 8); /* the common case, one move */
    } else if (rec->len <= 64) {
        l->small[0] = 0;
        memcpy(l->small, data ? data : rec->payload, rec->len);
        free(data); /* a small one that came as a large one */
    } else if (data) {
        own->data = data;
    } else {
        own->data = malloc(REC_PAD(rec->len));
        if (!own->data)
            return err_set(-ENOMEM, "no memory for an argument of %u bytes", rec->len);
        memcpy(own->data, rec->payload, rec->len);
    }
    l->arg = own->data;
    r->lease_n++;
    remote_held_lease(r, rec->ref);
    CRASH_POINT("remote.leased");
    return 0;
}

/* Smoothed time per task, from the time the caller took for the leases it was given last. */
static void measure(struct remote *r, uint64_t now)
{
    if (r->handed) {
        double per = (double)(now - r->handed_at) / r->handed;
        r->task_ticks = r->task_ticks == 0 ? per : r->task_ticks * 0.75 + per * 0.25;
    }
    r->handed = 0;
}

void remote_drop_leases(struct remote *r)
{
    for (; r->lease_n > 0; r->lease_n--) {
        free(r->lease[r->lease_head].data);
        r->lease[r->lease_head].data = NULL;
        r->lease_head = (r->lease_head + 1) % r->lease_cap;
    }
    r->lease_head = 0;
    r->handed = 0;
    r->handed_first = r->handed_end = 0;
    r->recalled = r->recall_said = false;
}

void remote_purge_leases(struct remote *r)
{
    for (uint32_t n = r->lease_n; n > 0; n--) {
        struct rlease own = r->lease[r->lease_head];
        r->lease_head = (r->lease_head + 1) % r->lease_cap;
        r->lease_n--;
        if (remote_held_is(r, own.lease.ref[0])) /* behind the others: they keep their order */
            r->lease[(r->lease_head + r->lease_n++) % r->lease_cap] = own;
        else
            free(own.data);
    }
}

/* There are leases of this queue at hand. Those of one that was claimed from before go back. */
static bool at_hand(struct remote *r, uint32_t queue)
{
    bool others = false;
    while (r->lease_n > 0 && r->lease[r->lease_head].lease.queue != queue) {
        if (!remote_is_up(r) || !remote_lease_back(r))
            return false;
        others = true;
    }
    if (others)
        (void)remote_flush(r);
    return r->lease_n > 0;
}

/* Some are: at_hand(). */
static long hand_over(struct remote *r, uint32_t queue, struct fab_lease *l, size_t max, uint64_t now)
{
    size_t n = 0;
    while (n < max && r->lease_n > 0) {
        struct rlease *own = &r->lease[r->lease_head];
        if (own->lease.queue != queue)
            break;
        l[n] = own->lease;
        /* a large argument goes with the lease: its memory is found again by ref[1] */
        l[n].ref[1] = (uint64_t)(uintptr_t)own->data;
        own->data = NULL;
        r->lease_head = (r->lease_head + 1) % r->lease_cap;
        r->lease_n--;
        n++;
    }
    r->leased += (uint32_t)n;
    r->handed = (uint32_t)n;
    r->handed_at = r->turned_at = now;
    remote_hand(r, l, n);
    return (long)n;
}

/* Sends what was gathered, if it is time; on a long wire the last credit is for a full batch, or for
 * the end of the work at hand. On a short one credits are back before they run out. */
static bool flush_paced(struct remote *r, uint64_t now)
{
    uint32_t half = r->lane ? lane_cells(r->lane) / 2 : 0, credits = half ? lane_credits(r->lane) : 0;
    if (half && credits <= half && r->rtt_ticks > (double)r->flush_ticks * half &&
        (credits <= 1 || (double)(now - r->paced_at) * half < r->rtt_ticks))
        return false;
    r->paced_at = now;
    (void)remote_flush(r);
    return true;
}

long remote_claim(fab_t *f, uint32_t queue, struct fab_lease *l, size_t max, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = 0;
    int rc;
    if (r->broken)
        return remote_broken(r, r->broken);
    if (!r->lane && remote_is_up(r))
        return err_set(-EPERM, "this handle was opened as a tool and claims nothing");
    if (queue >= r->info.queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", queue,
                       r->info.queues);
    uint64_t now = clock_ticks();
    measure(r, now);
    /* a task out of many at hand: all else can wait a moment */
    bool due = now - r->flushed_at > r->flush_ticks;
    if (!due && r->want > 0 && r->want_queue == queue && at_hand(r, queue))
        return hand_over(r, queue, l, max, now);
    if (remote_is_up(r)) {
        rc = remote_tell_want(r, queue, max);
        if (rc < 0 && rc != -ESTALE)
            return rc;
    }
    if (at_hand(r, queue)) {
        if (due) {
            r->flushed_at = now;
            remote_echo(r, now);
            bool sent = flush_paced(r, now);
            rc = remote_progress(r);
            if (rc < 0)
                return rc;
            if (!sent) /* credits may have come */
                (void)flush_paced(r, now);
        }
        if (at_hand(r, queue))
            return hand_over(r, queue, l, max, clock_ticks());
    }
    remote_echo(r, clock_ticks());
    (void)remote_flush(r);
    rc = remote_progress(r);
    if (rc < 0)
        return rc;
    spin_start(&r->spin);
    while (!at_hand(r, queue)) {
        if (timeout_ns == 0) {
            remote_wire_glance(r);
            return deadline_error(0, "no task is waiting");
        }
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        /* a new link has not been told what we want */
        rc = r->want == 0 && remote_is_up(r) ? remote_tell_want(r, queue, max) : 0;
        if (rc == 0 || rc == -ESTALE)
            rc = remote_wait(r, deadline);
        if (rc == -ETIMEDOUT)
            return deadline_error(timeout_ns, "no task came");
        if (rc < 0)
            return rc;
    }
    spin_hit(&r->spin);
    return hand_over(r, queue, l, max, clock_ticks());
}

/* Its leases outlive the link. A result too long to be kept waits for it. */
static int end_held(struct remote *r, const struct fab_lease *l, struct record *rec, const void *data)
{
    int kept, rc = 0;
    do {
        if (l->ref[2] != r->leases || !remote_held_is(r, l->ref[0]))
            return err_set(-ESTALE, "the lease went to others while the link was down");
        kept = remote_held_end(r, rec, data);
        if (kept == 0 && !remote_is_up(r))
            rc = remote_await_up(r, UINT64_MAX);
        else
            break;
    } while (rc == 0);
    if (rc < 0 || kept < 0)
        return rc < 0 ? rc : kept;
    if (!remote_is_up(r))
        return 0; /* it is said on the next link */
    if (kept == 0)
        remote_held_drop(r, l->ref[0]);
    rc = data ? remote_put_any(r, rec, data, UINT64_MAX) : remote_put(r, rec, UINT64_MAX);
    return rc == -ESTALE && kept ? 0 : rc;
}

/* The end of a lease: its large argument's memory is freed whatever happens. */
static int end(struct remote *r, const struct fab_lease *l, struct record *rec, const void *data)
{
    int rc = r->broken ? remote_broken(r, r->broken) : 0;
    if (rc == 0 && (l->ref[2] != r->leases || !(r->held_lease || remote_is_up(r))))
        rc = err_set(-ESTALE, "the lease ended with its link");
    bool gone = rc == 0 && (rc = remote_begun(r, l)) < 0;
    if (rc == 0 && r->held_lease)
        rc = end_held(r, l, rec, data);
    else if (rc == 0)
        rc = data ? remote_put_any(r, rec, data, UINT64_MAX) : remote_put(r, rec, UINT64_MAX);
    remote_spare(r, (void *)(uintptr_t)l->ref[1]);
    r->leased -= r->leased > 0 && !gone;
    CRASH_POINT("remote.ended");
    return rc;
}

/* How long the caller was at each of the n tasks that it ends now, for DONE; the next one begins here. */
static uint8_t ran(struct remote *r, size_t n)
{
    uint64_t now = clock_ticks(), from = r->turned_at;
    r->turned_at = now;
    return rec_time((uint64_t)((double)(now > from ? now - from : 0) * r->ns_per_tick / (double)n));
}

/* code: how long it ran. */
static int complete(struct remote *r, const struct fab_lease *l, const void *res, uint32_t len, uint8_t code)
{
    struct record rec = {.type = REC_DONE,
                         .priority = FAB_COMPLETED,
                         .queue = l->queue,
                         .attempts = code,
                         .len = len,
                         .ref = l->ref[0]};
    return end(r, l, &rec, len ? res : "");
}

int remote_complete(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len)
{
    struct remote *r = (struct remote *)f;
    return complete(r, l, res, len, ran(r, 1));
}

/* remote_complete() for as long as it meets results of 8 bytes for leases with small arguments, and the
 * batch has room; the link is up. Returns how many. */
static size_t done_run(struct remote *r, const struct fab_lease *l, const struct fab_result *res, size_t n,
                       uint8_t code)
{
    struct record rec = {.type = REC_DONE, .priority = FAB_COMPLETED, .len = 8, .attempts = code};
    size_t i = 0;
    for (uint8_t *to; i < n; i++) {
        rec.queue = l[i].queue;
        rec.ref = l[i].ref[0];
        rec.payload = res[i].data;
        if (res[i].len != 8 || l[i].ref[1] || l[i].ref[2] != r->leases ||
            !(to = lane_tx_room(r->lane, REC_HEAD + 8)) || !remote_held_eight(r, rec.ref, rec.queue, rec.payload))
            break;
        rec_put(to, &rec);
        lane_tx_add(r->lane, REC_HEAD + 8);
    }
    r->leased -= (uint32_t)(i < r->leased ? i : r->leased);
    return i;
}

long remote_complete_many(fab_t *f, const struct fab_lease *l, const struct fab_result *res, size_t n)
{
    struct remote *r = (struct remote *)f;
    uint8_t code = ran(r, n); /* evenly: nobody has looked at the clock between them */
    for (size_t done = 0, k; done < n; done += k) {
        bool plain = remote_is_up(r) && r->lane && !(r->opts.flags & FAB_BEGINS);
        k = plain ? done_run(r, l + done, res + done, n - done, code) : 0;
        if (k > 0)
            continue;
        int rc = result_fits(res[done].len);
        if (rc == 0)
            rc = complete(r, &l[done], res[done].data, res[done].len, code);
        if (rc < 0 && rc != -ESTALE)
            return done ? (long)done : rc;
        k = 1;
    }
    return (long)n;
}

int remote_end(struct remote *r, const struct fab_lease *l, enum fab_status status, const char *text)
{
    struct record rec = {.type = REC_DONE,
                         .priority = (uint8_t)status,
                         .queue = l->queue,
                         .attempts = ran(r, 1),
                         .len = (uint32_t)strnlen(text, 255),
                         .ref = l->ref[0]};
    return end(r, l, &rec, text);
}

int remote_fail(fab_t *f, const struct fab_lease *l, const char *message)
{
    return remote_end((struct remote *)f, l, FAB_FAILED, message);
}

int remote_release(fab_t *f, const struct fab_lease *l)
{
    struct record rec = {.type = REC_RELEASE, .queue = l->queue, .ref = l->ref[0]};
    return end((struct remote *)f, l, &rec, NULL);
}

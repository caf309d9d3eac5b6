/* SPDX-License-Identifier: MIT
 *
 * remote_flow.c - how many leases a remote worker has at hand, and how it gives them back.
 *
 * Short tasks: PREFETCH_NS of work, or two round trips' if that is longer, so that they come in
 * large batches and the wire is full. A task that takes GAP times the round trip or longer has none
 * behind it: the pause until the next comes costs less than 1 / GAP of the time. The time per task
 * is measured from hand-over to the next claim, the round trip by an ECHO in the lane; neither is a
 * setting.
 *
 * That is a guess about tasks to come. When it was wrong the daemon asks by RECALL (at most once
 * between two claims): everything that was not begun goes back, and nothing new comes before the
 * next claim says how much is wanted.
 *
 * Threads: whoever is inside the handle's guard.
 */
#include <errno.h>
#include <stdlib.h>
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "transport/remote.h"

#define PREFETCH_NS 500000.0
#define GAP         50.0
/* Until the first ECHO is back. */
#define RTT_GUESS_NS 100000.0
#define ECHO_NS      100000000.0

static double ns_of(const struct remote *r, double ticks)
{
    return ticks * 1e9 / (double)r->ticks_hz;
}

/* ---- how much ---- */

static uint32_t wanted(const struct remote *r, size_t max)
{
    double task = ns_of(r, r->task_ticks), n = 0;
    double rtt = r->rtt_ticks > 0 ? ns_of(r, r->rtt_ticks) : RTT_GUESS_NS;
    double work = 2 * rtt > PREFETCH_NS ? 2 * rtt : PREFETCH_NS;
    if (task > 0 && task < GAP * rtt)
        n = work / task + 1;
    if (n < (double)max)
        n = (double)max;
    n += r->leased; /* what the caller holds counts at the daemon, too */
    return n < r->lease_cap ? (uint32_t)n : r->lease_cap;
}

int remote_tell_want(struct remote *r, uint32_t queue, size_t max)
{
    uint32_t n = wanted(r, max), gap = n > r->want ? n - r->want : r->want - n;
    /* told when it has changed by a quarter or more, or allows no further lease */
    bool close = gap == 0 || (gap <= r->want / 4 && r->want > r->leased);
    if (queue == r->want_queue && r->want > 0 && close)
        return 0;
    struct record rec = {.type = REC_WANT,
                         .queue = (uint8_t)queue,
                         .len = n,
                         .ref = (uint64_t)ns_of(r, r->task_ticks)};
    int rc = remote_put(r, &rec, UINT64_MAX);
    if (rc < 0)
        return rc;
    r->want = n;
    CRASH_POINT("remote.wanted");
    r->want_queue = queue;
    return 0;
}

/* ---- the round trip ---- */

void remote_echo(struct remote *r, uint64_t now)
{
    struct record rec = {.type = REC_ECHO, .ref = now};
    if (!remote_is_up(r) || (r->echo_at && !r->worked) || /* an idle link is left alone */
        (r->echo_at && (double)(now - r->echo_at) * 1e9 < ECHO_NS * (double)r->ticks_hz))
        return;
    if (remote_try_put(r, &rec)) {
        r->echo_at = now;
        r->worked = false;
    }
}

void remote_on_echo(struct remote *r, const struct record *rec)
{
    uint64_t now = clock_ticks();
    if (rec->ref != r->echo_at || now <= rec->ref || r->wire.pinged_at)
        return; /* of an earlier one, or of none of ours; or the wire was dead meanwhile */
    /* Too long by up to one task, when nobody looked at the lane meanwhile: so the least counts,
     * and what is longer only by and by. */
    double ticks = (double)(now - rec->ref);
    if (r->rtt_ticks == 0 || ticks < r->rtt_ticks)
        r->rtt_ticks = ticks;
    else
        r->rtt_ticks += (ticks - r->rtt_ticks) / 16;
}

/* ---- giving back ---- */

/* 1: said; 0: no room now. */
static int put_release(struct remote *r, uint64_t ref, uint8_t queue)
{
    struct record rec = {.type = REC_RELEASE, .queue = queue, .ref = ref};
    return remote_try_put(r, &rec);
}

int remote_lease_back(struct remote *r)
{
    struct rlease *own = &r->lease[r->lease_head];
    if (!put_release(r, own->lease.ref[0], own->lease.queue))
        return 0;
    remote_held_drop(r, own->lease.ref[0]);
    free(own->data);
    own->data = NULL;
    r->lease_head = (r->lease_head + 1) % r->lease_cap;
    r->lease_n--;
    return 1;
}

/* Those that the caller has and did not begin: last first, they come after those in the ring. */
static bool recall_handed(struct remote *r)
{
    while (r->handed_end > r->handed_first) {
        uint64_t ref = r->handed_ref[r->handed_end - 1];
        /* one that went to others while the link was down is not ours to give back */
        if (remote_held_is(r, ref) && !put_release(r, ref, (uint8_t)r->want_queue))
            return false;
        r->mark[(uint32_t)ref].gone = (uint32_t)(ref >> 32);
        remote_held_drop(r, ref);
        r->handed_end--;
        r->handed -= r->handed > 0;
        r->leased -= r->leased > 0;
    }
    return true;
}

void remote_recall(struct remote *r)
{
    struct record none = {.type = REC_WANT,
                          .queue = (uint8_t)(r->want_queue == REMOTE_NONE ? 0 : r->want_queue)};
    if (!r->lane || r->lease_cap == 0 || r->link != LINK_UP)
        return;
    if (!r->recall_said && !remote_try_put(r, &none))
        return;
    r->recall_said = true;
    r->want = 0;
    while (r->lease_n > 0)
        if (!remote_lease_back(r))
            return;
    if (!recall_handed(r))
        return;
    r->recalled = r->recall_said = false;
}

int remote_give_back(struct remote *r)
{
    int rc = 0;
    r->producing = false; /* a wait for room in the lane is not another reason */
    if (!remote_is_up(r) || (r->want == 0 && r->lease_n == 0))
        return 0;
    r->recalled = true;
    remote_recall(r);
    while (rc == 0 && r->recalled && remote_is_up(r))
        rc = remote_wait(r, UINT64_MAX);
    return rc;
}

/* ---- beginning ---- */

void remote_hand(struct remote *r, const struct fab_lease *l, size_t n)
{
    r->worked = true;
    if (!(r->opts.flags & FAB_BEGINS))
        return;
    if (r->handed_first == r->handed_end)
        r->handed_first = r->handed_end = 0;
    for (size_t i = 0; i < n && r->handed_end < r->lease_cap; i++)
        r->handed_ref[r->handed_end++] = l[i].ref[0];
}

int remote_begun(struct remote *r, const struct fab_lease *l)
{
    uint64_t ref = l->ref[0];
    uint32_t i = (uint32_t)ref, generation = (uint32_t)(ref >> 32), at;
    if (!(r->opts.flags & FAB_BEGINS) || l->ref[2] != r->leases || i >= r->lease_cap)
        return 0;
    if (r->mark[i].gone == generation)
        return err_set(-ESTALE, "the task was given back: another worker was idle");
    for (at = r->handed_first; at < r->handed_end && r->handed_ref[at] != ref; at++)
        ;
    if (at == r->handed_end)
        return 0;                      /* begun before */
    for (; at > r->handed_first; at--) /* mostly it is the first */
        r->handed_ref[at] = r->handed_ref[at - 1];
    r->handed_first++;
    return 0;
}

static bool was_recalled(const struct remote *r, uint64_t ref)
{
    return (uint32_t)ref < r->lease_cap && r->mark[(uint32_t)ref].gone == (uint32_t)(ref >> 32);
}

int remote_begin(fab_t *f, const struct fab_lease *l)
{
    struct remote *r = (struct remote *)f;
    bool here = !r->broken && l->ref[2] == r->leases &&
                (r->held_lease ? remote_held_is(r, l->ref[0]) || was_recalled(r, l->ref[0]) : remote_is_up(r));
    int rc = here ? remote_begun(r, l) : err_set(-ESTALE, "the lease ended with its link");
    if (rc == 0)
        return 0;
    free((void *)(uintptr_t)l->ref[1]);
    r->leased -= r->leased > 0 && !here; /* one that was given back has been counted */
    return rc;
}

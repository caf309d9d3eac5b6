/* SPDX-License-Identifier: MIT
 *
 * remote_attend.c - what a remote worker hears about leases it holds, how it sleeps while their
 * kernels run elsewhere, and how it tells of their crashes.
 *
 * The daemon says CANCEL when a producer cancels a task that this side has a lease of, and TERMS
 * ahead of a lease with a time limit. Both name the lease by its number and generation: what is said
 * of an older one is ignored, and what overtakes a large lease still counts.
 *
 * Threads: the handle's. Failure: when the link breaks, all leases are void.
 */
#include <errno.h>
#include <poll.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/remote.h"

#define LOOK_NS 100000u
#define DOWN_NS 5000000u

int remote_on_mark(struct remote *r, const struct record *rec)
{
    uint32_t i = (uint32_t)rec->ref, generation = (uint32_t)(rec->ref >> 32);
    struct fab_terms t;
    if (i >= r->lease_cap)
        return err_set(-EPROTO, "a lease's number outside the window");
    if (rec->type == REC_CANCEL) {
        r->mark[i].cancelled = generation;
        r->cancels++;
        return 0;
    }
    int rc = rec_get_terms(rec, &t);
    if (rc < 0)
        return rc;
    r->mark[i].limited = generation;
    r->mark[i].due_ns = clock_ns() + t.limit_ns;
    return 0;
}

uint64_t remote_due(const struct remote *r, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    return i < r->lease_cap && r->mark[i].limited == (uint32_t)(ref >> 32) ? r->mark[i].due_ns : 0;
}

int remote_cancelled(fab_t *f, const struct fab_lease *l)
{
    struct remote *r = (struct remote *)f;
    uint32_t i = (uint32_t)l->ref[0];
    uint64_t now = clock_ticks();
    if (i < r->lease_cap && now - r->looked_at > r->ticks_hz / (1000000000u / LOOK_NS)) {
        r->looked_at = now;
        r->hurried = true;
        (void)!remote_progress(r); /* a break is remembered */
        r->hurried = false;
    }
    return r->broken || !(r->held_lease || remote_is_up(r)) || l->ref[2] != r->leases ||
           i >= r->lease_cap || !remote_held_is(r, l->ref[0]) ||
           r->mark[i].cancelled == (uint32_t)(l->ref[0] >> 32);
}

int remote_crash(fab_t *f, const struct fab_lease *l, const char *text)
{
    return remote_end((struct remote *)f, l, FAB_DEAD, text);
}

int remote_overrun(fab_t *f, const struct fab_lease *l)
{
    return remote_end((struct remote *)f, l, FAB_OVERRUN, "");
}

static void on_fd(struct loop_src *src, int result)
{
    (void)src;
    (void)result; /* the caller looks at its word, and reads */
}

/* Until something comes on the link, or on the caller's descriptor; without a link not for long, since
 * the descriptor of one that is being made is another's. */
static int attend_sleep(struct remote *r, uint64_t deadline, uint64_t now)
{
    bool here = r->link == LINK_UP || r->link == LINK_EXCHANGE;
    if (here && remote_wire_look(r, now, &deadline))
        return 0;
    if (!here && deadline - now > DOWN_NS)
        deadline = now + DOWN_NS;
    int64_t ns = deadline == UINT64_MAX || deadline - now > INT64_MAX ? -1
                 : deadline > now                                      ? (int64_t)(deadline - now)
                                                                       : 0;
    return here ? remote_sleep(r, ns) : loop_run(r->loop, ns);
}

int remote_attend(fab_t *f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = deadline_of(timeout_ns), now;
    uint32_t leases = r->leases;
    int rc = r->task ? remote_progress(r) : err_set(-EPERM, "this handle is a tool's");
    if (rc >= 0)
        rc = remote_flush(r);
    if (rc >= 0 && !remote_is_up(r) && !r->held_lease)
        return 0; /* the leases ended with the link */
    if (rc < 0)
        return rc;
    if (fd >= 0 && r->src[3].slot == 0 &&
        (rc = loop_watch(r->loop, &r->src[3], fd, POLLIN, true, on_fd)) < 0)
        return rc;
    while (r->cancels == r->attended &&
           (!word || at_load((_Atomic uint32_t *)word) == value) && (fd < 0 || r->src[3].slot)) {
        now = clock_ns();
        if (now >= deadline)
            return -ETIMEDOUT;
        rc = attend_sleep(r, deadline, now);
        r->hurried = true;
        if (rc == 0)
            rc = remote_progress(r);
        r->hurried = false;
        if (rc >= 0 && (leases != r->leases || !(r->held_lease || remote_is_up(r))))
            break;
        if (rc < 0)
            return rc;
    }
    r->attended = r->cancels;
    return 0;
}

/* SPDX-License-Identifier: MIT
 *
 * remote.h - a handle on a fabric behind a link: what tcp: and verbs: addresses open.
 *
 * One handle is one link: a control connection (session.h), a domain, an endpoint and a lane pair,
 * all of one thread. There is no thread of its own: every call makes progress, waits spin briefly
 * and then sleep in the handle's loop.
 *
 * Failure: when the link breaks, tasks whose outcome had not arrived end as FAB_LOST, leases held
 * are void (the daemon gives them to others), and every later call returns -EPIPE. Opening a new
 * handle is the caller's.
 */
#ifndef FABRIC_REMOTE_H
#define FABRIC_REMOTE_H

#include "core/handle.h"
#include "core/wake.h"
#include "transport/big.h"
#include "transport/lane.h"
#include "transport/loop.h"
#include "transport/session.h"

/* A task submitted and not yet taken. */
struct rtask {
    uint32_t generation; /* odd while in use; half of the fab_id and of the wire's ref */
    uint32_t next;       /* in the free list, or in the list of arrived outcomes */
    uint8_t arrived;
    uint8_t status;
    uint16_t attempts;
    uint32_t len;
    uint64_t tag;
    uint64_t small;
    uint8_t *data; /* len > 8 */
};

/* A lease that has arrived and was not yet handed to the caller, or is held by it (for its large
 * argument). */
struct rlease {
    struct fab_lease lease;
    uint8_t *data; /* argument over 64 bytes */
};

/* A lease that was cancelled, or has a time limit; each holds for one generation. */
struct rmark {
    uint32_t cancelled, limited;
    uint64_t due_ns;
};

struct remote {
    struct fab base;
    struct session *session;
    struct lane *lane;
    const struct tr_ops *tr;
    struct tr_domain *dom;
    struct loop *loop;
    struct loop_src src[4]; /* 0, 1: the transport; 2: control; 3: fab_attend()'s */
    struct spin spin;
    int broken; /* 0, or why the link is gone: -errno */
    char why[200];

    /* producer */
    struct rtask *task;
    uint32_t window, outstanding, free_task;
    uint32_t unwaited;              /* FAB_NO_WAIT tasks that the daemon has not acknowledged */
    uint32_t done_first, done_last; /* arrived, in order; NONE */
    struct big_queue big_out;
    struct big_in big_in;
    uint8_t **held; /* large outcomes lent to the caller until its next wait */
    uint32_t held_n, held_cap;

    /* worker */
    struct rlease *lease; /* ring of arrived ones */
    uint32_t lease_cap, lease_head, lease_n;
    uint32_t want, want_queue; /* what the daemon was told */
    uint32_t leased;           /* leases the caller was given and has not ended */
    bool producing;     /* the present wait is for outcomes or room: see remote_give_back() */
    uint32_t handed;    /* leases in the caller's hands */
    uint64_t handed_at; /* ticks of the last hand-over */
    double task_ticks;  /* smoothed time per task */
    struct rmark *mark; /* by the lease's number: what was said about it */
    uint32_t cancels, attended; /* CANCELs that came, and as of the last fab_attend() */
    uint64_t looked_at;         /* fab_cancelled(): ticks */
    uint64_t flushed_at;
    uint64_t ticks_hz;
};

#define REMOTE_NONE UINT32_MAX

int remote_open(fab_t **out, const char *scheme, const char *host, const char *port,
                const struct fab_options *opts) __attribute__((warn_unused_result));

/* ---- between the remote_*.c files ---- */

/* Moves what can be moved without waiting. Returns a count of things done, or -EPIPE. */
int remote_progress(struct remote *r) __attribute__((warn_unused_result));
/* Waits for anything to happen. 0, -ETIMEDOUT at the deadline (clock_ns), -EPIPE. Call spin_start()
 * before the first. */
int remote_wait(struct remote *r, uint64_t deadline) __attribute__((warn_unused_result));
/* The same for a producer's waits: what is at hand to be claimed is given back before the sleep. */
int remote_wait_outcome(struct remote *r, uint64_t deadline) __attribute__((warn_unused_result));
/* Gives unstarted leases back and wants no more until the next claim. A thread that sleeps for an
 * outcome runs no tasks meanwhile, and the very task it waits for may be among them. */
int remote_give_back(struct remote *r) __attribute__((warn_unused_result));
/* Puts a record into the lane, making room by flushing and waiting until the deadline. */
int remote_put(struct remote *r, const struct record *rec, uint64_t deadline)
    __attribute__((warn_unused_result));
/* The same for a payload of any length: large ones are queued and pumped until they are out. */
int remote_put_any(struct remote *r, struct record *rec, const void *data, uint64_t deadline)
    __attribute__((warn_unused_result));
int remote_flush(struct remote *r) __attribute__((warn_unused_result));
int remote_broken(struct remote *r, int why);
/* A record from the daemon; data: its payload when it came as a large one (ours to free). */
int remote_outcome(struct remote *r, const struct record *rec, uint8_t *data)
    __attribute__((warn_unused_result));
int remote_lease(struct remote *r, const struct record *rec, uint8_t *data)
    __attribute__((warn_unused_result));
void remote_lose_all(struct remote *r);

long remote_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns);
int remote_wait_one(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns);
long remote_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns);
int remote_cancel(fab_t *f, fab_id id);
int remote_withdraw(fab_t *f, fab_id id);
long remote_claim(fab_t *f, uint32_t queue, struct fab_lease *l, size_t max, int64_t timeout_ns);
int remote_complete(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len);
int remote_fail(fab_t *f, const struct fab_lease *l, const char *message);
int remote_release(fab_t *f, const struct fab_lease *l);
/* ---- remote_attend.c ---- */
int remote_crash(fab_t *f, const struct fab_lease *l, const char *text);
int remote_overrun(fab_t *f, const struct fab_lease *l);
int remote_cancelled(fab_t *f, const struct fab_lease *l);
int remote_attend(fab_t *f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns);
/* CANCEL and TERMS of a lease. */
int remote_on_mark(struct remote *r, const struct record *rec) __attribute__((warn_unused_result));
/* When this lease's attempt is over its limit; 0: it has none. */
uint64_t remote_due(const struct remote *r, uint64_t ref);
/* remote_claim.c: the end of a lease, with a status other than FAB_COMPLETED. */
int remote_end(struct remote *r, const struct fab_lease *l, enum fab_status status, const char *text)
    __attribute__((warn_unused_result));
/* remote.c: sleeps until a descriptor is readable. */
int remote_sleep(struct remote *r, int64_t ns) __attribute__((warn_unused_result));

#endif

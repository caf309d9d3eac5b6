/* SPDX-License-Identifier: MIT
 *
 * link.h - the daemon's end of a link: moves tasks between the segment and one peer's lanes.
 *
 * A link is a participant of the segment like any local process: what it claims
 * is LEASED to its number, what it submits has it as producer, and when it ends the undertaker
 * recovers what it held. It runs in the daemon's loop thread and never waits.
 *
 * A peer may be producer, worker or both. For a producer the daemon places its SUBMIT records in
 * the ready rings and sends outcomes back; for a worker it claims up to as many leases as the peer
 * WANTs and completes them as DONE records arrive.
 *
 * A link can break and come back. If its end has not been noticed by then it is moved as it is to the
 * new connection; else a producer's participant was kept, and a new link takes it up (resume.c).
 *
 * Backpressure: what the fabric has no room for waits in the link's pending list (its length is
 * bounded by the submit window, its bytes by PENDING_BYTES_MAX); beyond that the lane is not read,
 * and the peer runs out of credits.
 *
 * Trust: every ref, queue and length of a record is checked; a peer that breaks the protocol loses
 * its link, nothing else.
 */
#ifndef FABRICD_LINK_H
#define FABRICD_LINK_H

#include "core/local.h"
#include "core/participant.h"
#include "transport/big.h"
#include "transport/lane.h"

#define LINK_BATCH 64u

struct link_params {
    const struct segment *seg;
    int daemon_fd;
    uint32_t roles;
    const char *name; /* the peer's own */
    const char *peer; /* address */
    const char *provider;
    enum lane_mode mode;
    bool encrypted;
    uint32_t lease_window, submit_window;
    uint32_t pid; /* the daemon's own: the participant lives as long as it */
    const struct identity *identity; /* of a producer; NULL: its tasks can't be taken up */
    enum link_session { LINK_NEW, LINK_RESUMED, LINK_TAKEN_UP, LINK_MOVED } session; /* ctl_session */
    uint32_t kept; /* the kept participant whose tasks it takes up; not with LINK_NEW */
    uint32_t window; /* of a handle that had a link before: the places of its table; 0: it had none */
};

/* A task of a remote producer, at the place that the low half of its ref names. */
enum link_task_state {
    TASK_NONE,    /* no such task, or it was taken */
    TASK_WAITING, /* in the pending list */
    TASK_PLACED,  /* in a slot */
    TASK_TOLD,    /* its outcome was sent; the slot stays until the user has taken it */
};
struct link_task {
    fab_id id; /* slot and epoch: PLACED, TOLD */
    uint32_t generation; /* the high half of its ref */
    uint8_t state;
    bool wanted; /* the handle has named it (resume.c) */
};

struct pending; /* a SUBMIT waiting for room */

struct link {
    const struct segment *seg;
    struct local *local;
    uint32_t participant, generation;
    struct lane *lane; /* set by the owner; NULL until the data connection is there */
    uint32_t lease_window, submit_window;

    /* worker */
    struct link_lease {
        uint64_t ref[3];
        uint32_t generation; /* odd: in use */
        uint32_t next;
        uint32_t order; /* counts the leases sent: the least one is the oldest */
        uint8_t queue;
        bool cancelled; /* the peer is to be told */
        bool revoked;   /* the task has been given to others; what the peer says of it is dropped */
        bool named;     /* after a move: the peer has it */
    } * lease;
    uint32_t sent;
    uint32_t cancels; /* how many of these */
    uint32_t lease_free, lease_used; /* places from here on were never used */
    uint32_t in_flight;
    uint32_t want, want_queue;
    uint64_t task_ns;  /* the peer's time per task, as it says; 0: not known */
    bool deaf;         /* it does not answer: gets no leases (pulse.h) */
    uint32_t revoked;  /* leases with this flag */
    uint64_t heard_ns; /* when it last said something in the lane */
    uint64_t busy_ns;  /* when it was given its first task after none */
    /* RECALL (pulse.h): to be sent, sent, answered by a WANT of 0; over with the next other WANT */
    enum { RECALL_NONE, RECALL_DUE, RECALL_SENT, RECALL_DONE } recall;
    uint64_t recall_ns; /* when it was sent */
    uint64_t read_at; /* ticks: the batch that is read now, if it is a worker's */
    double ticks_per_ns;
    uint64_t ran_ticks; /* what ran_code, of the last DONE, says (rec_time()) */
    uint8_t ran_code;
    struct fab_lease *claimed; /* not yet in the lane; LINK_BATCH of them, made with the table */
    uint32_t claimed_n, claimed_at;
    bool alone; /* the one claimed last is one that goes alone */

    /* producer */
    struct link_task *task; /* submit_window of them */
    struct link_terms **terms; /* by the peer's task number, of SUBMITs to come; NULL: none yet */
    uint32_t unanswered;
    uint32_t refused; /* tasks nobody waits for that the fabric did not take: for the log */
    struct pending *pending_first, *pending_last;
    uint32_t pending_n;
    uint64_t pending_bytes;
    struct fab_outcome got[LINK_BATCH]; /* read, not yet in the lane */
    uint32_t got_n, got_at;
    uint64_t placed[LINK_BATCH]; /* refs of large arguments, to be told */
    uint32_t placed_n;
    /* what both sides know (resume.c) */
    enum { EXCHANGE_OVER, EXCHANGE_HEAR, EXCHANGE_UNKNOWN, EXCHANGE_KEPT } exchange;
    struct link_list {
        uint64_t *ref; /* named by the handle, and not known */
        uint32_t n, heard, told;
    } unknown[2]; /* tasks, leases */
    uint32_t kept_n, kept_told;
    bool names_leases; /* the handle is to name the leases that it has */

    struct big_queue big_out;
    struct big_in big_in;
};

int link_open(struct link **out, const struct link_params *p) __attribute__((warn_unused_result));
/* The handle has come back over another connection, p's: tasks and leases stay, what was on its way is
 * void, and the handle says first what it has. The old endpoint has been freed, the lane is to be set again. Returns what the handle is to
 * be told: LINK_MOVED; without a lease that it might have, LINK_RESUMED for a producer, else LINK_NEW. */
enum link_session link_move(struct link *k, const struct link_params *p);
/* Moves what can be moved. Returns a count of records moved; < 0: the link must be closed (message
 * says why). */
long link_work(struct link *k) __attribute__((warn_unused_result));
/* The connection has ended: takes in what had arrived by then, so that what was completed is not
 * run again. The link is closed next. */
void link_read_rest(struct link *k);
/* S1 and S2 of wake.h for everything the link waits for in the segment. False: there is work. */
bool link_arm(struct link *k);
/* The task in slot, which the peer may have a lease of with this word, shall stop: it is told. */
void link_cancel(struct link *k, uint32_t slot, uint64_t word);
/* Asks the worker to give back what it has not started. */
void link_recall(struct link *k);
/* The worker does not answer: the tasks of all its leases but the oldest, which may have been started,
 * go to others; it gets no more before it has said what became of them. Returns how many. */
uint32_t link_revoke(struct link *k);
/* Copies its numbers to where fabctl sees them. */
void link_publish(struct link *k);
/* Gives back everything (through the undertaker) and frees the link; the lane is the owner's, its endpoint has been
 * freed.
 * crashed: leases count against their tasks' crash budgets. keep_until_ns: its tasks and outcomes
 * are kept until then; 0: not at all. */
void link_close(struct link *k, const struct wake_out *out, uint32_t me, bool crashed,
                uint64_t keep_until_ns);

#endif

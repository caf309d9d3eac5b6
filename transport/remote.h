/* SPDX-License-Identifier: MIT
 *
 * remote.h - a handle on a fabric behind a link: what tcp: and verbs: addresses open.
 *
 * A handle has one link at a time: a control connection (session.h), a domain, an endpoint and a lane
 * pair, all of one thread. It has no thread of its own: every call makes progress, waits spin
 * briefly and then sleep in the handle's loop. While the caller is elsewhere, in a kernel say, the
 * process's beat thread (beat.h) does what the daemon asks for: remote_beat.c.
 *
 *   UP -> DOWN -> JOINING -> EXCHANGE -> UP
 *
 * When the link breaks, tasks are not lost: the handle has kept what it needs to submit them again,
 * connects anew, and both sides find out which of them the daemon has (remote_link.c). Calls wait for
 * that within their time-outs. A handle that waits finds out by itself that the wire is dead, and when
 * it is there again (remote_wire.c).
 *
 * Leases stay the handle's own while the daemon has not noticed the break, and what it ended meanwhile is
 * said on the next link (remote_held.c). Where the daemon has noticed they are void at once: they go to
 * others.
 *
 * Failure: when the link does not come back in the time that the daemon keeps its tasks (of a handle that
 * only works: its leases, or nobody listens there; or the daemon has said that it ends) every later call returns -EPIPE, and tasks
 * whose outcome had not arrived end as FAB_LOST. They do so, too, when the daemon that answers does
 * not know the handle: its segment is another one. Then the handle goes on with that one.
 *
 * Bounds: small arguments are kept until the outcome comes, so at most the window's; of large ones
 * (REC_PLACED_MIN) at most RETAINED_MAX bytes, until the daemon says that it has them.
 */
#ifndef FABRIC_REMOTE_H
#define FABRIC_REMOTE_H

#include "core/handle.h"
#include "core/wake.h"
#include "transport/beat.h"
#include "transport/big.h"
#include "transport/lane.h"
#include "transport/loop.h"
#include "transport/session.h"

/* A task submitted and not yet taken. len, small, data are the argument's until the outcome has
 * arrived, then that. */
struct rtask {
    uint32_t generation; /* odd while in use; half of the fab_id and of the wire's ref */
    uint32_t next;       /* in the free list, or in the list of arrived outcomes */
    uint32_t len;
    uint32_t seq; /* of its submit, counted on the handle */
    uint8_t status;
    uint8_t queue, priority;
    bool arrived : 1;
    bool unwaited : 1; /* FAB_NO_WAIT */
    bool cancel : 1;   /* it was asked to be withdrawn */
    bool stop : 1;     /* or stopped, if it runs */
    bool placed : 1;   /* the daemon has its argument, or another handle submitted it: not here */
    bool bulky : 1;    /* the daemon is told soon that it was taken: it holds memory beside the slot */
    bool untold : 1;   /* the daemon does not know that it can forget the (last) outcome */
    uint16_t attempts;
    uint64_t tag;
    uint64_t kernel;
    uint64_t small;
    uint8_t *data;           /* len > 8 */
    struct fab_terms *terms; /* NULL: none */
};

/* A lease that has arrived and was not yet handed to the caller, or is held by it (for its large
 * argument). */
struct rlease {
    struct fab_lease lease;
    uint8_t *data; /* argument over 64 bytes */
};

/* What the handle has had under a lease's number: what is to be said of it after a break. */
struct rheld {
    uint32_t generation;
    enum { HELD_NONE, HELD_OPEN, HELD_ENDED, HELD_RELEASED } state;
    uint8_t status, queue;
    bool unsaid; /* its end is to be said again on this link */
    uint32_t len;
    uint64_t small;
    uint8_t *data; /* len > 8 */
};

/* What was said about a lease: cancelled, has a time limit, was begun (fab_begin()), or was given back
 * while the caller had it; each holds for one generation. */
struct rmark {
    uint32_t cancelled, limited, begun, gone;
    uint64_t due_ns;
};
#define REMOTE_LIST 64u /* refs in a record */

#define REMOTE_BIG    (BIG_ANNOUNCED + 1) /* large payloads on their way to us at once */
#define REMOTE_SPARES 16u

/* Whether the wire is there (remote_wire.c); times are clock_ns. */
struct remote_wire {
    uint32_t arrived;      /* messages on this link (lane_counts()), as of the last look */
    bool worked;           /* since then a record that is no ECHO has come */
    uint64_t worked_at;    /* work has moved last */
    uint64_t heard_at;     /* anything has come last, as far as was looked */
    uint64_t asked_at;     /* an ECHO is out, and nothing has come since; 0: none is */
    uint64_t pinged_at;    /* the same of a PING; 0: none */
    uint64_t doubt_ns;     /* silence that is too long; longer after false alarms */
    uint64_t alarm_at;     /* the last of these */
    struct session *probe; /* a connection that finds out; held (session_hold()) */
    uint64_t probed_at;    /* since then */
    uint64_t probe_at;     /* no other before */
    uint64_t answered_at;  /* the probe was answered; 0: not yet */
    bool echoing, echoed;  /* an ECHO is out; one has come back since it was asked */
    bool full;             /* fabricd is well, and has nothing to say or does not read */
    uint64_t glanced;      /* ticks */
    uint32_t spent;        /* links given up for dead, one less each CALM_NS */
    uint64_t spent_at;
};

struct remote {
    struct fab base;
    /* what a new link is made with */
    char provider[16], host[256], port[8], name[FAB_NAME_MAX], client[FAB_CLIENT_MAX];
    struct fab_options opts;
    struct session_self self;
    bool producer, works;

    enum remote_link { LINK_UP, LINK_DOWN, LINK_JOINING, LINK_EXCHANGE } link;
    uint32_t links;  /* how many there were */
    uint32_t leases; /* counts how often all leases became void: one of another count is */
    struct session *left; /* the link before, given up for dead: closed when the next is up, as its end
                           * would tell fabricd that we are gone */
    struct remote_wire wire;
    uint32_t tries;
    uint64_t patience; /* with an answer while a link is made: grows with each that does not come */
    int hangup;     /* why this one is about to end, found where it could not be dealt with */
    char hangup_why[200];
    struct guard guard; /* the caller's thread or the beat thread */
    struct beat beat;
    uint64_t down_at, give_up_at, try_at, pause; /* clock_ns */
    struct session_info info;
    struct session *session;
    struct lane *lane;
    const struct tr_ops *tr;
    struct tr_domain *dom;
    struct loop *loop;
    struct loop_src src[5]; /* 0, 1: the transport; 2: control; 3: fab_attend()'s; 4: the probe's */
    bool hurried;           /* this call has no time to wait for a link that is being made */
    struct spin spin;
    int broken; /* 0, or why the link is gone for good: -errno */
    char why[200];

    /* producer */
    struct rtask *task;
    uint32_t window, outstanding, free_task;
    uint32_t unwaited;              /* FAB_NO_WAIT tasks that the daemon has not acknowledged */
    uint32_t done_first, done_last; /* arrived, in order; NONE */
    uint32_t seq;
    uint32_t untold, untold_bulky; /* tasks with these flags */
    uint64_t *tell;                /* refs that were untold when they were put here; window of them */
    uint32_t tell_n;
    uint64_t retained;              /* bytes of large arguments */
    struct remote_lent {            /* fab_arg_new()'s memory that the caller has */
        void *at;
        uint32_t len;
    } * lent;
    uint32_t lent_n, lent_cap;
    uint32_t *list; /* of task numbers: to be named (EXCHANGE), then to be submitted again (UP) */
    uint32_t list_n, list_at, list_arrived; /* from there on the named ones have arrived */
    enum { NAMING_TASKS, NAMING_LEASES, NAMED } naming; /* EXCHANGE: what is being sent, or all has been */
    uint32_t withdraw_at; /* cancellations from here on are to be repeated; window: none */
    struct big_queue big_out;
    struct remote_big {
        struct big_in in;
        struct tr_mr *mr;    /* while fabricd may write into it */
        struct tr_remote at; /* what CLEAR says */
        bool clear_due;
    } big[REMOTE_BIG]; /* remote_big.c */
    uint8_t *spare[REMOTE_SPARES];
    uint32_t spares;
    uint8_t **held; /* large outcomes lent to the caller until its next wait */
    uint32_t held_n, held_cap;

    /* worker */
    struct rlease *lease; /* ring of arrived ones */
    uint32_t lease_cap, lease_head, lease_n;
    uint32_t want, want_queue; /* what the daemon was told */
    uint32_t leased;           /* leases the caller was given and has not ended */
    bool recalled, recall_said; /* what is not started is being given back: see remote_recall() */
    uint64_t *handed_ref; /* leases the caller has been given and not begun, in order (FAB_BEGINS) */
    uint32_t handed_first, handed_end;
    uint64_t echo_at;     /* ticks: the last ECHO was sent; 0: none on this link */
    bool worked;          /* tasks have come since then */
    double rtt_ticks;     /* smoothed, leaning to the least; 0: not known */
    bool producing;     /* the present wait is for outcomes or room: see remote_give_back() */
    uint32_t handed;    /* leases in the caller's hands */
    uint64_t handed_at; /* ticks of the last hand-over */
    uint64_t turned_at; /* ticks: when the caller turned to its present task, at the earliest */
    double task_ticks;  /* smoothed time per task */
    struct rmark *mark; /* by the lease's number: what was said about it */
    struct rheld *held_lease; /* the same; NULL: this handle only produces */
    uint32_t name_at;         /* EXCHANGE: those from here on are to be named */
    uint32_t say_at;          /* remote_held.c: from here on ends may be unsaid; lease_cap: none */
    uint32_t cancels, attended; /* CANCELs that came, and as of the last fab_attend() */
    uint64_t looked_at;         /* fab_cancelled(): ticks */
    uint64_t flushed_at, flush_ticks;
    uint64_t paced_at; /* ticks: gathered ends were last sent while there were leases at hand */
    uint64_t ticks_hz;
    double ns_per_tick;
};

#define REMOTE_NONE UINT32_MAX

int remote_open(fab_t **out, const char *scheme, const char *host, const char *port,
                const struct fab_options *opts) __attribute__((warn_unused_result));

#define RETAINED_MAX (64u << 20)

/* ---- between the remote_*.c files ---- */

/* remote_link.c: what has arrived has been read; the link is no more. -EPIPE when it is for good. */
int remote_link_down(struct remote *r, int why) __attribute__((warn_unused_result));
/* One step towards a new link. 1: something was done; 0: not yet; -EPIPE: given up. */
int remote_link_step(struct remote *r) __attribute__((warn_unused_result));
/* The session is up: the link is. */
int remote_link_joined(struct remote *r) __attribute__((warn_unused_result));
/* Sends what the exchange wants to be sent. 1, 0 as above; < 0: the link is to end. */
int remote_link_pump(struct remote *r) __attribute__((warn_unused_result));
/* UNKNOWN, KEPT, PLACED. */
int remote_unknown(struct remote *r, const struct record *rec) __attribute__((warn_unused_result));
int remote_kept(struct remote *r, const struct record *rec) __attribute__((warn_unused_result));
/* Waits until the link is up. 0, -ETIMEDOUT, -EPIPE. */
int remote_await_up(struct remote *r, uint64_t deadline) __attribute__((warn_unused_result));
/* Tasks can be submitted: the link is up, and nothing is to be submitted again first. */
static inline bool remote_is_up(const struct remote *r)
{
    return r->link == LINK_UP && !r->broken;
}

/* remote_link.c: goes on with a session that is being made, or has been, in place of the link. */
void remote_link_replace(struct remote *r, struct session *s);

/* ---- remote_wire.c ---- */
/* A new link is up. */
void remote_wire_begin(struct remote *r);
/* Before a sleep: looks whether the wire is there; *until comes down to when to look again. 1: the
 * link was given up for another; 0. */
int remote_wire_look(struct remote *r, uint64_t now, uint64_t *until);
/* The same now and then in calls that don't wait. */
void remote_wire_glance(struct remote *r);
/* Drops the probe, for good or because the link has ended: then it is returned, if it may be of use. */
struct session *remote_wire_end(struct remote *r, bool keep);
/* What is known of the round trip, into self.rtt_ns. */
void remote_wire_rtt(struct remote *r);

/* ---- remote_held.c ---- */
/* The table for leases of a new link; kept: those of the last one stay. */
int remote_held_open(struct remote *r, bool kept) __attribute__((warn_unused_result));
void remote_held_close(struct remote *r);
void remote_held_lease(struct remote *r, uint64_t ref);
/* It was given back, or is not ours any more: nothing is to be said of it. Where it waits to be handed out,
 * it is skipped; who has it is told at its end. */
void remote_held_drop(struct remote *r, uint64_t ref);
/* Still ours, as far as is known. Always true for handles that also produce. */
bool remote_held_is(const struct remote *r, uint64_t ref);
/* Its end, to be said again if it should be lost. 1: kept; 0: too long for that; -ENOMEM. */
int remote_held_end(struct remote *r, const struct record *rec, const void *data)
    __attribute__((warn_unused_result));
/* remote_held_is() and remote_held_end() in one, for a result of 8 bytes while the link is up. False: the lease is
 * not ours any more. */
bool remote_held_eight(struct remote *r, uint64_t ref, uint8_t queue, const void *data);
/* RESUME's next record; *last: it is the last. 1; 0: no room now. */
int remote_held_name(struct remote *r, bool *last) __attribute__((warn_unused_result));
/* Says again what is unsaid, as far as there is room; how much. */
int remote_held_say(struct remote *r);

/* remote_submit.c */
int remote_placed(struct remote *r, const struct record *rec) __attribute__((warn_unused_result));
/* The task that ref names, NULL when it is not outstanding. */
struct rtask *remote_task(struct remote *r, uint64_t ref);
static inline uint64_t remote_ref(const struct remote *r, uint32_t i)
{
    return (uint64_t)r->task[i].generation << 32 | i;
}
/* Puts task i into the lane. 1; 0: no room now; < 0: the link is to end. */
int remote_put_task(struct remote *r, uint32_t i) __attribute__((warn_unused_result));
/* Task i ends as FAB_LOST, or is forgotten when nobody waits for it. */
void remote_lose(struct remote *r, uint32_t i);
/* Tells the daemon which outcomes it can forget: before a sleep (now) of all, else of many. */
void remote_tell_taken(struct remote *r, bool now);
/* Puts all places that are not in use into the free list. */
void remote_free_places(struct remote *r);

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
/* Gives back what is not started, as far as the lane has room now; r->recalled says whether there is
 * more. Doesn't wait. */
void remote_recall(struct remote *r);
/* Gives the next lease at hand back. 1; 0: no room now. */
int remote_lease_back(struct remote *r);
/* Tells the daemon how many leases are wanted, when that has changed much. */
int remote_tell_want(struct remote *r, uint32_t queue, size_t max) __attribute__((warn_unused_result));
/* The caller is handed these; they are begun one after the other, if it has said so. */
void remote_hand(struct remote *r, const struct fab_lease *l, size_t n);
/* The caller begins (or ends) this one. -ESTALE: it has been given back. */
int remote_begun(struct remote *r, const struct fab_lease *l) __attribute__((warn_unused_result));
/* Measures the round trip now and then; now: ticks. */
void remote_echo(struct remote *r, uint64_t now);
/* The answer to an ECHO. */
void remote_on_echo(struct remote *r, const struct record *rec);
/* Puts a record into the lane, making room by flushing and waiting until the deadline. -ESTALE: the
 * link is not up, or has ended meanwhile. */
int remote_put(struct remote *r, const struct record *rec, uint64_t deadline)
    __attribute__((warn_unused_result));
/* The same for a payload of any length: large ones are queued and pumped until they are out. */
int remote_put_any(struct remote *r, struct record *rec, const void *data, uint64_t deadline)
    __attribute__((warn_unused_result));
/* 1: posted; 0: nothing, or not now. An end of the link is remote_progress()'s to deal with. */
int remote_flush(struct remote *r);
/* Puts a record into the lane. 1; 0: no room now. */
int remote_try_put(struct remote *r, const struct record *rec) __attribute__((warn_unused_result));
/* Watches the session's control connection. */
int remote_watch(struct remote *r) __attribute__((warn_unused_result));
/* Drops all leases: those of a link that has ended. */
void remote_drop_leases(struct remote *r);
/* Drops those that wait to be handed out and are not ours any more. */
void remote_purge_leases(struct remote *r);
int remote_broken(struct remote *r, int why);
/* A record from the daemon; data: its payload when it came as a large one (ours to free). */
int remote_outcome(struct remote *r, const struct record *rec, uint8_t *data)
    __attribute__((warn_unused_result));
int remote_lease(struct remote *r, const struct record *rec, uint8_t *data)
    __attribute__((warn_unused_result));
void remote_lose_all(struct remote *r);

void remote_close(fab_t *f);
int remote_queue(fab_t *f, const char *name, uint32_t *queue);
size_t remote_outstanding(const fab_t *f);
int remote_flush_op(fab_t *f);
int remote_status(fab_t *f, char **text, int64_t timeout_ns);
int remote_admin(fab_t *f, const struct admin_request *q, struct admin_reply *reply,
                 int64_t timeout_ns);
int remote_arg_new(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns);
void remote_arg_drop(fab_t *f, void *arg);
/* Whether arg is fab_arg_new()'s with room for len bytes. */
bool remote_is_lent(const struct remote *r, const void *arg, uint32_t len);
/* It is the caller's no more; the memory goes on. */
void remote_lent_over(struct remote *r, const void *arg);
long remote_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns);
int remote_wait_one(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns);
long remote_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns);
int remote_cancel(fab_t *f, fab_id id);
int remote_withdraw(fab_t *f, fab_id id);
long remote_claim(fab_t *f, uint32_t queue, struct fab_lease *l, size_t max, int64_t timeout_ns);
int remote_complete(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len);
long remote_complete_many(fab_t *f, const struct fab_lease *l, const struct fab_result *res, size_t n);
int remote_begin(fab_t *f, const struct fab_lease *l);
int remote_fail(fab_t *f, const struct fab_lease *l, const char *message);
int remote_release(fab_t *f, const struct fab_lease *l);
/* ---- remote_big.c ---- */
void remote_big_open(struct remote *r);
/* A REC_BIG record or a DATA record. 1: a payload is complete, *whole is what it belongs to and *data
 * the caller's (free() or remote_spare()); 0; < 0: the link is to end. */
int remote_on_big(struct remote *r, const struct record *rec, struct record *whole, uint8_t **data)
    __attribute__((warn_unused_result));
/* fabricd is writing one, or will soon. */
bool remote_big_coming(const struct remote *r);
/* Says CLEAR where it is due and there is room; how often. */
int remote_big_clear(struct remote *r);
/* Drops what has not come whole; nothing of ours may be read any more. Before the link's domain is closed. */
void remote_big_drop(struct remote *r);
void remote_big_close(struct remote *r);
/* Frees an argument's memory, or keeps it for the next. */
void remote_spare(struct remote *r, void *data);
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
/* remote.c: the link is to end, which the next remote_progress() of the caller's sees to. */
void remote_hang_up(struct remote *r, int why);
/* remote.c: what progress does on a link that is up. < 0: it is to end. */
int remote_progress_link(struct remote *r) __attribute__((warn_unused_result));
/* ---- remote_beat.c ---- */
/* The handle's table, each call between guard_enter() and guard_leave(). */
extern const struct fab_ops remote_guarded;
/* The end of a call that began with guard_enter(). */
void remote_leave(struct remote *r);
/* The link is up: the beat thread looks after it, until remote_beat_end(). */
int remote_beat_begin(struct remote *r) __attribute__((warn_unused_result));
void remote_beat_end(struct remote *r);
/* remote.c: sleeps until a descriptor is readable. */
int remote_sleep(struct remote *r, int64_t ns) __attribute__((warn_unused_result));

#endif

/* SPDX-License-Identifier: MIT
 *
 * local.h - a handle on a segment mapped in this process: what unix: addresses open, and what
 * fabricd's links use inside the daemon.
 *
 * Submit, claim, complete and take are loads, stores and CAS on the segment; the only system calls
 * are those of sleeping and waking.
 *
 * Threads: one thread a handle; many handles may share a struct segment.
 */
#ifndef FABRIC_LOCAL_H
#define FABRIC_LOCAL_H

#include "core/arena.h"
#include "core/handle.h"
#include "core/outstanding.h"
#include "core/quota.h"
#include "core/slot.h"
#include "core/wake.h"

/* Why the last submit took nothing. */
enum lack {
    LACK_SLOTS,
    LACK_SHARE,
    LACK_RING,
    LACK_ARENA,
    LACK_ARENA_SHARE,
    LACK_KEYS,
    LACK_KEY_BUSY
};

struct local {
    struct fab base;
    const struct segment *seg;
    struct segment own; /* when this handle mapped it itself */
    uint32_t me, generation;
    uint32_t lease_low; /* the lower half of the words of our leases, but for the attempt */
    struct seg_participant *self;
    struct wake_out out;
    int sock; /* to fabricd: its closing tells of our end; -1 inside fabricd */
    struct slot_stock stock;
    struct arena_cache arena;
    struct spin spin;
    struct outstanding tasks;
    uint32_t *held; /* slots whose outcome bytes the caller may still read */
    uint32_t held_n;
    uint64_t (*known_head)[SEG_PRIORITIES]; /* of each queue's rings: ring_put_many() */
    /* Its tasks may be taken up after its death: an outcome that was taken leaves no trace that
     * looks like one that was not. */
    bool named;
    bool linked;       /* a link's: each task gets the remote handle's number for it */
    uint64_t ref;      /* that of the next task */
    bool unwaited;     /* a FAB_NO_WAIT task was submitted: some of our tasks are in no list */
    bool parked;       /* bell_parked is, or may still be, set by us */
    uint32_t attended; /* bell_seq as of the last fab_attend() */
    uint32_t hot;      /* slot completed last: its producer is likely to use it next (claim.c) */
    uint64_t hot_word, hot_meta;      /* its lease's word and its meta, from which the next one's follow */
    uint32_t claims;                  /* looks at the rings, for the guard against starvation */
    uint32_t hot_patience, wait_patience; /* wake.h */
    uint32_t streak;                  /* claims in a row that found their task there */
    bool woken;                       /* the last claim slept */
    bool alone;                       /* it ended at a task that goes alone (META_SUSPECT) */
    bool deep;                        /* so much waits that it is in no cache (claim.c) */
    uint64_t claimed_at, finished_at; /* ticks: the last claim, the last end of a lease (stages.h) */
    /* When the worker turned to its next task at the earliest: when it finished the one before. 0, as
     * follow_mask is, for a link: its leases' tasks are run elsewhere, side by side. */
    uint64_t free_at, follow_mask;
    uint64_t taken_at; /* ticks, of the last look that found an outcome */
    /* Of the tasks that it finished, and that it took: how many are in no histogram yet (stages.h). */
    struct span_pace {
        uint32_t n, turn;
        uint64_t apart; /* ticks */
    } finished, taken;
    struct quota quota;
    const void *given; /* the local_block() that the next argument, or result, lies in; NULL: it is
                          copied */
    uint32_t given_slot, given_unit; /* the slot + 1 whose argument it became last, and the block */
    enum lack lack;
    uint64_t lack_until; /* LACK_KEYS: when the first key expires */
    uint32_t key_entry;  /* + 1: of the task that is being submitted (dedup.h) */
    uint32_t room_seq;   /* local_wait_room() */
    bool room_armed;
};

#define LOCAL_HELD_MAX 256

/* A handle on a mapped segment as participant `me` (LIVE). seg outlives it. sock: see above. */
int local_open(struct local **out, const struct segment *seg, uint32_t me, uint32_t generation,
               int daemon_fd, int sock, int64_t spin_ns) __attribute__((warn_unused_result));
extern const struct fab_ops local_ops;

/* The state word that the slot a worker completed last has when its producer uses it for its next task. */
static inline uint64_t local_hot_word(const struct local *l)
{
    return slot_word(slot_epoch_after(slot_epoch(l->hot_word)), meta_producer(l->hot_meta), 0,
                     SLOT_READY) |
           SLOT_SOLO;
}

/* submit_wait.c: one step of waiting after a try that took nothing. *deadline, *armed: 0 and -1 at
 * first, kept from step to step. 0: try again; < 0: the wait is over. */
int submit_wait(struct local *l, int64_t timeout_ns, uint64_t *deadline, int *armed)
    __attribute__((warn_unused_result));

/* ---- the operations, also called by fabricd's links ---- */
long local_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns);
int local_wait(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns);
long local_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns);
int local_times(const fab_t *f, const struct fab_outcome *o, struct fab_times *t);
int local_cancel(fab_t *f, fab_id id);
int local_withdraw(fab_t *f, fab_id id);
int local_cancelled(fab_t *f, const struct fab_lease *l);
int local_attend(fab_t *f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns);
long local_claim(fab_t *f, uint32_t queue, struct fab_lease *l, size_t max, int64_t timeout_ns);
int local_complete(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len);
long local_complete_many(fab_t *f, const struct fab_lease *l, const struct fab_result *res, size_t n);
int local_fail(fab_t *f, const struct fab_lease *l, const char *message);
int local_release(fab_t *f, const struct fab_lease *l);
int local_wait_room(fab_t *f, int64_t timeout_ns);
int local_crash(fab_t *f, const struct fab_lease *l, const char *text);
int local_overrun(fab_t *f, const struct fab_lease *l);

static inline bool local_fabric_gone(const struct local *l)
{
    /* relaxed: a one-way flag, nothing hangs on its order */
    return at_load_rlx(&l->seg->head->state) == SEG_CLOSED;
}
/* fabricd has died (its end of our socket is closed) and neither a new one nor a keeper looks after
 * the segment. A system call: asked after sleeps that ended by time. */
bool local_daemon_gone(const struct local *l);

/* Puts all tasks that have us as their producer on the list of outstanding ones: those of an
 * earlier owner of our participant entry. Once, after local_open(). -ENOMEM. */
int local_take_up(struct local *l) __attribute__((warn_unused_result));
/* A link's handle from now on, which has at most so many tasks outstanding: each gets the remote handle's
 * number for it. -ENOMEM. */
int local_link(struct local *l, uint32_t most) __attribute__((warn_unused_result));
/* local_complete_many() for a link, whose tasks were run elsewhere, side by side. ran: how long each, in ticks;
 * UINT64_MAX: not known. */
long local_complete_ran(struct local *l, const struct fab_lease *lease, const struct fab_result *res,
                        const uint64_t *ran, size_t n);
/* For links, which hand outcomes on: reads up to max outcomes and takes their tasks off the list of
 * outstanding ones, but the slots stay as they are until local_drop(), and the outcomes' data
 * valid. Never blocks. */
size_t local_read_any(struct local *l, struct fab_outcome *out, size_t max);
/* The outcome of this task, read before or not, has reached whom it is for (or nobody wants it):
 * its slot is free. False: there is no such outcome (it is not done, or not ours). */
bool local_drop(struct local *l, fab_id id);

/* For links: len bytes (> 64) of the arena, HELD by us, for an argument that is still on its way
 * (share: it counts towards our share) or a result. Passed to local_submit() or local_complete()
 * with l->given set to it, the block becomes the task's without being copied, and given is NULL
 * then. NULL: no room now. */
void *local_block(struct local *l, uint32_t len, bool share);
bool local_is_block(const struct local *l, const void *at);
/* Gives it back; a block that has become a task's is left alone. */
void local_block_free(struct local *l, const void *at);

/* Takes a task off the list of outstanding ones, if it is there, and leaves its slot alone. */
void local_unlist(struct local *l, fab_id id);
/* Puts one back that local_read_any() or local_unlist() took off and local_drop() did not let go: its
 * outcome is read again. */
void local_list(struct local *l, fab_id id);

/* For an owner that sleeps elsewhere (fabricd's loop): S1 and S2 of wake.h. True: armed, the
 * daemon's doorbell will be rung; false: there is work, do not sleep. */
bool local_arm_queue(struct local *l, uint32_t queue);
bool local_arm_bell(struct local *l);

#endif

/* SPDX-License-Identifier: MIT
 *
 * world.h - one schedule of the link simulation: a segment, fabricd's links (host.c), remote
 * handles with their sessions (session.c) used by actors (actors.c), faults (link_sim.c) and an
 * oracle that is told of everything (oracle.c).
 *
 * Real: core/, transport/lane.c, record.c, big.c, remote*.c, apps/fabricd/link.c. Simulated: the
 * network, the clock, the control connection, and of fabricd what gate.c does between them.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "apps/fabricd/link.h"
#include "core/fabric.h"
#include "tests/sim/virtual.h"
#include "transport/session.h"

#define TASKS_MAX 16384
#define SERVER    "simulated"

/* ---- the control connection between a session and fabricd ---- */

struct peer;

struct line {
    struct line *next;
    uint32_t number;
    struct actor *client;
    struct peer *peer;       /* NULL: fabricd has closed its end */
    struct tr_ep *client_ep; /* while the client has one */
    struct tr_domain *client_dom;
    bool joined;             /* the client's end is up */
    bool over;               /* fabricd has said that it ends */
    bool bye;                /* the client said good-bye before it closed */
    uint64_t client_end_due; /* when fabricd hears that the client's end is closed */
    uint64_t host_end_due;   /* when the client hears it of fabricd's end */
    bool partitioned;
    bool whole; /* with everything else that its process would send */
    uint64_t heal_at;
    bool harmed;                             /* some fault was done to it */
    uint64_t host_patience, client_patience; /* until the kernel's keepalive gives up */
    uint64_t ping_due, pong_due; /* a heartbeat arrives at the client, its answer at fabricd */
};

struct host_welcome {
    enum ctl_session session;
    uint32_t lease_window, submit_window, queues, incarnation;
    struct lane_params lane;
    uint64_t ticket;
    const uint8_t *addr;
    uint32_t addr_len;
};

/* Where faults find a line's connection: either end, NULL when there is none. */
struct tr_ep *line_ep(const struct line *line);
/* What fabricd's handshake and lane offer come to. */
int host_join(uint32_t roles, const struct session_self *self, const char *client,
              struct line **out, struct host_welcome *w);
/* What fabricd answers to a PING. False: it does not. */
bool host_counts(const struct line *line, struct ctl_pong *out);
int host_offer(struct line *line, const struct tr_remote *theirs, struct tr_remote *ours);

/* ---- the oracle ---- */

struct task {
    uint32_t handle; /* who submitted it, 0: number not used */
    uint32_t len;
    uint64_t begun, completed, failed; /* bits: attempts */
    bool unwaited, accepted, refused, cancelled, answered;
    bool maybe; /* its producer was killed while it submitted it */
    uint8_t status;
    uint32_t again_for, again_told; /* the handle that may get its outcome again; that got it */
};

struct handle {
    bool broken, killed, remote;
    bool harmed; /* one of its links had a fault */
    uint32_t accepted, answered;
};

struct oracle {
    struct task task[TASKS_MAX];
    struct handle handle[1024];
    uint32_t tasks, handles;
    uint64_t submitted, outcomes, attempts, lost, cancelled, dead, unwaited, refused, released,
        taken_up, again;
};

uint32_t oracle_handle(bool remote);
/* Makes a task of handle h with arg_len bytes of argument (>= 8); returns its number. */
uint32_t oracle_offer(uint32_t h, struct fab_task *t, uint8_t *arg);
void oracle_accepted(uint32_t number);
/* The submit failed. known: the link is well, so that the task must never be run. */
void oracle_refused(uint32_t number, bool known);
void oracle_cancel(uint32_t number);
/* A worker begins an attempt; returns the task's number. */
uint32_t oracle_begin(const struct fab_lease *l);
/* The bytes a worker answers with, and that it is about to. */
uint32_t oracle_result(const struct fab_lease *l, uint8_t *bytes, uint32_t room);
void oracle_failing(const struct fab_lease *l, char text[64]);
void oracle_released(const struct fab_lease *l);
void oracle_outcome(uint32_t h, const struct fab_outcome *o);
/* The submit was cut off by the death of its producer: it may be accepted or not. */
void oracle_unsure(uint32_t number);
/* Handle h has taken up what handle from had left, and says that it is so many tasks. */
void oracle_taken_up(uint32_t h, uint32_t from, size_t outstanding);
/* Handle h has nothing outstanding any more, says the library. */
void oracle_drained(uint32_t h);
/* Everything is over and every worker idle. */
void oracle_end(bool faults);

/* ---- the world ---- */

struct world {
    struct segment seg;
    struct wake_out out;
    uint32_t me; /* fabricd's participant */
    /* chosen by the seed */
    uint32_t cell, cells, lease_window, submit_window, queues;
    int mode;          /* enum lane_mode, LANE_AUTO: each link its own */
    bool faults, calm; /* calm: no more faults, everything is to come to its end */
    uint64_t tick, keepalive;
    uint64_t heartbeat, dead_after, idle, late, slow;
    uint64_t revoked, recalls, asked_back, pings, mute_deaths;
    uint64_t keep; /* segment.keep_results */
    bool patient;  /* keep is longer than any outage: nothing is lost */
    uint32_t producers, producers_done;
    uint32_t moved[4]; /* links that went over to another connection, by roles */
    uint32_t crashes; /* links that ended with their peer's crash */
    bool stop;        /* workers are to go */
    bool dead;        /* fabricd, and the next one is not there yet */
    struct line *lines;
    uint32_t lines_made;
    struct peer *peers;
    struct actor *host, *weather, *beats;
    struct oracle oracle;
};

extern struct world world;

/* session.c: the beat threads of all processes (transport/beat.h). */
void beats_open(void);
void host_open(void);
void host_close(void);
/* Kills fabricd; another one takes the segment over later. */
void host_die(void);
/* Ends fabricd's end of a line, as a drained or refused peer's. */
void host_drop(struct line *line);

/* Actors; the argument is made by actors_open(). */
void actors_open(void);
/* A remote program of somebody else's: actor_stop(0) is the first. */
void actors_adopt(struct actor *a);
void actors_clear(void);
/* Kills the process of a remote actor; it starts again later. False: there was nothing to kill. */
bool actor_kill(uint32_t i);
/* Stops it for a while, as SIGSTOP does. */
void actor_stop(uint32_t i, uint64_t ns);
uint32_t actors_remote(void);
/* fabricd has ended a session of this handle's program. It may not have heard of it, and find another
 * one when it comes back. */
bool actors_dropped(uint32_t handle);
/* A link of this handle had a fault. */
bool actors_harmed(uint32_t handle);

#endif

/* SPDX-License-Identifier: MIT
 *
 * pulse.h - when fabricd asks a peer whether it is there, and a remote worker for tasks it has not
 * started.
 *
 * Heartbeats: a peer that was not heard of for fabric.heartbeat is asked (PING on the control
 * connection); its beat thread answers whatever its kernels do (transport/beat.h). One that does
 * not, for fabric.dead_after from its last word, is dead: stopped, cut off, or its host is. Before
 * that, when one heartbeat is missed, it gets no more tasks, and those it has not started go to
 * others: all its leases but the oldest are revoked, so that what it says of them later is dropped.
 *
 * Giving back: what a worker has prefetched is asked back (RECALL in the lane)
 *   - when another worker of the queue waits, the queue is empty, and this one has been silent for
 *     PULSE_IDLE_NS or says that it needs longer for what it holds;
 *   - when it has been silent for PULSE_SLOW_NS and four times its time per task, whether others
 * wait or not: a long task has come among short ones. Silence of PULSE_LATE_NS and four task times
 * is reason to knock once: results that a long task stands before are sent. Asking is by PING, too,
 * which brings the beat thread to the lane.
 *
 * The times are not shorter, because on a host with more to do than cores a thread waits for 10 ms
 * and more to be run: it would be disturbed and robbed for nothing.
 *
 * Nothing is asked of a worker that answers in time, or holds one task; nothing is looked at
 * between the times that pulse_look() names. Pure functions over the link, the segment and the time
 * they are given: the daemon (gate.c) and the simulation call the same ones.
 *
 * Threads: fabricd's loop. Failure: none.
 */
#ifndef FABRICD_PULSE_H
#define FABRICD_PULSE_H

#include "apps/fabricd/link.h"

struct pulse_conf {
    uint64_t heartbeat_ns, dead_after_ns; /* fabric.* */
    uint64_t idle_ns, late_ns, slow_ns;   /* PULSE_*; the simulation has others */
};
#define PULSE_IDLE_NS 1000000u
#define PULSE_LATE_NS 20000000u
#define PULSE_SLOW_NS 250000000u

struct pulse {
    uint64_t heard_ns;    /* on the control connection, or since it is up */
    uint64_t asked_ns;    /* the first PING that nothing was heard after; 0: none */
    uint64_t knocked_ns;  /* the last PING */
    uint64_t knocked_for; /* the silence that was knocked for, by its beginning */
    uint64_t gap_ns;      /* until the next knock for the same RECALL */
    bool revoked;
};

enum pulse_act {
    PULSE_PING = 1,  /* send one */
    PULSE_MOVED = 2, /* the link has something to send, or tasks are ready that were not */
    PULSE_DEAD = 4,  /* end it */
};

/* The peer has said something on its control connection; k: its link, NULL before it has one. */
static inline void pulse_heard(struct pulse *p, struct link *k, uint64_t now)
{
    p->heard_ns = now;
    p->asked_ns = 0;
    p->revoked = false;
    if (k)
        k->deaf = false;
}
/* It waits for work, and would take it. */
bool pulse_idle(const struct pulse *p, const struct link *k, uint64_t now);
/* It holds tasks that could be asked back. */
bool pulse_surplus(const struct link *k);
/* Of the queues where remote workers wait (bits), and all where local ones do: those without a
 * task. */
uint64_t pulse_hungry(const struct segment *s, uint64_t idle);
/* Returns enum pulse_act bits; *next gets the time to look again, if it is before it. */
unsigned pulse_look(struct pulse *p, struct link *k, const struct pulse_conf *c, uint64_t hungry,
                    uint64_t now, uint64_t *next);

#endif

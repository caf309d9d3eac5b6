/* SPDX-License-Identifier: MIT
 *
 * virtual.h - actors in virtual time: programs that block, each on a stack of its own, one at a
 * time, in an order that follows from the seed alone.
 *
 * An actor runs until it sleeps; then the next thing happens: an event of the net or another
 * actor's awakening, whichever is due first. A step is one of either. While an actor runs no time
 * passes. So code written for threads and sockets (transport/remote*.c) runs unchanged: its clock
 * (core/clock.h), its loop (transport/loop.h) and its session (transport/session.h) are the ones in
 * virtual.c and session.c here.
 *
 * Threads: one. Failure: sim_fail() says what, where and how to see it again, and ends the program.
 */
#ifndef TESTS_SIM_VIRTUAL_H
#define TESTS_SIM_VIRTUAL_H

#include <ucontext.h>
#include "tests/sim/net.h"

#define ACTORS_MAX 16

struct actor {
    const char *name;
    void (*body)(struct actor *); /* plain: called at each awakening; else once, on its own stack */
    void *arg;
    bool plain, started, done;
    bool killed;                  /* its process is no more: what sleeps returns at once */
    bool eager;                   /* an event has shortened the present sleep already */
    uint64_t wake_at;             /* UINT64_MAX: never by time */
    uint64_t stopped_until;       /* its process is stopped: it does nothing before */
    struct tr_domain *dom;        /* events here end the sleep; NULL: time alone */
    bool (*rung)(struct actor *); /* another reason to wake up; NULL: none */
    ucontext_t context;
    uint8_t *stack;
};

struct sim {
    struct net *net;
    uint64_t seed, steps, digest;
    bool trace;
    struct actor *current;
    struct actor actor[ACTORS_MAX];
    uint32_t actors;
    ucontext_t scheduler;
    uint8_t *stacks; /* of all actors; kept from schedule to schedule */
};

extern struct sim sim;

void sim_open(uint64_t seed, const struct net_params *np);
void sim_close(void);
struct actor *sim_actor(const char *name, bool plain, void (*body)(struct actor *), void *arg);
/* One step; false: nothing will ever happen again. */
bool sim_step(void);
uint64_t sim_now(void);
/* A number below limit (> 0). */
uint64_t sim_roll(uint64_t limit);
static inline bool sim_chance(uint32_t of_1000)
{
    return sim_roll(1000) < of_1000;
}

/* For the running actor: sleep for ns; sleep until then or until dom has events. */
void sim_sleep(uint64_t ns);
void sim_wait(struct tr_domain *dom, uint64_t until);
/* Wakes an actor at that time if it would sleep longer. */
void sim_wake(struct actor *a, uint64_t at);

void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_note(uint64_t what); /* into the digest */
_Noreturn void sim_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Of the running actor's session (session.c): when it hears of its control connection's end, and
 * the domain of its data connection. */
uint64_t session_end_due(void);
/* When a heartbeat comes in on it. */
uint64_t session_ping_due(void);
struct tr_domain *sim_session_domain(void);

#endif

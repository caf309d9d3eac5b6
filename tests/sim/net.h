/* SPDX-License-Identifier: MIT
 *
 * net.h - a network inside one process, for tests: struct tr_ops (transport/transport.h) over
 * virtual time.
 *
 * A net is a clock in nanoseconds, a seeded generator and the connections between the domains that
 * were opened in it. Nothing moves by itself: time goes on only in net_step() and net_run_until(),
 * and everything that arrives, breaks or is reported does so at a time drawn from the generator
 * when it was caused. Same seed and same calls, same run, bit for bit.
 *
 * What it promises is what transport.h promises: FIFO an endpoint (writes and sends alike), one
 * report an operation, -ECANCELED for what is open when the connection ends, TR_CLOSED once. Within
 * that it is as awkward as it may be: a buffer is read when it is posted, or only when its bytes
 * arrive (so that who changes it meanwhile is found out); a send may be reported long after the
 * answer to it has come; the accepting end may get bytes before it hears that it is connected;
 * posts return -EAGAIN (and the domain stirs when another try is worth it); a poll returns less
 * than there is; a connection that ends takes any part of what is under way with it.
 *
 * It is stricter than it need be in what a caller must not do: buffers must lie in the memory
 * region given with them, and a one-sided write or read outside of a region that its owner exported for
 * it breaks the connection with -EACCES and moves nothing.
 *
 * Faults on demand: net_cut, net_partition, net_timeout, net_kill, and the delays and -EAGAIN rate
 * of struct net_params, which may be changed at any time.
 *
 * Threads: one thread a process; struct tr_ops has no room for a net, so domains are opened in the
 * one that net_use() named last.
 *
 * Failure: no memory ends the program: a test can't go on.
 */
#ifndef TESTS_SIM_NET_H
#define TESTS_SIM_NET_H

#include "transport/transport.h"

struct net;

struct net_params {
    uint64_t seed;
    const char *provider;          /* what caps tell: "tcp" or "verbs" */
    uint32_t delay_min, delay_max; /* ns from a post to its arrival */
    uint32_t again;                /* of 1000 posts so many return -EAGAIN for nothing */
    uint32_t inject_max;
    bool by_copy;           /* as caps says */
    bool no_writes;         /* caps.one_sided is false, post_write and post_read -ENOSYS */
    bool virtual_addresses; /* exported addresses are the memory's own, as with verbs; else 0 */
};

extern const struct tr_ops tr_net;

struct net *net_new(const struct net_params *p);
/* Frees the net with all that is left open in it. */
void net_free(struct net *n);
/* Where domains are opened from now on. */
void net_use(struct net *n);
/* May be changed while the net runs (not seed and provider). */
struct net_params *net_params(struct net *n);

/* ---- time and chance ---- */

uint64_t net_now(const struct net *n);
/* A number below limit (> 0) from the net's generator; for callers who want one stream for all. */
uint64_t net_random(struct net *n, uint64_t limit);
/* The time of the next thing that will happen; UINT64_MAX: nothing will. */
uint64_t net_next(const struct net *n);
/* Lets the next thing happen; false: there is none. */
bool net_step(struct net *n);
/* Lets all happen up to that time, which it is then. */
void net_run_until(struct net *n, uint64_t time);
/* Lets everything happen that will; returns how many things did. */
uint64_t net_settle(struct net *n);
/* Events wait in this domain, or a post that was refused is worth another try: what a descriptor
 * would wake a sleeper for. */
bool net_pending(const struct tr_domain *d);

/* ---- faults ---- */

/* The connection breaks: both ends get TR_CLOSED with -ECONNRESET, each in its own time; what is
 * under way is lost from an arbitrary place on. */
void net_cut(struct tr_ep *ep);
/* on: nothing arrives any more in either direction and nobody is told, until healed or closed. */
void net_partition(struct tr_ep *ep, bool on);
/* This end gives the connection up as if by time-out: TR_CLOSED with -ETIMEDOUT here; the other
 * end is told like after ep_shutdown, unless partitioned. */
void net_timeout(struct tr_ep *ep);
/* The process behind a domain is killed: nothing leaves it any more, posts fail, and its peers find
 * the connections closed. The domain is still to be closed by the test. */
void net_kill(struct tr_domain *d);

/* ---- looking in ---- */

struct net_stats {
    uint64_t steps, posts, refused, delivered, bytes, writes, reads, cuts;
};
void net_stats(const struct net *n, struct net_stats *out);
/* Operations of the endpoint that are not yet reported; domains, endpoints and regions that were
 * opened and not closed: what a test counts at its end. */
uint32_t net_open_ops(const struct tr_ep *ep);
uint32_t net_open_objects(const struct net *n);

#endif

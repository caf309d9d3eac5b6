/* SPDX-License-Identifier: MIT
 *
 * rtt.h - a peer's round trips, as fabricd measures them: from a PING on the control connection to
 * its PONG.
 *
 * Every PING counts, heartbeats and knocks (pulse.h) as well, one at a time: those that are sent
 * before the answer are not timed. Beyond that a PING is sent when a link is fresh, so that it soon
 * has some, and while its lane is in use, a few a second. Idle links have their heartbeats and no
 * more.
 *
 * What is measured is the way there and back, and the time in which the peer's thread wakes up, or
 * its beat thread if a kernel has the other one (transport/beat.h); no task's time is in it.
 *
 * Memory: the last RTT_KEEP round trips; percentiles are exact over these. Pure functions over the
 * time they are given. Threads: the loop's. Trust: a PONG that answers no PING is left alone.
 */
#ifndef FABRICD_RTT_H
#define FABRICD_RTT_H

#include <stdbool.h>
#include <stdint.h>

#define RTT_KEEP 256u

struct rtt {
    uint64_t sent_ns;        /* of the PING that is out; 0: none */
    uint64_t last_ns;        /* when the last one was sent, or the link came up */
    uint32_t n;              /* round trips ever */
    uint32_t shown;          /* n at the last rtt_quantiles() */
    uint32_t kept[RTT_KEEP]; /* in units of RTT_UNIT_NS */
};

/* The link is up: a new one (r is zeroed), or one that has gone over to another connection and
 * keeps its round trips; what was asked over the old one is not answered any more. */
void rtt_begin(struct rtt *r, uint64_t now_ns);
/* A PING was sent at sent_ns. */
void rtt_sent(struct rtt *r, uint64_t sent_ns);
/* A PONG for the PING of sent_ns came. False: no such PING is out. */
bool rtt_answered(struct rtt *r, uint64_t sent_ns, uint64_t now_ns);
/* Whether one is to be sent to measure. heard_ns: when the lane was last heard; links: how many
 * there are, which share the cost. *next gets the time to ask again if it is before it. */
bool rtt_due(const struct rtt *r, uint64_t heard_ns, uint32_t links, uint64_t now_ns,
             uint64_t *next);
/* The 50 and 99 % quantiles of those kept. False: nothing new since the last call. */
bool rtt_quantiles(struct rtt *r, uint64_t *p50_ns, uint64_t *p99_ns);

#endif

/* SPDX-License-Identifier: MIT
 *
 * dial.h - a TCP connection to a host that may have several addresses, of which some may be dead.
 *
 * As in RFC 8305: the addresses are tried in the resolver's order, families in turns; the next one
 * when one fails, or after DIAL_STEP_NS beside those that have not answered yet. Who is connected
 * first wins and the others are closed. So an address that swallows packets costs a quarter of a
 * second.
 *
 * A wire that was dead and lives again answers a fresh SYN at once, but the kernel repeats one only
 * after a second, two, four: dial_again() is for who does not want to wait for that.
 *
 * Threads: the owner's. Nothing blocks but the resolution of a name. Failure: -errno; of several
 * addresses that fail the error is the last one's.
 */
#ifndef FABRIC_DIAL_H
#define FABRIC_DIAL_H

#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>

#define DIAL_STEP_NS 250000000u
#define DIAL_MAX     16u /* addresses; more are left alone */

struct dial {
    uint32_t n, tried, won;
    int error;        /* of the last one that failed */
    uint64_t next_ns; /* when the next one is tried whatever the others do */
    struct dial_try {
        struct sockaddr_storage address;
        socklen_t len;
        int fd; /* being connected; -1: not tried, or it failed */
    } at[DIAL_MAX];
};

/* Zeroes it. */
void dial_init(struct dial *d);
/* One more address. */
void dial_add(struct dial *d, const struct sockaddr *address, socklen_t len);
/* All that host has. -EHOSTUNREACH with a message when it is no name. */
int dial_resolve(struct dial *d, const char *host, const char *port)
    __attribute__((warn_unused_result));
/* Goes on. A descriptor (non-blocking) that is connected, the caller's from here on; -EAGAIN: not
 * yet; else all have failed. */
int dial_step(struct dial *d, uint64_t now_ns) __attribute__((warn_unused_result));
/* Fresh connections in place of those to the addresses tried so far, for the next dial_step(): they
 * are not answered, or the one that it gave out was of no use. The others keep their turn. */
void dial_again(struct dial *d);
/* Whose connection dial_step() gave out. */
const struct dial_try *dial_winner(const struct dial *d);
/* What to wait for, at most DIAL_MAX, beside next_ns (UINT64_MAX when all have been tried); how
 * many. */
uint32_t dial_polls(const struct dial *d, struct pollfd *p, uint64_t *next_ns);
/* Closes what is open. Any number of times after dial_init(). */
void dial_end(struct dial *d);

#endif

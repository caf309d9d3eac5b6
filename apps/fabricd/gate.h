/* SPDX-License-Identifier: MIT
 *
 * gate.h - lets remote peers in: the TCP control listener, handshakes, tickets, control frames, and
 * the life of links.
 *
 * A peer connects, proves the key (handshake.h), and is told a one-time ticket and where to connect
 * its data endpoint. Nothing is allocated for its lanes before it has proved the key, and nothing
 * of the segment is told before. The connection request that carries the ticket becomes a link.
 *
 * Bounds: at most limits.handshakes strangers at once, each with auth.handshake_timeout to finish
 * and one frame of memory; at most fabric.links links. Refusals are logged with a rate limit.
 */
#ifndef FABRICD_GATE_H
#define FABRICD_GATE_H

#include "apps/fabricd/daemon.h"

/* Listens where the configuration says; with listen.address = "" there is no gate (*out is NULL).
 */
int gate_open(struct gate **out, struct daemon *d) __attribute__((warn_unused_result));
/* Moves events and records of all links. Returns how many. */
long gate_work(struct gate *g);
/* Heartbeats that are due, and tasks asked back from workers that are slow (pulse.h). Returns how many
 * links have something to do for it. */
long gate_pulse(struct gate *g);
/* How long fabricd may sleep for it; < 0: for ever. */
int64_t gate_wait(const struct gate *g);
/* Before sleeping: false when there is work. */
bool gate_arm(struct gate *g);
/* A lease of participant owner (word: its slot's) shall stop: its peer is told, if it is one.
 * struct timers calls it. */
void gate_cancel(void *gate, uint32_t owner, uint32_t slot, uint64_t word);
/* No remote producer waits for an outcome. */
bool gate_idle(struct gate *g);
/* Links are there, so that waiting may spin for them. */
bool gate_busy(const struct gate *g);
/* Once a second: timeouts, heartbeats, numbers for status. */
void gate_tick(struct gate *g, uint64_t now_ns);
void gate_refuse(struct gate *g);
void gate_close(struct gate *g);

#endif

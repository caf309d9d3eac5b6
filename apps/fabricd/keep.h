/* SPDX-License-Identifier: MIT
 *
 * keep.h - fabricd's rules of what is kept of a producer that has gone, and for how long
 * (segment.keep_results); core/kept.h has how it is found again.
 *
 * Bounds: a kept entry takes a place in the participant table; when that is full, the one whose time
 * ends first makes room.
 */
#ifndef FABRICD_KEEP_H
#define FABRICD_KEEP_H

#include "apps/fabricd/daemon.h"
#include "core/kept.h"

/* The identity for a client id ("": none) and a remote handle's random number (NULL: local).
 * -EINVAL: not printable, too long. */
int keep_identity(struct identity *who, const char *client, const uint8_t instance[16])
    __attribute__((warn_unused_result));
/* Until when participant id, whose owner has gone, is to be kept; 0: not at all. farewell: it has
 * closed its handle. */
uint64_t keep_until(const struct daemon *d, uint32_t id, bool farewell);
/* Buries a kept participant; why for the log. */
void keep_end(struct daemon *d, uint32_t id, const char *why);
/* Makes room in a full participant table. False: nobody is kept. */
bool keep_make_room(struct daemon *d);
/* Once a second: buries those whose time is over. */
void keep_tick(struct daemon *d, uint64_t now_ns);

#endif

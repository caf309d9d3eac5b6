/* SPDX-License-Identifier: MIT
 *
 * quota.h - what one producer may hold: its share of the slots (segment.producer_share), and the same
 * part of the arena for its arguments.
 *
 * A producer that doesn't take its outcomes, or floods the fabric with tasks nobody waits for, gets no
 * further than its share; what is left is the others'. Counted are its tasks from submit to taken, the
 * ones nobody waits for until they are done, and the slots it keeps in stock. It is its own process
 * that counts, and only when it takes slots from the free ring: a steady producer uses its own again,
 * and a task of it costs nothing for this.
 *
 *   - tasks that are waited for are known exactly: the handle's list of them
 *   - tasks nobody waits for are not: who completes them tells their producer nothing. But as long as
 *     more slots are free than the share leaves to others, nobody can hold more than it. When fewer
 *     are, slots taken since the last count are an upper bound; when that passes the share, the slots
 *     are counted anew (a scan of 64 bytes a slot), at most a fraction of the time.
 *
 * A share is a promise among programs that mean well: one that writes to the segment at will is
 * damage (check.h), not an excess.
 *
 * Threads: a handle's. Nothing here fails; nothing is stored in the segment.
 */
#ifndef FABRIC_QUOTA_H
#define FABRIC_QUOTA_H

#include <stdbool.h>
#include "core/segment.h"

struct local;

struct quota {
    uint32_t counted;     /* slots at the last count */
    uint32_t taken;       /* slots taken since then */
    uint64_t arena;       /* bytes of arguments; of tasks nobody waits for since the last count */
    uint64_t count_again; /* ns: no new count before */
};

/* Refills the handle's stock to want slots as far as the share goes. Returns how many it has now; when
 * 0, *own: its share is used up (else: no slot is free). */
uint32_t quota_refill(struct local *l, uint32_t want, bool *own);
/* An argument of len bytes, too large for a slot, may be placed in the arena. */
bool quota_arena(struct local *l, uint64_t len);
/* It was placed, and is no more. */
void quota_arena_add(struct local *l, uint64_t len);
void quota_arena_sub(struct local *l, uint64_t len);
/* What the handle holds can't become less but by its own taking of outcomes. */
bool quota_own_hands(const struct local *l);
/* The handle's share of the arena in bytes. */
uint64_t quota_arena_share(const struct segment *s);

#endif

/* SPDX-License-Identifier: MIT
 *
 * world.h - a small fabric for the scenarios: a segment laid out in md_shared, handles on it, and
 * ways into functions of the core that are static there.
 *
 * The core's files are compiled as they are, against shim/core/; real_*.c include one of them each
 * and add a door. What the core takes from elsewhere (a closed socket, the arena's chunks) is not
 * here: all tasks are small, fabricd lives.
 *
 * Threads: setup and check run outside the scenario's threads; their accesses go straight to
 * memory. A handle is private to the thread that uses it.
 */
#ifndef TESTS_ORDERS_WORLD_H
#define TESTS_ORDERS_WORLD_H

#include "core/fabric.h"
#include "core/local.h"
#include "core/ring.h"
#include "core/slot.h"
#include "core/wake.h"
#include "tests/orders/model.h"

#define WORLD_SLOTS_MAX 64u

extern struct segment world;

/* An empty segment with one queue and an empty free ring. slots need not be half of cells: a
 * scenario of the ring alone may want more numbers than the ring has room for. */
void world_make(uint32_t slots, uint32_t cells, uint32_t participants);
/* Zeroed shared memory for a scenario's own use. */
void *world_alloc(size_t bytes);
/* Participant me's handle: no spinning between looks but the 16 rounds that spin_on() makes
 * without the clock. */
struct local *world_local(uint32_t me, uint32_t stock);
/* The ready ring that tasks of world_task() go through. */
struct seg_ring *world_ring(void);
struct fab_task world_task(const uint64_t *arg, uint32_t len);
/* A result that tells which argument it is of. */
uint64_t world_answer(uint64_t arg);

/* ---- doors ---- */

/* claim.c: from the rings; from the watched slot; S1 to S3. */
uint32_t real_claim_rings(struct local *l, struct fab_lease *lease, uint32_t max);
bool real_claim_hot(struct local *l, struct fab_lease *lease);
int real_park(struct local *l, uint32_t *patience);

/* undertaker.c: one task of a dead producer; everything of a dead participant. */
void real_orphan(uint32_t me, uint32_t dead, uint32_t slot);
void real_recover(uint32_t me, uint32_t dead);
/* One slot of a dead worker. */
void real_recover_slot(uint32_t me, uint32_t dead, uint32_t slot);
/* In place of participant_remove(). */
void world_participant_remove(const struct segment *s, uint32_t id);

#endif

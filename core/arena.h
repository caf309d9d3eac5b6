/* SPDX-License-Identifier: MIT
 *
 * arena.h - blocks of the segment for arguments and results too large for a slot.
 *
 * The arena is chunks of 64 KiB. A chunk is free, or cut into blocks of one class (256 B, 1, 4, 16
 * KiB), or part of a run of whole chunks that holds one larger block. Everything is named by its
 * unit: the number of its first 256 bytes in the arena.
 *
 * Each unit has a block word that says whose it is, as slots have a state word:
 *   FREE -> HELD(owner) -> ATTACHED(owner, slot, epoch) -> HELD(freer) -> FREE
 * and each chunk a chunk word. Both change by CAS, owners name themselves in the same word, so the
 * undertaker finds what the dead held.
 *
 * Finding a free block needs no shared list: a participant remembers the units it freed last
 * (hints), then tries the chunks of the class from where it stood. Cost is that of copying the
 * bytes or less unless the arena is nearly full.
 *
 * Threads: all functions may run side by side in any process; a cache belongs to one thread.
 * Failure: -ENOSPC when nothing fits now, -EMSGSIZE when it never can. Words that make no sense
 * (damage) count as not free.
 */
#ifndef FABRIC_ARENA_H
#define FABRIC_ARENA_H

#include "core/segment.h"

enum block_state { BLOCK_FREE = 0, BLOCK_HELD, BLOCK_ARG, BLOCK_RES };
enum chunk_state { CHUNK_FREE = 0, CHUNK_CLASS, CHUNK_HELD, CHUNK_RUN, CHUNK_CONT };

static inline uint64_t block_word(enum block_state st, uint32_t owner, uint32_t slot,
                                  uint32_t epoch)
{
    return (uint64_t)st | (uint64_t)((owner + 1) & 0xffff) << 4 |
           (uint64_t)(slot & 0xffffff) << 20 | (uint64_t)(epoch & 0xfffff) << 44;
}
static inline uint32_t block_state(uint64_t w)
{
    return (uint32_t)w & 15;
}
static inline uint32_t block_owner(uint64_t w)
{
    return ((uint32_t)(w >> 4) - 1) & 0xffff;
}
static inline uint32_t block_slot(uint64_t w)
{
    return (uint32_t)(w >> 20) & 0xffffff;
}
static inline uint32_t block_epoch(uint64_t w)
{
    return (uint32_t)(w >> 44);
}
/* {state:8, class:8, owner + 1:16, run:32}: run is the length at its head, the distance to the head
 * behind it. */
static inline uint64_t chunk_word(enum chunk_state st, uint32_t class, uint32_t owner, uint32_t run)
{
    return (uint64_t)st | (uint64_t)(class & 0xff) << 8 | (uint64_t)((owner + 1) & 0xffff) << 16 |
           (uint64_t)run << 32;
}
static inline uint32_t chunk_state(uint64_t w)
{
    return (uint32_t)w & 0xff;
}
static inline uint32_t chunk_class(uint64_t w)
{
    return (uint32_t)(w >> 8) & 0xff;
}
static inline uint32_t chunk_owner(uint64_t w)
{
    return ((uint32_t)(w >> 16) - 1) & 0xffff;
}
static inline uint32_t chunk_run(uint64_t w)
{
    return (uint32_t)(w >> 32);
}

#define ARENA_HINTS 32

struct wake_out; /* wake.h */
struct arena_cache {
    const struct wake_out *out; /* to ring fabricd when blocks are given back; NULL: no need */
    uint32_t hint[ARENA_CLASSES][ARENA_HINTS]; /* units freed last */
    uint32_t hints[ARENA_CLASSES];
    uint32_t chunk[ARENA_CLASSES + 1]; /* where to look next; last: for runs */
    uint32_t run_chunks; /* given out in runs since the last look from the start */
};

/* Room for len bytes (> 0), HELD by me; *unit names it. */
int arena_alloc(const struct segment *s, struct arena_cache *c, uint32_t me, uint64_t len,
                uint32_t *unit) __attribute__((warn_unused_result));
/* HELD by me -> attached to a slot's task as argument or result. */
void arena_attach(const struct segment *s, uint32_t unit, enum block_state as, uint32_t me,
                  uint32_t slot, uint32_t epoch);
/* Frees a block that is HELD by me, or attached to that slot and epoch; no-op for anything else (a
 * damaged slot must not free somebody else's block). */
void arena_free(const struct segment *s, struct arena_cache *c, uint32_t me, uint64_t unit,
                uint32_t slot, uint32_t epoch);
/* The length of the block that begins there and is HELD by me; 0: there is none. */
uint64_t arena_held(const struct segment *s, uint32_t me, const void *at);
/* The bytes of a block; NULL when unit and len do not lie within the arena and its chunk or run. */
void *arena_data(const struct segment *s, uint64_t unit, uint64_t len);
/* Undertaker: frees block `unit` whatever state it is in: for blocks known to be nobody's (word w).
 */
void arena_reap(const struct segment *s, uint32_t me, uint32_t unit, uint64_t w);
/* Undertaker: frees chunks that `dead` held half-made. */
void arena_reap_chunks(const struct segment *s, uint32_t dead);
/* Bytes in free chunks and free blocks (a sum over live words: not of one instant). */
uint64_t arena_bytes_free(const struct segment *s);

#endif

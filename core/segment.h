/* SPDX-License-Identifier: MIT
 *
 * segment.h - making, mapping and checking the shared segment.
 *
 * struct segment is a process's private view: the header's numbers, checked once
 * and copied, and pointers made from them. Code uses these, never the header's
 * own copies, which any participant can overwrite.
 *
 * Threads: a view is read-only after segment_map(); threads may share one.
 *
 * Failure: segment_map() refuses what it can't prove sound and says what.
 */
#ifndef FABRIC_SEGMENT_H
#define FABRIC_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include "core/layout.h"

enum segment_huge { SEGMENT_HUGE_AUTO, SEGMENT_HUGE_NEVER, SEGMENT_HUGE_REQUIRE };

struct segment_params {
    const char *name;    /* the fabric's, for people */
    const char *version; /* the program's */
    uint32_t slots;      /* rounded up to a power of two */
    uint32_t participants;
    uint64_t arena_bytes; /* multiple of ARENA_CHUNK; 0: only small tasks */
    uint32_t queues;
    const char *const *queue_names;
    uint32_t dedup_keys;     /* rounded up to a power of two; 0: no task may have a key */
    uint32_t producer_share; /* most slots of one producer; 0: all of them */
    uint32_t dead_letters; /* most that are kept (dead.h), less than slots / 2 */
    enum segment_huge huge;
    int numa_node; /* -1: wherever it is touched first */
};

enum living { LIVING_NOT = 0, LIVING, LIVING_KEPT };

struct segment {
    uint8_t *base;
    size_t bytes;
    int fd; /* the memfd; owned */
    bool huge;
    uint64_t id;
    uint32_t slots, slot_mask, ring_cells, ring_shift, queues, participants, chunks;
    uint64_t ticks_hz;
    uint64_t ns_per_tick; /* in 2^-32 ns */
    struct seg_header *head;
    struct seg_queue *queue;
    struct seg_participant *participant;
    struct seg_ring *free_ring;
    struct seg_ring *timer_ring; /* slots that fabricd's timers should look at: terms.h */
    uint8_t *ready_rings;
    size_t ring_stride;
    struct seg_slot *slot;
    struct seg_wide *wide;
    struct seg_key *key; /* dedup_keys of them */
    uint32_t dedup_keys, producer_share;
    uint64_t *ref; /* of each slot whose task came over a link: the remote handle's number for it */
    struct seg_times *times;
    struct seg_grave *grave; /* one a slot; there are none when dead_letters is 0 */
    uint32_t dead_letters;   /* the limit */
    _Atomic uint64_t *chunk_word;
    _Atomic uint64_t *block_word;
    uint8_t *arena;
    uint64_t arena_bytes;
    /* What never changes of the header, as it was when it was checked: check.h restores it. */
    uint8_t original[offsetof(struct seg_header, state)];
    char queue_name[SEG_QUEUES_MAX][SEG_NAME];
    /* fabricd's own record of which entries of the participant table are in use, enum living
     * (participant.c); NULL in everybody else. */
    uint8_t *living;
};

static inline uint64_t segment_ticks_to_ns(const struct segment *s, uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * s->ns_per_tick) >> 32);
}

static inline struct seg_ring *segment_ready_ring(const struct segment *s, uint32_t queue,
                                                  uint32_t priority)
{
    return (struct seg_ring *)(s->ready_rings +
                               s->ring_stride * (queue * SEG_PRIORITIES + priority));
}

/* Makes a sealed memfd with an empty, running segment in it and maps it. -ENOMEM, -EINVAL with
 * message. */
int segment_create(struct segment *out, const struct segment_params *p)
    __attribute__((warn_unused_result));
/* Maps an existing one: checks seals, size and every number of the header. Takes fd over on success
 * only. */
int segment_map(struct segment *out, int fd) __attribute__((warn_unused_result));
/* Starts the record `living`; segment_create() has done so. -ENOMEM. */
int segment_host(struct segment *s) __attribute__((warn_unused_result));
void segment_unmap(struct segment *s);

#endif

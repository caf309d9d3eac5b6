/* SPDX-License-Identifier: MIT
 *
 * participant.h - the table of participants.
 *
 * Entries are given out and taken back by fabricd's loop thread alone; the entry's owner
 * writes its counters and bell, everybody reads. A generation in the life word tells an entry's
 * owner from the one before it.
 *
 *   FREE --participant_add--> LIVE --participant_dead--> DEAD --(undertaker)--> participant_remove
 *                             ^ | |                        ^
 *                             | | +--participant_leave--> LEFT  (by its owner, when it closes)
 *       participant_take_up   | |                          |
 *                             | v participant_keep         |
 *                            KEPT <------------------------+--participant_dead--> DEAD
 */
#ifndef FABRIC_PARTICIPANT_H
#define FABRIC_PARTICIPANT_H

#include "core/segment.h"

struct participant_info {
    uint32_t pid, uid, roles;
    const char *name;
    bool remote; /* a link: its bell rings the daemon */
    const struct identity *identity; /* NULL: nobody can take its tasks up */
};

/* See kept.h. */
struct identity {
    uint8_t client[16], instance[16];
    char text[FAB_CLIENT_MAX];
};

static inline uint64_t participant_word(uint32_t generation, enum life life)
{
    return (uint64_t)generation << 32 | (uint64_t)life;
}
/* In the word of a local participant that is LIVE: it has been let in, but has not said that it knows.
 * Should fabricd die now, its process may never hear of this entry, and come for another one. */
#define PARTICIPANT_INVITED 8u
static inline enum life participant_life(uint64_t w)
{
    return (enum life)((uint32_t)w & 7);
}
static inline uint32_t participant_generation(uint64_t w)
{
    return (uint32_t)(w >> 32);
}

/* Returns the entry's number and its generation, or -EUSERS with a message that names the remedy.
 */
int participant_add(const struct segment *s, const struct participant_info *info,
                    uint32_t *generation) __attribute__((warn_unused_result));
/* By its owner, before it uses the entry. False: a fabricd that has taken over meanwhile gave it away. */
bool participant_join(const struct segment *s, uint32_t id, uint32_t generation)
    __attribute__((warn_unused_result));
/* By a fabricd that takes over, of a local one: true: it had been invited and did not know; it is LEFT
 * now. */
bool participant_uninvite(const struct segment *s, uint32_t id) __attribute__((warn_unused_result));
/* LIVE -> LEFT, by its owner, whose last access to the segment this is. */
void participant_leave(const struct segment *s, uint32_t id, uint32_t generation);
/* KEPT -> LIVE with the next generation: the entry is info's now, with the tasks that have it as
 * their producer. Its counters go on. */
void participant_take_up(const struct segment *s, uint32_t id, const struct participant_info *info,
                         uint32_t *generation);
/* LIVE or LEFT -> KEPT until identity.keep_until_ns, which has been set; by the undertaker. */
void participant_keep(const struct segment *s, uint32_t id);
/* LIVE, LEFT or KEPT -> DEAD: from here on others know that nobody is behind it. */
void participant_dead(const struct segment *s, uint32_t id);
/* DEAD -> FREE, its counts and latencies added to its queues' past. */
void participant_remove(const struct segment *s, uint32_t id);
/* The queue whose tasks this histogram of p's is of: as far as one participant deals with one queue. The
 * number is to be checked. */
static inline uint32_t participant_span_queue(const struct seg_participant *p, enum seg_span span)
{
    /* relaxed: for status */
    return at_load_rlx(span < SPAN_ROOM ? &p->queue : &p->submits_to);
}
/* Start time of a process in clock ticks since boot, 0 when it is gone or /proc does not tell. */
uint64_t participant_start_ticks(uint32_t pid);

#endif

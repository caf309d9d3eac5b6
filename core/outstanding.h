/* SPDX-License-Identifier: MIT
 *
 * outstanding.h - the tasks of a producer whose outcomes it has not taken: a queue of their ids in the order
 * of submission, out of which any may be removed.
 *
 * Tasks come at the tail and leave mostly at the head, so a look at them goes through consecutive memory,
 * however many wait. Who is removed from between leaves a gap, an id of 0; gaps go with the head, when
 * there is no more room, or when there are half as many as tasks and some: closing them then costs a move or
 * three a task. A task's position is a number that only grows and runs over; it stands in the array
 * at its lower bits. The arrays grow with the tasks that are outstanding at once.
 *
 * Threads: the handle's own memory. Invariant: the entry at the head, when there is one, is no gap.
 * Failure: growing may fail, in outstanding_reserve() alone.
 */
#ifndef FABRIC_OUTSTANDING_H
#define FABRIC_OUTSTANDING_H

#include <stdbool.h>
#include <stdint.h>

#define OUTSTANDING_GAPS 16u /* are no reason to tidy */

struct outstanding {
    uint64_t *id;   /* by position: epoch << 32 | slot, as fab_id */
    uint64_t *tag;  /* by position: the task's, should somebody write over it. NULL: not kept */
    uint32_t *pos;  /* by slot: where its latest task stands */
    uint64_t *room; /* by slot: epoch << 32 | how long that task waited for room (stages.h), if it did */
    uint32_t slots, mask;
    uint32_t head, tail;
    uint32_t n;      /* without gaps */
    uint32_t cursor; /* where the last partial look ended */
};

/* -ENOMEM. */
int outstanding_init(struct outstanding *o, uint32_t slots) __attribute__((warn_unused_result));
void outstanding_free(struct outstanding *o);
/* No tags from now on. Before the first task. */
void outstanding_no_tags(struct outstanding *o);

bool outstanding_make_room(struct outstanding *o, uint32_t k);
/* Room for k more at the tail. False: no memory. */
static inline bool outstanding_reserve(struct outstanding *o, uint32_t k)
{
    if (o->n == 0)
        o->head = o->tail = o->cursor = 0; /* the same memory again and again */
    if (__builtin_expect(o->tail - o->head + k <= o->mask + 1, 1))
        return true;
    return outstanding_make_room(o, k);
}

/* Of k tasks that are put at the tail: how many stand in one piece, at least 1. */
static inline uint32_t outstanding_piece(const struct outstanding *o, uint32_t k)
{
    uint32_t left = o->mask + 1 - (o->tail & o->mask);
    return k < left ? k : left;
}

/* Puts a task at the tail, for which there is room. */
static inline void outstanding_add(struct outstanding *o, uint64_t id, uint64_t tag)
{
    uint32_t at = o->tail & o->mask;
    o->id[at] = id;
    if (o->tag)
        o->tag[at] = tag;
    o->pos[(uint32_t)id] = o->tail++;
    o->n++;
}

/* 0: a gap. */
static inline uint64_t outstanding_at(const struct outstanding *o, uint32_t pos)
{
    return o->id[pos & o->mask];
}

static inline bool outstanding_has(const struct outstanding *o, uint32_t pos)
{
    return pos - o->head < o->tail - o->head;
}

void outstanding_close_gaps(struct outstanding *o);
/* Before a look at all of it: few gaps, however long one stays that came first. Positions change. */
static inline void outstanding_tidy(struct outstanding *o)
{
    if (__builtin_expect(o->tail - o->head - o->n > o->n / 2 + OUTSTANDING_GAPS, 0))
        outstanding_close_gaps(o);
}

/* Where a task stands. False: it is not outstanding. */
static inline bool outstanding_find(const struct outstanding *o, uint64_t id, uint32_t *pos)
{
    if ((uint32_t)id >= o->slots || id >> 32 == 0)
        return false;
    *pos = o->pos[(uint32_t)id];
    return outstanding_has(o, *pos) && outstanding_at(o, *pos) == id;
}

/* Whether some task in this slot is outstanding. */
static inline bool outstanding_in_slot(const struct outstanding *o, uint32_t slot)
{
    uint32_t pos = o->pos[slot];
    uint64_t id = outstanding_has(o, pos) ? outstanding_at(o, pos) : 0;
    return id != 0 && (uint32_t)id == slot;
}

void outstanding_skip_gaps(struct outstanding *o);
/* The task at this position leaves. */
static inline void outstanding_remove(struct outstanding *o, uint32_t pos)
{
    o->id[pos & o->mask] = 0;
    o->n--;
    if (pos == o->head)
        outstanding_skip_gaps(o);
}

/* The k tasks from this position on, none of them a gap, leave. */
void outstanding_remove_run(struct outstanding *o, uint32_t pos, uint32_t k);

static inline void outstanding_waited(struct outstanding *o, uint64_t id, uint32_t room)
{
    if (__builtin_expect(room != 0, 0))
        o->room[(uint32_t)id] = (id & ~0xffffffffull) | room;
}

/* How long the task waited for room, which may have been taken already. */
static inline uint32_t outstanding_room(const struct outstanding *o, uint64_t id)
{
    uint64_t room = o->room[(uint32_t)id];
    return (room ^ id) >> 32 == 0 ? (uint32_t)room : 0;
}

#endif

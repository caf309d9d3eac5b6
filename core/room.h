/* SPDX-License-Identifier: MIT
 *
 * room.h - waiting for room: who found no free slot, or no memory in the arena, sleeps until somebody
 * gives some back.
 *
 *   sleeper                                   who gives back
 *   S1  wanted |= ASLEEP    (seq_cst)         W1  publish: cell of the free ring, block word (seq_cst)
 *   S2  try again                             W2  load wanted              (seq_cst)
 *   S3  futex_wait(seq, value read before S1) W3  wanted = 0; seq + 1, futex_wake all
 *
 * as in wake.h. It costs nobody anything while nobody waits but a load of a line that nobody writes, and
 * that only where slots leave a full stock for the free ring, or a block is freed: not where a plain
 * task is taken. All are woken, so that one who dies then swallows nothing.
 *
 * fabricd's links sleep in its loop: for them (ROOM_WANTED_DAEMON) the doorbell is rung.
 *
 * Threads: any. Failure: who dies between W1 and W3 leaves sleepers for WAKE_NET_NS at most; the
 * undertaker wakes them.
 */
#ifndef FABRIC_ROOM_H
#define FABRIC_ROOM_H

#include "core/wake.h"

/* out NULL: we are fabricd, which looks at its links next; they stay announced. */
void room_made_slow(const struct segment *s, const struct wake_out *out, enum room room);
/* Wakes all who wait for anything: after a death. */
void room_wake_all(const struct segment *s, const struct wake_out *out);

/* W2 and W3. */
static inline void room_made(const struct segment *s, const struct wake_out *out, enum room room)
{
    if (__builtin_expect(at_load(&s->head->room[room].wanted) != 0, 0))
        room_made_slow(s, out, room);
}

/* S1. Returns the value of seq for S3, futex_sleep(&room.seq, seq, ...). */
static inline uint32_t room_want(const struct segment *s, enum room room)
{
    uint32_t seq = at_load(&s->head->room[room].seq);
    at_or(&s->head->room[room].wanted, ROOM_WANTED_ASLEEP);
    return seq;
}

/* S1 for fabricd's links: the doorbell is rung. */
static inline void room_want_daemon(const struct segment *s, enum room room)
{
    at_or(&s->head->room[room].wanted, ROOM_WANTED_DAEMON);
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * room.c - the waking side of room.h.
 */
#include <limits.h>
#include "core/crashpoint.h"
#include "core/room.h"

void room_made_slow(const struct segment *s, const struct wake_out *out, enum room room)
{
    struct seg_room *r = &s->head->room[room];
    uint32_t was = at_swap(&r->wanted, 0);
    CRASH_POINT("room.unwanted");
    if (was & ROOM_WANTED_ASLEEP) {
        at_add(&r->seq, 1);
        CRASH_POINT("room.seq");
        futex_wake(&r->seq, INT_MAX);
    }
    if ((was & ROOM_WANTED_DAEMON) && out)
        daemon_ring(s, out);
}

void room_wake_all(const struct segment *s)
{
    for (int i = 0; i < ROOMS; i++) {
        at_add(&s->head->room[i].seq, 1);
        futex_wake(&s->head->room[i].seq, INT_MAX);
    }
}

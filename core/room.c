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
    /* fabricd itself (no `out`) looks at its links when it is done with what it does */
    uint32_t was = at_and(&r->wanted, out ? 0 : ~ROOM_WANTED_ASLEEP);
    CRASH_POINT("room.unwanted");
    if (was & ROOM_WANTED_ASLEEP) {
        at_add(&r->seq, 1);
        CRASH_POINT("room.seq");
        futex_wake(&r->seq, INT_MAX);
    }
    if (out && (was & ROOM_WANTED_DAEMON))
        daemon_ring(s, out);
}

void room_wake_all(const struct segment *s, const struct wake_out *out)
{
    uint32_t was = 0;
    for (int i = 0; i < ROOMS; i++) {
        was |= at_swap(&s->head->room[i].wanted, 0);
        at_add(&s->head->room[i].seq, 1);
        futex_wake(&s->head->room[i].seq, INT_MAX);
    }
    if (was & ROOM_WANTED_DAEMON)
        daemon_ring(s, out);
}

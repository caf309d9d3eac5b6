/* SPDX-License-Identifier: MIT
 *
 * submit_wait.c - what a submit that found no room does: it spins, announces itself (room.h),
 * sleeps, and says which limit it was when its time is over.
 *
 * Threads: the handle's. Failure: who dies while it waits has left a mark at the room; whoever makes
 * some takes it away and wakes nobody.
 */
#include <errno.h>
#include <stdio.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/local.h"
#include "core/ring.h"
#include "core/room.h"

/* One sentence for who waits: which limit it is, and what helps. */
static const char *lack_text(const struct local *l, char text[256])
{
    const struct segment *s = l->seg;
    switch (l->lack) {
    case LACK_SLOTS:
        snprintf(text, 256, "the fabric is full: all %u slots (segment.slots) are in use",
                 s->slots);
        break;
    case LACK_SHARE:
        snprintf(text, 256,
                 "this producer holds its share of the fabric, %u of %u slots "
                 "(segment.producer_share): take outcomes, or let its tasks be done",
                 s->producer_share, s->slots);
        break;
    case LACK_RING:
        snprintf(text, 256, "the queue's ring of ready tasks has no room");
        break;
    case LACK_ARENA:
        snprintf(text, 256, "the fabric's memory for large arguments (segment.arena) is full");
        break;
    case LACK_ARENA_SHARE:
        snprintf(text, 256,
                 "this producer's arguments hold its share of segment.arena, %llu bytes "
                 "(segment.producer_share): take outcomes, or let its tasks be done",
                 (unsigned long long)quota_arena_share(s));
        break;
    case LACK_KEYS:
        snprintf(text, 256,
                 "no entry is free for another key until one expires: raise segment.dedup_keys "
                 "(%u now), or shorten the windows",
                 s->dedup_keys);
        break;
    case LACK_KEY_BUSY:
        snprintf(text, 256, "another task with the same key is just being submitted");
        break;
    }
    return text;
}

/* How long what it waits for may take to be there without being announced: free slots and blocks
 * are (room.h); WAKE_NET_NS is the net. */
static uint64_t unannounced_ns(const struct local *l, uint64_t now)
{
    switch (l->lack) {
    case LACK_SLOTS:
    case LACK_ARENA:
        return WAKE_NET_NS;
    case LACK_KEYS: /* time alone helps */
        return l->lack_until <= now                ? 1
               : l->lack_until - now < WAKE_NET_NS ? l->lack_until - now
                                                   : WAKE_NET_NS;
    case LACK_SHARE:
    case LACK_ARENA_SHARE:
        return 10000000; /* the room of our own tasks may be in a worker's stock: count again */
    default:
        return 1000000;
    }
}

static enum room room_of(enum lack lack)
{
    return lack == LACK_ARENA || lack == LACK_ARENA_SHARE ? ROOM_ARENA : ROOM_SLOTS;
}

/* S3 of room.h; the try before was S2. */
static void sleep_for_room(struct local *l, uint32_t seq, uint64_t now, uint64_t deadline)
{
    struct seg_room *room = &l->seg->head->room[room_of(l->lack)];
    uint64_t ns = unannounced_ns(l, now);
    bool net = l->lack == LACK_SLOTS && deadline - now > ns;
    if (deadline - now < ns)
        ns = deadline - now;
    if (l->spin.busy)
        return;
    /* seq_cst loads: the try's own are weaker */
    if (l->lack == LACK_SLOTS && ring_depth(l->seg->free_ring) > 0)
        return;
    if (futex_sleep(&room->seq, seq, ns) == -ETIMEDOUT && net &&
        ring_ready(l->seg, l->seg->free_ring))
        wake_net_caught(l->seg, &room->seq, seq);
}

/* One step of waiting after a try that took nothing: spins, then announces itself, then sleeps. 0:
 * try again; < 0: the wait is over. */
int submit_wait(struct local *l, int64_t timeout_ns, uint64_t *deadline, int *armed)
{
    char text[256];
    if (timeout_ns == 0)
        return deadline_error(0, lack_text(l, text));
    if (*deadline == 0) {
        *deadline = deadline_of(timeout_ns);
        spin_start(&l->spin);
    }
    bool own =
        l->lack == LACK_SHARE ? quota_own_hands(l) : l->lack == LACK_ARENA_SHARE && !l->unwaited;
    if (own && timeout_ns < 0)
        return err_set(-EDEADLK, "waiting would never end: %s", lack_text(l, text));
    if (spin_on(&l->spin))
        return 0;
    if (local_fabric_gone(l))
        return err_set(-EPIPE, "the fabric is closed");
    uint64_t now = clock_ns();
    if (now >= *deadline)
        return deadline_error(timeout_ns, lack_text(l, text));
    if (*armed != (int)room_of(l->lack)) {
        *armed = (int)room_of(l->lack);
        l->room_seq = room_want(l->seg, room_of(l->lack)); /* S1 */
        CRASH_POINT("room.wanted");
        return 0; /* S2 */
    }
    sleep_for_room(l, l->room_seq, now, *deadline);
    *armed = -1;
    return 0;
}

int local_wait_room(fab_t *f, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = deadline_of(timeout_ns);
    if (!l->room_armed) {
        l->room_seq = room_want(l->seg, ROOM_ARENA); /* S1; the caller's next try is S2 */
        l->room_armed = true;
        return 0;
    }
    l->room_armed = false;
    for (;;) {
        uint64_t now = clock_ns();
        if (now >= deadline)
            return deadline_error(timeout_ns, "no memory was given back");
        if (local_fabric_gone(l))
            return err_set(-EPIPE, "the fabric is closed");
        uint64_t ns = deadline - now < WAKE_NET_NS ? deadline - now : WAKE_NET_NS;
        if (futex_sleep(&l->seg->head->room[ROOM_ARENA].seq, l->room_seq, ns) == 0 ||
            ns == WAKE_NET_NS)
            return 0;
    }
}

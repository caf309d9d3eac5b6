/* SPDX-License-Identifier: MIT
 *
 * world.c - a small segment and handles on it; see world.h.
 *
 * Invariant: a world is a function of the arguments: nothing is left from the execution before.
 * Threads: setup alone. Failure: a world that does not fit into md_shared fails the execution.
 */
#include <string.h>
#include "core/clock.h"
#include "core/participant.h"
#include "tests/orders/world.h"

struct segment world;
static size_t used;

static struct {
    struct local local;
    uint64_t stock[WORLD_SLOTS_MAX];
    uint32_t held[LOCAL_HELD_MAX];
    uint64_t ids[2 * WORLD_SLOTS_MAX], tags[2 * WORLD_SLOTS_MAX], room[WORLD_SLOTS_MAX];
    uint32_t pos[WORLD_SLOTS_MAX];
    uint64_t known_head[1][SEG_PRIORITIES];
} handles[MD_THREADS];

void *world_alloc(size_t bytes)
{
    void *p = md_shared + used;
    if (bytes > MD_SHARED - used)
        md_fail("the world is too small: %zu bytes more", bytes);
    memset(p, 0, bytes);
    used += (bytes + HOT_LINE - 1) / HOT_LINE * HOT_LINE;
    return p;
}

void world_make(uint32_t slots, uint32_t cells, uint32_t participants)
{
    used = 0;
    memset(&world, 0, sizeof world);
    world.fd = -1;
    world.slots = slots;
    world.slot_mask = slots - 1;
    world.producer_share = slots;
    world.ring_cells = cells;
    world.ring_shift = (uint32_t)__builtin_ctz(cells);
    world.queues = 1;
    world.participants = participants;
    world.ticks_hz = 1000000000;
    world.ring_stride = sizeof(struct seg_ring) + cells * sizeof(uint64_t);
    world.ring_stride = (world.ring_stride + HOT_LINE - 1) / HOT_LINE * HOT_LINE;
    world.head = world_alloc(sizeof *world.head);
    world.queue = world_alloc(sizeof *world.queue);
    if (participants)
        world.participant = world_alloc(participants * sizeof *world.participant);
    world.free_ring = world_alloc(world.ring_stride);
    world.timer_ring = world_alloc(world.ring_stride);
    world.ready_rings = world_alloc(SEG_PRIORITIES * world.ring_stride);
    world.slot = world_alloc(slots * sizeof *world.slot);
    world.times = world_alloc(slots * sizeof *world.times);
    world.wide = world_alloc(slots * sizeof *world.wide);
    at_store(&world.head->state, SEG_RUNNING);
    ring_init(world.free_ring, cells);
    ring_init(world.timer_ring, cells);
    for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++)
        ring_init(segment_ready_ring(&world, 0, pr), cells);
}

struct seg_ring *world_ring(void)
{
    return segment_ready_ring(&world, 0, 0);
}

struct local *world_local(uint32_t me, uint32_t stock)
{
    struct local *l = &handles[me].local;
    memset(&handles[me], 0, sizeof handles[me]);
    l->seg = &world;
    l->me = me;
    l->self = &world.participant[me];
    l->out.daemon_fd = -1;
    l->sock = -1;
    at_store(&l->self->life, participant_word(1, LIFE_LIVE));
    l->hot = world.slots;
    l->lease_low = (uint32_t)slot_word(0, me, 0, SLOT_LEASED);
    spin_init(&l->spin, world.ticks_hz, -1);
    l->stock.id = handles[me].stock;
    l->stock.cap = stock;
    l->held = handles[me].held;
    l->tasks = (struct outstanding){.id = handles[me].ids, .tag = handles[me].tags, .pos = handles[me].pos,
                                    .room = handles[me].room, .slots = world.slots, .mask = 2 * WORLD_SLOTS_MAX - 1};
    l->known_head = handles[me].known_head;
    l->follow_mask = UINT64_MAX;
    return l;
}

struct fab_task world_task(const uint64_t *arg, uint32_t len)
{
    return (struct fab_task){.kernel = 1, .arg = arg, .len = len, .tag = 7};
}

uint64_t world_answer(uint64_t arg)
{
    return arg * 1000003 + 17;
}

/* Time stands still (FABRIC_VIRTUAL_CLOCK), so that an execution depends on the choices alone.
 * Ticks of 0 mean "not timed" for a task's stamp; no deadline but 0 ever passes: a sleep ends by a
 * wake-up or not at all. */
uint64_t clock_ns(void)
{
    return 1;
}

uint64_t clock_ticks(void)
{
    return 0;
}

/* local.c's, which would need a socket. */
bool local_daemon_gone(const struct local *l)
{
    (void)l;
    return false;
}

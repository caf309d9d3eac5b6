/* SPDX-License-Identifier: MIT
 *
 * heart.c - looks at the pulse of all links (pulse.h) and does what it asks for.
 *
 * A look goes through all links. So it is taken when the last one said that something is due, or
 * some time after something has moved: LOOK_NS, and more the more links there are. fabricd sleeps
 * no longer than until then. PINGs that only measure (rtt.h) go out here, too; who does not answer
 * one is no more suspected than if it had not been sent.
 *
 * Threads: fabricd's loop. Failure: none; a peer that can't be asked ends by its socket.
 */
#include "apps/fabricd/peer.h"
#include "core/error.h"
#include "core/fabric.h"

#define LOOK_NS      500000u
#define LOOK_LINK_NS 5000u

/* Queues where remote workers wait, and whether any holds more than it needs. */
static uint64_t idle_queues(const struct gate *g, uint64_t now, bool *surplus)
{
    uint64_t idle = 0;
    for (const struct peer *p = g->peers; p; p = p->next) {
        if (p->stage != STAGE_UP)
            continue;
        if (pulse_idle(&p->pulse, p->link, now) && p->link->want_queue < 64)
            idle |= 1ull << p->link->want_queue;
        *surplus |= pulse_surplus(p->link);
    }
    return idle;
}

static uint64_t look_due(const struct gate *g)
{
    uint64_t soon = g->looked_ns + LOOK_NS + (uint64_t)g->up * LOOK_LINK_NS;
    return g->moved && soon < g->look_ns ? soon : g->look_ns;
}

long gate_pulse(struct gate *g)
{
    const struct conf *c = g->d->conf;
    const struct pulse_conf pc = {.heartbeat_ns = c->heartbeat_ns,
                                  .dead_after_ns = c->dead_after_ns,
                                  .idle_ns = PULSE_IDLE_NS,
                                  .late_ns = PULSE_LATE_NS,
                                  .slow_ns = PULSE_SLOW_NS};
    uint64_t now, next = UINT64_MAX;
    bool surplus = false;
    long n = 0;
    if (g->up == 0 || (now = clock_ns()) < look_due(g))
        return 0;
    g->looked_ns = now;
    g->moved = false;
    uint64_t idle = idle_queues(g, now, &surplus);
    uint64_t hungry = surplus ? pulse_hungry(&g->d->seg, idle) : 0;
    for (struct peer *p = g->peers, *after; p; p = after) {
        after = p->next;
        if (p->stage != STAGE_UP)
            continue;
        unsigned act = pulse_look(&p->pulse, p->link, &pc, hungry, now, &next);
        n += act & PULSE_MOVED ? 1 : 0;
        if (act & PULSE_DEAD)
            peer_close(p, "it does not answer (fabric.dead_after)");
        else if ((act & PULSE_PING) || rtt_due(&p->rtt, p->link->heard_ns, g->up, now, &next))
            peer_ping(p, &pc);
    }
    g->look_ns = next;
    return n;
}

int64_t gate_wait(const struct gate *g)
{
    uint64_t due = look_due(g), now;
    if (g->up == 0 || due == UINT64_MAX)
        return -1;
    now = clock_ns();
    return due > now ? (int64_t)(due - now) : 1;
}

/* SPDX-License-Identifier: MIT
 *
 * pulse.c - heartbeats, and tasks asked back; see pulse.h.
 */
#include "apps/fabricd/pulse.h"
#include "core/ring.h"
#include "core/room.h"

/* Heartbeats are due at multiples of a part of their interval. */
#define GRID 32u

static void until(uint64_t *next, uint64_t then)
{
    if (then < *next)
        *next = then;
}

static uint64_t heard(const struct pulse *p, const struct link *k)
{
    return k->heard_ns > p->heard_ns ? k->heard_ns : p->heard_ns;
}

bool pulse_surplus(const struct link *k)
{
    return k->in_flight > 1 && k->recall == RECALL_NONE;
}

bool pulse_idle(const struct pulse *p, const struct link *k, uint64_t now)
{
    (void)now;
    return k->want > 0 && k->in_flight == 0 && k->recall == RECALL_NONE && p->asked_ns == 0;
}

uint64_t pulse_hungry(const struct segment *s, uint64_t idle)
{
    uint64_t hungry = 0;
    for (uint32_t q = 0; q < s->queues; q++) {
        bool waits = idle >> q & 1 || (at_load(&s->queue[q].parked) & QUEUE_PARKED_WORKERS);
        for (uint32_t pr = 0; pr < SEG_PRIORITIES && waits; pr++)
            waits = ring_depth(segment_ready_ring(s, q, pr)) == 0;
        hungry |= (uint64_t)waits << q;
    }
    return hungry;
}

/* ---- giving back ---- */

/* A RECALL is on its way: who is in a kernel must be knocked for. */
static unsigned press(struct pulse *p, const struct link *k, const struct pulse_conf *c,
                      uint64_t now, uint64_t *next)
{
    /* it answers, but what is in the lane does not arrive: its data connection is dead */
    if (k->recall == RECALL_SENT && now >= k->recall_ns + c->dead_after_ns)
        return PULSE_DEAD;
    if (p->gap_ns < 2 * c->idle_ns) /* asked because it was revoked */
        p->gap_ns = 2 * c->idle_ns;
    if (now < p->knocked_ns + p->gap_ns) {
        until(next, p->knocked_ns + p->gap_ns);
        return 0;
    }
    p->gap_ns = 2 * p->gap_ns < c->heartbeat_ns ? 2 * p->gap_ns : c->heartbeat_ns;
    until(next, now + p->gap_ns);
    return PULSE_PING;
}

static unsigned look_at_surplus(struct pulse *p, struct link *k, const struct pulse_conf *c,
                                bool hungry, uint64_t now, uint64_t *next)
{
    uint64_t since = k->busy_ns > k->heard_ns ? k->busy_ns : k->heard_ns;
    uint64_t silent = now > since ? now - since : 0, patience = 4 * k->task_ns;
    uint64_t slow = patience > c->slow_ns ? patience : c->slow_ns;
    uint64_t late = patience > c->late_ns ? patience : c->late_ns;
    if (k->recall == RECALL_DUE || k->recall == RECALL_SENT)
        return press(p, k, c, now, next);
    if (!pulse_surplus(k))
        return 0;
    if (silent >= slow ||
        (hungry && (silent >= c->idle_ns || (k->in_flight - 1) * k->task_ns >= c->idle_ns))) {
        link_recall(k);
        p->gap_ns = 2 * c->idle_ns; /* until another knock */
        until(next, now + p->gap_ns);
        return PULSE_PING | PULSE_MOVED;
    }
    /* who begins to wait for work is not always heard of: looked for in growing steps */
    if (silent < c->idle_ns)
        until(next, since + c->idle_ns);
    else
        until(next, now + (silent / 2 > 4 * c->idle_ns ? silent / 2 : 4 * c->idle_ns));
    until(next, since + slow);
    if (p->knocked_for == since)
        return 0;
    if (silent < late) {
        until(next, since + late);
        return 0;
    }
    p->knocked_for = since;
    return PULSE_PING;
}

/* ---- heartbeats ---- */

static unsigned look_at_heart(struct pulse *p, struct link *k, const struct pulse_conf *c,
                              uint64_t now, uint64_t *next)
{
    uint64_t last = heard(p, k), beat = c->heartbeat_ns;
    uint64_t end = c->dead_after_ns > 2 * beat ? c->dead_after_ns : 2 * beat;
    unsigned act = 0;
    if (p->asked_ns && last > p->asked_ns) {
        act = k->deaf ? PULSE_MOVED : 0; /* it may have tasks again */
        p->asked_ns = 0;
        p->revoked = k->deaf = false;
    }
    if (!p->asked_ns) {
        uint64_t grid = beat / GRID + 1; /* many links are asked in one look */
        until(next, (last + beat + grid - 1) / grid * grid);
        return act | (now >= last + beat ? PULSE_PING : 0);
    }
    /* from the question, too: it may be we who were stopped */
    if (now >= last + end && now >= p->asked_ns + end - beat)
        return PULSE_DEAD;
    until(next, last + end > p->asked_ns + end - beat ? last + end : p->asked_ns + end - beat);
    if (p->revoked)
        return 0;
    if (now < p->asked_ns + beat) {
        until(next, p->asked_ns + beat);
        return 0;
    }
    p->revoked = k->deaf = true;
    return link_revoke(k) > 0 ? PULSE_MOVED : 0;
}

unsigned pulse_look(struct pulse *p, struct link *k, const struct pulse_conf *c, uint64_t hungry,
                    uint64_t now, uint64_t *next)
{
    unsigned act = look_at_heart(p, k, c, now, next);
    if (k->lease && !(act & PULSE_DEAD))
        act |= look_at_surplus(p, k, c, k->want_queue < 64 && (hungry >> k->want_queue & 1), now,
                               next);
    if (act & PULSE_DEAD) {
        (void)link_revoke(k); /* what was not started does not count as a crash */
        return PULSE_DEAD;
    }
    if (act & PULSE_PING) {
        p->knocked_ns = now;
        if (!p->asked_ns) {
            p->asked_ns = now;
            until(next, now + c->heartbeat_ns);
        }
    }
    return act;
}

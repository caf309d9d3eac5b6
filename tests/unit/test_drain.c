/* SPDX-License-Identifier: MIT
 *
 * test_drain.c - whether all that remote peers were sent has left (gate_idle() in
 * apps/fabricd/gate.h), which a fabricd that drains waits for. The peer's end of the lane is the
 * test, over a simulated network.
 */
#include "apps/fabricd/peer.h"
#include "tests/unit/lane_pair.h"
#include "transport/record.h"

struct scene {
    struct pair p; /* 1: fabricd's */
    struct link link;
    struct peer peer;
    struct gate gate;
};

static struct scene *open_scene(void)
{
    struct scene *s = calloc(1, sizeof *s);
    open_pair(&s->p, LANE_SEND, 31);
    s->peer.stage = STAGE_UP;
    s->peer.link = &s->link;
    s->peer.lane = s->p.lane[1];
    s->gate.peers = &s->peer;
    return s;
}

static void close_scene(struct scene *s)
{
    close_pair(&s->p);
    free(s);
}

/* fabricd answers an ECHO: a message so small that nobody hears when it has left. */
static void answer(struct scene *s)
{
    struct record r = {.type = REC_ECHO, .ref = 7};
    uint32_t len, records;
    uint8_t *to = lane_tx_room(s->p.lane[1], rec_size(&r));
    cr_assert_not_null(to);
    rec_put(to, &r);
    lane_tx_add(s->p.lane[1], rec_size(&r));
    cr_assert_eq(lane_tx_flush(s->p.lane[1]), 1);
    settle(&s->p);
    cr_assert_not_null(lane_rx_next(s->p.lane[0], &len, &records));
    lane_rx_release(s->p.lane[0]);
    cr_assert_geq(lane_tx_flush(s->p.lane[0]), 0); /* the credit */
    settle(&s->p);
}

Test(drain, who_asks_between_any_two_looks_is_not_waited_for)
{
    struct scene *s = open_scene();
    unsigned looks = 1;
    answer(s);
    for (; !gate_idle(&s->gate) && looks < 50; looks++)
        answer(s);
    cr_assert_leq(looks, 2, "the message of the first look is behind all that counts");
    close_scene(s);
}

Test(drain, what_has_not_left_is_waited_for)
{
    struct scene *s = open_scene();
    answer(s);
    for (int i = 0; i < 3; i++)
        cr_assert_not(gate_idle(&s->gate), "nothing moves meanwhile");
    settle(&s->p);
    cr_assert(gate_idle(&s->gate));
    /* a task that comes back has an outcome, which is to leave, too */
    answer(s);
    s->link.unanswered = 1;
    for (int i = 0; i < 3; i++) {
        cr_assert_not(gate_idle(&s->gate));
        settle(&s->p);
    }
    s->link.unanswered = 0;
    cr_assert_not(gate_idle(&s->gate), "what was out before says nothing of the outcome");
    settle(&s->p);
    cr_assert(gate_idle(&s->gate));
    close_scene(s);
}

/* SPDX-License-Identifier: MIT
 *
 * link_case.h - what the tests of fabricd's end of a link have in common: a scene of the link, a
 * peer that is the test, at the other end of a lane over a simulated network, and a local producer
 * and worker on the same segment.
 */
#ifndef TESTS_LINK_CASE_H
#define TESTS_LINK_CASE_H

#include "apps/fabricd/link.h"
#include "tests/unit/lane_pair.h"
#include "tests/unit/unit.h"
#include "transport/big.h"
#include "transport/record.h"

#define ARENA  (2u * ARENA_CHUNK)
#define WINDOW 32u

struct scene {
    struct pair p; /* 0: the peer, 1: fabricd */
    struct segment seg;
    struct wake_out out;
    uint32_t me;
    struct link *link;
    fab_t *local; /* producer and worker beside the link */
    struct big_queue big;
    uint8_t bytes[ARENA + 8192];
};

/* The link of a peer in these roles; what else a test wants of it, it sets. */
static inline struct link_params scene_params(const struct scene *s, uint32_t roles)
{
    return (struct link_params){.seg = &s->seg,
                                .daemon_fd = -1,
                                .roles = roles,
                                .name = "peer",
                                .peer = "test",
                                .provider = "tcp",
                                .mode = LANE_SEND,
                                .lease_window = WINDOW,
                                .submit_window = WINDOW,
                                .pid = (uint32_t)getpid()};
}

static inline void open_scene(struct scene *s)
{
    uint32_t generation;
    memset(s, 0, sizeof *s);
    open_pair(&s->p, LANE_SEND, 21);
    unit_segment(&s->seg, 64, 8, ARENA, 1);
    s->out.daemon_fd = -1;
    s->me = unit_participant(&s->seg, "fabricd", &generation);
    s->local = unit_handle(&s->seg, "local", -1);
    struct link_params lp = scene_params(s, FAB_PRODUCER | FAB_WORKER);
    cr_assert_eq(link_open(&s->link, &lp), 0, "%s", err_text(-1));
    s->link->lane = s->p.lane[1];
    unit_fill(s->bytes, sizeof s->bytes, 3);
}

static inline void close_scene(struct scene *s)
{
    big_drop(&s->big);
    link_close(s->link, &s->out, s->me, false, 0);
    close_pair(&s->p);
    fab_close(s->local);
    segment_unmap(&s->seg);
}

/* Puts a record into the peer's lane; payload may be NULL. */
static inline void say(struct scene *s, struct record r)
{
    uint8_t *to = lane_tx_room(s->p.lane[0], rec_size(&r));
    cr_assert_not_null(to);
    rec_put(to, &r);
    lane_tx_add(s->p.lane[0], rec_size(&r));
}

/* All that can move moves; what link_work() said last when it was an error. */
static inline long turn(struct scene *s)
{
    for (int i = 0; i < 400; i++) {
        long put = big_pump(&s->big, s->p.lane[0]);
        cr_assert_geq(put, 0);
        int rc = lane_tx_flush(s->p.lane[0]);
        cr_assert_geq(rc, 0);
        settle(&s->p);
        long n = link_work(s->link);
        if (n < 0)
            return n;
        settle(&s->p);
        if (put == 0 && rc == 0 && n == 0)
            return 0;
    }
    return 0;
}

/* The next record from fabricd; false: there is none. */
static inline bool hear(struct scene *s, struct record *r, uint8_t copy[CELL])
{
    uint32_t len, records, at = 0;
    const void *batch = lane_rx_next(s->p.lane[0], &len, &records);
    if (!batch)
        return false;
    cr_assert_eq(records, 1, "the tests make fabricd say one thing at a time");
    memcpy(copy, batch, len);
    lane_rx_release(s->p.lane[0]);
    cr_assert_eq(rec_next(copy, len, &at, r), 1);
    return true;
}

static inline struct record task(uint64_t ref, const void *arg, uint32_t len)
{
    return (struct record){.type = REC_SUBMIT, .ref = ref, .len = len, .payload = arg, .kernel = 1};
}

static inline void say_refs(struct scene *s, uint8_t type, uint8_t flags, uint8_t arrived,
                            uint32_t n, const uint64_t *refs)
{
    say(s, (struct record){.type = type,
                           .flags = flags,
                           .priority = arrived,
                           .len = 8 * n,
                           .payload = (const uint8_t *)refs});
}

#endif

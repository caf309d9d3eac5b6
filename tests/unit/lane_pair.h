/* SPDX-License-Identifier: MIT
 *
 * lane_pair.h - what the tests of lanes have in common: two lanes that talk to each other over a
 * simulated network (a "pair"), or one lane and an endpoint without (a "raw" peer), whose heads the
 * test makes by hand.
 */
#ifndef TESTS_LANE_PAIR_H
#define TESTS_LANE_PAIR_H

#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/error.h"
#include "tests/sim/net.h"
#include "transport/lane.h"

#define CELL        1024u
#define CELLS       4u
#define INCARNATION 77u
#define HEAD        ((uint32_t)sizeof(struct lane_head))

/* Whether pairs are encrypted. */
static bool sealed_pair;
/* Whether the network takes what is posted at once, as tcp does (tr_caps.by_copy). */
static bool copying_net;
/* Bytes of a batch's cell that hold no records. */
#define OVERHEAD (HEAD + (sealed_pair ? SEAL_TAG : 0))

/* Each test runs in both modes, and encrypted. */
#define ALL(name)                                                                                  \
    BOTH(name);                                                                                    \
    Test(sealed, name)                                                                             \
    {                                                                                              \
        sealed_pair = true;                                                                        \
        name(LANE_SEND);                                                                           \
    }                                                                                              \
    static void name(enum lane_mode mode)

/* Each test runs in both modes. */
#define BOTH(name)                                                                                 \
    static void name(enum lane_mode mode);                                                         \
    Test(send, name)                                                                               \
    {                                                                                              \
        name(LANE_SEND);                                                                           \
    }                                                                                              \
    Test(write, name)                                                                              \
    {                                                                                              \
        name(LANE_WRITE);                                                                          \
    }                                                                                              \
    static void name(enum lane_mode mode)

struct pair {
    struct net *net;
    struct tr_domain *dom[2];
    struct tr_listener *listener;
    struct tr_ep *ep[2];
    struct lane *lane[2]; /* [1] is NULL with a raw peer */
    struct tr_remote exported[2];
    int closed[2]; /* what lane_on_event said */
    bool connected[2];
    /* a raw peer's memory and what came into it */
    uint8_t raw[64][CELL];
    struct tr_mr *raw_mr;
    uint8_t got[64][CELL];
    uint32_t got_len[64], got_n, posted, sent;
};

static inline void on_request(struct pair *p, const struct tr_event *ev)
{
    cr_assert_eq(tr_net.accept(p->dom[1], &p->ep[1], ev->request), 0);
    if (p->lane[1])
        cr_assert_eq(lane_bind(p->lane[1], p->ep[1]), 0);
}

static inline void on_event(struct pair *p, int side, const struct tr_event *ev)
{
    if (ev->kind == TR_CONNREQ) {
        on_request(p, ev);
    } else if (ev->kind == TR_CONNECTED) {
        p->connected[side] = true;
    } else if (p->lane[side]) {
        int rc = lane_on_event(p->lane[side], ev);
        if (rc < 0 && !p->closed[side])
            p->closed[side] = rc;
    } else if (ev->kind == TR_RECV && !ev->error) {
        p->got_len[p->got_n] = ev->len;
        memcpy(p->got[p->got_n++], ev->ctx, ev->len);
    } else if (ev->kind == TR_SENT && !ev->error) {
        p->sent++;
    } else if (ev->kind == TR_CLOSED) {
        p->closed[side] = ev->error;
    }
}

/* What waits is read; returns how many events that were. */
static inline int pump(struct pair *p)
{
    struct tr_event ev[8];
    int n, sum = 0;
    for (int side = 0; side < 2; side++) {
        while ((n = tr_net.poll(p->dom[side], ev, 8)) > 0) {
            for (int i = 0; i < n; i++)
                on_event(p, side, &ev[i]);
            sum += n;
        }
    }
    return sum;
}

/* Until nothing moves any more. */
static inline void settle(struct pair *p)
{
    do
        net_settle(p->net);
    while (pump(p) > 0);
}

static inline void open_net(struct pair *p, uint64_t seed)
{
    struct net_params np = {.seed = seed,
                            .provider = "tcp",
                            .delay_min = 100,
                            .delay_max = 5000,
                            .inject_max = 64,
                            .by_copy = copying_net,
                            .virtual_addresses = seed & 1};
    struct tr_opts o = {.provider = "tcp", .eps_max = 4, .ops_per_ep = 64};
    memset(p, 0, sizeof *p);
    p->net = net_new(&np);
    net_use(p->net);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(tr_net.domain_open(&p->dom[i], &o), 0);
}

static inline void connect_pair(struct pair *p)
{
    uint8_t addr[TR_ADDR_MAX];
    uint32_t len;
    cr_assert_eq(tr_net.listen(p->dom[1], &p->listener, addr, &len), 0);
    cr_assert_eq(tr_net.connect(p->dom[0], &p->ep[0], addr, len, "ticket", 6), 0);
    cr_assert_eq(lane_bind(p->lane[0], p->ep[0]), 0);
    settle(p);
    cr_assert(p->connected[0] && p->connected[1]);
}

static inline struct lane *make_lane(struct pair *p, int side, enum lane_mode mode)
{
    struct lane_params lp = {
        .mode = mode, .cell = CELL, .cells = CELLS, .incarnation = INCARNATION};
    struct lane *l;
    if (sealed_pair) {
        lp.tx_seal = (struct seal){.on = true, .key = {(uint8_t)(1 + side)}};
        lp.rx_seal = (struct seal){.on = true, .key = {(uint8_t)(2 - side)}};
    }
    cr_assert_eq(lane_new(&l, &tr_net, p->dom[side], &lp, &p->exported[side]), 0, "%s",
                 err_text(-1));
    return l;
}

static inline void open_pair(struct pair *p, enum lane_mode mode, uint64_t seed)
{
    open_net(p, seed);
    for (int i = 0; i < 2; i++)
        p->lane[i] = make_lane(p, i, mode);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(lane_peer(p->lane[i], &p->exported[!i]), 0);
    connect_pair(p);
}

/* Side 1 is the test itself: it may write where the lane exported and send what it likes. */
static inline void open_raw(struct pair *p, enum lane_mode mode)
{
    open_net(p, 5);
    p->lane[0] = make_lane(p, 0, mode);
    cr_assert_eq(tr_net.mr_reg(p->dom[1], p->raw, sizeof p->raw, TR_PEER_WRITES, &p->raw_mr,
                               &p->exported[1]),
                 0);
    cr_assert_eq(lane_peer(p->lane[0], &p->exported[1]), 0);
    connect_pair(p);
}

static inline void post_raw_receives(struct pair *p, uint32_t n)
{
    for (; n > 0; n--, p->posted++)
        cr_assert_eq(tr_net.post_recv(p->ep[1], p->raw[32 + p->posted % 32], CELL, p->raw_mr,
                                      p->raw[32 + p->posted % 32]),
                     0);
}

static inline void raw_send(struct pair *p, struct lane_head h, uint32_t bytes)
{
    static uint8_t msg[8][CELL];
    static uint32_t at;
    uint8_t *m = msg[at++ % 8];
    h = (struct lane_head){htole32(h.seq), htole32(h.len), htole32(h.incarnation),
                           htole16(h.credits), htole16(h.records)};
    memset(m, 0x5a, CELL);
    memcpy(m, &h, sizeof h);
    cr_assert_eq(tr_net.post_send(p->ep[1], m, bytes, NULL, NULL, 0), 0);
    settle(p);
}

static inline void close_pair(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        if (p->ep[i])
            tr_net.ep_free(p->ep[i]);
        if (p->lane[i])
            lane_free(p->lane[i]);
    }
    if (p->raw_mr)
        tr_net.mr_close(p->raw_mr);
    if (p->listener)
        tr_net.listener_close(p->listener);
    for (int i = 0; i < 2; i++)
        tr_net.domain_close(p->dom[i]);
    cr_assert_eq(net_open_objects(p->net), 0);
    net_free(p->net);
}

/* A record of the tests: its number over and over. */
static inline bool put(struct lane *l, uint64_t number, uint32_t len)
{
    uint64_t *to = lane_tx_room(l, len);
    if (!to)
        return false;
    for (uint32_t i = 0; i < len / 8; i++)
        to[i] = number;
    lane_tx_add(l, len);
    return true;
}

static inline uint64_t check_batch(const void *batch, uint32_t len, uint32_t records,
                                   uint64_t number, uint32_t record_len)
{
    const uint64_t *w = batch;
    cr_assert_eq(len, records * record_len);
    for (uint32_t i = 0; i < len / 8; i++)
        cr_assert_eq(w[i], number + i / (record_len / 8));
    return number + records;
}

/* Both directions at once, random record sizes, slow and fast readers. */
static inline void exchange(struct pair *p, uint64_t seed, uint32_t again)
{
    uint64_t put_n[2] = {0}, got_n[2] = {0}, r = seed * 2654435761u + 1;
    net_params(p->net)->again = again;
    for (int round = 0; round < 4000; round++) {
        int side = round & 1;
        struct lane *l = p->lane[side];
        uint32_t len, records;
        const void *batch;
        r = r * 6364136223846793005u + 1442695040888963407u;
        for (uint32_t i = 0; i < (r >> 40) % 20; i++)
            put_n[side] += put(l, put_n[side], 64);
        int rc = lane_tx_flush(l);
        cr_assert(rc == 1 || rc == 0 || (again && rc == -EAGAIN), "%s", err_text(rc));
        for (uint32_t i = 0; i < (r >> 50) % 4 && (batch = lane_rx_next(l, &len, &records)); i++) {
            got_n[side] = check_batch(batch, len, records, got_n[side], 64);
            lane_rx_release(l);
        }
        net_run_until(p->net, net_now(p->net) + (r >> 54));
        (void)pump(p);
        cr_assert_eq(p->closed[side], 0, "%s", err_text(p->closed[side]));
    }
    net_params(p->net)->again = 0;
    for (int round = 0; round < 100; round++) { /* what is left */
        for (int side = 0; side < 2; side++) {
            uint32_t len, records;
            const void *batch;
            while ((batch = lane_rx_next(p->lane[side], &len, &records))) {
                got_n[side] = check_batch(batch, len, records, got_n[side], 64);
                lane_rx_release(p->lane[side]);
            }
            cr_assert_geq(lane_tx_flush(p->lane[side]), 0);
        }
        settle(p);
    }
    cr_assert_gt(put_n[0], 1000);
    cr_assert_eq(put_n[0], got_n[1]);
    cr_assert_eq(put_n[1], got_n[0]);
    for (int side = 0; side < 2; side++) {
        struct lane_stats st, other;
        lane_stats(p->lane[side], &st);
        lane_stats(p->lane[!side], &other);
        cr_assert_eq(st.tx_records, put_n[side]);
        cr_assert_eq(st.tx_records, other.rx_records);
        cr_assert_eq(st.tx_bytes, other.rx_bytes);
        cr_assert_eq(st.tx_batches, other.rx_batches);
    }
}

#endif

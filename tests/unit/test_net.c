/* SPDX-License-Identifier: MIT
 *
 * test_net.c - the simulated network itself: the same seed is the same run, every operation is
 * reported once, refusals are told.
 */
#include "tests/unit/lane_pair.h"

/* ---- the network itself ---- */

/* Everything that a run shows, in one number. */
static uint64_t run_once(uint64_t seed)
{
    struct pair p;
    struct net_stats st;
    open_pair(&p, LANE_WRITE, seed);
    exchange(&p, 5, 200);
    net_stats(p.net, &st);
    uint64_t sum = st.steps * 31 + st.posts * 37 + st.refused * 41 + st.bytes + net_now(p.net);
    close_pair(&p);
    return sum;
}

Test(net, the_same_seed_is_the_same_run)
{
    cr_assert_eq(run_once(3), run_once(3));
    cr_assert_neq(run_once(3), run_once(4));
}

Test(net, every_operation_comes_back_once)
{
    for (uint64_t seed = 1; seed < 40; seed++) {
        struct pair p;
        struct tr_event ev[16];
        uint32_t reports = 0, closed = 0;
        int n;
        open_raw(&p, LANE_SEND);
        post_raw_receives(&p, 5);
        for (int i = 0; i < 6; i++)
            cr_assert_eq(tr_net.post_send(p.ep[1], p.raw[i], 100, p.raw_mr, NULL, 0), 0);
        net_run_until(p.net, net_now(p.net) + seed * 100);
        net_cut(p.ep[1]);
        net_settle(p.net);
        while ((n = tr_net.poll(p.dom[1], ev, 16)) > 0)
            for (int i = 0; i < n; i++) {
                closed += ev[i].kind == TR_CLOSED;
                reports += ev[i].kind == TR_SENT || ev[i].kind == TR_RECV;
                cr_assert(ev[i].kind == TR_CLOSED || ev[i].error == 0 ||
                          (ev[i].error == -ECANCELED && closed == 1));
            }
        cr_assert_eq(closed, 1);
        cr_assert_eq(reports, 11);
        cr_assert_eq(tr_net.post_recv(p.ep[1], p.raw[0], CELL, p.raw_mr, NULL), -ENOTCONN);
        close_pair(&p);
    }
}

Test(net, a_refused_connection_is_told)
{
    struct pair p;
    struct tr_event ev[4];
    uint8_t addr[TR_ADDR_MAX];
    uint32_t len;
    open_net(&p, 14);
    cr_assert_eq(tr_net.listen(p.dom[1], &p.listener, addr, &len), 0);
    cr_assert_eq(tr_net.connect(p.dom[0], &p.ep[0], addr, len, "x", 1), 0);
    net_settle(p.net);
    cr_assert_eq(tr_net.poll(p.dom[1], ev, 4), 1);
    cr_assert(ev[0].kind == TR_CONNREQ && ev[0].data_len == 1 && ev[0].data[0] == 'x');
    tr_net.reject(p.dom[1], ev[0].request);
    net_settle(p.net);
    cr_assert_eq(tr_net.poll(p.dom[0], ev, 4), 1);
    cr_assert(ev[0].kind == TR_CLOSED && ev[0].error == -ECONNREFUSED);
    net_kill(p.dom[1]);
    tr_net.ep_free(p.ep[0]);
    cr_assert_eq(tr_net.connect(p.dom[0], &p.ep[0], addr, len, "x", 1), 0);
    net_settle(p.net);
    cr_assert_eq(tr_net.poll(p.dom[0], ev, 4), 1);
    cr_assert(ev[0].kind == TR_CLOSED && ev[0].error == -ECONNREFUSED);
    close_pair(&p);
}

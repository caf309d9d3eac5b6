/* SPDX-License-Identifier: MIT
 *
 * test_ofi_wait.c - sleeping on a libfabric domain: it can be slept on when nothing is to be done,
 * and whichever endpoint has news ends the sleep, the first ones (whose descriptors are watched one
 * by one) and the later ones alike.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include "core/clock.h"
#include "core/error.h"
#include "core/fabric.h"
#include "transport/transport.h"

#define EPS   11 /* more than have a queue of their own kind */
#define LIMIT 5000

static struct side {
    struct tr_domain *dom;
    struct tr_ep *ep[EPS];
    struct tr_mr *mr;
    uint8_t buf[EPS][64];
    int up, closed, received[EPS];
} server, client[EPS];

static void open_side(struct side *s, bool listening, uint32_t eps)
{
    struct tr_opts o = {.provider = "tcp",
                        .host = "127.0.0.1",
                        .listening = listening,
                        .eps_max = eps,
                        .ops_per_ep = 8};
    cr_assert_eq(tr_ofi.domain_open(&s->dom, &o), 0, "%s", fab_errmsg());
    cr_assert_eq(tr_ofi.mr_reg(s->dom, s->buf, sizeof s->buf, TR_LOCAL, &s->mr, NULL), 0);
}

static void listen_again(struct side *s, uint8_t *buf)
{
    size_t i = (size_t)(buf - s->buf[0]) / sizeof s->buf[0];
    cr_assert_eq(tr_ofi.post_recv(s->ep[i], buf, sizeof s->buf[0], s->mr, buf), 0);
}

static int look(struct side *s)
{
    struct tr_event ev[16];
    int n = tr_ofi.poll(s->dom, ev, 16);
    for (int i = 0; i < n; i++) {
        if (ev[i].kind == TR_CONNREQ) {
            uint8_t k = ev[i].data[0];
            cr_assert_eq(tr_ofi.accept(s->dom, &s->ep[k], ev[i].request), 0, "%s", fab_errmsg());
            listen_again(s, s->buf[k]);
        } else if (ev[i].kind == TR_RECV) {
            size_t k = (size_t)((uint8_t *)ev[i].ctx - s->buf[0]) / sizeof s->buf[0];
            s->received[k]++;
            listen_again(s, s->buf[k]);
        }
        s->up += ev[i].kind == TR_CONNECTED;
        s->closed += ev[i].kind == TR_CLOSED;
    }
    return n;
}

/* Sleeps as a program does; how long at most. 1: something woke it. */
static int sleep_on(struct side *s, int ms)
{
    struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};
    int fd[2], n;
    for (uint64_t until = clock_ns() + LIMIT * 1000000ull; (n = tr_ofi.arm(s->dom)) == -EAGAIN;) {
        cr_assert_lt(clock_ns(), until, "it never lets anybody sleep");
        if (look(s) > 0)
            return 1;
    }
    cr_assert_eq(n, 0);
    n = tr_ofi.fds(s->dom, fd);
    for (int i = 0; i < n; i++)
        p[i].fd = fd[i];
    n = poll(p, (nfds_t)n, ms);
    cr_assert_geq(n, 0);
    if (n)
        (void)look(s);
    return n > 0;
}

static void connect_all(void)
{
    uint8_t addr[TR_ADDR_MAX];
    uint32_t len;
    struct tr_listener *l;
    open_side(&server, true, EPS);
    cr_assert_eq(tr_ofi.listen(server.dom, &l, addr, &len), 0, "%s", fab_errmsg());
    for (uint8_t i = 0; i < EPS; i++) {
        open_side(&client[i], false, 1);
        cr_assert_eq(tr_ofi.connect(client[i].dom, &client[i].ep[0], addr, len, &i, 1), 0);
        listen_again(&client[i], client[i].buf[0]);
        uint64_t until = clock_ns() + LIMIT * 1000000ull;
        while (client[i].up == 0 || server.up <= i) {
            cr_assert_lt(clock_ns(), until, "endpoint %d does not come up", i);
            (void)look(&server);
            (void)look(&client[i]);
        }
    }
}

static void send_to(struct side *s, int i)
{
    cr_assert_eq(tr_ofi.post_send(s->ep[i], "news", 4, s->mr, NULL, TR_INJECT), 0);
}

/* Until nothing is left over from before. */
static void quiet(struct side *s)
{
    for (int i = 0; i < 20 && sleep_on(s, 0); i++)
        ;
    cr_assert_eq(sleep_on(s, 20), 0, "woken for nothing");
}

Test(ofi_wait, whichever_endpoint_has_news_ends_the_sleep)
{
    connect_all();
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < EPS; i++) {
            quiet(&server);
            send_to(&client[i], 0);
            for (int k = 0; k < 10 && server.received[i] == round; k++)
                cr_assert_eq(sleep_on(&server, LIMIT), 1, "endpoint %d did not wake it", i);
            cr_assert_eq(server.received[i], round + 1);
            quiet(&client[i]);
            send_to(&server, i);
            for (int k = 0; k < 10 && client[i].received[0] == round; k++)
                cr_assert_eq(sleep_on(&client[i], LIMIT), 1);
            cr_assert_eq(client[i].received[0], round + 1);
        }
        for (int n = 0; n < 200; n++) /* awake for long: what was watched is not any more */
            (void)look(&server);
    }
}

Test(ofi_wait, the_end_of_an_endpoint_wakes_and_leaves_the_others)
{
    static const int goes[] = {0, EPS - 1, 3};
    connect_all();
    for (int k = 0; k < 3; k++) {
        int i = goes[k];
        quiet(&server);
        tr_ofi.ep_shutdown(client[i].ep[0]);
        tr_ofi.ep_free(client[i].ep[0]);
        for (int n = 0; n < 10 && server.closed == k; n++)
            cr_assert_eq(sleep_on(&server, LIMIT), 1, "the end of endpoint %d did not wake it", i);
        cr_assert_eq(server.closed, k + 1);
        tr_ofi.ep_shutdown(server.ep[i]);
        tr_ofi.ep_free(server.ep[i]);
        quiet(&server);
        send_to(&client[5], 0);
        for (int n = 0; n < 10 && server.received[5] == k; n++)
            cr_assert_eq(sleep_on(&server, LIMIT), 1);
        cr_assert_eq(server.received[5], k + 1);
    }
}

/* What the last endpoint of a queue leaves behind must not keep its owner awake for ever. */
Test(ofi_wait, who_has_closed_its_last_endpoint_can_sleep)
{
    for (int shutdown = 0; shutdown < 2; shutdown++) {
        memset(&server, 0, sizeof server);
        memset(client, 0, sizeof client);
        connect_all();
        for (int i = 0; i < EPS; i++) { /* each has a receive posted */
            if (shutdown)
                tr_ofi.ep_shutdown(client[i].ep[0]);
            tr_ofi.ep_free(client[i].ep[0]);
            quiet(&client[i]);
        }
        for (int i = 0; i < EPS; i++)
            tr_ofi.ep_free(server.ep[i]);
        quiet(&server);
    }}

/* What is still in a completion queue of no endpoints is nobody's, and must not keep anybody awake. */
Test(ofi_wait, when_the_last_endpoint_has_ended_it_can_be_slept_on)
{
    connect_all();
    quiet(&server);
    for (int i = 0; i < EPS; i++) {
        for (int n = 0; n < 4; n++)
            send_to(&client[i], 0);
        tr_ofi.ep_shutdown(server.ep[i]); /* its receives come back, and nobody looks */
        tr_ofi.ep_free(server.ep[i]);
    }
    quiet(&server);
}

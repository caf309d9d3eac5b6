/* SPDX-License-Identifier: MIT
 *
 * lane_rtt.c - the round trip at the lane level: a 48-byte record (64 bytes with the batch's head)
 * echoed by the far side's lane.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"
#include "transport/lane.h"

#define RECORD 48
#define EVENTS 8
#define CELLS  8

struct end {
    const struct tr_ops *tr;
    struct tr_domain *dom;
    struct tr_listener *listener;
    struct tr_ep *ep;
    struct lane *lane;
    struct tr_remote ours;
    bool up;
};

struct card { /* what each side tells the other */
    uint8_t addr[TR_ADDR_MAX];
    uint32_t addr_len;
    struct tr_remote memory;
};

static int open_end(struct end *e, const char *provider, const char *host, int mode, bool sealed,
                    bool listening, struct card *card)
{
    struct tr_opts o = {.provider = provider,
                        .host = host,
                        .listening = listening,
                        .eps_max = 1,
                        .ops_per_ep = lane_ops(CELLS)};
    struct lane_params p = {
        .mode = (enum lane_mode)mode, .cell = 16384, .cells = CELLS, .incarnation = 1};
    if (sealed) { /* keys of each direction; a real link's come from its handshake */
        p.tx_seal = (struct seal){.on = true, .key = {listening ? 1 : 2}};
        p.rx_seal = (struct seal){.on = true, .key = {listening ? 2 : 1}};
    }
    e->tr = &tr_ofi;
    int rc = e->tr->domain_open(&e->dom, &o);
    if (rc == 0 && listening)
        rc = e->tr->listen(e->dom, &e->listener, card->addr, &card->addr_len);
    if (rc == 0)
        rc = lane_new(&e->lane, e->tr, e->dom, &p, &card->memory);
    return rc;
}

static int poll_end(const struct settings *st, struct end *e)
{
    struct tr_event ev[EVENTS];
    int n = e->tr->poll(e->dom, ev, EVENTS), rc = 0;
    if (n == 0)
        poll_pause(st);
    for (int i = 0; i < n && rc == 0; i++) {
        if (ev[i].kind == TR_CONNECTED) {
            e->up = true;
        } else if (ev[i].kind == TR_CONNREQ) {
            rc = e->tr->accept(e->dom, &e->ep, ev[i].request);
            if (rc == 0)
                rc = lane_bind(e->lane, e->ep);
        } else {
            rc = lane_on_event(e->lane, &ev[i]);
        }
    }
    return rc;
}

static int flush(struct end *e)
{
    int rc = lane_tx_flush(e->lane);
    return rc == -EAGAIN || rc > 0 ? 0 : rc;
}

static void echo_for_ever(const struct settings *st, struct end *e)
{
    uint32_t len, records;
    const void *batch;
    while (poll_end(st, e) == 0) {
        while (e->up && (batch = lane_rx_next(e->lane, &len, &records))) {
            void *room = lane_tx_room(e->lane, len);
            if (!room)
                break;
            memcpy(room, batch, len);
            lane_tx_add(e->lane, len);
            lane_rx_release(e->lane);
            if (flush(e) < 0)
                return;
        }
        if (e->up && flush(e) < 0)
            return;
    }
}

static int one_round(const struct settings *st, struct end *e)
{
    uint32_t len, records;
    void *room;
    int rc;
    while (!(room = lane_tx_room(e->lane, RECORD)))
        if ((rc = poll_end(st, e)) < 0)
            return rc;
    memset(room, 1, RECORD);
    lane_tx_add(e->lane, RECORD);
    do {
        rc = flush(e);
        if (rc == 0)
            rc = poll_end(st, e);
        if (rc < 0)
            return rc;
    } while (!lane_rx_next(e->lane, &len, &records));
    lane_rx_release(e->lane);
    return len == RECORD ? 0 : err_set(-EPROTO, "the lane's echo is not what was sent");
}

int lane_round_trip(const struct settings *st, const char *provider, const char *host, int mode,
                    bool sealed, struct samples *out)
{
    struct end e = {0};
    struct card mine = {0}, theirs;
    int to[2], fro[2], rc;
    if (pipe(to) < 0 || pipe(fro) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
        rc = open_end(&e, provider, host, mode, sealed, true, &mine);
        if (rc == 0 && write(fro[1], &mine, sizeof mine) == sizeof mine &&
            read(to[0], &theirs, sizeof theirs) == sizeof theirs &&
            lane_peer(e.lane, &theirs.memory) == 0)
            echo_for_ever(st, &e);
        _exit(1);
    }
    close(fro[1]);
    pin_near(st);
    rc = open_end(&e, provider, host, mode, sealed, false, &mine);
    if (rc == 0 && (write(to[1], &mine, sizeof mine) != sizeof mine ||
                    read(fro[0], &theirs, sizeof theirs) != sizeof theirs))
        rc = err_set(-EIO, "the far side of the lane did not start");
    if (rc == 0)
        rc = lane_peer(e.lane, &theirs.memory);
    if (rc == 0)
        rc = e.tr->connect(e.dom, &e.ep, theirs.addr, theirs.addr_len, "x", 1);
    if (rc == 0)
        rc = lane_bind(e.lane, e.ep);
    while (rc == 0 && !e.up)
        rc = poll_end(st, &e);
    size_t warm = out->n / 5;
    for (size_t i = 0; rc == 0 && i < out->n + warm; i++) {
        uint64_t t = stamp();
        rc = one_round(st, &e);
        if (i >= warm)
            samples_put(out, i - warm, stamp_ns(t, stamp()));
    }
    child_stop(pid);
    close(to[0]);
    close(to[1]);
    close(fro[0]);
    if (e.ep) {
        e.tr->ep_shutdown(e.ep);
        e.tr->ep_free(e.ep);
    }
    if (e.lane)
        lane_free(e.lane);
    if (e.dom)
        e.tr->domain_close(e.dom);
    return rc;
}

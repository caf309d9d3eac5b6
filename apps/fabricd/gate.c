/* SPDX-License-Identifier: MIT
 *
 * gate.c - the control listener, data connections, and the links' share of the loop. What a peer
 * says on its control connection is peer.c's.
 *
 * A peer whose process dies is found by the closing of its sockets; one that is stopped or cut off by
 * heartbeats (heart.c), which no kernel that computes for minutes can starve.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "apps/fabricd/carrier.h"
#include "apps/fabricd/halfopen.h"
#include "apps/fabricd/peer.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/keyfile.h"
#include "core/pages.h"
#include "core/paths.h"

#define EVENTS 64
/* Descriptors that may be open before strangers are suspected of holding some. */
#define OWN_FDS      64u
#define FDS_PER_LINK 4u
#define FDS_PER_SITE 16u

/* The kernel finds hosts that are no more as late as heartbeats would: for those that get none yet, and
 * for bytes that nobody acknowledges. */
static void set_keepalive(int fd, uint64_t dead_after_ns)
{
    uint64_t all = dead_after_ns / 1000000;
    int ms = all < 3600000 ? (int)all : 3600000, probe = ms / 4000 > 0 ? ms / 4000 : 1;
    const struct {
        int level, name, value;
    } opts[] = {{IPPROTO_TCP, TCP_NODELAY, 1},          {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 2 * probe}, {IPPROTO_TCP, TCP_KEEPINTVL, probe},
                {IPPROTO_TCP, TCP_KEEPCNT, 2},          {IPPROTO_TCP, TCP_USER_TIMEOUT, ms}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        (void)setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value, sizeof(int));
}

/* The place of a newcomer when all are taken: that of the oldest stranger from its own host, else of
 * the oldest of all. So a host that floods us takes places from itself alone, and who needs a millisecond
 * to prove the key gets it. */
static void make_place(struct gate *g, const char *from)
{
    char host[REFUSE_HOST], its[REFUSE_HOST];
    struct peer *oldest = NULL, *own = NULL; /* the list has the youngest first */
    refuse_host(host, from);
    for (struct peer *p = g->peers; p; p = p->next) {
        if (!peer_is_stranger(p))
            continue;
        refuse_host(its, p->from);
        oldest = p;
        if (strcmp(its, host) == 0)
            own = p;
    }
    struct peer *victim = own ? own : oldest;
    victim->refusal = REFUSED_CROWD;
    peer_close(victim, "too many handshakes at once (limits.handshakes)");
}

static void on_accept(struct loop_src *src, int fd)
{
    const struct listener *l = src->owner;
    struct gate *g = l->owner;
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    char host[64] = "?", port[8] = "?";
    uint32_t more;
    if (fd < 0) {
        if (log_allowed(&g->limit, 5, 10000, &more))
            log_warn("accepting a remote peer: %s", strerror(-fd));
        return;
    }
    struct peer *p = pages_new(sizeof *p);
    if (!p) {
        close(fd);
        return;
    }
    if (getpeername(fd, (struct sockaddr *)&a, &len) == 0)
        getnameinfo((struct sockaddr *)&a, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(p->from, sizeof p->from, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    if (g->strangers >= g->d->conf->handshakes)
        make_place(g, p->from);
    set_keepalive(fd, g->d->conf->dead_after_ns);
    p->g = g;
    p->fd = fd;
    p->site = l->site;
    p->since_ns = clock_ns();
    p->src.owner = p;
    p->next = g->peers;
    if (p->next)
        p->next->prev = p;
    g->peers = p;
    g->strangers++;
    CRASH_POINT("gate.accepted");
    if (loop_watch(g->d->loop, &p->src, fd, POLLIN, true, peer_on_socket) < 0)
        peer_close(p, "the loop is full");
}

/* ---- data connections ---- */

static void on_request(struct gate *g, struct carrier *c, const struct tr_event *ev)
{
    struct peer *p;
    for (p = g->peers; p; p = p->next)
        if (p->stage == STAGE_TICKET && p->carrier == c && ev->data_len >= CTL_TICKET &&
            sodium_memcmp(p->ticket, ev->data, CTL_TICKET) == 0)
            break;
    if (!p) {
        refuse_note(&g->refused, &g->d->seg, REFUSED_TICKET, "a data connection",
                    "it has no valid ticket");
        c->tr->reject(c->dom, ev->request);
        return;
    }
    sodium_memzero(p->ticket, sizeof p->ticket); /* once only */
    p->stage = STAGE_JOINING;
    CRASH_POINT("gate.ticket");
    int rc = c->tr->accept(c->dom, &p->ep, ev->request);
    if (rc == 0) {
        c->tr->ep_context(p->ep, p);
        rc = lane_bind(p->lane, p->ep);
        CRASH_POINT("gate.bound");
    }
    if (rc < 0)
        peer_close(p, err_text(peer_refuse(p, rc, err_text(rc))));
}

static void on_event(struct gate *g, struct carrier *c, const struct tr_event *ev)
{
    struct peer *p = ev->ep_ctx;
    if (ev->kind == TR_CONNREQ) {
        on_request(g, c, ev);
        return;
    }
    if (!p)
        return;
    if (ev->kind == TR_CONNECTED) {
        p->stage = STAGE_UP;
        p->link->lane = p->lane;
        g->up++;
        g->moved = true;
        pulse_heard(&p->pulse, p->link, clock_ns());
        rtt_begin(&p->rtt, clock_ns());
        CRASH_POINT("gate.up");
        log_info("link to %s (%s) is up: %s, %s%s", p->from, p->hello.name, p->hello.provider,
                 p->mode == LANE_WRITE ? "write" : "send",
                 p->security == CTL_ENCRYPTED ? ", encrypted" : "");
        return;
    }
    int rc = lane_on_event(p->lane, ev);
    if (rc < 0) {
        char why[200];
        snprintf(why, sizeof why, "%s", err_text(rc));
        link_read_rest(p->link);
        CRASH_POINT("gate.read_rest");
        peer_close(p, p->bye ? NULL : why);
    }
}

static long poll_carrier(struct gate *g, struct carrier *c)
{
    struct tr_event ev[EVENTS];
    int n = c->tr->poll(c->dom, ev, EVENTS);
    for (int i = 0; i < n; i++) {
        /* an event before may have ended the peer this one is for */
        if (ev[i].ep && i > 0) {
            bool alive = false;
            for (struct peer *p = g->peers; p && !alive; p = p->next)
                alive = p->ep == ev[i].ep;
            if (!alive)
                continue;
        }
        on_event(g, c, &ev[i]);
    }
    return n > 0 ? n : 0;
}

long gate_work(struct gate *g)
{
    struct daemon *d = g->d;
    long n = 0;
    for (uint32_t i = 0; i < d->carriers; i++)
        n += poll_carrier(g, &d->carrier[i]);
    for (struct peer *p = g->peers, *next; p; p = next) {
        next = p->next;
        if (p->stage != STAGE_UP)
            continue;
        long rc = link_work(p->link);
        if (rc < 0)
            peer_close(p, err_text((int)rc));
        else
            n += rc;
    }
    g->moved |= n > 0;
    return n;
}

bool gate_arm(struct gate *g)
{
    struct daemon *d = g->d;
    for (struct peer *p = g->peers; p; p = p->next)
        if (p->stage == STAGE_UP && !link_arm(p->link))
            return false;
    return carriers_arm(d);
}

void gate_cancel(void *gate, uint32_t owner, uint32_t slot, uint64_t word)
{
    const struct gate *g = gate;
    for (struct peer *p = g->peers; p; p = p->next)
        if (p->stage == STAGE_UP && p->link->participant == owner)
            link_cancel(p->link, slot, word);
}

/* All that the peer was sent before the last call has left this host. It may ask meanwhile whether we
 * are there, again and again, and the answers are on their way then; they are not waited for. */
static bool has_left(struct peer *p)
{
    bool out = lane_tx_idle(p->lane); /* the message of the last call, too, and so all before it */
    if (lane_tx_settle(p->lane) != 0 || (out && p->settling))
        return true;
    p->settling = out;
    return false;
}

bool gate_idle(struct gate *g)
{
    bool idle = true;
    for (struct peer *p = g->peers; p; p = p->next) {
        if (p->stage != STAGE_UP)
            continue;
        if (p->link->unanswered > 0)
            p->settling = idle = false;
        else if (!has_left(p))
            idle = false;
    }
    return idle;
}

bool gate_busy(const struct gate *g)
{
    return g->up > 0;
}

/* Strangers at the data port, whom libfabric lets wait for ever. */
static void end_half_open(struct gate *g)
{
    const struct conf *c = g->d->conf;
    uint32_t expected = OWN_FDS + FDS_PER_SITE * g->listen.sites +
                        FDS_PER_LINK * (g->links + g->strangers),
             n = 0;
    for (uint32_t i = 0; i < g->d->carriers; i++)
        if (strcmp(g->d->carrier[i].caps.provider, "tcp") == 0)
            n += halfopen_end((const struct sockaddr *)g->d->carrier[i].addr, expected,
                              (uint32_t)(c->handshake_timeout_ns / 1000000));
    while (n-- > 0)
        refuse_note(&g->refused, &g->d->seg, REFUSED_SLOW, "a data connection",
                    "it asked for nothing in time");
}

static void publish(struct peer *p)
{
    struct seg_link *out = &p->link->local->self->link;
    uint64_t p50, p99;
    link_publish(p->link);
    if (!rtt_quantiles(&p->rtt, &p50, &p99))
        return;
    /* relaxed: numbers for people */
    at_store_rlx(&out->rtt_p50_ns, p50);
    at_store_rlx(&out->rtt_p99_ns, p99);
    at_store_rlx(&out->rtt_samples, p->rtt.n);
}

void gate_tick(struct gate *g, uint64_t now_ns)
{
    refuse_tick(&g->refused, now_ns);
    end_half_open(g);
    for (struct peer *p = g->peers, *next; p; p = next) {
        next = p->next;
        if (p->stage == STAGE_UP) {
            publish(p);
            peer_tell_refused(p);
        } else if (p->stage != STAGE_TOOL && now_ns - p->since_ns > g->d->conf->handshake_timeout_ns) {
            p->refusal = REFUSED_SLOW;
            peer_close(p, "the handshake took too long");
        }
    }
}

void gate_refuse(struct gate *g)
{
    g->refusing = true;
}

/* ---- start and end ---- */

static int load_key(struct gate *g)
{
    const struct conf *c = g->d->conf;
    char path[512], dir[512];
    if (c->key_file[0]) {
        snprintf(path, sizeof path, "%s", c->key_file);
    } else {
        int rc = c->state_dir[0] ? (snprintf(dir, sizeof dir, "%s", c->state_dir), 0)
                                 : paths_state_dir(dir, sizeof dir);
        if (rc == 0)
            rc = paths_make_dir(dir, 0700);
        if (rc < 0)
            return rc;
        if (snprintf(path, sizeof path, "%.500s/authkey", dir) >= (int)sizeof path)
            return err_set(-ENAMETOOLONG, "node.state_dir: %s is too long", dir);
    }
    int rc = key_make(path);
    return rc < 0 ? rc : key_load(path, g->key);
}

/* libfabric is ready; peers that have come meanwhile wait in the listeners' queues. */
static void open_gate(struct daemon *d)
{
    struct gate *g = d->gate;
    int rc = g->listen.n == 0 ? listen_open(&g->listen, d->conf) : 0;
    if (rc == 0)
        rc = carriers_open(d, &g->listen);
    for (uint32_t i = 0; rc == 0 && i < g->listen.n; i++) {
        struct listener *l = &g->listen.at[i];
        l->owner = g;
        l->src.owner = l;
        rc = loop_accept(d->loop, &l->src, l->fd, on_accept);
    }
    listen_text(&g->listen, d->address, sizeof d->address);
    daemon_ready(d, rc);
}

int gate_open(struct gate **out, struct daemon *d)
{
    *out = NULL;
    refuse_begin(&d->seg);
    if (d->conf->addresses == 0)
        return 0;
    struct gate *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(-ENOMEM, "no memory");
    g->d = d;
    *out = g; /* closed with the daemon from here on */
    if (sodium_init() < 0)
        return err_set(-EIO, "libsodium can't be used here");
    int rc = load_key(g);
    if (rc == 0)
        rc = listen_open(&g->listen, d->conf);
    if (rc == -EADDRINUSE) /* perhaps by a fabricd killed just now: it goes on for some milliseconds */
        rc = 0;
    if (rc == 0)
        rc = carriers_prepare(d, open_gate);
    return rc;
}

void gate_close(struct gate *g)
{
    struct daemon *d = g->d;
    while (g->peers) {
        g->peers->bye = true; /* we end it: nobody crashed */
        peer_bye(g->peers);
        peer_close(g->peers, NULL);
    }
    for (uint32_t i = 0; i < g->listen.n; i++)
        loop_stop(d->loop, &g->listen.at[i].src);
    listen_close(&g->listen);
    carriers_close(d);
    sodium_memzero(g->key, sizeof g->key);
    free(g);
}

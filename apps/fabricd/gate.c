/* SPDX-License-Identifier: MIT
 *
 * gate.c - the control listener, one state machine a remote peer, and the links' share of the loop.
 *
 *   HELLO -> PROOF -> OFFER -> TICKET -> UP        a producer or worker
 *   HELLO -> PROOF -> TOOL                         who asks for status only
 *
 * A peer whose host dies or is cut off is found by the kernel's keepalive on the control
 * connection, which no kernel that computes for minutes can starve; one whose process dies by the
 * closing of its sockets.
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
#include "apps/fabricd/gate.h"
#include "apps/fabricd/link.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/keyfile.h"
#include "core/paths.h"
#include "core/status.h"
#include "transport/control.h"

#define EVENTS  64
#define OUT_MAX (16u << 20)

enum stage {
    STAGE_HELLO,
    STAGE_PROOF,
    STAGE_OFFER,
    STAGE_TICKET,
    STAGE_JOINING,
    STAGE_UP,
    STAGE_TOOL
};

struct peer {
    struct peer *next, *prev;
    struct gate *g;
    struct loop_src src;
    int fd;
    enum stage stage;
    uint64_t since_ns;
    char from[80];
    struct ctl_reader in;
    struct ctl_handshake hs;
    struct ctl_hello hello;
    uint8_t ticket[CTL_TICKET];
    uint32_t incarnation;
    uint8_t *out; /* bytes that the socket did not take yet */
    size_t out_len, out_at;
    struct carrier *carrier;
    enum lane_mode mode;
    struct link *link;
    struct lane *lane;
    struct tr_ep *ep;
    bool bye;
};

struct gate {
    struct daemon *d;
    int fd;
    struct loop_src src;
    struct peer *peers;
    uint32_t strangers, links;
    uint32_t up; /* peers with lanes */
    uint8_t key[32];
    bool refusing;
    struct log_limit limit;
    struct ctl_frame frame;
};

static bool is_stranger(const struct peer *p)
{
    return p->stage < STAGE_OFFER;
}

/* ---- the end of a peer ---- */

static void peer_close(struct peer *p, const char *why)
{
    struct gate *g = p->g;
    struct daemon *d = g->d;
    uint32_t more;
    if (is_stranger(p)) {
        g->strangers--;
        if (why && log_allowed(&g->limit, 5, 10000, &more))
            log_warn("refused %s: %s%s", p->from, why, more ? " (and others)" : "");
    } else if (p->stage == STAGE_UP) {
        log_info("link to %s (%s) ended%s%s", p->from, p->hello.name, why ? ": " : "",
                 why ? why : "");
        g->up--;
    } else if (why && p->stage != STAGE_TOOL) {
        log_warn("link to %s (%s) was not made: %s", p->from, p->hello.name, why);
    }
    loop_stop(d->loop, &p->src);
    close(p->fd);
    if (p->ep) {
        p->carrier->tr->ep_shutdown(p->ep);
        p->carrier->tr->ep_free(p->ep);
    }
    if (p->lane)
        lane_free(p->lane);
    if (p->link) {
        g->links--;
        link_close(p->link, &d->out, d->me, !p->bye);
    }
    if (p->prev)
        p->prev->next = p->next;
    else
        g->peers = p->next;
    if (p->next)
        p->next->prev = p->prev;
    sodium_memzero(&p->hs, sizeof p->hs);
    free(p->out);
    free(p);
    d->stirred = true;
}

/* ---- sending ---- */

/* Sends what is pending. 0, or -EPIPE. */
static int flush_out(struct peer *p)
{
    while (p->out_at < p->out_len) {
        ssize_t n =
            send(p->fd, p->out + p->out_at, p->out_len - p->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : err_set(-EPIPE, "it hung up");
        p->out_at += (size_t)n;
    }
    p->out_at = p->out_len = 0;
    return 0;
}

static int send_frame(struct peer *p, enum ctl_type type, const uint8_t *body, uint32_t len)
{
    if (p->out_len + CTL_HEAD + len > OUT_MAX)
        return err_set(-ENOBUFS, "it does not read what it asked for");
    uint8_t *more = realloc(p->out, p->out_len + CTL_HEAD + len);
    if (!more)
        return err_set(-ENOMEM, "no memory");
    p->out = more;
    p->out_len += ctl_frame_put(p->out + p->out_len, type, body, len);
    return flush_out(p);
}

/* Says why, as well as it can be said; returns error for the caller to close with. */
static int refuse(struct peer *p, int error, const char *text)
{
    struct ctl_refuse r = {.error = -error};
    uint8_t body[512];
    snprintf(r.text, sizeof r.text, "%s", text);
    (void)!send_frame(p, CTL_REFUSE, body, ctl_put_refuse(body, &r)); /* it is closed next */
    return err_set(error, "%s", text);
}

/* ---- frames ---- */

static int on_hello(struct peer *p, const struct ctl_frame *f)
{
    struct daemon *d = p->g->d;
    struct ctl_challenge c = {.version = CTL_VERSION};
    uint8_t body[256];
    char text[200];
    int rc = ctl_get_hello(f, &p->hello);
    if (rc < 0)
        return refuse(p, rc, "malformed HELLO");
    if (p->hello.version_min > CTL_VERSION || p->hello.version_max < CTL_VERSION) {
        snprintf(text, sizeof text,
                 "protocol version %u is spoken here, the client speaks %u to %u: use one release "
                 "on all hosts",
                 CTL_VERSION, p->hello.version_min, p->hello.version_max);
        return refuse(p, -EPROTO, text);
    }
    if (p->g->refusing)
        return refuse(p, -ESHUTDOWN, "this fabricd is draining and takes nobody in");
    if (p->hello.provider[0] && !carrier_for(d, p->hello.provider)) {
        snprintf(
            text, sizeof text,
            "this fabricd offers no %.15s (fabric.provider in its configuration, or no device)",
            p->hello.provider);
        return refuse(p, -ENODEV, text);
    }
    hs_init(&p->hs, p->g->key);
    randombytes_buf(c.nonce, sizeof c.nonce);
    uint32_t len = ctl_put_challenge(body, &c);
    rc = hs_note_hello(&p->hs, f->body, f->len);
    if (rc == 0)
        rc = hs_note_challenge(&p->hs, body, len);
    if (rc < 0)
        return rc;
    p->stage = STAGE_PROOF;
    return send_frame(p, CTL_CHALLENGE, body, len);
}

static int make_link(struct peer *p)
{
    struct daemon *d = p->g->d;
    const struct conf *c = d->conf;
    int mode = lane_choose((enum lane_mode)c->lane, &p->carrier->caps);
    if (mode < 0)
        return refuse(p, mode, err_text(mode));
    p->mode = (enum lane_mode)mode;
    if (p->g->links >= c->links)
        return refuse(p, -EUSERS,
                      "all links are taken: raise fabric.links in fabricd's configuration");
    struct link_params lp = {.seg = &d->seg,
                             .daemon_fd = d->out.daemon_fd,
                             .roles = p->hello.roles & (FAB_PRODUCER | FAB_WORKER),
                             .name = p->hello.name,
                             .peer = p->from,
                             .provider = p->hello.provider,
                             .mode = p->mode,
                             .lease_window = c->lease_window,
                             .submit_window =
                                 c->submit_window < d->seg.slots ? c->submit_window : d->seg.slots,
                             .pid = (uint32_t)getpid()};
    int rc = link_open(&p->link, &lp);
    if (rc < 0)
        return refuse(p, rc, err_text(rc));
    p->g->links++;
    return 0;
}

static int welcome(struct peer *p)
{
    struct daemon *d = p->g->d;
    const struct conf *c = d->conf;
    struct ctl_welcome *w = calloc(1, sizeof *w);
    uint8_t *body = malloc(CTL_BODY_MAX);
    int rc = -ENOMEM;
    if (!w || !body)
        goto out;
    randombytes_buf(p->ticket, sizeof p->ticket);
    do
        randombytes_buf(&p->incarnation, sizeof p->incarnation);
    while (p->incarnation == 0);
    memcpy(w->ticket, p->ticket, sizeof w->ticket);
    w->incarnation = p->incarnation;
    w->lane_mode = p->mode;
    w->cell = (uint32_t)c->lane_cell;
    w->cells = c->lane_cells;
    w->lease_window = c->lease_window;
    w->submit_window = p->link ? p->link->submit_window : 1;
    snprintf(w->server, sizeof w->server, "%.63s", d->seg.head->name);
    if (p->carrier) {
        w->addr_len = p->carrier->addr_len;
        memcpy(w->addr, p->carrier->addr, sizeof w->addr);
    }
    w->queues = d->seg.queues;
    for (uint32_t i = 0; i < d->seg.queues; i++)
        memcpy(w->queue[i], c->queue[i], sizeof w->queue[i]);
    uint32_t len = ctl_put_welcome(body + CTL_MAC, w);
    hs_server_proof(&p->hs, body + CTL_MAC, len, body);
    rc = send_frame(p, CTL_WELCOME, body, CTL_MAC + len);
out:
    free(w);
    free(body);
    return rc;
}

static int on_proof(struct peer *p, const struct ctl_frame *f)
{
    int rc = hs_check_client(&p->hs, f->body, f->len);
    if (rc < 0)
        return refuse(p, rc,
                      "the key does not match: use the authkey of this fabricd (--key-file or "
                      "$FABRIC_KEY_FILE)");
    if (p->hello.provider[0]) {
        p->carrier = carrier_for(p->g->d, p->hello.provider);
        rc = make_link(p);
        if (rc < 0)
            return rc;
    }
    p->g->strangers--;
    p->stage = p->carrier ? STAGE_OFFER : STAGE_TOOL;
    p->since_ns = clock_ns();
    return welcome(p);
}

static int on_offer(struct peer *p, const struct ctl_frame *f)
{
    const struct conf *c = p->g->d->conf;
    struct tr_remote theirs, ours;
    uint8_t body[64];
    struct lane_params lp = {.mode = p->mode,
                             .cell = (uint32_t)c->lane_cell,
                             .cells = c->lane_cells,
                             .incarnation = p->incarnation};
    int rc = ctl_get_remote(f, &theirs);
    if (rc == 0)
        rc = lane_new(&p->lane, p->carrier->tr, p->carrier->dom, &lp, &ours);
    if (rc == 0)
        rc = lane_peer(p->lane, &theirs);
    if (rc < 0)
        return refuse(p, rc, err_text(rc));
    p->stage = STAGE_TICKET;
    return send_frame(p, CTL_LANE_READY, body, ctl_put_remote(body, &ours));
}

static int on_status(struct peer *p)
{
    char *text;
    int rc = status_json(&p->g->d->seg, &text);
    if (rc < 0)
        return rc;
    size_t len = strlen(text), at = 0;
    do {
        uint32_t part = len - at < CTL_BODY_MAX ? (uint32_t)(len - at) : CTL_BODY_MAX;
        rc = send_frame(p, CTL_STATUS_REPLY, (const uint8_t *)text + at, part);
        at += part;
        if (part < CTL_BODY_MAX)
            break;
    } while (rc == 0);
    free(text);
    return rc;
}

static int on_frame(struct peer *p, const struct ctl_frame *f)
{
    if (p->stage == STAGE_HELLO && f->type == CTL_HELLO)
        return on_hello(p, f);
    if (p->stage == STAGE_PROOF && f->type == CTL_PROOF)
        return on_proof(p, f);
    if (p->stage == STAGE_OFFER && f->type == CTL_LANE_OFFER)
        return on_offer(p, f);
    if (!is_stranger(p)) {
        switch (f->type) {
        case CTL_STATUS:
            return on_status(p);
        case CTL_PING:
            return send_frame(p, CTL_PONG, f->body, f->len < 64 ? f->len : 64);
        case CTL_PONG:
            return 0;
        case CTL_BYE:
            p->bye = true;
            return err_set(-EPIPE, "it said good-bye");
        default:
            break;
        }
    }
    return refuse(p, -EPROTO, "a frame that does not belong here");
}

/* Reads and answers all that has come. < 0: close. */
static int read_frames(struct peer *p)
{
    for (;;) {
        uint32_t room;
        uint8_t *to = ctl_reader_room(&p->in, &room);
        ssize_t n = recv(p->fd, to, room, MSG_DONTWAIT);
        if (n == 0)
            return err_set(-EPIPE, "it hung up");
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : err_set(-EPIPE, "%s", strerror(errno));
        ctl_reader_add(&p->in, (uint32_t)n);
        int rc;
        while ((rc = ctl_reader_next(&p->in, &p->g->frame)) == 1) {
            rc = on_frame(p, &p->g->frame);
            if (rc < 0)
                return rc;
        }
        if (rc < 0)
            return rc;
    }
}

static void on_socket(struct loop_src *src, int result)
{
    struct peer *p = src->owner;
    struct loop *l = p->g->d->loop;
    int rc = result < 0 ? result : flush_out(p);
    if (rc == 0)
        rc = read_frames(p);
    if (rc == 0)
        rc = loop_watch(l, &p->src, p->fd, POLLIN | (p->out_len ? POLLOUT : 0), true, on_socket);
    if (rc < 0)
        peer_close(p, p->bye ? NULL : err_text(rc));
}

static void set_keepalive(int fd)
{
    const struct {
        int level, name, value;
    } opts[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 5}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
                {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 12000}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        (void)setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value, sizeof(int));
}

static void on_accept(struct loop_src *src, int fd)
{
    struct gate *g = src->owner;
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    char host[64] = "?", port[8] = "?";
    uint32_t more;
    if (fd < 0) {
        if (log_allowed(&g->limit, 5, 10000, &more))
            log_warn("accepting a remote peer: %s", strerror(-fd));
        return;
    }
    struct peer *p = g->strangers < g->d->conf->handshakes ? calloc(1, sizeof *p) : NULL;
    if (!p) {
        if (log_allowed(&g->limit, 5, 10000, &more))
            log_warn("too many handshakes at once (limits.handshakes = %u): sent one away",
                     g->d->conf->handshakes);
        close(fd);
        return;
    }
    if (getpeername(fd, (struct sockaddr *)&a, &len) == 0)
        getnameinfo((struct sockaddr *)&a, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(p->from, sizeof p->from, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    set_keepalive(fd);
    p->g = g;
    p->fd = fd;
    p->since_ns = clock_ns();
    p->src.owner = p;
    p->next = g->peers;
    if (p->next)
        p->next->prev = p;
    g->peers = p;
    g->strangers++;
    if (loop_watch(g->d->loop, &p->src, fd, POLLIN, true, on_socket) < 0)
        peer_close(p, "the loop is full");
}

/* ---- data connections ---- */

static void on_request(struct gate *g, struct carrier *c, const struct tr_event *ev)
{
    struct peer *p;
    uint32_t more;
    for (p = g->peers; p; p = p->next)
        if (p->stage == STAGE_TICKET && p->carrier == c && ev->data_len >= CTL_TICKET &&
            sodium_memcmp(p->ticket, ev->data, CTL_TICKET) == 0)
            break;
    if (!p) {
        if (log_allowed(&g->limit, 5, 10000, &more))
            log_warn("refused a data connection without a valid ticket");
        c->tr->reject(c->dom, ev->request);
        return;
    }
    sodium_memzero(p->ticket, sizeof p->ticket); /* once only */
    p->stage = STAGE_JOINING;
    int rc = c->tr->accept(c->dom, &p->ep, ev->request);
    if (rc == 0) {
        c->tr->ep_context(p->ep, p);
        rc = lane_bind(p->lane, p->ep);
    }
    if (rc < 0)
        peer_close(p, err_text(refuse(p, rc, err_text(rc))));
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
        log_info("link to %s (%s) is up: %s, %s", p->from, p->hello.name, p->hello.provider,
                 p->mode == LANE_WRITE ? "write" : "send");
        return;
    }
    int rc = lane_on_event(p->lane, ev);
    if (rc < 0) {
        char why[200];
        snprintf(why, sizeof why, "%s", err_text(rc));
        link_read_rest(p->link);
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

bool gate_idle(const struct gate *g)
{
    for (const struct peer *p = g->peers; p; p = p->next)
        if (p->stage == STAGE_UP && (p->link->unanswered > 0 || lane_tx_settle(p->lane) == 0))
            return false;
    return true;
}

bool gate_busy(const struct gate *g)
{
    return g->up > 0;
}

void gate_tick(struct gate *g, uint64_t now_ns)
{
    for (struct peer *p = g->peers, *next; p; p = next) {
        next = p->next;
        if (p->stage == STAGE_UP)
            link_publish(p->link);
        else if (p->stage != STAGE_TOOL && now_ns - p->since_ns > g->d->conf->handshake_timeout_ns)
            peer_close(p, "the handshake took too long");
    }
}

void gate_refuse(struct gate *g)
{
    g->refusing = true;
}

/* ---- start and end ---- */

static int listen_on(struct gate *g, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    int one = 1, rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
    if (rc)
        return err_set(-EINVAL, "listen.address: %s: %s", host, gai_strerror(rc));
    g->fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (g->fd < 0 || setsockopt(g->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(g->fd, list->ai_addr, list->ai_addrlen) < 0 || listen(g->fd, 256) < 0) {
        rc = err_set(-errno, "listen.address = \"%s:%s\": %s%s", host, port, strerror(errno),
                     errno == EADDRINUSE
                         ? " (another fabricd? choose another port, or \"\" for no remote peers)"
                         : "");
    } else {
        struct sockaddr_storage a;
        socklen_t len = sizeof a;
        char h[64] = "?", s[8] = "?";
        getsockname(g->fd, (struct sockaddr *)&a, &len);
        getnameinfo((struct sockaddr *)&a, len, h, sizeof h, s, sizeof s,
                    NI_NUMERICHOST | NI_NUMERICSERV);
        snprintf(g->d->address, sizeof g->d->address, strchr(h, ':') ? "[%s]:%s" : "%s:%s", h, s);
    }
    freeaddrinfo(list);
    return rc;
}

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

int gate_open(struct gate **out, struct daemon *d)
{
    struct fab_address a;
    char text[300];
    *out = NULL;
    if (!d->conf->address[0])
        return 0;
    struct gate *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(-ENOMEM, "no memory");
    g->d = d;
    g->fd = -1;
    g->src.owner = g;
    *out = g; /* closed with the daemon from here on */
    if (sodium_init() < 0)
        return err_set(-EIO, "libsodium can't be used here");
    snprintf(text, sizeof text, "tcp://%s", d->conf->address);
    int rc = address_parse(text, &a);
    if (rc == 0)
        rc = load_key(g);
    if (rc == 0)
        rc = listen_on(g, a.host, a.port);
    if (rc == 0)
        rc = carriers_open(d, a.host);
    if (rc == 0)
        rc = loop_accept(d->loop, &g->src, g->fd, on_accept);
    return rc;
}

void gate_close(struct gate *g)
{
    struct daemon *d = g->d;
    while (g->peers) {
        g->peers->bye = true; /* we end it: nobody crashed */
        peer_close(g->peers, NULL);
    }
    loop_stop(d->loop, &g->src);
    if (g->fd >= 0)
        close(g->fd);
    carriers_close(d);
    sodium_memzero(g->key, sizeof g->key);
    free(g);
}

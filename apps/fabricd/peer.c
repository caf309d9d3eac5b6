/* SPDX-License-Identifier: MIT
 *
 * peer.c - what one remote peer says on its control connection, and its end; see peer.h.
 *
 * Trust: nothing is allocated for its lanes before it has proved the key, and a frame that does not
 * belong into its stage ends it.
 */
#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "apps/fabricd/carrier.h"
#include "apps/fabricd/keep.h"
#include "apps/fabricd/peer.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/pages.h"
#include "core/status.h"

#define OUT_MAX (16u << 20)
/* Of taken outcomes an idle handle need not tell: enough for tasks that go one by one. */
#define UNTOLD_MAX 3u

/* ---- the end of a peer ---- */

/* Their producer does not hear of it: it waits for no answer. */
void peer_tell_refused(struct peer *p)
{
    uint32_t n = p->link->refused;
    if (n)
        log_warn("link to %s (%s): %u tasks nobody waits for were refused (is the queue draining?)",
                 p->from, p->hello.name, n);
    p->link->refused = 0;
}

/* It has no producer's entry that would be kept. */
static bool is_worker(const struct peer *p)
{
    return !(p->hello.roles & FAB_PRODUCER);
}

/* A worker that did not say good-bye may come back. A return that came to nothing is none. */
static void note_return(struct peer *p)
{
    struct seg_link *l = &p->link->local->self->link;
    uint32_t n = at_load_rlx(&l->reconnects); /* relaxed: a number for people */
    bool up = p->stage == STAGE_UP, back = n > 0;
    if (back && !up)
        at_store_rlx(&l->reconnects, --n);
    if (!p->bye && is_worker(p) && (up || back))
        returns_broken(&p->g->d->returns, p->from, p->hello.name, n);
}

/* Nothing comes over its data connection any more, into memory of the link's least of all. */
static void hang_up(struct peer *p)
{
    if (!p->ep)
        return;
    p->carrier->tr->ep_shutdown(p->ep);
    p->carrier->tr->ep_free(p->ep);
    p->ep = NULL;
}

void peer_close(struct peer *p, const char *why)
{
    struct gate *g = p->g;
    struct daemon *d = g->d;
    if (peer_is_stranger(p)) {
        g->strangers--;
        if (why)
            refuse_note(&g->refused, &d->seg, p->refusal, p->from, why);
    } else if (p->stage == STAGE_UP) {
        if (p->link)
            peer_tell_refused(p);
        log_info("link to %s (%s) ended%s%s", p->from, p->hello.name, why ? ": " : "",
                 why ? why : "");
        g->up--;
    } else if (why && p->stage != STAGE_TOOL) {
        log_warn("link to %s (%s) was not made: %s", p->from, p->hello.name, why);
    }
    loop_stop(d->loop, &p->src);
    close(p->fd);
    hang_up(p);
    CRASH_POINT("peer.hung_up");
    if (p->lane)
        lane_free(p->lane);
    if (p->link) {
        note_return(p);
        g->links--;
        link_close(p->link, &d->out, d->me, !p->bye,
                   keep_until(d, p->link->participant, p->bye));
    }
    if (p->prev)
        p->prev->next = p->next;
    else
        g->peers = p->next;
    if (p->next)
        p->next->prev = p->prev;
    sodium_memzero(&p->hs, sizeof p->hs);
    sodium_memzero(&p->seals, sizeof p->seals);
    free(p->out);
    pages_free(p, sizeof *p);
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
    free(p->out); /* an idle peer keeps none */
    p->out = NULL;
    p->out_at = p->out_len = 0;
    return 0;
}

int peer_send(struct peer *p, enum ctl_type type, const uint8_t *body, uint32_t len)
{
    uint32_t most = CTL_HEAD + len + SEAL_TAG;
    if (p->out_len + most > OUT_MAX)
        return err_set(-ENOBUFS, "it does not read what it asked for");
    uint8_t *more = realloc(p->out, p->out_len + most);
    if (!more)
        return err_set(-ENOMEM, "no memory");
    p->out = more;
    p->out_len += ctl_frame_seal(&p->seals.tx, p->out + p->out_len, type, body, len);
    return flush_out(p);
}

int peer_refuse(struct peer *p, int error, const char *text)
{
    struct ctl_refuse r = {.error = -error};
    uint8_t body[512];
    snprintf(r.text, sizeof r.text, "%s", text);
    (void)!peer_send(p, CTL_REFUSE, body, ctl_put_refuse(body, &r)); /* it is closed next */
    return err_set(error, "%s", text);
}

void peer_bye(struct peer *p)
{
    (void)!peer_send(p, CTL_BYE, NULL, 0); /* the closed connection says nearly the same */
}

void peer_ping(struct peer *p, const struct pulse_conf *c)
{
    struct ctl_ping ping = {.sent_ns = clock_ns(),
                            .heartbeat_ms = (uint32_t)(c->heartbeat_ns / 1000000),
                            .dead_after_ms = (uint32_t)(c->dead_after_ns / 1000000)};
    uint8_t body[64];
    if (p->out_len > 0) /* what waits there asks as well */
        return;
    rtt_sent(&p->rtt, ping.sent_ns);
    (void)!peer_send(p, CTL_PING, body, ctl_put_ping(body, &ping)); /* its silence says it */
}

/* ---- frames ---- */

static void on_pong(struct peer *p, const struct ctl_frame *f)
{
    struct ctl_ping ping;
    if (ctl_get_ping(f, &ping) == 0)
        (void)rtt_answered(&p->rtt, ping.sent_ns, clock_ns());
}

static int on_hello(struct peer *p, const struct ctl_frame *f)
{
    struct daemon *d = p->g->d;
    struct ctl_challenge c = {.version = CTL_VERSION, .security = CTL_PLAIN};
    uint8_t body[256];
    char text[200];
    int rc = ctl_get_hello(f, &p->hello);
    if (rc < 0)
        return peer_refuse(p, rc, "malformed HELLO");
    if (p->hello.version_min > CTL_VERSION || p->hello.version_max < CTL_VERSION) {
        snprintf(text, sizeof text,
                 "protocol version %u is spoken here, the client speaks %u to %u: use one release "
                 "on all hosts",
                 CTL_VERSION, p->hello.version_min, p->hello.version_max);
        return peer_refuse(p, -EPROTO, text);
    }
    if (keep_identity(&p->who, p->hello.client, p->hello.instance) < 0)
        return peer_refuse(p, -EINVAL, err_text(-EINVAL));
    if (p->g->refusing && !p->hello.resume) /* outcomes of what is being done are waited for */
        return peer_refuse(p, -ESHUTDOWN, "this fabricd is draining and takes nobody in");
    if (p->hello.provider[0] && !carrier_for(d, p->hello.provider, p->site)) {
        snprintf(
            text, sizeof text,
            "this fabricd offers no %.15s (fabric.provider in its configuration, or no device)",
            p->hello.provider);
        return peer_refuse(p, -ENODEV, text);
    }
    hs_init(&p->hs, p->g->key);
    randombytes_buf(c.nonce, sizeof c.nonce);
    if (d->conf->security == CONF_ENCRYPTED || p->hello.security == CTL_ENCRYPTED) {
        c.security = CTL_ENCRYPTED;
        hs_draw(&p->hs, c.public);
    }
    p->security = (enum ctl_security)c.security;
    uint32_t len = ctl_put_challenge(body, &c);
    rc = hs_note_hello(&p->hs, f->body, f->len);
    if (rc == 0)
        rc = hs_note_challenge(&p->hs, body, len);
    if (rc < 0)
        return rc;
    p->stage = STAGE_PROOF;
    CRASH_POINT("peer.hello");
    return peer_send(p, CTL_CHALLENGE, body, len);
}

/* Finds what the peer left behind when its last link broke, or an earlier handle with its client id
 * did. Sets p->session and *kept. */
static int find_session(struct peer *p, uint32_t *kept)
{
    struct daemon *d = p->g->d;
    char text[200];
    p->session = LINK_NEW;
    if (!(p->hello.roles & FAB_PRODUCER))
        return 0;
    int id = kept_find(&d->seg, &p->who);
    bool same = id >= 0 && kept_same_instance(&d->seg, (uint32_t)id, &p->who);
    if (id >= 0 && !kept_is(&d->seg, (uint32_t)id)) {
        snprintf(text, sizeof text,
                 "client id \"%.63s\" is in use by participant %d: end that one, or choose another id",
                 p->who.text, id);
        return peer_refuse(p, -EADDRINUSE, text);
    }
    if (id < 0)
        return 0;
    if (p->hello.resume && !same)
        return peer_refuse(p, -ESTALE, "another handle has taken over this client id");
    p->session = p->hello.resume ? LINK_RESUMED : LINK_TAKEN_UP;
    *kept = (uint32_t)id;
    return 0;
}

static bool same_handle(const struct peer *p, const struct peer *q)
{
    return ((p->hello.roles ^ q->hello.roles) & (FAB_PRODUCER | FAB_WORKER)) == 0 &&
           sodium_memcmp(q->who.client, p->who.client, sizeof p->who.client) == 0 &&
           sodium_memcmp(q->who.instance, p->who.instance, sizeof p->who.instance) == 0;
}

/* The link of the same handle, when it has come back before we noticed that its connection is dead: who
 * comes with its number knows, and what it holds is still its own. NULL: there is none. */
static struct peer *link_before(const struct peer *p)
{
    for (struct peer *q = p->hello.resume ? p->g->peers : NULL; q; q = q->next)
        if (q != p && q->link && same_handle(p, q))
            return q;
    return NULL;
}

static void take_link(struct peer *p, struct peer *before, const struct link_params *lp)
{
    p->link = before->link;
    p->rtt = before->rtt;
    before->link = NULL;
    hang_up(before);
    p->session = link_move(p->link, lp);
    CRASH_POINT("peer.moved");
    peer_close(before, "its handle has come back over another link");
}

static int make_link(struct peer *p)
{
    struct daemon *d = p->g->d;
    const struct conf *c = d->conf;
    int wanted = c->lane;
    if (p->security == CTL_ENCRYPTED && wanted == LANE_WRITE)
        return peer_refuse(p, -ENOTSUP,
                           "this fabricd moves batches by one-sided writes, which can't be encrypted: "
                           "set fabric.lane = \"auto\" in its configuration");
    int mode = lane_choose(p->security == CTL_ENCRYPTED ? LANE_SEND : (enum lane_mode)wanted,
                           &p->carrier->caps);
    if (mode < 0)
        return peer_refuse(p, mode, err_text(mode));
    p->mode = (enum lane_mode)mode;
    struct peer *before = link_before(p);
    if (!before && p->g->links >= c->links)
        return peer_refuse(p, -EUSERS,
                      "all links are taken: raise fabric.links in fabricd's configuration");
    struct link_params lp = {.seg = &d->seg,
                             .daemon_fd = d->out.daemon_fd,
                             .roles = p->hello.roles & (FAB_PRODUCER | FAB_WORKER),
                             .name = p->hello.name,
                             .peer = p->from,
                             .provider = p->hello.provider,
                             .mode = p->mode,
                             .encrypted = p->security == CTL_ENCRYPTED,
                             .lease_window = c->lease_window,
                             .submit_window =
                                 c->submit_window < d->seg.slots ? c->submit_window : d->seg.slots,
                             .pid = (uint32_t)getpid(),
                             .identity = &p->who,
                             .window = p->hello.resume ? p->hello.window : 0};
    if (before) {
        take_link(p, before, &lp);
        return 0;
    }
    int rc = find_session(p, &lp.kept);
    if (rc < 0)
        return rc;
    lp.session = p->session;
    rc = link_open(&p->link, &lp);
    if (rc == -EUSERS && keep_make_room(d))
        rc = link_open(&p->link, &lp);
    if (rc < 0)
        return peer_refuse(p, rc, err_text(rc));
    p->g->links++;
    if (is_worker(p)) /* relaxed: a number for people */
        at_store_rlx(&p->link->local->self->link.reconnects,
                     returns_came(&d->returns, p->from, p->hello.name));
    CRASH_POINT("peer.linked");
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
    w->session = p->session;
    w->segment_id = d->seg.id;
    /* all idle links together hold a quarter of the slots at most */
    uint32_t share = d->seg.slots / d->seg.participants / 4;
    w->untold_max = share < UNTOLD_MAX ? share : UNTOLD_MAX;
    w->keep_ns = c->keep_results_ns;
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
    rc = peer_send(p, CTL_WELCOME, body, CTL_MAC + len);
    CRASH_POINT("peer.welcomed");
out:
    free(w);
    free(body);
    return rc;
}

static int on_proof(struct peer *p, const struct ctl_frame *f)
{
    int rc = hs_check_client(&p->hs, f->body, f->len);
    if (rc < 0)
        return peer_refuse(p, rc,
                      "the key does not match: use the authkey of this fabricd (--key-file or "
                      "$FABRIC_KEY_FILE)");
    if (p->security == CTL_ENCRYPTED && (rc = hs_seals(&p->hs, true, p->hello.public, &p->seals)) < 0)
        return peer_refuse(p, rc, err_text(rc));
    if (p->hello.provider[0]) {
        p->carrier = carrier_for(p->g->d, p->hello.provider, p->site);
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
                             .incarnation = p->incarnation,
                             .tx_seal = p->seals.lane_tx,
                             .rx_seal = p->seals.lane_rx};
    int rc = ctl_get_remote(f, &theirs);
    if (rc == 0)
        rc = lane_new(&p->lane, p->carrier->tr, p->carrier->dom, &lp, &ours);
    if (rc == 0)
        rc = lane_peer(p->lane, &theirs);
    if (rc < 0)
        return peer_refuse(p, rc, err_text(rc));
    p->stage = STAGE_TICKET;
    rc = peer_send(p, CTL_LANE_READY, body, ctl_put_remote(body, &ours));
    CRASH_POINT("peer.ready");
    return rc;
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
        rc = peer_send(p, CTL_STATUS_REPLY, (const uint8_t *)text + at, part);
        at += part;
        if (part < CTL_BODY_MAX)
            break;
    } while (rc == 0);
    free(text);
    return rc;
}

/* The handle asks what has become of its lane. */
static int on_ping(struct peer *p, const struct ctl_frame *f)
{
    struct ctl_pong pong;
    uint8_t body[64];
    int rc = ctl_get_pong(f, &pong);
    if (rc < 0)
        return rc;
    if (p->lane)
        lane_counts(p->lane, &pong.sent, &pong.arrived);
    return peer_send(p, CTL_PONG, body, ctl_put_pong(body, &pong));
}

static int on_frame(struct peer *p, const struct ctl_frame *f)
{
    if (p->stage == STAGE_HELLO && f->type == CTL_HELLO)
        return on_hello(p, f);
    if (p->stage == STAGE_PROOF && f->type == CTL_PROOF)
        return on_proof(p, f);
    if (p->stage == STAGE_OFFER && f->type == CTL_LANE_OFFER)
        return on_offer(p, f);
    if (!peer_is_stranger(p)) {
        switch (f->type) {
        case CTL_STATUS:
            return on_status(p);
        case CTL_ADMIN:
            return peer_admin(p, f);
        case CTL_PING:
            return on_ping(p, f);
        case CTL_PONG:
            on_pong(p, f);
            return 0;
        case CTL_BYE:
            p->bye = true;
            return err_set(-EPIPE, "it said good-bye");
        default:
            break;
        }
    }
    return peer_refuse(p, -EPROTO, "a frame that does not belong here");
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
        pulse_heard(&p->pulse, p->link, clock_ns());
        int rc;
        while ((rc = ctl_reader_next(&p->in, &p->g->frame)) == 1) {
            rc = ctl_frame_open(&p->seals.rx, &p->g->frame);
            if (rc == 0)
                rc = on_frame(p, &p->g->frame);
            if (rc < 0)
                return rc;
        }
        if (rc < 0)
            return rc;
    }
}

void peer_on_socket(struct loop_src *src, int result)
{
    struct peer *p = src->owner;
    struct loop *l = p->g->d->loop;
    int rc = result < 0 ? result : flush_out(p);
    if (rc == 0)
        rc = read_frames(p);
    if (rc == 0)
        rc = loop_watch(l, &p->src, p->fd, POLLIN | (p->out_len ? POLLOUT : 0), true, peer_on_socket);
    if (rc < 0) {
        /* who hangs up on our challenge was not refused: a handle that waited too long for it (we were
         * stopped, or not there yet) has dialled anew */
        bool left = p->bye || (rc == -EPIPE && p->stage == STAGE_PROOF);
        p->refusal = refuse_kind(rc);
        peer_close(p, left ? NULL : err_text(rc));
    }
}

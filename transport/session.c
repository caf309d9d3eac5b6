/* SPDX-License-Identifier: MIT
 *
 * session.c - the client's control connection and the making of a link; see session.h.
 *
 * Opening is a machine of stages, each of which ends with an answer from the other side:
 *
 *   CONNECT -> CHALLENGE -> WELCOME -> READY -> JOIN -> UP      (with_data false: WELCOME -> UP)
 *
 * Only the resolution of a host's name may block (session_begin), and the few bytes that are sent go
 * into a fresh socket's empty buffer.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/keyfile.h"
#include "transport/dial.h"
#include "transport/session.h"

#define TIMEOUT_NS 10000000000ll
#define EVENTS     16
#define REFUSAL_NS 500000000u
#define ADMIN_TEXT_MAX (64u << 20)

enum stage { CONNECT, CHALLENGE, WELCOME, READY, JOIN, UP };

struct session {
    int fd;
    enum stage stage;
    char host[256], port[8], provider[16];
    bool with_data;
    struct dial dial; /* until one of the host's addresses is connected */
    struct ctl_hello hello;
    uint64_t deadline;
    uint32_t patience_ms; /* fabric.dead_after, as heartbeats tell it */
    struct ctl_reader in;
    struct ctl_frame frame;
    struct ctl_handshake hs;
    struct ctl_seals seals;
    struct ctl_welcome welcome;
    struct session_info info;
    const struct tr_ops *tr;
    struct tr_domain *dom;
    struct tr_ep *ep;
    struct lane *lane;
    bool connected;
    bool broken; /* it is closed without a farewell: the handle means to come back */
    bool ended; /* fabricd has said that it is over */
    char *status; /* a reply being collected */
    size_t status_len;
    bool status_done;
    struct { /* a reply being collected */
        uint32_t serial;
        bool done;
        int error;
        struct admin_reply reply;
        size_t len;
    } admin;
};

/* ---- the socket ---- */

static int await(struct session *s, short events)
{
    struct pollfd p = {.fd = s->fd, .events = events};
    uint64_t now = clock_ns();
    if (now >= s->deadline)
        return err_set(-ETIMEDOUT, "%s:%s does not answer", s->host, s->port);
    int rc = poll(&p, 1, (int)((s->deadline - now) / 1000000 + 1));
    if (rc < 0 && errno != EINTR)
        return err_set(-errno, "poll: %s", strerror(errno));
    return 0;
}

/* As fabricd's side (gate.c): a host that dies or is cut off is found in about 12 s. */
static void set_options(int fd)
{
    const struct {
        int level, name, value;
    } opts[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 5}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
                {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 12000}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        (void)setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value, sizeof(int));
}

static int no_connection(const struct session *s, int rc)
{
    if (rc == -ECONNREFUSED)
        return err_set(
            rc,
            "no fabricd listens at %s:%s: start one there with listen.address set to an address "
            "that this host reaches",
            s->host, s->port);
    return err_set(rc, "%s:%s: %s", s->host, s->port, strerror(-rc));
}

/* 0 connected, -EAGAIN not yet. */
static int connected(struct session *s)
{
    int fd = dial_step(&s->dial, clock_ns());
    if (fd < 0)
        return fd == -EAGAIN ? fd : no_connection(s, fd);
    s->fd = fd;
    set_options(fd);
    return 0;
}

static int send_frame(struct session *s, enum ctl_type type, const uint8_t *body, uint32_t len)
{
    uint8_t out[CTL_HEAD + 1024 + SEAL_TAG];
    if (len > sizeof out - CTL_HEAD - SEAL_TAG)
        return err_set(-EMSGSIZE, "a control frame of %u bytes", len);
    uint32_t n = ctl_frame_seal(&s->seals.tx, out, type, body, len), at = 0;
    while (at < n) {
        ssize_t put = send(s->fd, out + at, n - at, MSG_NOSIGNAL);
        if (put > 0) {
            at += (uint32_t)put;
            continue;
        }
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return err_set(-EPIPE, "%s:%s hung up", s->host, s->port);
        int rc = await(s, POLLOUT);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Reads what is there. 0 nothing more now, -EPIPE. */
static int fill(struct session *s)
{
    uint32_t room;
    uint8_t *to = ctl_reader_room(&s->in, &room);
    ssize_t n = recv(s->fd, to, room, 0);
    if (n > 0) {
        ctl_reader_add(&s->in, (uint32_t)n);
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return err_set(-EPIPE, "%s:%s hung up", s->host, s->port);
}

/* The next frame, opened, into s->frame. As ctl_reader_next(). */
static int next_frame(struct session *s)
{
    int rc = ctl_reader_next(&s->in, &s->frame);
    if (rc != 1)
        return rc;
    /* who refuses our proof has no key in common with us */
    if (s->stage == WELCOME && s->frame.type == CTL_REFUSE && !s->frame.sealed)
        return 1;
    rc = ctl_frame_open(&s->seals.rx, &s->frame);
    return rc < 0 ? rc : 1;
}

/* The next frame, into s->frame, which must be of this type. -EAGAIN: it has not come yet. */
static int expect(struct session *s, enum ctl_type type)
{
    int rc;
    while ((rc = next_frame(s)) == 0) {
        rc = fill(s);
        if (rc <= 0)
            return rc == 0 ? -EAGAIN : rc;
    }
    if (rc < 0)
        return err_prefix(rc, "%s:%s is no fabricd", s->host, s->port);
    if (s->frame.type == CTL_REFUSE) {
        struct ctl_refuse r;
        rc = ctl_get_refuse(&s->frame, &r);
        return rc < 0 ? rc : err_set(-r.error, "%s:%s refused: %s", s->host, s->port, r.text);
    }
    if (s->frame.type != type)
        return err_set(-EPROTO, "%s:%s sent a frame of type %u in place of %d", s->host, s->port,
                       s->frame.type, type);
    return 0;
}

/* ---- handshake ---- */

static int load_key(struct session *s, const struct fab_options *opts)
{
    char path[512];
    uint8_t key[32];
    if (sodium_init() < 0)
        return err_set(-EIO, "libsodium can't be used here");
    int rc = key_path_default(opts->key_file, path, sizeof path);
    if (rc == 0)
        rc = key_load(path, key);
    if (rc == 0)
        hs_init(&s->hs, key);
    sodium_memzero(key, sizeof key);
    return rc;
}

/* The caller's word, or else the user's. */
static int wanted_security(struct session *s, const struct fab_options *opts)
{
    const char *text = getenv("FABRIC_SECURITY");
    s->hello.security = opts->encrypted ? CTL_ENCRYPTED : CTL_PLAIN;
    if (opts->encrypted || !text || !*text || strcmp(text, "authenticated") == 0)
        return 0;
    s->hello.security = CTL_ENCRYPTED;
    return strcmp(text, "encrypted") == 0
               ? 0
               : err_set(-EINVAL, "FABRIC_SECURITY is \"%.40s\"; set it to \"encrypted\" or "
                                  "\"authenticated\"",
                         text);
}

static int say_hello(struct session *s)
{
    uint8_t body[512];
    randombytes_buf(s->hello.nonce, sizeof s->hello.nonce);
    hs_draw(&s->hs, s->hello.public);
    uint32_t len = ctl_put_hello(body, &s->hello);
    int rc = hs_note_hello(&s->hs, body, len);
    if (rc == 0)
        rc = send_frame(s, CTL_HELLO, body, len);
    CRASH_POINT("session.hello");
    return rc;
}

static int on_challenge(struct session *s)
{
    uint8_t mac[CTL_MAC];
    struct ctl_challenge c;
    int rc = expect(s, CTL_CHALLENGE);
    if (rc == 0)
        rc = ctl_get_challenge(&s->frame, &c);
    if (rc == 0 && c.version != CTL_VERSION)
        rc = err_set(-EPROTO, "%s:%s speaks protocol version %u, this program %u", s->host, s->port,
                     c.version, CTL_VERSION);
    if (rc == 0 && c.security < s->hello.security)
        rc = err_set(-EACCES, "%s:%s does not encrypt, which was asked for ($FABRIC_SECURITY)",
                     s->host, s->port);
    if (rc == 0)
        rc = hs_note_challenge(&s->hs, s->frame.body, s->frame.len);
    if (rc < 0)
        return rc;
    hs_client_proof(&s->hs, mac);
    rc = send_frame(s, CTL_PROOF, mac, sizeof mac);
    CRASH_POINT("session.proved");
    if (rc == 0 && c.security == CTL_ENCRYPTED)
        rc = hs_seals(&s->hs, false, c.public, &s->seals);
    return rc;
}

static int on_welcome(struct session *s)
{
    int rc = expect(s, CTL_WELCOME);
    if (rc < 0)
        return rc;
    if (s->frame.len < CTL_MAC)
        return err_set(-EPROTO, "a WELCOME frame of %u bytes is malformed", s->frame.len);
    rc = hs_check_server(&s->hs, s->frame.body, s->frame.body + CTL_MAC, s->frame.len - CTL_MAC);
    if (rc < 0)
        return err_set(rc, "%s:%s does not know the key: it is not the fabricd you think it is",
                       s->host, s->port);
    CRASH_POINT("session.welcomed");
    return ctl_get_welcome(s->frame.body + CTL_MAC, s->frame.len - CTL_MAC, &s->welcome);
}

static void note_info(struct session *s)
{
    const struct ctl_welcome *w = &s->welcome;
    struct session_info *in = &s->info;
    in->lease_window = w->lease_window;
    in->submit_window = w->submit_window;
    in->queues = w->queues;
    for (uint32_t i = 0; i < w->queues; i++)
        memcpy(in->queue[i], w->queue[i], sizeof in->queue[i]);
    memcpy(in->server, w->server, sizeof in->server);
    snprintf(in->provider, sizeof in->provider, "%s", s->provider);
    in->session = (enum ctl_session)w->session;
    in->untold_max = w->untold_max;
    in->keep_ns = w->keep_ns;
}

/* ---- data connection ---- */

/* A daemon that listens on all addresses can't say which of them we reach: the one of the control
 * connection. (It may be an IPv4 address where all are the IPv6 wildcard.) */
static void fix_address(struct session *s)
{
    struct ctl_welcome *w = &s->welcome;
    struct sockaddr_storage data, peer;
    socklen_t len = sizeof peer;
    memcpy(&data, w->addr, sizeof w->addr);
    const struct sockaddr_in *a4 = (const struct sockaddr_in *)&data;
    const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)&data;
    bool any = data.ss_family == AF_INET
                   ? a4->sin_addr.s_addr == INADDR_ANY
                   : data.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&a6->sin6_addr);
    /* the port is at the same place in both */
    if (!any || getpeername(s->fd, (struct sockaddr *)&peer, &len) < 0 || len > sizeof w->addr)
        return;
    ((struct sockaddr_in *)&peer)->sin_port = a4->sin_port;
    memcpy(w->addr, &peer, len);
    w->addr_len = len;
}

int session_on_event(struct session *s, const struct tr_event *ev)
{
    if (ev->kind == TR_CONNECTED) {
        s->connected = true;
        CRASH_POINT("session.joined");
        return 0;
    }
    return s->lane ? lane_on_event(s->lane, ev) : 0;
}

/* A daemon that refuses the data connection says why on the control connection; which of the two
 * comes first is chance. */
static int refusal(struct session *s, int rc)
{
    struct ctl_refuse r;
    char why[300];
    int n;
    snprintf(why, sizeof why, "%s", err_text(rc));
    s->deadline = clock_ns() + REFUSAL_NS;
    while ((n = next_frame(s)) == 0)
        if ((n = fill(s)) < 0 || (n == 0 && await(s, POLLIN) < 0))
            break;
    if (n == 1 && s->frame.type == CTL_REFUSE && ctl_get_refuse(&s->frame, &r) == 0)
        return err_set(-r.error, "%s:%s refused: %s", s->host, s->port, r.text);
    return err_set(rc, "%s", why);
}

/* 0 joined, -EAGAIN not yet. */
static int on_join(struct session *s)
{
    struct tr_event ev[EVENTS];
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};
    int n;
    while (!s->connected && (n = s->tr->poll(s->dom, ev, EVENTS)) > 0)
        for (int i = 0; i < n; i++) {
            int rc = session_on_event(s, &ev[i]);
            if (rc < 0)
                return refusal(s, err_prefix(rc, "data connection to %s", s->host));
        }
    if (s->connected)
        return 0;
    if (poll(&p, 1, 0) > 0)
        return refusal(s, err_set(-EPIPE, "%s:%s hung up", s->host, s->port));
    return -EAGAIN;
}

static int offer_lane(struct session *s)
{
    const struct ctl_welcome *w = &s->welcome;
    char host[64] = "";
    /* no more cells than lane_new() will allow */
    struct tr_opts o = {.provider = s->provider,
                        .host = host,
                        .eps_max = 1,
                        .ops_per_ep = lane_ops(w->cells < 256 ? w->cells : 256)};
    struct lane_params p = {.mode = (enum lane_mode)w->lane_mode,
                            .cell = w->cell,
                            .cells = w->cells,
                            .incarnation = w->incarnation,
                            .tx_seal = s->seals.lane_tx,
                            .rx_seal = s->seals.lane_rx};
    struct tr_remote ours;
    uint8_t body[64];
    s->tr = &tr_ofi;
    fix_address(s);
    /* the provider chooses its device and address family by where it is to reach */
    int rc = getnameinfo((const struct sockaddr *)w->addr, w->addr_len, host, sizeof host, NULL, 0,
                         NI_NUMERICHOST);
    if (rc)
        return err_set(-EPROTO, "%s:%s gave a data address that can't be read: %s", s->host,
                       s->port, gai_strerror(rc));
    rc = s->tr->domain_open(&s->dom, &o);
    if (rc == 0)
        rc = lane_new(&s->lane, s->tr, s->dom, &p, &ours);
    if (rc == 0)
        rc = send_frame(s, CTL_LANE_OFFER, body, ctl_put_remote(body, &ours));
    CRASH_POINT("session.offered");
    return rc;
}

static int on_ready(struct session *s)
{
    const struct ctl_welcome *w = &s->welcome;
    struct tr_remote theirs;
    int rc = expect(s, CTL_LANE_READY);
    if (rc == 0)
        rc = ctl_get_remote(&s->frame, &theirs);
    if (rc == 0)
        rc = lane_peer(s->lane, &theirs);
    if (rc == 0)
        rc = s->tr->connect(s->dom, &s->ep, w->addr, w->addr_len, w->ticket, sizeof w->ticket);
    CRASH_POINT("session.connecting");
    return rc < 0 ? rc : lane_bind(s->lane, s->ep);
}

/* verbs without a device here can't work whatever the daemon offers: say so before asking it. */
static int check_device(const char *provider)
{
    struct tr_opts o = {.provider = provider, .eps_max = 1, .ops_per_ep = 1};
    struct tr_domain *d;
    if (strcmp(provider, "verbs") != 0)
        return 0;
    int rc = tr_ofi.domain_open(&d, &o);
    if (rc == 0)
        tr_ofi.domain_close(d);
    return rc;
}

/* The end of a stage, if its answer is there. */
static int end_stage(struct session *s)
{
    int rc;
    switch (s->stage) {
    case CONNECT:
        rc = connected(s);
        return rc < 0 ? rc : say_hello(s);
    case CHALLENGE:
        return on_challenge(s);
    case WELCOME:
        rc = on_welcome(s);
        if (rc == 0)
            note_info(s);
        return rc < 0 || !s->with_data ? rc : offer_lane(s);
    case READY:
        return on_ready(s);
    case JOIN:
        return on_join(s);
    case UP:
        break;
    }
    return 0;
}

int session_step(struct session *s)
{
    while (s->stage != UP) {
        int rc = end_stage(s);
        if (rc == -EAGAIN && clock_ns() >= s->deadline)
            return s->stage == JOIN
                       ? err_set(-ETIMEDOUT,
                                 "the data connection to %s is not answered (a firewall? see "
                                 "listen.data_port)",
                                 s->host)
                       : err_set(-ETIMEDOUT, "%s:%s does not answer", s->host, s->port);
        if (rc < 0)
            return rc;
        s->stage = s->stage == WELCOME && !s->with_data ? UP : s->stage + 1;
    }
    return 0;
}

void session_sleep(struct session *s, uint64_t until)
{
    struct pollfd p[DIAL_MAX] = {{.fd = -1}, {.fd = -1}, {.fd = s->fd, .events = POLLIN}};
    uint32_t polls = 3;
    uint64_t now = clock_ns(), next = UINT64_MAX;
    if (s->stage == CONNECT)
        polls = dial_polls(&s->dial, p, &next);
    if (next < until)
        until = next;
    if (s->deadline < until)
        until = s->deadline;
    if (now >= until)
        return;
    /* the net of 100 ms: a connection that is being made is progress that no descriptor tells of in
     * libfabric 1.17 */
    uint64_t ms = (until - now) / 1000000 + 1, most = s->stage == JOIN ? 100 : 1000;
    if (s->stage == JOIN) {
        int fd[2], n = s->tr->fds(s->dom, fd);
        if (s->tr->arm(s->dom) != 0)
            return;
        for (int i = 0; i < n; i++)
            p[i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
        p[2].events = POLLRDHUP;
    }
    (void)!poll(p, polls,
                (int)(ms < most ? ms : most)); /* whatever it says, session_step() looks */
}

int session_begin(struct session **out, const char *provider, const char *host, const char *port,
                  const struct fab_options *opts, bool with_data, const struct session_self *self)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(-ENOMEM, "no memory for a session");
    int64_t timeout = opts->timeout_ns ? opts->timeout_ns : TIMEOUT_NS;
    s->fd = -1;
    dial_init(&s->dial);
    s->with_data = with_data;
    s->deadline = timeout < 0 ? UINT64_MAX / 2 : clock_ns() + (uint64_t)timeout;
    snprintf(s->host, sizeof s->host, "%s", host);
    snprintf(s->port, sizeof s->port, "%s", port);
    snprintf(s->provider, sizeof s->provider, "%s", provider);
    struct ctl_hello *h = &s->hello;
    h->version_min = h->version_max = CTL_VERSION;
    h->roles = opts->roles ? opts->roles : FAB_PRODUCER | FAB_WORKER;
    snprintf(h->name, sizeof h->name, "%s", opts->name ? opts->name : program_invocation_short_name);
    snprintf(h->provider, sizeof h->provider, "%s", with_data ? provider : "");
    snprintf(h->client, sizeof h->client, "%s", opts->client ? opts->client : "");
    memcpy(h->instance, self->instance, sizeof h->instance);
    h->resume = self->resume;
    h->window = self->window;
    int rc = load_key(s, opts);
    if (rc == 0)
        rc = wanted_security(s, opts);
    if (rc == 0 && with_data && !self->resume)
        rc = check_device(provider);
    if (rc == 0)
        rc = dial_resolve(&s->dial, s->host, s->port);
    if (rc < 0) {
        session_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

int session_open(struct session **out, const char *provider, const char *host, const char *port,
                 const struct fab_options *opts, bool with_data, const struct session_self *self)
{
    int rc = session_begin(out, provider, host, port, opts, with_data, self);
    if (rc < 0)
        return rc;
    while ((rc = session_step(*out)) == -EAGAIN)
        session_sleep(*out, UINT64_MAX);
    if (rc < 0) {
        session_close(*out);
        *out = NULL;
    }
    return rc;
}

void session_new_instance(uint8_t instance[CTL_INSTANCE])
{
    if (sodium_init() >= 0)
        randombytes_buf(instance, CTL_INSTANCE);
}

struct tr_domain *session_domain(const struct session *s)
{
    return s->dom;
}

struct lane *session_lane(const struct session *s)
{
    return s->lane;
}

const struct session_info *session_info(const struct session *s)
{
    return &s->info;
}

const struct tr_ops *session_transport(const struct session *s)
{
    return s->tr;
}

int session_fd(const struct session *s)
{
    return s->fd;
}

/* ---- afterwards ---- */

static int add_status(struct session *s)
{
    const struct ctl_frame *f = &s->frame;
    char *more = realloc(s->status, s->status_len + f->len + 1);
    if (!more)
        return err_set(-ENOMEM, "no memory for the status");
    memcpy(more + s->status_len, f->body, f->len);
    s->status = more;
    s->status_len += f->len;
    s->status[s->status_len] = 0;
    s->status_done = f->len < CTL_BODY_MAX;
    return s->status_len > 64u << 20 ? err_set(-EPROTO, "a status without end") : 0;
}

/* The text grows by what frames bring; its end is a NUL. */
static int add_admin(struct session *s)
{
    struct ctl_admin_reply a;
    int rc = ctl_get_admin_reply(&s->frame, &a);
    if (rc < 0)
        return rc;
    if (a.serial != s->admin.serial || s->admin.done)
        return 0; /* nobody waits for it any more */
    if (s->admin.len + a.text_len > ADMIN_TEXT_MAX)
        return err_set(-EPROTO, "an answer without end");
    char *more = realloc(s->admin.reply.text, s->admin.len + a.text_len + 1);
    if (!more)
        return err_set(-ENOMEM, "no memory for the answer");
    if (a.text_len)
        memcpy(more + s->admin.len, a.text, a.text_len);
    s->admin.reply.text = more;
    s->admin.len += a.text_len;
    more[s->admin.len] = 0;
    memcpy(s->admin.reply.number, a.number, sizeof a.number);
    s->admin.error = a.error;
    s->admin.done = !a.more;
    return 0;
}

/* The kernel gives a daemon up that is cut off as soon as the daemon would give up us. */
static void heed_ping(struct session *s)
{
    struct ctl_ping p;
    if (ctl_get_ping(&s->frame, &p) < 0 || p.dead_after_ms == s->patience_ms || p.dead_after_ms == 0)
        return;
    s->patience_ms = p.dead_after_ms;
    uint32_t ms = p.dead_after_ms < 3600000 ? p.dead_after_ms : 3600000;
    uint32_t probe = ms / 4000 > 0 ? ms / 4000 : 1; /* in seconds: the kernel knows no less */
    const struct {
        int name;
        uint32_t value;
    } opts[] = {{TCP_KEEPIDLE, 2 * probe}, {TCP_KEEPINTVL, probe}, {TCP_KEEPCNT, 2}, {TCP_USER_TIMEOUT, ms}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++)
        (void)setsockopt(s->fd, IPPROTO_TCP, opts[i].name, &opts[i].value, sizeof(uint32_t));
}

static int take_frames(struct session *s)
{
    int rc;
    while ((rc = next_frame(s)) == 1) {
        switch (s->frame.type) {
        case CTL_PING:
            heed_ping(s);
            if (s->frame.len <= 64) {
                s->deadline = clock_ns() + TIMEOUT_NS;
                rc = send_frame(s, CTL_PONG, s->frame.body, s->frame.len);
            }
            break;
        case CTL_STATUS_REPLY:
            rc = add_status(s);
            break;
        case CTL_ADMIN_REPLY:
            rc = add_admin(s);
            break;
        case CTL_BYE:
        case CTL_REFUSE:
            s->ended = true;
            rc = err_set(-EPIPE, "fabricd at %s:%s has ended the link", s->host, s->port);
            break;
        default: /* CTL_DRAIN: the lane tells, by giving no more work */
            break;
        }
        if (rc < 0)
            return rc;
    }
    return rc;
}

int session_progress(struct session *s)
{
    int rc, more;
    do {
        more = fill(s);
        rc = take_frames(s);
        if (rc < 0)
            return rc;
    } while (more > 0);
    return more;
}

bool session_ended(const struct session *s)
{
    return s->ended;
}

int session_status(struct session *s, char **text, int64_t timeout_ns)
{
    s->deadline = timeout_ns < 0 ? UINT64_MAX / 2 : clock_ns() + (uint64_t)timeout_ns;
    s->status_done = false;
    free(s->status);
    s->status = NULL;
    s->status_len = 0;
    int rc = send_frame(s, CTL_STATUS, NULL, 0);
    while (rc == 0 && !s->status_done) {
        rc = session_progress(s);
        if (rc == 0 && !s->status_done)
            rc = await(s, POLLIN);
    }
    if (rc < 0)
        return rc;
    *text = s->status;
    s->status = NULL;
    return 0;
}

static void drop_admin(struct session *s)
{
    free(s->admin.reply.text);
    s->admin.reply.text = NULL;
    s->admin.len = 0;
}

int session_admin(struct session *s, const struct admin_request *q, struct admin_reply *r,
                  int64_t timeout_ns)
{
    struct ctl_admin a = {.serial = s->admin.serial + 1, .request = *q};
    uint8_t body[64];
    s->deadline = timeout_ns < 0 ? UINT64_MAX / 2 : clock_ns() + (uint64_t)timeout_ns;
    drop_admin(s);
    s->admin.serial = a.serial;
    s->admin.done = false;
    int rc = send_frame(s, CTL_ADMIN, body, ctl_put_admin(body, &a));
    while (rc == 0 && !s->admin.done) {
        rc = session_progress(s);
        if (rc == 0 && !s->admin.done)
            rc = await(s, POLLIN);
    }
    s->admin.done = true;
    if (rc == 0 && s->admin.error)
        rc = err_set(-s->admin.error, "%s", s->admin.reply.text);
    if (rc < 0) {
        drop_admin(s);
        return rc;
    }
    *r = s->admin.reply;
    if (s->admin.len == 0) {
        free(r->text);
        r->text = NULL;
    }
    s->admin.reply.text = NULL;
    s->admin.len = 0;
    return 0;
}

void session_break(struct session *s)
{
    s->broken = true;
    session_close(s);
}

void session_close(struct session *s)
{
    if (s->fd >= 0 && !s->broken) {
        uint8_t bye[CTL_HEAD + SEAL_TAG];
        uint32_t n = ctl_frame_seal(&s->seals.tx, bye, CTL_BYE, NULL, 0);
        (void)!send(s->fd, bye, n,
                    MSG_NOSIGNAL | MSG_DONTWAIT); /* the closed connection says the same */
    }
    if (s->fd >= 0)
        close(s->fd);
    CRASH_POINT("session.hung_up");
    if (s->ep) {
        s->tr->ep_shutdown(s->ep);
        CRASH_POINT("session.shut");
        s->tr->ep_free(s->ep);
    }
    if (s->lane)
        lane_free(s->lane);
    if (s->dom)
        s->tr->domain_close(s->dom);
    dial_end(&s->dial);
    sodium_memzero(&s->hs, sizeof s->hs);
    sodium_memzero(&s->seals, sizeof s->seals);
    free(s->status);
    drop_admin(s);
    free(s);
}

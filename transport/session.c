/* SPDX-License-Identifier: MIT
 *
 * session.c - the making of a link, and its end; see session.h.
 *
 * Opening is a machine of stages, each of which ends with an answer from the other side:
 *
 *   CONNECT -> CHALLENGE -> PROVE -> WELCOME -> READY -> JOIN -> UP   (with_data false: WELCOME ->
 * UP)
 *
 * PROVE waits for nobody, unless the session is held: see session_hold(). Only the resolution of a
 * host's name may block (session_begin), and the few bytes that are sent go into a fresh socket's
 * empty buffer.
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
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/keyfile.h"
#include "transport/session_parts.h"

#define EVENTS     16
#define REFUSAL_NS 500000000u
/* Who has not looked for longer was elsewhere, with a kernel perhaps. */
#define AWAY_NS 10000000u

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
               : err_set(-EINVAL,
                         "FABRIC_SECURITY is \"%.40s\"; set it to \"encrypted\" or "
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
        rc = session_send(s, CTL_HELLO, body, len);
    CRASH_POINT("session.hello");
    return rc;
}

static int on_challenge(struct session *s)
{
    struct ctl_challenge c;
    int rc = session_expect(s, CTL_CHALLENGE);
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
    s->challenge = c;
    s->answered = rc == 0;
    return rc;
}

static int prove(struct session *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};
    uint8_t mac[CTL_MAC];
    if (s->hold)
        return poll(&p, 1, 0) > 0 ? err_set(-EPIPE, "%s:%s hung up", s->host, s->port) : -EAGAIN;
    hs_client_proof(&s->hs, mac);
    int rc = session_send(s, CTL_PROOF, mac, sizeof mac);
    CRASH_POINT("session.proved");
    if (rc == 0 && s->challenge.security == CTL_ENCRYPTED)
        rc = hs_seals(&s->hs, false, s->challenge.public, &s->seals);
    return rc;
}

static int on_welcome(struct session *s)
{
    int rc = session_expect(s, CTL_WELCOME);
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
    while ((n = session_frame(s)) == 0)
        if ((n = session_fill(s)) < 0 || (n == 0 && session_await(s, POLLIN) < 0))
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
        rc = session_send(s, CTL_LANE_OFFER, body, ctl_put_remote(body, &ours));
    CRASH_POINT("session.offered");
    return rc;
}

static int on_ready(struct session *s)
{
    const struct ctl_welcome *w = &s->welcome;
    struct tr_remote theirs;
    int rc = session_expect(s, CTL_LANE_READY);
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
        rc = session_dialled(s);
        return rc < 0 ? rc : say_hello(s);
    case CHALLENGE:
        return on_challenge(s);
    case PROVE:
        return prove(s);
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

/* When the present stage is over without an answer. */
static uint64_t stage_end(const struct session *s)
{
    uint64_t end = s->deadline;
    /* a data connection takes two round trips, and there may be some more before it */
    uint64_t patience = s->patience_ns + 4 * s->rtt_ns;
    if (s->patience_ns && s->stage > PROVE && s->stage_at + patience < end)
        end = s->stage_at + patience;
    return end;
}

static bool may_redial(const struct session *s)
{
    return s->stage == CONNECT || s->stage == CHALLENGE;
}

/* Patience does not end while nobody looks: an answer may be there, and a data connection takes
 * several looks. */
static void note_look(struct session *s)
{
    uint64_t now = clock_ns();
    if (now - s->looked_at > AWAY_NS)
        s->stage_at += now - s->looked_at;
    s->looked_at = now;
}

int session_step(struct session *s)
{
    note_look(s);
    while (s->stage != UP) {
        int rc = end_stage(s);
        uint64_t now = clock_ns();
        if (rc == -EAGAIN && may_redial(s) && now >= s->redial_at && now < s->deadline) {
            session_redial(s);
            continue;
        }
        if (rc == -EAGAIN && now >= stage_end(s))
            return s->stage == JOIN
                       ? err_set(-ETIMEDOUT,
                                 "the data connection to %s is not answered (a firewall? see "
                                 "listen.data_port)",
                                 s->host)
                       : err_set(-ETIMEDOUT, "%s:%s does not answer", s->host, s->port);
        if (rc < 0)
            return rc;
        s->stage = s->stage == WELCOME && !s->with_data ? UP : s->stage + 1;
        s->stage_at = s->looked_at = now;
    }
    return 0;
}

/* The descriptors of the control connection to wait for, at most DIAL_MAX, and when session_step()
 * is due whatever they say. */
static uint32_t waits_for(const struct session *s, struct pollfd *p, uint64_t *due)
{
    bool silent = s->stage == PROVE || s->stage == JOIN; /* nothing is to come on it but its end */
    uint64_t next = UINT64_MAX;
    uint32_t n = 1;
    if (s->stage == CONNECT)
        n = dial_polls(&s->dial, p, &next);
    else
        *p = (struct pollfd){.fd = s->fd, .events = silent ? POLLRDHUP : POLLIN};
    *due = stage_end(s);
    if (may_redial(s) && s->redial_at < *due)
        *due = s->redial_at;
    if (next < *due)
        *due = next;
    return n;
}

int session_waits_for(const struct session *s, short *events, uint64_t *due)
{
    struct pollfd p[DIAL_MAX];
    /* of several that are being connected the first: the others are looked at when it is due */
    bool any = waits_for(s, p, due) > 0;
    *events = any ? p[0].events : 0;
    return any ? p[0].fd : -1;
}

void session_sleep(struct session *s, uint64_t until)
{
    struct pollfd p[DIAL_MAX + 2];
    uint64_t now = clock_ns(), due;
    uint32_t polls = waits_for(s, p, &due);
    if (due < until)
        until = due;
    if (now >= until)
        return;
    /* the net: a connection that is being made is progress that no descriptor tells of in libfabric
     * 1.17 */
    uint64_t ms = (until - now) / 1000000 + 1, most = 1000;
    if (s->stage == JOIN) {
        int fd[2], n = s->tr->fds(s->dom, fd);
        if (s->tr->arm(s->dom) != 0)
            return;
        for (int i = 0; i < n; i++)
            p[polls++] = (struct pollfd){.fd = fd[i], .events = POLLIN};
        most = now - s->stage_at < 20000000 ? 1 : 100;
    }
    (void)!poll(p, polls,
                (int)(ms < most ? ms : most)); /* whatever it says, session_step() looks */
    s->looked_at = clock_ns();
}

int session_begin(struct session **out, const char *provider, const char *host, const char *port,
                  const struct fab_options *opts, bool with_data, const struct session_self *self)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(-ENOMEM, "no memory for a session");
    int64_t timeout = opts->timeout_ns ? opts->timeout_ns : SESSION_TIMEOUT_NS;
    s->fd = -1;
    dial_init(&s->dial);
    s->looked_at = clock_ns();
    s->since = self->since_ns ? self->since_ns : clock_ns();
    s->patience_ns = self->patience_ns;
    s->rtt_ns = self->rtt_ns;
    s->with_data = with_data;
    s->deadline = timeout < 0 ? UINT64_MAX / 2 : clock_ns() + (uint64_t)timeout;
    snprintf(s->host, sizeof s->host, "%s", host);
    snprintf(s->port, sizeof s->port, "%s", port);
    snprintf(s->provider, sizeof s->provider, "%s", provider);
    struct ctl_hello *h = &s->hello;
    h->version_min = h->version_max = CTL_VERSION;
    h->roles = opts->roles ? opts->roles : FAB_PRODUCER | FAB_WORKER;
    snprintf(h->name, sizeof h->name, "%s",
             opts->name ? opts->name : program_invocation_short_name);
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
        rc = session_dial(s, self);
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

void session_hold(struct session *s)
{
    s->hold = true;
}

bool session_answered(const struct session *s)
{
    return s->answered && s->stage == PROVE;
}

void session_go_on(struct session *s, uint64_t patience_ns)
{
    s->hold = false;
    s->patience_ns = patience_ns;
    s->stage_at = s->looked_at = clock_ns();
    if (!s->answered) /* perhaps it is somewhere else by now: the next one asks for the name */
        s->deadline = s->stage_at + SESSION_TIMEOUT_NS;
}

void session_at(const struct session *s, struct session_self *self)
{
    const struct dial_try *t = dial_winner(&s->dial);
    self->at_len = t->len;
    memcpy(&self->at, &t->address, t->len);
    struct tcp_info info;
    socklen_t len = sizeof info;
    if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0)
        self->rtt_ns = info.tcpi_rtt * 1000ull;
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
    session_drop_replies(s);
    free(s->status);
    free(s);
}

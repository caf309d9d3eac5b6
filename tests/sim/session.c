/* SPDX-License-Identifier: MIT
 *
 * session.c - transport/session.h over the simulated network: what the real session's handshake,
 * lane offer and heartbeats come to, without bytes and sockets.
 *
 * The client's end of a struct line. Each step takes time, and the line may end between any two.
 * A killed client says nothing any more: fabricd hears of its closed sockets in its own time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/clock.h"
#include "core/error.h"
#include "tests/sim/world.h"
#include "transport/beat.h"
#include "transport/session.h"

#define TIMEOUT_NS 3000000u

enum stage { ANSWER, HELLO, OFFER, CONNECT, JOIN, UP };
/* How often a connection is tried that is not answered. */
#define REDIAL_NS 30000u

struct session {
    struct line *line;
    enum stage stage;
    uint64_t due, deadline; /* when the present stage's answer is there; when it is too late */
    uint32_t roles;
    struct session_self self;
    const char *client;
    struct host_welcome welcome;
    struct session_info info;
    struct tr_domain *dom;
    struct tr_ep *ep;
    struct lane *lane;
    bool connected;
    bool hold; /* session_hold() */
    uint64_t pong_due; /* UINT64_MAX: nothing was asked */
    uint64_t serial;
};

/* The session of the running actor: the loop asks for it. One an actor. */
static struct session *open_now[ACTORS_MAX];

static struct session *mine(void)
{
    return open_now[sim.current - sim.actor];
}

struct tr_domain *sim_session_domain(void)
{
    return mine() ? mine()->dom : NULL;
}

static uint64_t end_due(const struct session *s)
{
    if (!s || !s->line)
        return UINT64_MAX;
    uint64_t at = s->line->partitioned ? UINT64_MAX : s->line->host_end_due;
    return s->line->client_patience < at ? s->line->client_patience : at;
}

uint64_t session_end_due(void)
{
    return end_due(mine());
}

/* ---- heartbeats, and the beat threads of all processes ---- */

static struct {
    struct beat *beat[ACTORS_MAX];
} beats;

int beat_add(struct beat *b, int fd)
{
    (void)fd;
    b->place = 1 + (uint32_t)(sim.current - sim.actor);
    beats.beat[b->place - 1] = b;
    sim_wake(world.beats, sim_now() + 1); /* what has come before it was there */
    return 0;
}

void beat_del(struct beat *b)
{
    if (b->place)
        beats.beat[b->place - 1] = NULL;
    b->place = 0;
}

/* A stopped process answers nothing; a partition holds the question or the answer back. */
static bool answers(const struct line *l)
{
    return !l->partitioned && !l->client->killed && l->client->stopped_until <= sim_now();
}

static void beats_run(struct actor *a)
{
    uint64_t next = UINT64_MAX;
    for (struct line *l = world.lines; l; l = l->next) {
        struct beat *b = beats.beat[l->client - sim.actor];
        if (l->ping_due > sim_now() || !answers(l)) {
            uint64_t at = l->ping_due > l->client->stopped_until ? l->ping_due : l->client->stopped_until;
            if (l->ping_due != UINT64_MAX && !l->partitioned && at > sim_now() && at < next)
                next = at;
            continue;
        }
        /* its thread is inside, and will look itself; or it is elsewhere, and we look for it */
        if (b && guard_visit(b->guard)) {
            sim.current = l->client;
            b->visit(b->arg);
            sim.current = a;
            guard_end_visit(b->guard);
        } else if (b) {
            sim_wake(l->client, sim_now());
        }
    }
    a->wake_at = next;
}

void beats_open(void)
{
    memset(&beats, 0, sizeof beats);
    world.beats = sim_actor("beats", true, beats_run, NULL);
    world.beats->wake_at = UINT64_MAX;
}

static void answer_ping(struct session *s)
{
    struct line *l = s->line;
    if (!l || l->ping_due > sim_now() || l->partitioned)
        return;
    l->ping_due = UINT64_MAX;
    l->pong_due = sim_now() + 1 + sim_roll(10000);
    sim_wake(world.host, l->pong_due);
}

uint64_t session_ping_due(void)
{
    struct session *s = mine();
    return s && s->line && !s->line->partitioned ? s->line->ping_due : UINT64_MAX;
}

static bool ended(const struct session *s)
{
    return sim.current->killed || end_due(s) <= sim_now();
}

static int hung_up(void)
{
    return err_set(-EPIPE, "fabricd hung up");
}

static int on_join(struct session *s)
{
    struct tr_event ev[8];
    int n;
    while (!s->connected && (n = tr_net.poll(s->dom, ev, 8)) > 0)
        for (int i = 0; i < n; i++) {
            int rc = session_on_event(s, &ev[i]);
            if (rc < 0)
                return rc;
        }
    return s->connected ? 0 : -EAGAIN;
}

/* The wire of its process is cut, so that nothing new gets through either. */
static bool wire_is_down(void)
{
    for (const struct line *l = world.lines; l; l = l->next)
        if (l->client == sim.current && l->partitioned && l->whole)
            return true;
    return false;
}

static int on_answer(struct session *s)
{
    if (!wire_is_down() && world.dead)
        return err_set(-ECONNREFUSED, "no fabricd is there");
    if (wire_is_down()) {
        s->due = sim_now() + 1 + sim_roll(2 * REDIAL_NS);
        return -EAGAIN;
    }
    return s->hold ? -EAGAIN : 0;
}

static int on_hello(struct session *s)
{
    struct tr_opts o = {.provider = "tcp", .eps_max = 1, .ops_per_ep = 1024};
    int rc = host_join(s->roles, &s->self, s->client, &s->line, &s->welcome);
    if (rc < 0)
        return rc;
    const struct host_welcome *w = &s->welcome;
    s->info.lease_window = w->lease_window;
    s->info.submit_window = w->submit_window;
    s->info.queues = w->queues;
    s->info.session = w->session;
    s->info.untold_max = world.seg.slots / world.seg.participants / 4;
    s->info.keep_ns = world.keep;
    snprintf(s->info.server, sizeof s->info.server, SERVER);
    snprintf(s->info.provider, sizeof s->info.provider, "tcp");
    rc = tr_net.domain_open(&s->dom, &o);
    s->line->client_dom = s->dom;
    return rc;
}

static int on_offer(struct session *s)
{
    struct tr_remote ours, theirs;
    int rc = lane_new(&s->lane, &tr_net, s->dom, &s->welcome.lane, &ours);
    if (rc == 0)
        rc = host_offer(s->line, &ours, &theirs);
    return rc < 0 ? rc : lane_peer(s->lane, &theirs);
}

static int on_connect(struct session *s)
{
    const struct host_welcome *w = &s->welcome;
    int rc = tr_net.connect(s->dom, &s->ep, w->addr, w->addr_len, &w->ticket, sizeof w->ticket);
    if (rc < 0)
        return rc;
    s->line->client_ep = s->ep;
    if (s->line->partitioned)
        net_partition(s->ep, true);
    return lane_bind(s->lane, s->ep);
}

int session_step(struct session *s)
{
    static int (*const stages[])(struct session *) = {on_answer, on_hello, on_offer, on_connect, on_join};
    while (s->stage != UP) {
        if (sim.current->killed)
            return err_set(-EPROTO, "killed"); /* no use to try again */
        if (ended(s))
            return hung_up();
        if (sim_now() < s->due)
            return -EAGAIN;
        int rc = stages[s->stage](s);
        if (rc == -EAGAIN && sim_now() >= s->deadline && !s->hold)
            return err_set(-ETIMEDOUT, "the data connection is not answered");
        if (rc < 0)
            return rc;
        s->stage++;
        if (s->line)
            s->line->joined = s->stage == UP;
        s->due = s->stage < JOIN ? sim_now() + 1 + sim_roll(20000) : 0;
    }
    return 0;
}

void session_sleep(struct session *s, uint64_t until)
{
    uint64_t end = session_end_due(), start = clock_ns() - sim_now();
    until = until - start < s->deadline ? until - start : s->deadline;
    if (s->due > sim_now() && s->due < until)
        until = s->due;
    if (until <= sim_now())
        until = sim_now() + 1;
    sim_wait(s->dom, until < end ? until : end);
}

int session_begin(struct session **out, const char *provider, const char *host, const char *port,
                  const struct fab_options *opts, bool with_data, const struct session_self *self)
{
    struct session *s = calloc(1, sizeof *s);
    (void)provider;
    (void)host;
    (void)port;
    (void)with_data;
    if (!s)
        return -ENOMEM;
    if (!mine()) /* else it is a probe */
        open_now[sim.current - sim.actor] = s;
    s->pong_due = UINT64_MAX;
    s->roles = opts->roles;
    s->self = *self;
    s->client = opts->client;
    s->due = sim_now() + 1 + sim_roll(20000);
    s->deadline = sim_now() + TIMEOUT_NS;
    *out = s;
    return 0;
}

void session_hold(struct session *s)
{
    s->hold = true;
}

bool session_answered(const struct session *s)
{
    return s->stage == ANSWER && s->due <= sim_now() && !world.dead && !wire_is_down();
}

void session_go_on(struct session *s, uint64_t patience_ns)
{
    (void)patience_ns;
    s->hold = false;
    s->deadline = sim_now() + TIMEOUT_NS;
    open_now[sim.current - sim.actor] = s;
}

int session_waits_for(const struct session *s, short *events, uint64_t *due)
{
    uint64_t start = clock_ns() - sim_now();
    *events = 0;
    *due = s->due > sim_now() ? start + s->due : UINT64_MAX;
    return -1;
}

void session_at(const struct session *s, struct session_self *self)
{
    (void)s;
    self->at_len = 0;
}

int session_ping(struct session *s)
{
    s->serial++;
    s->pong_due = sim_now() + 1 + sim_roll(20000);
    return 0;
}

bool session_pong(struct session *s, struct ctl_pong *out)
{
    *out = (struct ctl_pong){.serial = s->serial};
    if (!s->line || s->line->partitioned || s->pong_due > sim_now() || !host_counts(s->line, out))
        return false;
    s->pong_due = UINT64_MAX;
    return true;
}

uint64_t session_patience(const struct session *s)
{
    (void)s;
    return world.dead_after;
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
    for (int i = 0; i < CTL_INSTANCE; i++)
        instance[i] = (uint8_t)sim_roll(256);
}

struct tr_domain *session_domain(const struct session *s)
{
    return s->dom;
}

struct lane *session_lane(const struct session *s)
{
    return s->lane;
}

bool session_ended(const struct session *s)
{
    return s->line && s->line->over;
}

const struct session_info *session_info(const struct session *s)
{
    return &s->info;
}

const struct tr_ops *session_transport(const struct session *s)
{
    (void)s;
    return &tr_net;
}

int session_fd(const struct session *s)
{
    (void)s;
    return 0; /* nobody reads from it: loop_watch() in virtual.c */
}

int session_progress(struct session *s)
{
    if (ended(s))
        return hung_up();
    answer_ping(s);
    return 0;
}

int session_on_event(struct session *s, const struct tr_event *ev)
{
    if (ev->kind == TR_CONNECTED) {
        s->connected = true;
        return 0;
    }
    return lane_on_event(s->lane, ev);
}

int session_status(struct session *s, char **text, int64_t timeout_ns)
{
    (void)s;
    (void)text;
    (void)timeout_ns;
    return err_set(-ENOSYS, "no status here");
}

int session_admin(struct session *s, const struct admin_request *q, struct admin_reply *r,
                  int64_t timeout_ns)
{
    (void)s;
    (void)q;
    (void)r;
    (void)timeout_ns;
    return err_set(-ENOSYS, "no administration here");
}

static void close_it(struct session *s, bool bye)
{
    struct line *line = s->line;
    if (line) {
        line->bye = bye && !sim.current->killed;
        line->client_ep = NULL;
        line->client_dom = NULL;
        if (line->client_end_due == UINT64_MAX) /* a killed one's sockets have been closed */
            line->client_end_due = sim_now() + 1 + sim_roll(20000);
        sim_wake(world.host, line->client_end_due);
    }
    if (s->ep) {
        tr_net.ep_shutdown(s->ep);
        tr_net.ep_free(s->ep);
    }
    if (s->lane)
        lane_free(s->lane);
    if (s->dom)
        tr_net.domain_close(s->dom);
    if (mine() == s)
        open_now[sim.current - sim.actor] = NULL;
    free(s);
}

void session_close(struct session *s)
{
    close_it(s, true);
}

void session_break(struct session *s)
{
    close_it(s, false);
}

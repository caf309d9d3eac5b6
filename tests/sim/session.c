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
#include "core/error.h"
#include "tests/sim/world.h"
#include "transport/session.h"

#define TIMEOUT_NS 3000000u

struct session {
    struct line *line;
    struct session_info info;
    struct tr_domain *dom;
    struct tr_ep *ep;
    struct lane *lane;
    bool connected;
};

/* The session of the running actor: the loop asks for it. One an actor. */
static struct session *open_now[ACTORS_MAX];

static struct session *mine(void)
{
    return open_now[sim.current - sim.actor];
}

struct tr_domain *session_domain(void)
{
    return mine() ? mine()->dom : NULL;
}

uint64_t session_end_due(void)
{
    struct session *s = mine();
    if (!s || !s->line)
        return UINT64_MAX;
    uint64_t at = s->line->partitioned ? UINT64_MAX : s->line->host_end_due;
    return s->line->client_patience < at ? s->line->client_patience : at;
}

static bool ended(const struct session *s)
{
    (void)s;
    return sim.current->killed || session_end_due() <= sim_now();
}

static int hung_up(void)
{
    return err_set(-EPIPE, "fabricd hung up");
}

static int await_connected(struct session *s)
{
    struct tr_event ev[8];
    uint64_t deadline = sim_now() + TIMEOUT_NS;
    while (!s->connected) {
        int n = tr_net.poll(s->dom, ev, 8);
        for (int i = 0; i < n; i++) {
            int rc = session_on_event(s, &ev[i]);
            if (rc < 0)
                return rc;
        }
        if (n > 0)
            continue;
        if (sim_now() >= deadline)
            return err_set(-ETIMEDOUT, "the data connection is not answered");
        uint64_t end = session_end_due();
        sim_wait(s->dom, deadline < end ? deadline : end);
        if (ended(s))
            return hung_up();
    }
    return 0;
}

static int open_data(struct session *s, const struct host_welcome *w)
{
    struct tr_opts o = {.provider = "tcp", .eps_max = 1, .ops_per_ep = 1024};
    struct tr_remote ours, theirs;
    int rc = tr_net.domain_open(&s->dom, &o);
    if (rc == 0) {
        s->line->client_dom = s->dom;
        rc = lane_new(&s->lane, &tr_net, s->dom, &w->lane, &ours);
    }
    if (rc == 0) {
        sim_sleep(1 + sim_roll(20000));
        rc = ended(s) ? hung_up() : host_offer(s->line, &ours, &theirs);
    }
    if (rc == 0)
        rc = lane_peer(s->lane, &theirs);
    if (rc == 0) {
        sim_sleep(1 + sim_roll(20000));
        rc = ended(s) ? hung_up() : 0;
    }
    if (rc == 0)
        rc = tr_net.connect(s->dom, &s->ep, w->addr, w->addr_len, &w->ticket, sizeof w->ticket);
    if (rc < 0)
        return rc;
    s->line->client_ep = s->ep;
    if (s->line->partitioned)
        net_partition(s->ep, true);
    rc = lane_bind(s->lane, s->ep);
    return rc < 0 ? rc : await_connected(s);
}

int session_open(struct session **out, const char *provider, const char *host, const char *port,
                 const struct fab_options *opts, bool with_data, struct tr_domain **dom,
                 struct lane **lane)
{
    struct host_welcome w;
    struct session *s = calloc(1, sizeof *s);
    (void)host;
    (void)port;
    (void)with_data;
    if (!s)
        return -ENOMEM;
    open_now[sim.current - sim.actor] = s;
    sim_sleep(1 + sim_roll(20000));
    int rc = sim.current->killed ? hung_up() : host_join(opts->roles, &s->line, &w);
    if (rc == 0) {
        s->info.lease_window = w.lease_window;
        s->info.submit_window = w.submit_window;
        s->info.queues = w.queues;
        snprintf(s->info.server, sizeof s->info.server, SERVER);
        snprintf(s->info.provider, sizeof s->info.provider, "%s", provider);
        rc = open_data(s, &w);
    }
    if (rc < 0) {
        session_close(s);
        return rc;
    }
    *dom = s->dom;
    *lane = s->lane;
    *out = s;
    return 0;
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
    return ended(s) ? hung_up() : 0;
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

void session_close(struct session *s)
{
    struct line *line = s->line;
    if (line) {
        line->bye = !sim.current->killed;
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
    open_now[sim.current - sim.actor] = NULL;
    free(s);
}

/* SPDX-License-Identifier: MIT
 *
 * host.c - fabricd in the simulation: takes lines in, joins data connections to them by ticket,
 * gives events to lanes, lets the real link.c work and sleeps as gate.c and daemon.c do. What a handle
 * that comes back finds is in host_find.c.
 *
 * Invariants watched here: a link that says there is work (link_arm() false) moves something soon;
 * fabricd asleep is woken by the doorbell alone, by events, by its tick, or by a control
 * connection.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "apps/fabricd/link_parts.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/kept.h"
#include "core/ring.h"
#include "core/participant.h"
#include "core/undertaker.h"
#include "tests/sim/host_parts.h"

#define EVENTS       16
#define HANDSHAKE_NS 5000000u
/* Looks in a row at links that say there is work and then move nothing. */
#define FRUITLESS_MAX 100

static struct {
    struct tr_domain *dom;
    struct tr_listener *listener;
    uint8_t addr[TR_ADDR_MAX];
    uint32_t addr_len, fruitless;
    uint64_t next_tick, tickets;
    uint64_t dead_until; /* UINT64_MAX: it lives */
    bool asleep, stirred;
    uint64_t look_at; /* when a pulse is to be looked at, at the latest */
} host;

static uint64_t keep_until(uint32_t id, bool bye)
{
    const struct seg_participant *p = &world.seg.participant[id];
    if (bye || world.keep == 0 || !(p->roles & FAB_PRODUCER) || !kept_has_identity(&world.seg, id))
        return 0;
    return clock_ns() + world.keep;
}

/* ---- the end of a peer ---- */

void host_hang_up(struct peer *p)
{
    if (!p->ep)
        return;
    tr_net.ep_shutdown(p->ep);
    tr_net.ep_free(p->ep);
    p->ep = NULL;
}

void host_peer_close(struct peer *p, bool bye)
{
    struct peer **at = &world.peers;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    sim_trace("link %u ends%s", p->line->number, bye ? "" : ", crashed");
    p->line->peer = NULL;
    p->line->host_end_due = sim_now() + 1 + sim_roll(20000);
    sim_wake(p->line->client, p->line->host_end_due);
    host_hang_up(p);
    if (p->lane)
        lane_free(p->lane);
    world.crashes += !bye && p->link;
    if (p->link)
        link_close(p->link, &world.out, world.me, !bye, keep_until(p->link->participant, bye));
    free(p);
}

bool host_counts(const struct line *line, struct ctl_pong *out)
{
    if (!line->peer || !line->peer->lane)
        return false;
    lane_counts(line->peer->lane, &out->sent, &out->arrived);
    return true;
}

/* Time is over, or with `all` everything is. */
static void bury_kept(bool all)
{
    struct undertaker_report rep;
    int id;
    while ((id = kept_first(&world.seg)) >= 0 &&
           (all || at_load(&world.seg.participant[id].identity.keep_until_ns) <= clock_ns())) {
        sim_trace("kept participant %d is buried", id);
        host.stirred = true; /* what waits for room may find it */
        undertaker_recover(&world.seg, &world.out, world.me, (uint32_t)id, false, &rep);
    }
}

/* What a killed fabricd does with a link: nothing; its memory is ours to free. */
static void forget_link(struct link *k)
{
    big_drop(&k->big_out);
    big_in_drop(&k->big_in);
    worker_close(k);
    producer_close(k);
    k->local->base.ops->close(&k->local->base);
    free(k);
}

void host_die(void)
{
    if (host.dead_until != UINT64_MAX)
        return;
    sim_trace("fabricd dies");
    while (world.peers) {
        struct peer *p = world.peers;
        world.peers = p->next;
        p->line->peer = NULL;
        p->line->harmed = true;
        p->line->host_end_due = sim_now() + 1 + sim_roll(20000);
        sim_wake(p->line->client, p->line->host_end_due);
        host_hang_up(p);
        if (p->lane)
            lane_free(p->lane);
        forget_link(p->link);
        free(p);
    }
    world.dead = true;
    host.dead_until = sim_now() + 1 + sim_roll(600000);
    sim_wake(world.host, host.dead_until);
}

/* As adopt.c. */
static void come_back(void)
{
    struct undertaker_report rep;
    uint8_t fate[SEG_PARTICIPANTS_MAX] = {0};
    sim_trace("another fabricd takes over");
    host.dead_until = UINT64_MAX;
    world.dead = false;
    for (uint32_t i = 0; i < world.seg.participants; i++) {
        struct seg_participant *p = &world.seg.participant[i];
        if (participant_life(at_load(&p->life)) != LIFE_LIVE || !p->remote)
            continue;
        uint64_t until = keep_until(i, false);
        at_store(&p->identity.keep_until_ns, until);
        fate[i] = until ? FATE_KEEP_LEFT : FATE_LEFT;
    }
    undertaker_recover_many(&world.seg, &world.out, world.me, fate, &rep);
}

void host_drop(struct line *line)
{
    if (!line->peer || !line->joined || !line->client_ep) /* who hears it in the handshake tries again, and finds another */
        return;
    line->over = true;
    host_peer_close(line->peer, true);
}

struct tr_ep *line_ep(const struct line *line)
{
    return line->client_ep ? line->client_ep : line->peer ? line->peer->ep : NULL;
}

/* ---- lines ---- */

int host_join(uint32_t roles, const struct session_self *self, const char *client,
              struct line **out, struct host_welcome *w)
{
    if (host.dead_until != UINT64_MAX)
        return err_set(-ECONNREFUSED, "no fabricd is there");
    struct identity who;
    struct peer *p = calloc(1, sizeof *p);
    struct line *line = calloc(1, sizeof *line);
    if (!p || !line)
        abort();
    p->lane_params = (struct lane_params){.mode = world.mode == LANE_AUTO
                                                      ? (sim_roll(2) ? LANE_SEND : LANE_WRITE)
                                                      : (enum lane_mode)world.mode,
                                          .cell = world.cell,
                                          .cells = world.cells,
                                          .incarnation = (uint32_t)sim_roll(UINT32_MAX) + 1};
    struct link_params lp = {.seg = &world.seg,
                             .daemon_fd = world.out.daemon_fd,
                             .roles = roles,
                             .name = sim.current->name,
                             .peer = "sim",
                             .provider = "tcp",
                             .mode = p->lane_params.mode,
                             .lease_window = world.lease_window,
                             .submit_window = world.submit_window,
                             .pid = (uint32_t)getpid()};
    p->roles = roles;
    memcpy(p->instance, self->instance, sizeof p->instance);
    bool taken = host_take_link(p, self, &lp);
    int rc = taken ? 0 : host_find_session(self, client, &lp, &who);
    if (rc == 0 && !taken)
        rc = link_open(&p->link, &lp);
    if (rc < 0) {
        free(p);
        free(line);
        return rc;
    }
    p->line = line;
    p->since = sim_now();
    p->ticket = ++host.tickets;
    p->next = world.peers;
    world.peers = p;
    line->peer = p;
    line->client = sim.current;
    line->number = ++world.lines_made;
    line->client_end_due = line->host_end_due = line->ping_due = line->pong_due = UINT64_MAX;
    line->host_patience = line->client_patience = UINT64_MAX;
    line->next = world.lines;
    world.lines = line;
    *w = (struct host_welcome){.session = (enum ctl_session)lp.session,
                               .lease_window = lp.lease_window,
                               .submit_window = p->link->submit_window,
                               .queues = world.seg.queues,
                               .lane = p->lane_params,
                               .ticket = p->ticket,
                               .addr = host.addr,
                               .addr_len = host.addr_len};
    *out = line;
    sim_wake(world.host, sim_now() + HANDSHAKE_NS);
    sim_trace("link %u begins", line->number);
    return 0;
}

int host_offer(struct line *line, const struct tr_remote *theirs, struct tr_remote *ours)
{
    struct peer *p = line->peer;
    if (!p || line->partitioned)
        return err_set(-ETIMEDOUT, "fabricd does not answer");
    int rc = lane_new(&p->lane, &tr_net, host.dom, &p->lane_params, ours);
    if (rc == 0)
        rc = lane_peer(p->lane, theirs);
    p->stage = STAGE_TICKET;
    return rc;
}

/* ---- data connections: as in gate.c ---- */

static void on_request(const struct tr_event *ev)
{
    struct peer *p;
    uint64_t ticket = 0;
    memcpy(&ticket, ev->data, ev->data_len < sizeof ticket ? ev->data_len : sizeof ticket);
    for (p = world.peers; p; p = p->next)
        if (p->stage == STAGE_TICKET && p->ticket == ticket)
            break;
    if (!p) {
        tr_net.reject(host.dom, ev->request);
        return;
    }
    p->stage = STAGE_JOINING;
    int rc = tr_net.accept(host.dom, &p->ep, ev->request);
    if (rc == 0) {
        tr_net.ep_context(p->ep, p);
        rc = lane_bind(p->lane, p->ep);
    }
    if (rc < 0)
        host_peer_close(p, false);
}

static bool alive(const struct tr_ep *ep)
{
    for (const struct peer *p = world.peers; p; p = p->next)
        if (p->ep == ep)
            return true;
    return false;
}

static void on_event(const struct tr_event *ev)
{
    struct peer *p = ev->ep_ctx;
    if (ev->kind == TR_CONNREQ) {
        on_request(ev);
    } else if (ev->kind == TR_CONNECTED) {
        p->stage = STAGE_UP;
        p->link->lane = p->lane;
        pulse_heard(&p->pulse, p->link, clock_ns());
    } else {
        int rc = lane_on_event(p->lane, ev);
        if (rc == -EPROTO)
            sim_fail("a lane broke the protocol: %s", err_text(rc));
        if (rc < 0) {
            link_read_rest(p->link);
            host_peer_close(p, p->line->bye);
        }
    }
}

static long poll_events(void)
{
    struct tr_event ev[EVENTS];
    int n = tr_net.poll(host.dom, ev, EVENTS);
    for (int i = 0; i < n; i++)
        if (!ev[i].ep || alive(ev[i].ep)) /* an event before may have ended it */
            on_event(&ev[i]);
    return n;
}

static long work_links(void)
{
    long n = 0;
    for (struct peer *p = world.peers, *next; p; p = next) {
        next = p->next;
        if (p->stage != STAGE_UP)
            continue;
        long rc = link_work(p->link);
        if (rc < 0 && rc != -ENOTCONN)
            sim_fail("link %u: %s", p->line->number, err_text((int)rc));
        if (rc < 0)
            host_peer_close(p, p->line->bye);
        else
            n += rc;
    }
    return n;
}

/* ---- control connections and the tick ---- */

static uint64_t line_due(const struct line *l)
{
    uint64_t at = l->partitioned ? UINT64_MAX : l->client_end_due;
    if (l->peer && l->peer->stage != STAGE_UP && l->peer->since + HANDSHAKE_NS < at)
        at = l->peer->since + HANDSHAKE_NS;
    return l->host_patience < at ? l->host_patience : at;
}

static long look_at_lines(void)
{
    long n = 0;
    for (struct line *l = world.lines; l; l = l->next) {
        if (!l->peer || line_due(l) > sim_now())
            continue;
        host_peer_close(l->peer, l->bye && l->client_end_due <= sim_now());
        n++;
    }
    return n;
}

static uint64_t next_due(void)
{
    uint64_t at = host.next_tick;
    for (const struct line *l = world.lines; l; l = l->next) {
        if (l->peer && line_due(l) < at)
            at = line_due(l);
        if (l->peer && !l->partitioned && l->pong_due < at)
            at = l->pong_due;
    }
    return host.look_at < at ? host.look_at : at;
}

/* ---- heartbeats: as in heart.c ---- */

static long take_pongs(void)
{
    long n = 0;
    for (struct line *l = world.lines; l; l = l->next) {
        if (!l->peer || l->partitioned || l->pong_due > sim_now())
            continue;
        l->pong_due = UINT64_MAX;
        pulse_heard(&l->peer->pulse, l->peer->link, clock_ns());
        n++;
    }
    return n;
}

static void ping(struct line *l)
{
    world.pings++;
    if (l->ping_due == UINT64_MAX)
        l->ping_due = sim_now() + 1 + sim_roll(10000);
    sim_wake(world.beats, l->ping_due);
}

static long look_at_pulses(void)
{
    const struct pulse_conf c = {.heartbeat_ns = world.heartbeat,
                                 .dead_after_ns = world.dead_after,
                                 .idle_ns = world.idle,
                                 .late_ns = world.late,
                                 .slow_ns = world.slow};
    uint64_t now = clock_ns(), next = UINT64_MAX, idle = 0;
    long n = 0;
    for (const struct peer *p = world.peers; p; p = p->next)
        if (p->stage == STAGE_UP && pulse_idle(&p->pulse, p->link, now))
            idle |= 1ull << p->link->want_queue;
    uint64_t hungry = pulse_hungry(&world.seg, idle);
    for (struct peer *p = world.peers, *after; p; p = after) {
        after = p->next;
        if (p->stage != STAGE_UP)
            continue;
        int recall = (int)p->link->recall;
        uint32_t revoked = p->link->revoked;
        unsigned act = pulse_look(&p->pulse, p->link, &c, hungry, now, &next);
        if (act)
            sim_trace("link %u: pulse %x, recall %d", p->line->number, act, p->link->recall);
        world.recalls += recall == RECALL_NONE && p->link->recall == RECALL_DUE;
        world.revoked += p->link->revoked - revoked;
        n += act & PULSE_MOVED ? 1 : 0;
        if (act & PULSE_DEAD) {
            sim_trace("link %u does not answer", p->line->number);
            world.mute_deaths++;
            p->line->harmed = true;
            host_peer_close(p, false);
            n++;
        } else if (act & PULSE_PING) {
            ping(p->line);
        }
    }
    host.look_at = next == UINT64_MAX ? next : next - (now - sim_now());
    return n;
}

static void tick(void)
{
    struct undertaker_report rep;
    if (sim_now() < host.next_tick)
        return;
    host.next_tick = sim_now() + world.tick;
    bury_kept(false);
    for (struct peer *p = world.peers; p; p = p->next)
        if (p->stage == STAGE_UP)
            link_publish(p->link);
    if (at_swap(&world.seg.head->audit_wanted, 0)) {
        memset(&rep, 0, sizeof rep);
        undertaker_audit(&world.seg, &world.out, &rep);
    }
}

/* ---- the loop ---- */

static bool arm_links(void)
{
    at_store(&world.seg.head->daemon_parked, 1);
    for (struct peer *p = world.peers; p; p = p->next)
        if (p->stage == STAGE_UP && !link_arm(p->link))
            return false;
    return tr_net.arm(host.dom) == 0;
}

/* Links that may move something without a word: records can be added to a batch that the transport
 * has refused for now. (Room in the fabric is announced: core/room.h.) */
static bool some_wait(void)
{
    for (const struct peer *p = world.peers; p; p = p->next)
        if (p->stage == STAGE_UP &&
            (lane_tx_blocked(p->lane) ||
             /* perhaps a write or a read that was refused, and succeeds before the network says so */
             p->link->big_in.offered || (p->link->big_out.first && p->link->big_out.first->how == BIG_DIRECT)))
            return true;
    return false;
}

/* What timers_run() does with leases that were cancelled. */
static long look_at_notes(void)
{
    uint32_t slot[16], n = ring_take(&world.seg, world.seg.timer_ring, slot, 16);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t w = at_load(&world.seg.slot[slot[i]].state);
        if (slot_state(w) != SLOT_LEASED ||
            !(meta_flags(at_load(&world.seg.slot[slot[i]].meta)) & META_CANCEL))
            continue;
        for (struct peer *p = world.peers; p; p = p->next)
            if (p->stage == STAGE_UP && p->link->participant == slot_owner(w))
                link_cancel(p->link, slot[i], w);
    }
    return n;
}

static void host_run(struct actor *a)
{
    if (host.dead_until != UINT64_MAX) {
        a->wake_at = host.dead_until;
        if (sim_now() < host.dead_until)
            return;
        come_back();
    }
    bool announced = !host.asleep || net_pending(host.dom) || some_wait() ||
                     at_load(&world.seg.head->daemon_parked) == 0 ||
                     at_load(&world.seg.head->audit_wanted);
    a->wake_at = sim_now() + 100 + sim_roll(800);
    at_store(&world.seg.head->daemon_parked, 0);
    host.asleep = false;
    host.stirred = false;
    tick();
    long other = host.stirred + poll_events() + look_at_lines() + look_at_notes() + take_pongs(),
         moved = work_links();
    if (moved > 0 && other == 0 && !announced)
        sim_fail("fabricd slept though a link had work: a wake-up was missed");
    if (other + moved > 0) {
        host.fruitless = 0;
        return;
    }
    at_store(&world.seg.head->daemon_parked, 1);
    if (look_at_pulses() > 0) {
        at_store(&world.seg.head->daemon_parked, 0);
        host.fruitless = 0;
        return;
    }
    if (!arm_links()) {
        at_store(&world.seg.head->daemon_parked, 0);
        if (!net_pending(host.dom) && ++host.fruitless > FRUITLESS_MAX)
            sim_fail("fabricd spins: a link says there is work and moves nothing");
        return;
    }
    host.asleep = true;
    a->wake_at = next_due();
}

static bool host_rung(struct actor *a)
{
    (void)a;
    return host.asleep && host.dead_until == UINT64_MAX && at_load(&world.seg.head->daemon_parked) == 0;
}

void host_open(void)
{
    struct tr_opts o = {.provider = "tcp", .listening = true, .eps_max = 64, .ops_per_ep = 1024};
    static int bell = -1;
    uint32_t generation;
    struct participant_info info = {
        .pid = (uint32_t)getpid(), .roles = FAB_TOOL, .name = "fabricd"};
    memset(&host, 0, sizeof host);
    if (bell < 0)
        bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    world.out.daemon_fd = bell;
    int rc = participant_add(&world.seg, &info, &generation);
    if (rc < 0 || bell < 0 || tr_net.domain_open(&host.dom, &o) < 0 ||
        tr_net.listen(host.dom, &host.listener, host.addr, &host.addr_len) < 0)
        sim_fail("fabricd does not start: %s", fab_errmsg());
    world.me = (uint32_t)rc;
    world.host = sim_actor("fabricd", true, host_run, NULL);
    world.host->dom = host.dom;
    world.host->rung = host_rung;
    host.next_tick = world.tick;
    host.dead_until = host.look_at = UINT64_MAX;
}

void host_close(void)
{
    while (world.peers)
        host_peer_close(world.peers, true);
    bury_kept(true);
    tr_net.listener_close(host.listener);
    tr_net.domain_close(host.dom);
    for (struct line *l = world.lines, *next; l; l = next) {
        next = l->next;
        free(l);
    }
    world.lines = NULL;
}

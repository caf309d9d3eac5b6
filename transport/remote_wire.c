/* SPDX-License-Identifier: MIT
 *
 * remote_wire.c - a handle that waits finds out that the wire is dead, and that it is there again.
 *
 * A wire that drops everything makes no noise: the sockets stay open, and the kernel repeats what
 * was not acknowledged after 0.2 s, 0.4, 0.8, 1.6 s, so that a link is still silent for seconds
 * after its wire is back. Heartbeats are slower yet. So, in four steps, each only when the one
 * before got no answer:
 *
 *   ask     An ECHO in the lane, when nothing has come for a while; any message is an answer.
 *           Often after work, seldom later: pace().
 *
 *   doubt   Nothing for DOUBT_NS and four round trips: a PING on the control connection. fabricd
 *           says what it has sent and got in the lane (struct ctl_pong). If that is what this side
 *           has got and sent, fabricd has nothing to say, or does not read while the fabric is
 *           full: all is well.
 *
 *   probe   Nothing for as long again: a fresh connection (session_dial.c), which has no backoff,
 *           as far as fabricd's first answer. One at a time.
 *
 *   resume  The probe is answered, so wire and fabricd are there, and GRACE_NS later the old link
 *           is still silent: it is given up for the probe's connection.
 *
 * A lost packet is repeated by the kernel before the last step; a fabricd that is stopped or busy
 * does not answer the probe, whose connection then waits like the old one. From the doubt on only
 * an ECHO or a PONG that says so is an answer: anything else may be all that one direction has. A
 * false alarm makes the next doubt come later. Links given up cost a token each: TOKENS at once,
 * and one each CALM_NS.
 *
 * Threads: the handle's, in its waits. Failure: a probe that can't be made is tried again.
 */
#include <errno.h>
#include <poll.h>
#include "core/clock.h"
#include "core/error.h"
#include "transport/remote.h"

#ifdef FABRIC_VIRTUAL_CLOCK
#define SCALE 500u /* a simulated round trip is some microseconds */
#else
#define SCALE 1u
#endif
#define DOUBT_NS   (20000000u / SCALE)
#define DOUBT_MOST (200000000u / SCALE)
#define GRACE_NS   (8000000u / SCALE)
#define CALM_NS    (500000000u / SCALE)
#define TOKENS     16u
#define RETRY_NS   (40000000u / SCALE)
/* How often is asked: this long after the last work, this often. */
#define FRESH_NS    (1000000000ull / SCALE)
#define FRESH_EVERY (50000000u / SCALE)
#define WARM_NS     (2000000000ull / SCALE)
#define WARM_EVERY  (100000000u / SCALE)
#define COLD_PART   20u
#define COLD_NS     (50000000000ull / SCALE)
#define COLD_EVERY  (10000000000ull / SCALE)

/* The lane's, which is not known before the first answer, or what TCP saw when the link was made. */
static uint64_t rtt_ns(const struct remote *r)
{
    uint64_t lane = (uint64_t)(r->rtt_ticks * 1e9 / (double)r->ticks_hz);
    return lane > r->self.rtt_ns ? lane : r->self.rtt_ns;
}

void remote_wire_rtt(struct remote *r)
{
    r->self.rtt_ns = rtt_ns(r);
}

static void until_then(uint64_t *until, uint64_t then)
{
    if (then < *until)
        *until = then;
}

void remote_wire_begin(struct remote *r)
{
    struct remote_wire *w = &r->wire;
    uint64_t now = clock_ns();
    w->worked = w->echoed = false;
    w->arrived = 0;
    w->heard_at = now;
    if (r->links == 1) /* it has had no work yet */
        w->worked_at = now > COLD_NS ? now - COLD_NS : 0;
    w->asked_at = r->link == LINK_EXCHANGE ? now : 0;
    w->pinged_at = w->answered_at = w->probe_at = 0;
    w->echoing = false;
    if (!w->doubt_ns)
        w->doubt_ns = DOUBT_NS;
}

struct session *remote_wire_end(struct remote *r, bool keep)
{
    struct session *s = r->wire.probe;
    loop_stop(r->loop, &r->src[4]);
    r->wire.probe = NULL;
    r->wire.answered_at = 0;
    if (!s || keep)
        return s;
    session_break(s);
    return NULL;
}

/* ---- ask ---- */

static uint64_t pace(const struct remote_wire *w, uint64_t now)
{
    uint64_t idle = now - w->worked_at;
    if (w->full)
        return WARM_EVERY;
    if (idle < FRESH_NS)
        return FRESH_EVERY;
    if (idle < WARM_NS)
        return WARM_EVERY;
    return idle / COLD_PART < COLD_EVERY ? idle / COLD_PART : COLD_EVERY;
}

/* Puts one into the lane. Without room, or with one that waits there already, something else is to
 * come back. */
static void echo(struct remote *r)
{
    struct record rec = {.type = REC_ECHO, .ref = clock_ticks()};
    if (r->wire.echoing || r->link != LINK_UP || !remote_try_put(r, &rec))
        return;
    r->echo_at = rec.ref;
    r->wire.echoing = true;
    (void)remote_flush(r);
}

static void ask(struct remote *r, uint64_t now, uint64_t *until)
{
    struct remote_wire *w = &r->wire;
    uint64_t due = w->heard_at + pace(w, now);
    if (now < due) {
        until_then(until, due);
        return;
    }
    echo(r);
    w->echoed = false;
    w->asked_at = now;
    until_then(until, now + w->doubt_ns + 4 * rtt_ns(r));
}

/* ---- doubt ---- */

static void ping(struct remote *r, uint64_t now)
{
    r->wire.pinged_at = now;
    int rc = session_ping(r->session);
    if (rc < 0)
        remote_hang_up(r, rc);
}

/* Something has come. That is enough, unless there is doubt: the connection may live in one
 * direction only, until the kernel repeats what it has to say in the other. */
static void heard(struct remote *r, uint64_t now)
{
    struct remote_wire *w = &r->wire;
    if (w->worked)
        w->worked_at = now;
    w->worked = w->full = false;
    w->heard_at = now;
    if (!w->pinged_at) {
        w->asked_at = 0;
        return;
    }
    w->echoing = false; /* fabricd drops one when it has no room */
    echo(r);
    if (w->answered_at)
        w->answered_at = now;
}

/* The answer to a PING says that nothing is missing on either side. */
static bool is_calm(struct remote *r)
{
    struct ctl_pong p;
    uint32_t sent, arrived;
    if (!session_pong(r->session, &p))
        return false;
    lane_counts(r->lane, &sent, &arrived);
    r->wire.full = p.sent == arrived && p.arrived == sent;
    return r->wire.full;
}

/* There is no doubt any more. */
static void relieved(struct remote *r, uint64_t now)
{
    struct remote_wire *w = &r->wire;
    w->heard_at = now;
    w->asked_at = w->pinged_at = 0;
    if (w->probe) {
        (void)remote_wire_end(r, false);
        /* a wire that was dead for a while and lives again was no false alarm */
        if (now - w->probed_at < 2 * w->doubt_ns + 4 * rtt_ns(r))
            w->doubt_ns = 2 * w->doubt_ns < DOUBT_MOST ? 2 * w->doubt_ns : DOUBT_MOST;
        w->alarm_at = now;
    } else if (w->doubt_ns > DOUBT_NS && now - w->alarm_at > 2 * CALM_NS) {
        w->doubt_ns = w->doubt_ns / 2 > DOUBT_NS ? w->doubt_ns / 2 : DOUBT_NS;
        w->alarm_at = now;
    }
}

/* ---- probe ---- */

static bool may_give_up(struct remote_wire *w, uint64_t now)
{
    uint64_t back = (now - w->spent_at) / CALM_NS;
    if (back > 0) {
        w->spent = back < w->spent ? w->spent - (uint32_t)back : 0;
        w->spent_at = now;
    }
    return w->spent < TOKENS;
}

static int look_at_probe(struct remote *r, uint64_t now, uint64_t *until);

static int begin_probe(struct remote *r, uint64_t now, uint64_t *until)
{
    struct remote_wire *w = &r->wire;
    struct fab_options o = r->opts;
    if (now < w->probe_at || !may_give_up(w, now)) {
        until_then(until, w->probe_at > now ? w->probe_at : now + CALM_NS);
        return 0;
    }
    o.timeout_ns = FAB_FOREVER;
    remote_wire_rtt(r);
    if (session_begin(&w->probe, r->provider, r->host, r->port, &o, true, &r->self) < 0) {
        w->probe = NULL;
        w->probe_at = now + RETRY_NS;
        until_then(until, w->probe_at);
        return 0;
    }
    session_hold(w->probe);
    w->probed_at = now;
    return look_at_probe(r, now, until);
}

static void on_probe(struct loop_src *src, int result)
{
    (void)src;
    (void)result; /* the next look steps it */
}

static void watch_probe(struct remote *r, uint64_t *until)
{
    short events;
    uint64_t due;
    int fd = session_waits_for(r->wire.probe, &events, &due);
    until_then(until, due);
    if (fd >= 0 && loop_watch(r->loop, &r->src[4], fd, (uint32_t)events, true, on_probe) < 0)
        until_then(until, clock_ns() + GRACE_NS / 8);
}

static int look_at_probe(struct remote *r, uint64_t now, uint64_t *until)
{
    struct remote_wire *w = &r->wire;
    loop_stop(r->loop, &r->src[4]); /* it may close its socket */
    int rc = session_step(w->probe);
    if (rc < 0 && rc != -EAGAIN) {
        (void)remote_wire_end(r, false);
        uint64_t out = now - w->asked_at; /* the longer it is away, the less it matters */
        w->probe_at = now + (out / 16 > RETRY_NS ? out / 16 : RETRY_NS);
        until_then(until, w->probe_at);
        return 0;
    }
    if (!session_answered(w->probe)) {
        w->answered_at = 0;
        watch_probe(r, until);
        return 0;
    }
    if (!w->answered_at) {
        w->answered_at = now;
        ping(r, now);
    }
    if (now < w->answered_at + GRACE_NS + 2 * rtt_ns(r)) {
        until_then(until, w->answered_at + GRACE_NS + 2 * rtt_ns(r));
        watch_probe(r, until);
        return 0;
    }
    if (w->spent++ == 0)
        w->spent_at = now;
    remote_link_replace(r, remote_wire_end(r, true));
    return 1;
}

int remote_wire_look(struct remote *r, uint64_t now, uint64_t *until)
{
    struct remote_wire *w = &r->wire;
    if (!r->lane || r->hangup || !r->self.resume)
        return 0;
    uint32_t sent, arrived;
    lane_counts(r->lane, &sent, &arrived);
    if (arrived != w->arrived) /* credits alone, too */
        heard(r, now);
    w->arrived = arrived;
    if (w->pinged_at && (w->echoed || is_calm(r)))
        relieved(r, now);
    if (!w->asked_at) {
        ask(r, now, until);
        return 0;
    }
    if (w->probe)
        return look_at_probe(r, now, until);
    uint64_t patience = w->doubt_ns + 4 * rtt_ns(r);
    if (!w->pinged_at) {
        if (now >= w->asked_at + patience)
            ping(r, now);
        until_then(until, (w->pinged_at ? now : w->asked_at) + patience);
        return 0;
    }
    uint64_t last = w->heard_at > w->pinged_at ? w->heard_at : w->pinged_at;
    if (now >= last + patience)
        return begin_probe(r, now, until);
    until_then(until, last + patience);
    return 0;
}

void remote_wire_glance(struct remote *r)
{
    uint64_t ticks = clock_ticks(), until = UINT64_MAX;
    if (ticks - r->wire.glanced < r->ticks_hz / (200 * SCALE))
        return;
    r->wire.glanced = ticks;
    if (r->link == LINK_UP || r->link == LINK_EXCHANGE)
        (void)remote_wire_look(r, clock_ns(), &until);
}

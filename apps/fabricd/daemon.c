/* SPDX-License-Identifier: MIT
 *
 * daemon.c - start-up, the loop, draining and the end of fabricd.
 *
 * The loop: control events, then links, until there is nothing to do; then a short spin while links
 * are busy; then sleep in io_uring on all descriptors and the doorbell. daemon_parked is set before
 * the last look (S1, S2 of core/wake.h), so that no submit or completion that concerns a link is
 * missed.
 *
 * Failure: what can't be opened at start ends fabricd with one message that names the configuration
 * key. Later failures concern single peers and are logged.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "apps/fabricd/adopt.h"
#include "apps/fabricd/daemon.h"
#include "apps/fabricd/doorman.h"
#include "apps/fabricd/gate.h"
#include "apps/fabricd/keep.h"
#include "apps/fabricd/notify.h"
#include "core/check.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/participant.h"
#include "core/paths.h"
#include "core/queue.h"
#include "core/ring.h"
#include "core/undertaker.h"

#define TICK_NS 1000000000u

void daemon_report(const char *who, const char *how, const void *undertaker_report)
{
    const struct undertaker_report *r = undertaker_report;
    if (r->leases || r->dead || r->requeued || r->orphans)
        log_info("%s %s: %u tasks returned, %u given up, %u go on without a waiter, %u put back "
                 "into rings",
                 who, how, r->leases, r->dead, r->orphans, r->requeued);
    else
        log_debug("%s %s", who, how);
}

/* ---- sources ---- */

static void on_bell(struct loop_src *src, int result)
{
    struct daemon *d = src->owner;
    uint64_t n;
    (void)result;
    (void)!read(d->out.daemon_fd, &n, sizeof n);
    d->stirred = true;
}

static void on_signal(struct loop_src *src, int result)
{
    struct daemon *d = src->owner;
    struct signalfd_siginfo si;
    (void)result;
    while (read(d->signal_fd, &si, sizeof si) == sizeof si)
        daemon_drain(d);
}

static bool gate_settled(const struct daemon *d)
{
    return !d->gate || gate_idle(d->gate);
}

/* Draining ends when nothing is ready or being run. Outcomes not yet taken don't count: a local
 * producer finds them in its mapping even after we are gone; those of remote producers must be on
 * their way. That is a matter of microseconds and looked at in each turn: peers ask after us
 * meanwhile (ECHO), and a look a second could find an answer to that on its way each time. */
static void stop_when_idle(struct daemon *d)
{
    for (uint32_t i = 0; i < d->seg.slots; i++) {
        uint32_t st = slot_state(at_load(&d->seg.slot[i].state));
        if (st == SLOT_READY || st == SLOT_LEASED || st == SLOT_DELAYED) {
            d->settling = false;
            return;
        }
    }
    d->settling = !gate_settled(d);
    d->stop |= !d->settling;
}

void daemon_check(struct daemon *d)
{
    struct check_report r;
    uint32_t n = segment_check(&d->seg, &d->out, d->me, &r);
    if (n)
        log_error("the segment is damaged: %u words (%u of the header, %u of queues, %u of "
                  "participants, %u of rings, %u of slots, %u of slots of nobody, %u of the arena, %u of "
                  "keys); "
                  "first: %s; put right as far as can be",
                  n, r.header, r.queues, r.participants, r.rings, r.slots, r.strays, r.blocks, r.keys,
                  r.first);
}

static void on_tick(struct loop_src *src, int result)
{
    struct daemon *d = src->owner;
    uint64_t now = clock_ns();
    (void)result;
    at_store_rlx(&d->seg.head->alive_ns, now); /* a time, see layout.h */
    doorman_tick(d->doorman, now);
    keep_tick(d, now);
    if (at_load(&d->seg.head->sweep_wanted) && at_swap(&d->seg.head->sweep_wanted, 0))
        doorman_sweep(d->doorman);
    if (d->gate)
        gate_tick(d->gate, now);
    if (at_load(&d->seg.head->check_wanted) && at_swap(&d->seg.head->check_wanted, 0))
        daemon_check(d);
    if (at_load(&d->seg.head->audit_wanted) && at_swap(&d->seg.head->audit_wanted, 0)) {
        struct undertaker_report rep = {0};
        undertaker_audit(&d->seg, &d->out, &rep);
        log_info("audit: %u slots put back into rings", rep.requeued);
    }
    if (d->draining)
        stop_when_idle(d);
    d->stirred = true;
}

void daemon_drain(struct daemon *d)
{
    if (d->draining) {
        log_info("second signal: stopping at once");
        d->stop = true;
        return;
    }
    d->draining = true;
    at_store(&d->seg.head->state, SEG_DRAINING);
    notify("STOPPING=1");
    doorman_refuse(d->doorman);
    if (d->gate)
        gate_refuse(d->gate);
    log_info("draining: no new tasks; stops when the present ones are done and taken (a second "
             "signal stops "
             "at once)");
    if (at_load(&d->seg.head->dead_letters))
        log_warn("%u dead letters end with the segment", at_load(&d->seg.head->dead_letters));
    for (uint32_t q = 0; q < d->seg.queues; q++)
        if (queue_paused(&d->seg, q))
            log_warn("queue %s is paused: its tasks, if there are any, keep fabricd from ending "
                     "until somebody who is here resumes it, or until a second signal",
                     d->seg.queue_name[q]);
    stop_when_idle(d);
}

/* ---- start ---- */

static int make_sources(struct daemon *d)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return err_set(-errno, "sigprocmask: %s", strerror(errno));
    d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (d->signal_fd < 0)
        return err_set(-errno, "signalfd: %s", strerror(errno));
    d->bell_src.owner = d->signal_src.owner = d->tick_src.owner = d;
    int rc = loop_watch(d->loop, &d->bell_src, d->out.daemon_fd, POLLIN, false, on_bell);
    if (rc == 0)
        rc = loop_watch(d->loop, &d->signal_src, d->signal_fd, POLLIN, false, on_signal);
    if (rc == 0)
        rc = loop_timer(d->loop, &d->tick_src, TICK_NS, TICK_NS, on_tick);
    return rc;
}

static int choose_socket(struct daemon *d)
{
    char dir[256];
    if (d->conf->socket[0]) {
        snprintf(d->socket_path, sizeof d->socket_path, "%s", d->conf->socket);
        return 0;
    }
    if (d->conf->runtime_dir[0])
        snprintf(dir, sizeof dir, "%s", d->conf->runtime_dir);
    else if (paths_runtime_dir(dir, sizeof dir) < 0)
        return -ENOENT;
    int rc = paths_make_dir(dir, 0755);
    if (rc < 0)
        return rc;
    if ((size_t)snprintf(d->socket_path, sizeof d->socket_path, "%s/fabricd.sock", dir) >=
        sizeof d->socket_path)
        return err_set(-ENAMETOOLONG, "node.runtime_dir: %s is too long for a UNIX socket", dir);
    return 0;
}

int daemon_open(struct daemon *d, const struct conf *conf)
{
    memset(d, 0, sizeof *d);
    d->conf = conf;
    d->signal_fd = d->out.daemon_fd = d->seg.fd = d->keeper.sock = d->warm.fd = -1;
    int rc = returns_open(&d->returns, conf->links);
    if (rc == 0)
        rc = choose_socket(d);
    if (rc == 0)
        rc = doorman_free(d->socket_path);
    if (rc == 0)
        rc = adopt_or_make(d);
    if (rc == 0)
        rc = loop_open(&d->loop, 4096 + 2 * d->seg.participants + 4 * conf->links);
    if (rc == 0)
        rc = make_sources(d);
    if (rc == 0)
        rc = doorman_open(&d->doorman, d);
    if (rc == 0)
        rc = adopt_participants(d);
    if (rc == 0)
        rc = gate_open(&d->gate, d);
    if (rc == 0 && d->gate) {
        d->timers.cancelled = gate_cancel;
        d->timers.arg = d->gate;
    }
    if (rc == 0 && d->adopted) /* a new segment has no tasks yet, and its pages are better left untouched */
        timers_scan(&d->timers, &d->seg);
    if (rc < 0) {
        log_error("%s", err_text(rc));
        daemon_close(d);
        return rc;
    }
    spin_init(&d->spin, d->seg.ticks_hz,
              conf->poll_mode == CONF_POLL_EVENT ? -1 : (int64_t)conf->spin_ns);
    return 0;
}

void daemon_ready(struct daemon *d, int rc)
{
    if (rc < 0) {
        log_error("%s", err_text(rc));
        d->failed = rc;
        d->stop = true;
        return;
    }
    log_info("ready on %s%s%s", d->socket_path, d->address[0] ? " and " : "", d->address);
    notify("READY=1");
}

/* ---- the loop ---- */

/* S1 and S2: after this the doorbell rings for whatever concerns a link. False: there is work. */
static bool arm(struct daemon *d)
{
    at_store(&d->seg.head->daemon_parked, 1);
    return timers_armed(&d->seg) && (!d->gate || (gate_pulse(d->gate) == 0 && gate_arm(d->gate)));
}

/* Until the next timer or heartbeat. */
static int64_t sleep_time(const struct daemon *d)
{
    int64_t timer = timers_wait(&d->timers), heart = d->gate ? gate_wait(d->gate) : -1;
    return timer < 0 || (heart >= 0 && heart < timer) ? heart : timer;
}

static int work(struct daemon *d)
{
    d->stirred = false;
    int events = loop_run(d->loop, 0);
    if (events < 0)
        return events;
    long moved = timers_run(&d->timers, &d->seg, &d->out, d->me);
    moved += d->gate ? gate_work(d->gate) : 0;
    if (d->gate && (++d->turns & 63) == 0) /* it may not sleep for long */
        moved += gate_pulse(d->gate);
    return moved > 0 || d->stirred;
}

int daemon_run(struct daemon *d)
{
    bool busy_poll = d->conf->poll_mode == CONF_POLL_BUSY;
    if (!d->gate)
        daemon_ready(d, 0);
    spin_start(&d->spin);
    while (!d->stop) {
        int rc = work(d);
        if (rc < 0) {
            log_error("the event loop failed: %s", err_text(rc));
            return rc;
        }
        if (d->settling && gate_settled(d))
            stop_when_idle(d);
        if (rc > 0) {
            spin_start(&d->spin);
            continue;
        }
        if (d->gate && gate_busy(d->gate) && (busy_poll || spin_on(&d->spin))) {
            spin_share(&d->spin);
            continue;
        }
        if (arm(d) && !d->stop) {
            d->spin.slept = true;
            rc = loop_run(d->loop, sleep_time(d));
            if (rc < 0)
                return rc;
        }
        at_store(&d->seg.head->daemon_parked, 0);
        spin_start(&d->spin);
    }
    return d->failed;
}

void daemon_close(struct daemon *d)
{
    if (d->gate)
        gate_close(d->gate);
    if (d->doorman)
        doorman_close(d->doorman);
    if (d->seg.base) {
        /* sleepers notice within WAKE_NET_NS, or now */
        at_store(&d->seg.head->state, SEG_CLOSED);
        for (uint32_t q = 0; q < d->seg.queues; q++)
            queue_wake_all(&d->seg.queue[q]);
        for (uint32_t i = 0; i < d->seg.participants; i++)
            bell_ring(&d->seg, &d->seg.participant[i], &d->out);
        adopt_end(d);
    }
    if (d->loop) {
        loop_stop(d->loop, &d->bell_src);
        loop_stop(d->loop, &d->signal_src);
        loop_stop(d->loop, &d->tick_src);
        loop_close(d->loop);
    }
    if (d->signal_fd >= 0)
        close(d->signal_fd);
    if (d->out.daemon_fd >= 0)
        close(d->out.daemon_fd);
    timers_free(&d->timers);
    returns_close(&d->returns);
    if (d->seg.base)
        segment_unmap(&d->seg);
}

/* SPDX-License-Identifier: MIT
 *
 * daemon.h - fabricd put together: one loop thread that owns the segment, the doorman, the gate and
 * the links.
 *
 *   doorman  local participants: the UNIX socket, pidfds, the undertaker
 *   gate     remote peers: the TCP control listener, handshakes, control frames, tickets
 *   links    the near ends of remote peers' lanes (link.h)
 *
 * Everything here belongs to the loop thread.
 */
#ifndef FABRICD_DAEMON_H
#define FABRICD_DAEMON_H

#include <pthread.h>
#include "apps/fabricd/keeper.h"
#include "apps/fabricd/listen.h"
#include "apps/fabricd/returns.h"
#include "apps/fabricd/timers.h"
#include "core/conf.h"
#include "core/local.h"
#include "core/log.h"
#include "transport/loop.h"
#include "transport/transport.h"

struct doorman;
struct gate;

/* A domain that listens for data connections: one a provider and site (listen.h). */
struct carrier {
    const struct tr_ops *tr;
    struct tr_domain *dom;
    struct tr_listener *listener;
    struct tr_caps caps;
    uint8_t addr[TR_ADDR_MAX];
    uint32_t addr_len, site;
    struct loop_src src[2];
};

struct daemon {
    const struct conf *conf;
    struct segment seg;
    struct keeper keeper;
    struct timers timers;
    struct returns returns;
    struct loop *loop;
    struct wake_out out; /* daemon_fd: the doorbell, an eventfd that every participant gets */
    uint32_t me;         /* the daemon's own participant number */
    struct doorman *doorman;
    struct gate *gate;
    struct carrier carrier[2 * LISTENERS_MAX];
    uint32_t carriers;
    struct { /* libfabric getting ready, see carrier.c; fd -1: it is */
        pthread_t thread;
        int fd;
        struct loop_src src;
        void (*done)(struct daemon *d);
    } warm;
    struct loop_src bell_src, signal_src, tick_src;
    int signal_fd;
    struct spin spin;
    bool draining, stop;
    bool settling; /* draining, and all that is left are words on their way to peers */
    int failed; /* why daemon_run() ends, 0: it was asked to */
    bool adopted; /* the segment is that of a fabricd before us */
    uint32_t turns; /* of the loop */
    bool stirred; /* something happened: look at the links before sleeping */
    char socket_path[108];
    char address[LISTENERS_MAX * 100]; /* where the gate listens, "" when it does not */
};

/* Makes everything; local participants can come from here on. < 0: the reason has been logged. */
int daemon_open(struct daemon *d, const struct conf *conf) __attribute__((warn_unused_result));
/* Announces readiness when the remote side is open, too, and runs until stopped by signals. 0, or
 * < 0. */
int daemon_run(struct daemon *d) __attribute__((warn_unused_result));
void daemon_close(struct daemon *d);
/* All is open. < 0: something could not be; the daemon ends. */
void daemon_ready(struct daemon *d, int rc);
/* No new work; ends when nothing is ready, leased or outstanding. A second call stops at once. */
void daemon_drain(struct daemon *d);
/* Looks for damage in the segment, mends it and logs it. */
void daemon_check(struct daemon *d);
/* Logs what an undertaker's run found. */
void daemon_report(const char *who, const char *how, const void *undertaker_report);

#endif

/* SPDX-License-Identifier: MIT
 *
 * session.h - a remote client's control connection: from host and key to a connected lane pair.
 *
 * TCP connection, mutual handshake (control.h), lane offer, libfabric connection with the one-time
 * ticket; afterwards heartbeats, status requests and the farewell. A session is one link; a handle
 * whose link breaks begins another one and shows by session_self that it is the same handle. While
 * it is being made, session_step() goes on with it without blocking; afterwards session_fd() is
 * watched and session_progress() called when it is readable.
 *
 * Threads: the handle's. Failure: -errno with a message that names the host and the remedy.
 */
#ifndef FABRIC_SESSION_H
#define FABRIC_SESSION_H

#include "core/admin.h"
#include "core/fabric.h"
#include "transport/control.h"
#include "transport/lane.h"

struct session;

/* What an open session knows of the fabric. */
struct session_info {
    uint32_t lease_window, submit_window;
    uint32_t queues;
    char queue[64][FAB_NAME_MAX];
    char server[64];
    char provider[16];
    enum ctl_session session; /* what fabricd knows of the handle's last link */
    uint32_t untold_max;      /* taken outcomes that an idle handle need not tell of */
    uint64_t keep_ns;         /* how long it keeps a broken link's tasks */
};

/* The handle that a session is of (control.h). */
struct session_self {
    uint8_t instance[CTL_INSTANCE];
    bool resume;
    uint32_t window;
    /* where its last link was: tried alone, and no name is resolved; at_len 0: by name, all that it
     * has */
    struct sockaddr_storage at;
    socklen_t at_len;
    uint64_t rtt_ns;   /* the round trip there, 0: not known */
    uint64_t since_ns; /* clock_ns() when the link went, 0: just now: how often is dialled anew */
    uint64_t patience_ns; /* once the key is proved, for each answer; 0: the time-out */
};
/* Draws a handle's number. */
void session_new_instance(uint8_t instance[CTL_INSTANCE]);

/* Begins to make a link, which must be up within opts->timeout_ns. with_data false: control only
 * (status). Then session_step() until it returns 0 (up) or an error other than -EAGAIN, after which
 * session_break() or session_close() is all that is left. */
int session_begin(struct session **out, const char *provider, const char *host, const char *port,
                  const struct fab_options *opts, bool with_data, const struct session_self *self)
    __attribute__((warn_unused_result));
int session_step(struct session *s) __attribute__((warn_unused_result));
/* Sleeps until session_step() may get further, or until then (clock_ns). */
void session_sleep(struct session *s, uint64_t until);
/* What that would wait for: a descriptor (-1: none), its events, and a time. */
int session_waits_for(const struct session *s, short *events, uint64_t *due);
/* Both, blocking. On failure nothing is left to close. */
int session_open(struct session **out, const char *provider, const char *host, const char *port,
                 const struct fab_options *opts, bool with_data, const struct session_self *self)
    __attribute__((warn_unused_result));
/* Before the first step: it goes as far as fabricd's first answer, which shows that the wire and
 * fabricd are there, and waits. session_answered(): it has come; session_go_on(): prove the key and
 * join, which ends the handle's link before. */
void session_hold(struct session *s);
bool session_answered(const struct session *s);
void session_go_on(struct session *s, uint64_t patience_ns);
/* Where it is connected to and the round trip, into self->at and rtt_ns. */
void session_at(const struct session *s, struct session_self *self);
/* Of one that is up; they belong to the caller's thread and are freed by session_close(). */
struct tr_domain *session_domain(const struct session *s);
struct lane *session_lane(const struct session *s);
const struct session_info *session_info(const struct session *s);
/* The transport that the domain and the lane belong to. */
const struct tr_ops *session_transport(const struct session *s);
int session_fd(const struct session *s);
/* Reads and answers what came on the control connection. 0, or -EPIPE when the daemon is gone. */
int session_progress(struct session *s) __attribute__((warn_unused_result));
/* Feeds an event of the domain; < 0: the link is closed. */
int session_on_event(struct session *s, const struct tr_event *ev)
    __attribute__((warn_unused_result));
/* Asks fabricd what it has sent and got in the lane; session_pong(): the answer to the last
 * question, once. */
int session_ping(struct session *s) __attribute__((warn_unused_result));
bool session_pong(struct session *s, struct ctl_pong *out);
/* How long fabricd waits for a silent peer (fabric.dead_after), ns; 0: it has not said. */
uint64_t session_patience(const struct session *s);
/* fabricd has said that it ends: no other one will take its segment over. */
bool session_ended(const struct session *s);
/* Asks for the status text (malloc'ed). */
int session_status(struct session *s, char **text, int64_t timeout_ns)
    __attribute__((warn_unused_result));
/* Asks fabricd to run a request of an administrator (admin.h). The caller frees the text. */
int session_admin(struct session *s, const struct admin_request *q, struct admin_reply *r,
                  int64_t timeout_ns) __attribute__((warn_unused_result));
void session_close(struct session *s);
/* The same without a farewell: fabricd keeps what is the handle's. */
void session_break(struct session *s);

#endif

/* SPDX-License-Identifier: MIT
 *
 * session.h - a remote client's control connection: from host and key to a connected lane pair.
 *
 * TCP connection, mutual handshake (control.h), lane offer, libfabric connection with the one-time
 * ticket; afterwards heartbeats, status requests and the farewell. Blocking with a deadline while
 * opening; afterwards only session_fd() is watched and session_progress() called when it is
 * readable.
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
};

/* On success *dom, *lane are connected and belong to the caller's thread; session_close() frees
 * them. with_data false: control only (status), *dom and *lane are NULL. */
int session_open(struct session **out, const char *provider, const char *host, const char *port,
                 const struct fab_options *opts, bool with_data, struct tr_domain **dom,
                 struct lane **lane) __attribute__((warn_unused_result));
const struct session_info *session_info(const struct session *s);
/* The transport that the domain and the lane belong to. */
const struct tr_ops *session_transport(const struct session *s);
int session_fd(const struct session *s);
/* Reads and answers what came on the control connection. 0, or -EPIPE when the daemon is gone. */
int session_progress(struct session *s) __attribute__((warn_unused_result));
/* Feeds an event of the domain; < 0: the link is closed. */
int session_on_event(struct session *s, const struct tr_event *ev)
    __attribute__((warn_unused_result));
/* Asks for the status text (malloc'ed). */
int session_status(struct session *s, char **text, int64_t timeout_ns)
    __attribute__((warn_unused_result));
/* Asks fabricd to run a request of an administrator (admin.h). The caller frees the text. */
int session_admin(struct session *s, const struct admin_request *q, struct admin_reply *r,
                  int64_t timeout_ns) __attribute__((warn_unused_result));
void session_close(struct session *s);

#endif

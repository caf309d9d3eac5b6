/* SPDX-License-Identifier: MIT
 *
 * session_parts.h - between the files of a session: session.c (its stages), session_dial.c (the
 * connection and its frames) and session_admin.c (what is said once it is up). Nobody else includes
 * it.
 */
#ifndef FABRIC_SESSION_PARTS_H
#define FABRIC_SESSION_PARTS_H

#include "transport/dial.h"
#include "transport/session.h"

#define SESSION_TIMEOUT_NS 10000000000ll

enum stage { CONNECT, CHALLENGE, PROVE, WELCOME, READY, JOIN, UP };

struct session {
    int fd;
    enum stage stage;
    char host[256], port[8], provider[16];
    bool with_data;
    struct dial dial; /* the host's addresses, or where the handle's last link was */
    struct ctl_hello hello;
    struct ctl_challenge challenge;
    uint64_t deadline;
    /* coming back (session_self.resume) */
    uint64_t since, redial_at, stage_at; /* clock_ns */
    uint64_t looked_at;                  /* until when somebody has waited for an answer */
    uint64_t patience_ns, rtt_ns;        /* the longest that an answer may take; 0: deadline */
    uint32_t unheard;                    /* connections that took HELLO and did not answer it */
    bool hold, answered;                 /* session_hold(), session_answered() */
    struct ctl_pong pong;
    bool ponged;
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
    bool broken;  /* it is closed without a farewell: the handle means to come back */
    bool ended;   /* fabricd has said that it is over */
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

/* ---- session_dial.c ---- */

/* Finds the addresses. Only the resolution of a name may block, and none is resolved for a handle
 * that knows where its last link was. */
int session_dial(struct session *s, const struct session_self *self)
    __attribute__((warn_unused_result));
/* 0 connected, -EAGAIN not yet. */
int session_dialled(struct session *s) __attribute__((warn_unused_result));
/* Back to CONNECT with fresh connections: the last are not answered, and redial_at has come. */
void session_redial(struct session *s);
/* Waits until the socket is ready, or the deadline is near. -ETIMEDOUT. */
int session_await(struct session *s, short events) __attribute__((warn_unused_result));
int session_send(struct session *s, enum ctl_type type, const uint8_t *body, uint32_t len)
    __attribute__((warn_unused_result));
/* Reads what is there. 1; 0: nothing now; -EPIPE. */
int session_fill(struct session *s) __attribute__((warn_unused_result));
/* The next frame, opened, into s->frame. As ctl_reader_next(). */
int session_frame(struct session *s) __attribute__((warn_unused_result));
/* The next frame, which must be of this type. -EAGAIN: it has not come yet. */
int session_expect(struct session *s, enum ctl_type type) __attribute__((warn_unused_result));

/* ---- session_admin.c ---- */

void session_drop_replies(struct session *s);

#endif

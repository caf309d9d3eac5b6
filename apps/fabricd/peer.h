/* SPDX-License-Identifier: MIT
 *
 * peer.h - one remote peer's state machine, between gate.c (who is let in, data connections, the
 * loop) and peer.c (what a peer says on its control connection, and its end). Nobody else includes
 * it.
 *
 *   HELLO -> PROOF -> OFFER -> TICKET -> UP        a producer or worker
 *   HELLO -> PROOF -> TOOL                         who asks for status only
 */
#ifndef FABRICD_PEER_H
#define FABRICD_PEER_H

#include "apps/fabricd/gate.h"
#include "apps/fabricd/link.h"
#include "apps/fabricd/pulse.h"
#include "apps/fabricd/refuse.h"
#include "apps/fabricd/rtt.h"
#include "core/log.h"
#include "transport/control.h"

enum stage {
    STAGE_HELLO,
    STAGE_PROOF,
    STAGE_OFFER,
    STAGE_TICKET,
    STAGE_JOINING,
    STAGE_UP,
    STAGE_TOOL
};

struct peer {
    struct peer *next, *prev;
    struct gate *g;
    struct loop_src src;
    int fd;
    uint32_t site; /* where it came to */
    enum stage stage;
    uint64_t since_ns;
    char from[80];
    struct ctl_handshake hs;
    struct ctl_hello hello;
    enum ctl_security security;
    struct ctl_seals seals;
    uint8_t ticket[CTL_TICKET];
    uint32_t incarnation;
    uint8_t *out; /* bytes that the socket did not take yet */
    size_t out_len, out_at;
    struct carrier *carrier;
    enum lane_mode mode;
    struct identity who;
    enum link_session session;
    struct link *link;
    struct lane *lane;
    struct tr_ep *ep;
    bool bye;
    bool settling; /* gate_idle() has sent it a message behind all others */
    struct pulse pulse;
    struct rtt rtt;
    enum seg_refusal refusal; /* if it is sent away before it has proved the key */
    struct ctl_reader in; /* last: of its pages an idle peer uses the first */
};

struct gate {
    struct daemon *d;
    struct listeners listen;
    struct peer *peers;
    uint32_t strangers, links;
    uint32_t up; /* peers with lanes */
    uint8_t key[32];
    bool refusing;
    bool moved; /* since the last look at the links' pulse */
    uint64_t looked_ns, look_ns; /* the last look, and when the next is due whatever happens */
    struct log_limit limit;
    struct refusals refused;
    struct ctl_frame frame;
};

/* It has not proved the key yet. */
static inline bool peer_is_stranger(const struct peer *p)
{
    return p->stage < STAGE_OFFER;
}

/* Ends and frees it; why is logged, NULL: it left as it should. */
void peer_close(struct peer *p, const char *why);
/* Tells it that the segment ends, so that it does not wait for a fabricd that takes it over. */
void peer_bye(struct peer *p);
/* Logs the tasks that were refused and that nobody waits for. */
void peer_tell_refused(struct peer *p);
/* Asks whether it is there, and its beat thread to look at the lane. */
void peer_ping(struct peer *p, const struct pulse_conf *c);
/* Says why, as well as it can be said; returns error for the caller to close with. */
int peer_refuse(struct peer *p, int error, const char *text) __attribute__((warn_unused_result));
/* Sends a frame, now or when the socket takes it. < 0: close. */
int peer_send(struct peer *p, enum ctl_type type, const uint8_t *body, uint32_t len)
    __attribute__((warn_unused_result));
/* admin.c: a CTL_ADMIN frame is run and answered. < 0: close. */
int peer_admin(struct peer *p, const struct ctl_frame *f) __attribute__((warn_unused_result));
/* Its socket is readable or writable. */
void peer_on_socket(struct loop_src *src, int result);

#endif

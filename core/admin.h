/* SPDX-License-Identifier: MIT
 *
 * admin.h - what an administrator asks of a fabric: queues (queue.h), dead letters (dead.h).
 *
 * One request, one reply, the same for local and remote: a local handle runs it on its segment, a
 * remote one sends it to fabricd (CTL_ADMIN), which runs it for the peer. So everything in a request
 * may come from a peer, and is checked where it is used.
 *
 * Threads: any. Nothing waits. Failure: -errno with a message; nothing has been changed then.
 */
#ifndef FABRIC_ADMIN_H
#define FABRIC_ADMIN_H

#include "core/segment.h"
#include "core/wake.h"

enum admin_op {
    ADMIN_QUEUE_SET = 1, /* queue; arg: enum queue_control */
    ADMIN_QUEUE_INFO,    /* queue -> number[]: state, ready, delayed, leased */
    ADMIN_DEAD_LIST,     /* queue -> text */
    ADMIN_DEAD_SHOW,     /* arg: id -> text */
    ADMIN_DEAD_KICK,     /* arg: id, or 0: all of the queue -> number[0]: how many */
    ADMIN_DEAD_PURGE,    /* the same */
    ADMIN_OPS
};

struct admin_request {
    uint32_t op, queue;
    uint64_t arg;
};

#define ADMIN_NUMBERS 4

struct admin_reply {
    uint64_t number[ADMIN_NUMBERS];
    char *text; /* malloc'ed, NULL when there is none */
};

/* Runs a request on a segment. me: the participant on whose behalf. The caller frees the text. */
int admin_run(const struct segment *s, const struct wake_out *out, uint32_t me,
              const struct admin_request *q, struct admin_reply *r)
    __attribute__((warn_unused_result));

#endif

/* SPDX-License-Identifier: MIT
 *
 * big.h - payloads larger than a lane cell: cut into DATA records on one side, put together on the
 * other.
 *
 * One transfer at a time in each direction of a lane; further ones queue up. Small records are not
 * held up: they go into the same batches before the parts do.
 *
 * Memory: the receiver allocates a transfer's whole length once, after checking it against its
 * limit; one over the limit is counted through to its end and not kept. The sender's bytes are the
 * caller's, or given to the queue to be freed.
 *
 * Threads: the lane's thread.
 */
#ifndef FABRIC_BIG_H
#define FABRIC_BIG_H

#include "transport/lane.h"
#include "transport/record.h"

/* One outgoing transfer. */
struct big_out {
    struct big_out *next;
    struct record head; /* flags has REC_BIG, payload is NULL */
    const uint8_t *data;
    void *owned; /* freed at the end; NULL: the caller's */
    uint32_t off;
    bool announced;
};

struct big_queue {
    struct big_out *first, *last;
    uint32_t n;
};

/* Queues r (payload r->len bytes at data). owned is freed when it is out, or on failure. -ENOMEM.
 */
int big_send(struct big_queue *q, const struct record *r, const uint8_t *data, void *owned)
    __attribute__((warn_unused_result));
/* Puts as much of the queue into the lane as it takes now. Returns the bytes put, < 0: the lane is
 * closed. */
long big_pump(struct big_queue *q, struct lane *lane) __attribute__((warn_unused_result));
void big_drop(struct big_queue *q);

/* The incoming transfer. Zeroed at the start. Its memory is room()'s; where that is NULL, or has none,
 * malloc()'s. What room() gave is unroom()'s to take back. */
struct big_in {
    uint8_t *(*room)(void *owner, const struct record *head);
    void (*unroom)(void *owner, uint8_t *data);
    void *owner;
    bool active;
    bool over;          /* longer than the limit: there are no bytes */
    struct record head; /* as announced */
    uint8_t *data;
    uint32_t got;
};

/* Feeds a REC_BIG record or a DATA record. 1: the transfer is complete (in->head, in->over; call
 * big_take); 0: more to come; -EPROTO, -ENOMEM. */
int big_feed(struct big_in *in, const struct record *r, uint64_t limit)
    __attribute__((warn_unused_result));
/* Hands over the completed transfer's bytes (to be freed as they were made; NULL when it was over the limit) and
 * makes room for the next. */
uint8_t *big_take(struct big_in *in);
void big_in_drop(struct big_in *in);

#endif

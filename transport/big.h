/* SPDX-License-Identifier: MIT
 *
 * big.h - payloads larger than a lane cell: cut into DATA records on one side, put together on the
 * other.
 *
 * Or, from fabricd to a handle where the transport can (lane_is_direct()), written straight into the
 * handle's memory, piece by piece out of the segment: no copies, and pieces larger than a cell. The other
 * way round, where a payload is longer than the lane, fabricd reads it in such pieces out of the memory
 * that the handle offers, straight into the segment: so the handle needs no key to fabricd's memory.
 *
 * One transfer at a time in each direction of a lane; further ones queue up (those to be written are
 * announced ahead, so that nobody waits for CLEAR). Small records are not
 * held up: they go into the same batches before the parts do.
 *
 * Memory: the receiver allocates a transfer's whole length once, after checking it against its
 * limit; one over the limit is counted through to its end, or not read, and not kept. The sender's bytes
 * are the caller's, or given to the queue to be freed.
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
    uint32_t told; /* DIRECT: of these bytes the handle was told that they are there */
    bool announced;
    /* WAITS: for CLEAR; OFFERS: to be offered; OFFERED: waits for READ */
    enum { BIG_RECORDS, BIG_WAITS, BIG_DIRECT, BIG_OFFERS, BIG_OFFERED } how;
    struct tr_remote to;
    struct lane_offer offer; /* OFFERED */
};
/* Transfers announced at once. */
#define BIG_ANNOUNCED 4u

struct big_queue {
    struct big_out *first, *last;
    uint32_t n;
    uint32_t direct; /* payloads of so many bytes or more are offered for writing; 0: none */
    uint32_t offer;  /* the same of reading (a handle's queue has this, fabricd's the other) */
};

/* Queues r (payload r->len bytes at data). owned is freed when it is out, or on failure. -ENOMEM.
 */
int big_send(struct big_queue *q, const struct record *r, const uint8_t *data, void *owned)
    __attribute__((warn_unused_result));
/* Puts as much of the queue into the lane as it takes now. Returns the bytes put, < 0: the lane is
 * closed. */
long big_pump(struct big_queue *q, struct lane *lane) __attribute__((warn_unused_result));
/* The transport is done with the last of its bytes (and big_pump() has not been called since). */
static inline bool big_is_out(const struct big_out *b, const struct lane *lane)
{
    return b->off == b->head.len && lane_writes(lane) == 0;
}
/* CLEAR came. -EPROTO: for nothing that was announced. */
int big_cleared(struct big_queue *q, const struct record *r) __attribute__((warn_unused_result));
/* READ came, of all bytes or of some. -EPROTO: for nothing that was offered. */
int big_was_read(struct big_queue *q, const struct record *r) __attribute__((warn_unused_result));
/* The first transfer is being read, or will be soon. */
static inline bool big_is_offered(const struct big_queue *q)
{
    return q->first && q->first->how == BIG_OFFERED;
}
/* Nothing may be read any more. Before the lane's domain is closed; big_drop() comes after it. */
void big_conceal(struct big_queue *q);
/* The payload of CLEAR, and of OFFER. */
#define BIG_CLEAR_LEN 24u
void big_put_clear(uint8_t to[BIG_CLEAR_LEN], const struct tr_remote *at);
void big_drop(struct big_queue *q);

/* The incoming transfer. Zeroed at the start. Its memory is room()'s; where that is NULL, or has none,
 * malloc()'s. What room() gave is unroom()'s to take back. */
struct big_in {
    uint8_t *(*room)(void *owner, const struct record *head);
    void (*unroom)(void *owner, uint8_t *data);
    void *owner;
    bool active;
    bool exposed;       /* the peer may write into data */
    bool offered;       /* it is read out of `from`, of which `asked` bytes have been asked for */
    bool over;          /* longer than the limit: there are no bytes */
    struct record head; /* as announced */
    uint8_t *data;
    uint32_t got, asked;
    uint32_t told; /* of what is offered: of so many bytes the peer was told that they were read */
    struct tr_remote from;
};

/* Feeds a REC_BIG record or a DATA record. 1: the transfer is complete (in->head, in->over; call
 * big_take); 0: more to come; -EPROTO, -ENOMEM. */
int big_feed(struct big_in *in, const struct record *r, uint64_t limit)
    __attribute__((warn_unused_result));
/* OFFER came: DATA does not follow, unless in->offered is set to false again. -EPROTO. */
int big_on_offer(struct big_in *in, const struct record *r) __attribute__((warn_unused_result));
/* Reads on what is offered. 1: the bytes are here (or there are none: in->over); 0: not yet; < 0: the lane is
 * closed. */
int big_pull(struct big_in *in, struct lane *lane) __attribute__((warn_unused_result));
/* Hands over the completed transfer's bytes (to be freed as they were made; NULL when it was over the limit) and
 * makes room for the next. */
uint8_t *big_take(struct big_in *in);
/* The endpoint has been freed if something was being read. */
void big_in_drop(struct big_in *in);

#endif

/* SPDX-License-Identifier: MIT
 *
 * link_parts.h - between the files of a link: link.c (the link itself), link_producer.c and
 * link_worker.c (its two halves). Nobody else includes it.
 */
#ifndef FABRICD_LINK_PARTS_H
#define FABRICD_LINK_PARTS_H

#include "apps/fabricd/link.h"

#define LINK_NONE UINT32_MAX
#define LINK_DONE_MAX 32u
/* Large arguments on their way at once: the next is ready when the one before it is out. */
#define LINK_BIG_AHEAD 2u
#define LINK_PENDING_BYTES_MAX (16u << 20)

/* ---- link.c: putting records into the lane ---- */

/* 1: in the batch; 0: no room now; < 0: closed. */
int link_put(struct link *k, const struct record *r) __attribute__((warn_unused_result));
/* The same with a payload of any length; a large one is sent out of `data` bit by bit. */
int link_put_any(struct link *k, struct record *r, const void *data)
    __attribute__((warn_unused_result));
/* A large payload: a block of the segment's, or malloc()'s. */
void link_free(struct link *k, const void *data);
/* The same bytes in memory of ours, data freed; NULL: no memory, and data is as it was. What waits for
 * room must not take it away from those it waits for. */
uint8_t *link_unblock(struct link *k, uint8_t *data, uint32_t len);
/* An outcome, or a lease's argument, is still being sent out of the segment. */
bool link_still_leaving(const struct link *k, uint8_t type, uint64_t ref);
/* The error for a payload that never fits this fabric. */
int link_too_large(const struct link *k, uint32_t len);

/* ---- link_producer.c: a remote producer's tasks ---- */

int producer_open(struct link *k) __attribute__((warn_unused_result));
/* The link goes over to another connection: its tasks are those in slots, and none of them is answered. */
void producer_move(struct link *k);
void producer_close(struct link *k);
/* SUBMIT (own: its payload when it came as a large one, taken over), CANCEL, TERMS. */
int producer_on_submit(struct link *k, const struct record *r, uint8_t *own)
    __attribute__((warn_unused_result));
int producer_on_cancel(struct link *k, const struct record *r) __attribute__((warn_unused_result));
int producer_on_terms(struct link *k, const struct record *r) __attribute__((warn_unused_result));
/* Places what waits for room; sends outcomes. Each returns how many, < 0: the link must be closed.
 */
long producer_place(struct link *k) __attribute__((warn_unused_result));
long producer_send(struct link *k) __attribute__((warn_unused_result));

/* TAKEN. */
int producer_on_taken(struct link *k, const struct record *r) __attribute__((warn_unused_result));

/* ---- resume.c: which tasks both sides of a session know, after a new link ---- */

/* The tasks that the handle below has taken up go into the link's table, and the exchange begins. */
void resume_open(struct link *k, bool resumed);
/* The link goes over to another connection, and the exchange begins; see link_move(). */
enum link_session resume_move(struct link *k);
/* RESUME, of a producer's tasks or a worker's leases. */
int resume_on_list(struct link *k, const struct record *r) __attribute__((warn_unused_result));
/* UNKNOWN or KEPT, as far as there is room; returns how many. */
long resume_send(struct link *k) __attribute__((warn_unused_result));

/* ---- link_worker.c: a remote worker's leases ---- */

/* WANT; DONE and RELEASE. */
int worker_on_want(struct link *k, const struct record *r) __attribute__((warn_unused_result));
int worker_on_done(struct link *k, const struct record *r, const void *data)
    __attribute__((warn_unused_result));
/* Results of 8 bytes, the common ones, are gathered and completed many at once. What was gathered must be
 * settled before any other record is looked at, and before the batch that is read is released. */
struct worker_done {
    uint32_t n;
    struct fab_lease lease[LINK_DONE_MAX];
    struct fab_result result[LINK_DONE_MAX];
    uint64_t bytes[LINK_DONE_MAX], ran[LINK_DONE_MAX]; /* ran: ticks, UINT64_MAX: not told */
};
/* 1: it was gathered; 0: it is no such record. */
int worker_gather(struct link *k, struct worker_done *d, const struct record *r) __attribute__((warn_unused_result));
int worker_settle(struct link *k, struct worker_done *d) __attribute__((warn_unused_result));
/* The end of the lease ref will be read soon. */
void worker_prefetch(const struct link *k, uint64_t ref);
/* Claims and sends as much as is wanted; returns how many. */
long worker_send(struct link *k) __attribute__((warn_unused_result));
/* More may be claimed: it is wanted, no recall and no lone lease is out, and not too many large ones are on their way.
 * What changes that comes as an event of the lane. */
bool worker_claims(const struct link *k);
/* ECHO: back as it is, unless there is no room. */
int worker_on_echo(struct link *k, const struct record *r) __attribute__((warn_unused_result));
/* RESUME of a moved link: the peer has the lease that ref names. False: it is not its own any more. */
bool worker_on_named(struct link *k, uint64_t ref);
/* All are named: the others never arrived, or their end was lost; they go to others. */
void worker_drop_unnamed(struct link *k);
/* What goes alone goes after the others, and before them: nothing is sent until the peer has ended what
 * it holds. */
bool worker_waits(const struct link *k);
/* What never left was never started: it is released and does not count as a crash. */
void worker_let_go(struct link *k);
void worker_close(struct link *k);

#endif

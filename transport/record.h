/* SPDX-License-Identifier: MIT
 *
 * record.h - what travels in a lane: tasks, leases, results.
 *
 * A batch is records one after another, each a 16-byte head, for some types 8
 * bytes more (the kernel), then `len` payload bytes padded to 8. All
 * little-endian. Pure functions over bytes; no allocation, no I/O.
 *
 *   to the daemon                          to the peer
 *   SUBMIT  ref, queue, priority, kernel   OUTCOME ref, status, attempts
 *   CANCEL  ref                            LEASE   ref, queue, priority, attempts, kernel
 *   TAKEN   refs                           PLACED  ref
 *   RESUME  refs                           UNKNOWN refs
 *                                          KEPT    ref, kernel, tag
 *   TERMS   ref, of the SUBMIT to come     TERMS   ref, of the LEASE to come: what is left of its limit
 *                                          CANCEL  ref, of a LEASE
 *   CLEAR   priority, ref, where to write
 *   OFFER   ref, where to read             READ    priority, ref, len = bytes read
 *   WANT    queue, len = leases wanted
 *   DONE    ref, status, how long it ran
 *   RELEASE ref
 *                                          RECALL
 *   ECHO    ref                            ECHO    ref
 *
 * WANT's ref is the worker's time per task in ns, 0: unknown. RECALL asks a worker to give back what it
 * has not started: WANT of 0 comes first, a RELEASE for each, and no lease is sent between a RECALL and
 * the next WANT. An ECHO comes back as it is: the round trip.
 *
 * A SUBMIT with REC_TAGGED carries the user's tag behind the kernel (handles with a client id: the
 * tag must outlive them). TAKEN says that the outcomes of these tasks have been taken by the user; so
 * does a SUBMIT with the place (the low half) of such a task's ref. PLACED says that a large argument
 * lies in the segment, so that the producer need not keep it.
 *
 * After a new link for an old session (control.h), first of all in each direction:
 *   resumed    RESUME.. the refs whose outcome has not arrived (priority 0), or has arrived and was
 *              not taken (priority 1); answered by UNKNOWN.., those of the first that fabricd does
 *              not have, to be submitted again
 *   taken up   KEPT.., each task that the session has, under a ref that fabricd chose
 *   moved      what resumed has, of a handle that produces; then (RESUME of priority REC_LEASES) the refs
 *              of the leases that it holds, or has ended without knowing whether that was heard; answered
 *              by UNKNOWN.. (the same), those that are not its own any more. Leases not named are given
 *              back. The ends of the others are said again.
 * The last record of all has REC_LAST set; RESUME, UNKNOWN: payload is refs of 8 bytes; KEPT:
 * the tag, and the last one has none and is no task.
 *
 * A payload over what one batch holds is announced by a record with REC_BIG set, whose len is
 * the whole length and which carries no payload, and follows in DATA records of the same ref,
 * in order; one such transfer at a time in each direction, small records may stand between its
 * parts.
 *
 * A LEASE or OUTCOME with REC_BIG and REC_DIRECT may be written straight into the handle's memory: it
 * answers CLEAR (priority: the type of the record it answers; payload: address, key, length; no
 * payload: no, as above), and DATA records with REC_BIG follow the writes: len bytes more are there.
 * A few such transfers may be announced at once; DATA's priority is the type of what it belongs to.
 * (Only this way round: a peer gets no key to memory of fabricd's but its lane.)
 *
 * The other way fabricd reads: OFFER (payload as CLEAR's) may follow a SUBMIT or DONE with REC_BIG in place of
 * DATA. READ (priority: the type of that record) says how many bytes fabricd has, now and then, and when
 * it has all, before anything else is said of the task; its len is 0 when fabricd can't read: DATA follows
 * then.
 *
 * ref is the number of whoever made it (a submit's is the producer's, a lease's the daemon's),
 * opaque to the other side.
 *
 * Trust: rec_next() checks that a record lies within its batch and that its type is known;
 * everything else (refs, queues, lengths over limits) is for the reader to check.
 */
#ifndef FABRIC_RECORD_H
#define FABRIC_RECORD_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "core/fabric.h"

enum rec_type {
    REC_SUBMIT = 1,
    REC_OUTCOME,
    REC_LEASE,
    REC_DONE,
    REC_RELEASE,
    REC_WANT,
    REC_CANCEL,
    REC_DATA,
    REC_TERMS,
    REC_TAKEN,
    REC_PLACED,
    REC_RESUME,
    REC_UNKNOWN,
    REC_KEPT,
    REC_CLEAR,
    REC_RECALL,
    REC_ECHO,
    REC_OFFER,
    REC_READ,
    REC_TYPE_MAX
};

/* Arguments over this are told of by PLACED. */
#define REC_PLACED_MIN 4096u

#define REC_NO_WAIT 1u /* SUBMIT: no outcome is wanted */
#define REC_BIG     2u
#define REC_WAITING 4u /* CANCEL: only a task that nobody has started */
#define REC_TAGGED  4u /* SUBMIT */
#define REC_DIRECT  4u /* LEASE, OUTCOME, with REC_BIG */
#define REC_LAST    4u /* RESUME, UNKNOWN, KEPT */

/* The priority of a RESUME or UNKNOWN whose refs are leases'. */
#define REC_LEASES 2u

#define REC_HEAD   16u
#define REC_KERNEL 8u
#define REC_TAG    8u
/* Bytes of a small record with len payload bytes. */
#define REC_PAD(len) (((uint32_t)(len) + 7u) & ~7u)

struct record {
    uint8_t type; /* enum rec_type */
    uint8_t flags;
    uint8_t queue;
    uint8_t priority;  /* SUBMIT, LEASE; RESUME: see above; in OUTCOME and DONE the status (enum fab_status;
                        * DONE with FAB_DEAD: its kernel crashed, the daemon counts) */
    uint16_t attempts; /* LEASE, OUTCOME; 255 stands for more. DONE: how long it ran, rec_time() */
    uint32_t len;      /* payload, or with REC_BIG the whole length, or for WANT the number */
    uint64_t ref;
    uint64_t kernel;        /* SUBMIT, LEASE, KEPT */
    uint64_t tag;           /* SUBMIT with REC_TAGGED */
    const uint8_t *payload; /* NULL with REC_BIG and for types without one */
};

static inline bool rec_has_kernel(uint8_t type)
{
    return type == REC_SUBMIT || type == REC_LEASE || type == REC_KEPT;
}
static inline bool rec_has_tag(const struct record *r)
{
    return r->type == REC_SUBMIT && (r->flags & REC_TAGGED);
}

/* Bytes that rec_put() will write. */
static inline uint32_t rec_size(const struct record *r)
{
    uint32_t n = REC_HEAD + (rec_has_kernel(r->type) ? REC_KERNEL : 0) +
                 (rec_has_tag(r) ? REC_TAG : 0);
    return r->payload ? n + REC_PAD(r->len) : n;
}

/* The i-th of the refs that are r's payload (little-endian), and how many there are; what is over a
 * multiple of 8 bytes is no ref. */
uint64_t rec_ref_at(const struct record *r, uint32_t i);
static inline uint32_t rec_refs(const struct record *r)
{
    return r->payload ? r->len / 8 : 0;
}

/* A time in a byte, at most a sixteenth wrong, or 16 ns; 0: nothing is told, or it is over half a minute. */
uint8_t rec_time(uint64_t ns);
uint64_t rec_time_ns(uint8_t code);

/* The payload of TERMS. */
#define REC_TERMS_LEN 56u
void rec_put_terms(uint8_t to[REC_TERMS_LEN], const struct fab_terms *t);
/* -EPROTO: not the payload of TERMS. */
int rec_get_terms(const struct record *r, struct fab_terms *t) __attribute__((warn_unused_result));

/* rec_put(), rec_next() for all records. */
void rec_put_any(uint8_t *to, const struct record *r);
int rec_next_any(const uint8_t *batch, uint32_t len, uint32_t *at, struct record *r)
    __attribute__((warn_unused_result));

/* The first word: {type:5 flags:3 queue:8 priority:8 attempts:8}. */
static inline uint32_t rec_word(const struct record *r)
{
    uint32_t attempts = r->attempts < 255 ? r->attempts : 255;
    return (uint32_t)(r->type & 31) | (uint32_t)(r->flags & 7) << 5 | (uint32_t)r->queue << 8 |
           (uint32_t)r->priority << 16 | attempts << 24;
}

/* Leases with an argument of 8 bytes and results of 8 bytes are what a busy link carries: they are written
 * and read in line, in half the instructions. */
static inline bool rec_is_eight(uint8_t type, uint8_t flags, uint32_t len)
{
    return (type == REC_DONE || type == REC_LEASE) && flags == 0 && len == 8;
}

/* Writes r at `to` (8-byte aligned, rec_size(r) bytes). */
static inline void rec_put(uint8_t *to, const struct record *r)
{
    if (!rec_is_eight(r->type, r->flags, r->len) || !r->payload) {
        rec_put_any(to, r);
        return;
    }
    uint64_t head = htole64((uint64_t)rec_word(r) | (uint64_t)8 << 32), ref = htole64(r->ref),
             kernel = htole64(r->kernel);
    memcpy(to, &head, 8);
    memcpy(to + 8, &ref, 8);
    if (r->type == REC_LEASE) {
        memcpy(to + REC_HEAD, &kernel, 8);
        to += REC_KERNEL;
    }
    memcpy(to + REC_HEAD, r->payload, 8);
}

/* Reads the record at *at, advances *at. 1: there; 0: the batch is at its end; -EPROTO: it makes no
 * sense. Payload points into the batch. */
__attribute__((warn_unused_result)) static inline int rec_next(const uint8_t *batch, uint32_t len,
                                                               uint32_t *at, struct record *r)
{
    const uint8_t *p = batch + *at;
    uint64_t head, ref, kernel = 0;
    if (len - *at < REC_HEAD + REC_KERNEL + 8) /* room for either */
        return rec_next_any(batch, len, at, r);
    memcpy(&head, p, 8); /* read once: it may lie where the peer can write */
    memcpy(&ref, p + 8, 8);
    head = le64toh(head);
    if (!rec_is_eight(head & 31, head >> 5 & 7, (uint32_t)(head >> 32)))
        return rec_next_any(batch, len, at, r);
    p += REC_HEAD;
    if ((head & 31) == REC_LEASE) {
        memcpy(&kernel, p, 8);
        p += REC_KERNEL;
    }
    *r = (struct record){.type = head & 31,
                         .queue = (uint8_t)(head >> 8),
                         .priority = (uint8_t)(head >> 16),
                         .attempts = (uint8_t)(head >> 24),
                         .len = 8,
                         .ref = le64toh(ref),
                         .kernel = le64toh(kernel),
                         .payload = p};
    *at = (uint32_t)(p + 8 - batch);
    return 1;
}

#endif

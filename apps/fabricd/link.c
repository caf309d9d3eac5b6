/* SPDX-License-Identifier: MIT
 *
 * link.c - a link's records in and out, its opening and end; see link.h. What the records mean is
 * link_producer.c's and link_worker.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/link_parts.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/room.h"
#include "core/undertaker.h"

/* Batches read in one go, so that one busy peer does not hold up the others. */
#define RX_BATCHES 8
/* Records that are looked at before their turn. */
#define LOOK_AHEAD 12

/* ---- putting records into the lane ---- */

static uint32_t small_max(const struct link *k)
{
    return lane_tx_max(k->lane) - REC_HEAD - REC_KERNEL - REC_TAG;
}

int link_put(struct link *k, const struct record *r)
{
    uint32_t size = rec_size(r);
    uint8_t *room = lane_tx_room(k->lane, size);
    if (!room) {
        int rc = lane_tx_flush(k->lane);
        if (rc < 0)
            return rc == -EAGAIN ? 0 : rc;
        room = lane_tx_room(k->lane, size);
        if (!room)
            return 0;
    }
    rec_put(room, r);
    lane_tx_add(k->lane, size);
    return 1;
}

int link_put_any(struct link *k, struct record *r, const void *data)
{
    if (r->len <= small_max(k)) {
        r->payload = data;
        return link_put(k, r);
    }
    k->big_out.direct = lane_is_direct(k->lane) ? small_max(k) : 0;
    int rc = big_send(&k->big_out, r, data, NULL);
    return rc < 0 ? rc : 1;
}

bool link_still_leaving(const struct link *k, uint8_t type, uint64_t ref)
{
    for (const struct big_out *b = k->big_out.first; b; b = b->next)
        if (b->head.type == type && b->head.ref == ref)
            return !big_is_out(b, k->lane);
    return false;
}

/* Large payloads come straight into the segment, where they are to be: copying one of a gigabyte at
 * its end would hold up every link. When there is no room now they come into memory of ours. */
static uint8_t *link_room(void *owner, const struct record *head)
{
    struct link *k = owner;
    return local_block(k->local, head->len, head->type == REC_SUBMIT);
}

uint8_t *link_unblock(struct link *k, uint8_t *data, uint32_t len)
{
    if (!data || !local_is_block(k->local, data))
        return data;
    uint8_t *own = malloc(REC_PAD(len));
    if (own) {
        memcpy(own, data, len);
        local_block_free(k->local, data);
    }
    return own;
}

static void link_unroom(void *owner, uint8_t *data)
{
    link_free(owner, data);
}

void link_free(struct link *k, const void *data)
{
    if (data && local_is_block(k->local, data))
        local_block_free(k->local, data);
    else
        free((void *)(uintptr_t)data);
}

int link_too_large(const struct link *k, uint32_t len)
{
    return err_set(-EMSGSIZE, "%u bytes never fit this fabric, whose arena has %llu", len,
                   (unsigned long long)k->seg->arena_bytes);
}

/* ---- the link ---- */

static int on_whole(struct link *k, const struct record *r, uint8_t *own)
{
    if (r->type == REC_SUBMIT)
        return producer_on_submit(k, r, own);
    int rc = r->type == REC_DONE ? worker_on_done(k, r, own)
                                 : err_set(-EPROTO, "a large payload of no use");
    link_free(k, own);
    return rc;
}

static int take_whole(struct link *k)
{
    struct record whole = k->big_in.head;
    whole.flags &= (uint8_t)~REC_BIG;
    return on_whole(k, &whole, big_take(&k->big_in));
}

/* A large payload that the peer has offered: reads on. */
static long pull(struct link *k)
{
    struct big_in *in = &k->big_in;
    struct record said = {
        .type = REC_READ, .priority = in->head.type, .len = in->head.len, .ref = in->head.ref};
    if (!in->offered)
        return 0;
    if (!lane_is_direct(k->lane)) {
        said.len = 0;
        int rc = link_put(k, &said);
        in->offered = rc <= 0;
        return rc;
    }
    int rc = big_pull(in, k->lane);
    if (rc == 0 && in->got > in->told) { /* who waits hears that the wire is there */
        said.len = in->got;
        rc = link_put(k, &said);
        in->told = rc == 1 ? in->got : in->told;
        return rc;
    }
    if (rc == 1)
        rc = link_put(k, &said); /* before anything that follows from the bytes */
    if (rc == 1)
        rc = take_whole(k);
    else
        return rc;
    CRASH_POINT("link.pulled");
    return rc < 0 ? rc : 1;
}

static int on_record(struct link *k, const struct record *r)
{
    int rc;
    if (r->flags & REC_BIG || r->type == REC_DATA) {
        uint64_t limit = k->seg->arena_bytes < FAB_ARG_MAX ? k->seg->arena_bytes : FAB_ARG_MAX;
        rc = big_feed(&k->big_in, r, limit);
        if (rc != 1)
            return rc;
        return take_whole(k);
    }
    switch (r->type) {
    case REC_SUBMIT:
        return producer_on_submit(k, r, NULL);
    case REC_DONE:
    case REC_RELEASE:
        return worker_on_done(k, r, r->payload);
    case REC_WANT:
        return worker_on_want(k, r);
    case REC_CANCEL:
        return producer_on_cancel(k, r);
    case REC_TERMS:
        return producer_on_terms(k, r);
    case REC_TAKEN:
        return producer_on_taken(k, r);
    case REC_CLEAR:
        return big_cleared(&k->big_out, r);
    case REC_OFFER:
        return big_on_offer(&k->big_in, r);
    case REC_RESUME:
        return resume_on_list(k, r);
    case REC_ECHO:
        return worker_on_echo(k, r);
    default:
        return err_set(-EPROTO, "a record of type %u is not for this side", r->type);
    }
}

/* A batch whose first records are being read. Results far ahead of the reader have their slots fetched: each
 * was last written by another core, and a trip there takes longer than all else that a result costs. */
struct reader {
    const uint8_t *batch;
    uint32_t len, at, ahead;
};

static void look_ahead(const struct link *k, struct reader *b)
{
    struct record r;
    if (rec_next(b->batch, b->len, &b->ahead, &r) != 1)
        b->ahead = b->len; /* the end; or what makes no sense, which the reader will find */
    else if (r.type == REC_DONE)
        worker_prefetch(k, r.ref);
}

static long read_batch(struct link *k, struct reader *b)
{
    struct worker_done done;
    struct record r;
    long n = 0;
    int rc;
    done.n = 0;
    if (k->claimed)
        k->read_at = clock_ticks();
    for (int i = 0; i < LOOK_AHEAD && b->ahead < b->len; i++)
        look_ahead(k, b);
    while ((rc = rec_next(b->batch, b->len, &b->at, &r)) == 1) {
        if (b->ahead < b->len)
            look_ahead(k, b);
        rc = worker_gather(k, &done, &r);
        if (rc == 0 && (rc = worker_settle(k, &done)) == 0)
            rc = on_record(k, &r);
        if (rc < 0)
            break;
        n++;
    }
    int end = worker_settle(k, &done); /* what came before a wrong record counts */
    return rc < 0 ? rc : end < 0 ? end : n;
}

static long read_batches(struct link *k)
{
    uint32_t records;
    long n = 0;
    for (int i = 0; i < RX_BATCHES && k->pending_bytes < LINK_PENDING_BYTES_MAX; i++) {
        struct reader b = {0};
        b.batch = lane_rx_next(k->lane, &b.len, &records);
        if (!b.batch)
            break;
        if (!k->claimed) /* it is no worker, or has nothing yet */
            b.ahead = b.len;
        long got = read_batch(k, &b);
        if (got < 0)
            return got;
        n += got;
        lane_rx_release(k->lane);
    }
    if (k->pending_bytes >= LINK_PENDING_BYTES_MAX && k->big_in.data && !k->big_in.offered) {
        /* the rest of this payload has to wait, too (one that is read comes to its end) */
        uint8_t *own = link_unblock(k, k->big_in.data, k->big_in.head.len);
        if (!own)
            return err_set(-ENOMEM, "no memory for a payload that waits for room");
        k->big_in.data = own;
    }
    if (n > 0)
        k->heard_ns = clock_ns();
    return n;
}

void link_read_rest(struct link *k)
{
    while (k->lane && read_batches(k) > 0)
        ;
}

long link_work(struct link *k)
{
    long (*const steps[])(struct link *) = {read_batches, pull, producer_place, producer_send,
                                            worker_send};
    long n = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        long rc = steps[i](k);
        if (rc < 0)
            return rc;
        n += rc;
    }
    long put_bytes = big_pump(&k->big_out, k->lane);
    if (put_bytes < 0)
        return put_bytes;
    int rc = lane_tx_flush(k->lane);
    if (rc < 0 && rc != -EAGAIN)
        return rc;
    /* a batch that went at the second try has made room for what stopped before it */
    return n + (put_bytes > 0) + (rc == 1);
}

bool link_arm(struct link *k)
{
    /* What waits for lane credits is woken by the lane; what waits for room in the fabric by whoever
     * makes some (room.h). Keys that expire and shares that are counted anew are announced by nobody:
     * the daemon's timer looks for them. */
    bool waits = worker_waits(k), unsent = k->claimed_at < k->claimed_n && !waits;
    bool stuck = k->cancels > 0 || unsent || k->got_at < k->got_n ||
                 k->placed_n > 0 || lane_tx_blocked(k->lane);
    if (stuck)
        return true;
    if (k->pending_n > 0) {
        room_want_daemon(k->seg, ROOM_SLOTS); /* S1 of room.h */
        room_want_daemon(k->seg, ROOM_ARENA);
        /* S2; an error comes again in link_work(). The depth is read as S2 must be, the try isn't.
         */
        if (producer_place(k) != 0 ||
            (k->local->lack == LACK_SLOTS && ring_depth(k->seg->free_ring) > 0))
            return false;
    }
    if (k->exchange == EXCHANGE_OVER && k->local->tasks.n > 0 && !local_arm_bell(k->local))
        return false;
    if (worker_claims(k) && !local_arm_queue(k->local, k->want_queue))
        return false;
    return true;
}

void link_publish(struct link *k)
{
    struct seg_link *out = &k->local->self->link;
    struct lane_stats st;
    if (!k->lane)
        return;
    lane_stats(k->lane, &st);
    /* relaxed: numbers for people */
    at_store_rlx(&out->credits, st.credits);
    at_store_rlx(&out->window, k->want);
    at_store_rlx(&out->in_flight, k->in_flight + k->unanswered);
    at_store_rlx(&out->tx_batches, st.tx_batches);
    at_store_rlx(&out->tx_records, st.tx_records);
    at_store_rlx(&out->rx_batches, st.rx_batches);
    at_store_rlx(&out->rx_records, st.rx_records);
}

/* The places that a link's table has. */
static uint32_t window_of(const struct link_params *p, uint32_t kept)
{
    /* a handle that had a link goes on with the table it has */
    if (p->window > 0 && p->window <= p->seg->slots + p->submit_window)
        return p->window;
    return p->submit_window + kept;
}

static void publish_peer(const struct link *k, const struct link_params *p)
{
    struct seg_link *sl = &p->seg->participant[k->participant].link;
    snprintf(sl->peer, sizeof sl->peer, "%s", p->peer);
    snprintf(sl->provider, sizeof sl->provider, "%s", p->provider);
    snprintf(sl->mode, sizeof sl->mode, "%s", p->mode == LANE_WRITE ? "write" : "send");
    snprintf(sl->security, sizeof sl->security, "%s", p->encrypted ? "encrypted" : "authenticated");
}

/* The participant's entry: a new one, or that of the session. */
static int enter(struct link *k, const struct link_params *p)
{
    struct participant_info info = {.pid = p->pid,
                                    .roles = p->roles,
                                    .name = p->name,
                                    .remote = true,
                                    .identity = p->roles & FAB_PRODUCER ? p->identity : NULL};
    uint32_t reconnects = 0;
    int rc = 0;
    if (p->session != LINK_NEW) /* relaxed, here and below: a number for people */
        reconnects = at_load_rlx(&p->seg->participant[p->kept].link.reconnects) + 1;
    if (p->session == LINK_NEW)
        rc = participant_add(p->seg, &info, &k->generation);
    else
        participant_take_up(p->seg, p->kept, &info, &k->generation);
    if (rc < 0)
        return rc;
    k->participant = p->session == LINK_NEW ? (uint32_t)rc : p->kept;
    at_store_rlx(&p->seg->participant[k->participant].link.reconnects, reconnects);
    publish_peer(k, p);
    return 0;
}

/* Back as it was: nobody has been told of the link. */
static void leave(const struct link_params *p, uint32_t participant)
{
    if (p->session == LINK_NEW) {
        participant_dead(p->seg, participant);
        participant_remove(p->seg, participant);
    } else {
        participant_keep(p->seg, participant);
    }
}

int link_open(struct link **out, const struct link_params *p)
{
    struct link *k = calloc(1, sizeof *k);
    if (!k)
        return err_set(-ENOMEM, "no memory for a link");
    k->seg = p->seg;
    k->lease_window = p->lease_window;
    int rc = enter(k, p);
    if (rc < 0) {
        free(k);
        return rc;
    }
    rc = local_open(&k->local, p->seg, k->participant, k->generation, p->daemon_fd, -1, -1);
    if (rc < 0)
        goto fail;
    k->local->follow_mask = 0;
    k->ticks_per_ns = (double)p->seg->ticks_hz / 1e9;
    k->ran_ticks = UINT64_MAX; /* code 0 */
    k->big_in.room = link_room;
    k->big_in.unroom = link_unroom;
    k->big_in.owner = k;
    rc = p->session != LINK_NEW ? local_take_up(k->local) : 0;
    k->submit_window = window_of(p, p->session == LINK_TAKEN_UP ? k->local->tasks.n : 0);
    if (rc == 0)
        rc = local_link(k->local, k->submit_window);
    if (rc == 0 && (p->roles & FAB_PRODUCER))
        rc = producer_open(k);
    if (rc < 0)
        goto fail;
    if (p->session != LINK_NEW)
        resume_open(k, p->session == LINK_RESUMED);
    *out = k;
    return 0;
fail:
    if (k->local)
        k->local->base.ops->close(&k->local->base);
    leave(p, k->participant);
    free(k);
    return rc;
}

enum link_session link_move(struct link *k, const struct link_params *p)
{
    worker_let_go(k);
    big_drop(&k->big_out);
    big_in_drop(&k->big_in);
    k->lane = NULL;
    k->want = 0;
    k->recall = RECALL_NONE;
    k->deaf = false;
    if (k->task)
        producer_move(k);
    enum link_session as = resume_move(k);
    struct seg_link *sl = &k->local->self->link;
    at_store_rlx(&sl->reconnects, at_load_rlx(&sl->reconnects) + 1); /* relaxed: for people */
    publish_peer(k, p);
    return as;
}

void link_close(struct link *k, const struct wake_out *out, uint32_t me, bool crashed,
                uint64_t keep_until_ns)
{
    const struct segment *seg = k->seg;
    uint32_t participant = k->participant;
    struct undertaker_report rep;
    worker_let_go(k);
    big_drop(&k->big_out);
    big_in_drop(&k->big_in);
    worker_close(k);
    producer_close(k); /* what waits may lie in blocks of the handle's */
    k->local->base.ops->close(&k->local->base);
    free(k);
    CRASH_POINT("link.closed");
    if (keep_until_ns)
        undertaker_keep(seg, out, me, participant, crashed, keep_until_ns, &rep);
    else
        undertaker_recover(seg, out, me, participant, crashed, &rep);
}

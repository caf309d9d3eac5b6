/* SPDX-License-Identifier: MIT
 *
 * link.c - records in, records out; see link.h. The producer's half is at the top, the worker's
 * below it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/link.h"
#include "core/error.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/undertaker.h"

#define PENDING_BYTES_MAX (16u << 20)
#define NONE              UINT32_MAX
/* Batches read in one go, so that one busy peer does not hold up the others. */
#define RX_BATCHES 8

struct pending {
    struct pending *next;
    struct record rec;
    uint8_t *data; /* owned */
};

struct link_terms {
    uint64_t ref;
    struct fab_terms terms;
};

/* ---- putting records into the lane ---- */

static uint32_t small_max(const struct link *k)
{
    return lane_tx_max(k->lane) - REC_HEAD - REC_KERNEL;
}

/* 1: in the batch; 0: no room now; < 0: closed. */
static int put(struct link *k, const struct record *r)
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

/* The same with a payload of any length; a large one that must outlive `data` is copied. */
static int put_any(struct link *k, struct record *r, const void *data, bool copy)
{
    uint8_t *own = NULL;
    if (r->len <= small_max(k)) {
        r->payload = data;
        return put(k, r);
    }
    if (copy) {
        own = malloc(r->len);
        if (!own)
            return err_set(-ENOMEM, "no memory to send %u bytes", r->len);
        memcpy(own, data, r->len);
        data = own;
    }
    int rc = big_send(&k->big_out, r, data, own);
    return rc < 0 ? rc : 1;
}

/* ---- producer: SUBMIT, CANCEL in; OUTCOME out ---- */

static int send_outcome(struct link *k, const struct fab_outcome *o)
{
    struct record r = {.type = REC_OUTCOME,
                       .priority = (uint8_t)o->status,
                       .attempts = o->attempts,
                       .len = o->len,
                       .ref = o->tag};
    return put_any(k, &r, fab_data(o), true);
}

static long send_outcomes(struct link *k)
{
    long n = 0;
    for (;;) {
        while (k->got_at < k->got_n) {
            int rc = send_outcome(k, &k->got[k->got_at]);
            if (rc <= 0)
                return rc < 0 ? rc : n;
            k->got_at++;
            k->unanswered--;
            n++;
        }
        /* copied into the lane or the queue: others may wait for the memory they take */
        if (k->got_n > 0)
            local_let_go(k->local);
        k->got_n = k->got_at = 0;
        if (k->local->tasks.n == 0 || !lane_tx_room(k->lane, REC_HEAD + 8))
            return n;
        long got = local_wait_any(&k->local->base, k->got, LINK_BATCH, 0);
        if (got <= 0)
            return n;
        k->got_n = (uint32_t)got;
        k->got_at = 0;
    }
}

/* Room for the answer to one SUBMIT; to be asked before the task is placed. */
static bool answer_fits(struct link *k)
{
    if (lane_tx_room(k->lane, REC_HEAD + 256))
        return true;
    return lane_tx_flush(k->lane) == 1 && lane_tx_room(k->lane, REC_HEAD + 256);
}

/* Answers a SUBMIT at once: it has no outcome to come. answer_fits() has been asked. */
static int answer(struct link *k, uint64_t ref, enum fab_status status, const char *text)
{
    struct record r = {.type = REC_OUTCOME,
                       .priority = (uint8_t)status,
                       .len = (uint32_t)strnlen(text, 255),
                       .ref = ref,
                       .payload = (const uint8_t *)text};
    int rc = put(k, &r);
    if (rc == 1)
        k->unanswered--;
    return rc;
}

static int too_large(const struct link *k, uint32_t len)
{
    return err_set(-EMSGSIZE, "%u bytes never fit this fabric, whose arena has %llu", len,
                   (unsigned long long)k->seg->arena_bytes);
}

/* ---- terms: they come before their task ---- */

static int on_terms(struct link *k, const struct record *r)
{
    uint32_t i = (uint32_t)r->ref;
    struct fab_terms t;
    int rc = rec_get_terms(r, &t);
    if (rc < 0)
        return rc;
    if (i >= k->submit_window || !k->id)
        return err_set(-EPROTO, "terms for task %u of a window of %u", i, k->submit_window);
    if (!k->terms)
        k->terms = calloc(k->submit_window, sizeof *k->terms);
    if (k->terms && !k->terms[i])
        k->terms[i] = malloc(sizeof **k->terms);
    if (!k->terms || !k->terms[i])
        return err_set(-ENOMEM, "no memory for a task's terms");
    *k->terms[i] = (struct link_terms){r->ref, t};
    return 0;
}

static const struct fab_terms *terms_for(const struct link *k, uint64_t ref)
{
    const struct link_terms *t = k->terms ? k->terms[(uint32_t)ref] : NULL;
    return t && t->ref == ref ? &t->terms : NULL;
}

static void forget_terms(struct link *k, uint64_t ref)
{
    if (!terms_for(k, ref))
        return;
    free(k->terms[(uint32_t)ref]);
    k->terms[(uint32_t)ref] = NULL;
}

static void free_terms(struct link *k)
{
    for (uint32_t i = 0; k->terms && i < k->submit_window; i++)
        free(k->terms[i]);
    free(k->terms);
}

/* Places one task. 1: done (accepted, or answered); 0: no room in the fabric or the lane; < 0. */
static int place_once(struct link *k, const struct record *r, const void *data)
{
    struct fab_task t = {.kernel = r->kernel,
                         .arg = data,
                         .len = r->len,
                         .flags = r->flags & REC_NO_WAIT ? FAB_NO_WAIT : 0,
                         .queue = r->queue,
                         .priority = r->priority,
                         .tag = r->ref,
                         .terms = terms_for(k, r->ref)};
    fab_id id = 0;
    if (!answer_fits(k))
        return 0;
    if (r->type == REC_CANCEL) /* withdrawn while it waited here */
        return answer(k, r->ref, FAB_CANCELLED, "");
    if (!data && r->len) /* its bytes were let go by */
        return answer(k, r->ref, FAB_FAILED, err_text(too_large(k, r->len)));
    long rc = local_submit(&k->local->base, &t, 1, &id, 0);
    if (rc == -EAGAIN)
        return 0;
    if (rc < 0)
        return answer(k, r->ref, FAB_FAILED, err_text((int)rc));
    if (r->flags & REC_NO_WAIT)
        return answer(k, r->ref, FAB_COMPLETED, "");
    k->id[(uint32_t)r->ref] = id;
    return 1;
}

static int place(struct link *k, const struct record *r, const void *data)
{
    int rc = place_once(k, r, data);
    if (rc != 0)
        forget_terms(k, r->ref);
    return rc;
}

static int to_pending(struct link *k, const struct record *r, const void *data, uint8_t *own)
{
    struct pending *p = malloc(sizeof *p);
    if (p && !own && data && r->len) {
        own = malloc(REC_PAD(r->len));
        if (own)
            memcpy(own, data, r->len);
    }
    if (!p || (r->len && data && !own)) {
        free(p);
        return err_set(-ENOMEM, "no memory for a task that waits for room");
    }
    *p = (struct pending){.rec = *r, .data = own};
    if (k->pending_last)
        k->pending_last->next = p;
    else
        k->pending_first = p;
    k->pending_last = p;
    k->pending_n++;
    k->pending_bytes += own ? r->len : 0;
    return 0;
}

static void pop_pending(struct link *k)
{
    struct pending *p = k->pending_first;
    k->pending_first = p->next;
    if (!p->next)
        k->pending_last = NULL;
    k->pending_n--;
    k->pending_bytes -= p->data ? p->rec.len : 0;
    free(p->data);
    free(p);
}

static long place_pending(struct link *k)
{
    long n = 0;
    while (k->pending_first) {
        int rc = place(k, &k->pending_first->rec, k->pending_first->data);
        if (rc <= 0)
            return rc < 0 ? rc : n;
        pop_pending(k);
        n++;
    }
    return n;
}

static int on_submit(struct link *k, const struct record *r, uint8_t *own)
{
    int rc = 0;
    if (!(k->local->self->roles & FAB_PRODUCER))
        rc = err_set(-EPROTO, "a task from a peer that is no producer");
    else if ((uint32_t)r->ref >= k->submit_window || k->unanswered >= k->submit_window)
        rc = err_set(-EPROTO, "more tasks than the window of %u allows", k->submit_window);
    if (rc < 0) {
        free(own);
        return rc;
    }
    k->unanswered++;
    const void *data = own ? own : r->payload;
    if (!k->pending_first) {
        rc = place(k, r, data);
        if (rc != 0) {
            free(own);
            return rc < 0 ? rc : 0;
        }
    }
    return to_pending(k, r, data, own);
}

static int on_cancel(struct link *k, const struct record *r)
{
    uint32_t i = (uint32_t)r->ref;
    if (i >= k->submit_window)
        return err_set(-EPROTO, "a task number outside the window");
    for (struct pending *p = k->pending_first; p; p = p->next) {
        if (p->rec.ref == r->ref) {
            p->rec.type = REC_CANCEL; /* place() answers it */
            return 0;
        }
    }
    /* started or answered already: its outcome tells */
    (void)!local_cancel(&k->local->base, k->id[i]);
    return 0;
}

/* ---- worker: WANT, DONE, RELEASE in; LEASE out ---- */

static struct link_lease *lease_of(struct link *k, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    if (!k->lease || i >= k->lease_window || k->lease[i].generation != (uint32_t)(ref >> 32) ||
        !(k->lease[i].generation & 1))
        return NULL;
    return &k->lease[i];
}

static int make_leases(struct link *k)
{
    k->lease = calloc(k->lease_window, sizeof *k->lease);
    if (!k->lease)
        return err_set(-ENOMEM, "no memory for %u leases", k->lease_window);
    for (uint32_t i = 0; i < k->lease_window; i++)
        k->lease[i].next = i + 1 < k->lease_window ? i + 1 : NONE;
    k->lease_free = 0;
    return 0;
}

static int on_want(struct link *k, const struct record *r)
{
    if (!(k->local->self->roles & FAB_WORKER))
        return err_set(-EPROTO, "a peer that is no worker wants leases");
    if (r->queue >= k->seg->queues)
        return err_set(-EPROTO, "queue %u: the fabric has %u", r->queue, k->seg->queues);
    k->want = r->len < k->lease_window ? r->len : k->lease_window;
    k->want_queue = r->queue;
    return k->lease ? 0 : make_leases(k);
}

static void end_lease(struct link *k, struct link_lease *own)
{
    own->generation++; /* even: free */
    own->next = k->lease_free;
    k->lease_free = (uint32_t)(own - k->lease);
    k->in_flight--;
}

/* Its argument is still being sent, out of the segment: its end now would leave that to others. */
static bool still_leaving(const struct link *k, uint64_t ref)
{
    for (const struct big_out *b = k->big_out.first; b; b = b->next)
        if (b->head.type == REC_LEASE && b->head.ref == ref)
            return true;
    return false;
}

static int on_done(struct link *k, const struct record *r, const void *data)
{
    struct link_lease *own = lease_of(k, r->ref);
    char text[256];
    int rc;
    if (!own || still_leaving(k, r->ref))
        return err_set(-EPROTO, "a result for a lease this peer does not hold");
    struct fab_lease l = {.ref = {own->ref[0], own->ref[1]}, .queue = own->queue};
    if (r->type == REC_RELEASE) {
        rc = local_release(&k->local->base, &l);
    } else if (!data && r->len) {
        rc = local_fail(&k->local->base, &l, err_text(too_large(k, r->len)));
    } else if (r->priority == FAB_COMPLETED) {
        rc = local_complete(&k->local->base, &l, data, r->len);
        if (rc == -ENOSPC || rc == -EMSGSIZE) /* the sentence says what does not fit */
            rc = local_fail(&k->local->base, &l, err_text(rc));
    } else {
        snprintf(text, sizeof text, "%.*s", (int)(r->len < 255 ? r->len : 255), (const char *)data);
        rc = local_fail(&k->local->base, &l, text);
    }
    end_lease(k, own);
    return rc == -ESTALE ? 0 : rc; /* late: dropped and counted */
}

static int send_lease(struct link *k, const struct fab_lease *l)
{
    struct link_lease *own = &k->lease[k->lease_free];
    uint64_t ref = (uint64_t)(own->generation + 1) << 32 | k->lease_free;
    struct record r = {.type = REC_LEASE,
                       .queue = l->queue,
                       .priority = l->priority,
                       .attempts = l->attempt,
                       .len = l->len,
                       .ref = ref,
                       .kernel = l->kernel};
    /* A large argument stays where it is in the segment while its lease is held: sent from there.
     */
    int rc = put_any(k, &r, fab_arg(l), false);
    if (rc <= 0)
        return rc;
    k->lease_free = own->next;
    own->generation++;
    own->ref[0] = l->ref[0];
    own->ref[1] = l->ref[1];
    own->queue = l->queue;
    return 1;
}

static long send_leases(struct link *k)
{
    long n = 0;
    for (;;) {
        while (k->claimed_at < k->claimed_n) {
            int rc = send_lease(k, &k->claimed[k->claimed_at]);
            if (rc <= 0)
                return rc < 0 ? rc : n;
            k->claimed_at++;
            n++;
        }
        /* Claim only what can go out at once: a task that waits here could be run elsewhere. */
        if (k->in_flight >= k->want || k->big_out.first ||
            (!lane_tx_room(k->lane, 128) &&
             (lane_tx_flush(k->lane) != 1 || !lane_tx_room(k->lane, 128))))
            return n;
        uint32_t max = k->want - k->in_flight < LINK_BATCH ? k->want - k->in_flight : LINK_BATCH;
        long got = local_claim(&k->local->base, k->want_queue, k->claimed, max, 0);
        if (got <= 0)
            return n;
        k->claimed_n = (uint32_t)got;
        k->claimed_at = 0;
        k->in_flight += (uint32_t)got;
    }
}

/* ---- the link ---- */

static int on_whole(struct link *k, const struct record *r, uint8_t *own)
{
    if (r->type == REC_SUBMIT)
        return on_submit(k, r, own);
    int rc =
        r->type == REC_DONE ? on_done(k, r, own) : err_set(-EPROTO, "a large payload of no use");
    free(own);
    return rc;
}

static int on_record(struct link *k, const struct record *r)
{
    int rc;
    if (r->flags & REC_BIG || r->type == REC_DATA) {
        uint64_t limit = k->seg->arena_bytes < FAB_ARG_MAX ? k->seg->arena_bytes : FAB_ARG_MAX;
        rc = big_feed(&k->big_in, r, limit);
        if (rc != 1)
            return rc;
        struct record whole = k->big_in.head;
        whole.flags &= (uint8_t)~REC_BIG;
        return on_whole(k, &whole, big_take(&k->big_in));
    }
    switch (r->type) {
    case REC_SUBMIT:
        return on_submit(k, r, NULL);
    case REC_DONE:
    case REC_RELEASE:
        return on_done(k, r, r->payload);
    case REC_WANT:
        return on_want(k, r);
    case REC_CANCEL:
        return on_cancel(k, r);
    case REC_TERMS:
        return on_terms(k, r);
    default:
        return err_set(-EPROTO, "a record of type %u is not for this side", r->type);
    }
}

static long read_batches(struct link *k)
{
    uint32_t len, records;
    const uint8_t *batch;
    long n = 0;
    int rc;
    for (int i = 0; i < RX_BATCHES && k->pending_bytes < PENDING_BYTES_MAX; i++) {
        struct record r;
        uint32_t at = 0;
        batch = lane_rx_next(k->lane, &len, &records);
        if (!batch)
            break;
        while ((rc = rec_next(batch, len, &at, &r)) == 1) {
            rc = on_record(k, &r);
            if (rc < 0)
                return rc;
            n++;
        }
        if (rc < 0)
            return rc;
        lane_rx_release(k->lane);
    }
    return n;
}

void link_read_rest(struct link *k)
{
    while (k->lane && read_batches(k) > 0)
        ;
}

long link_work(struct link *k)
{
    long (*const steps[])(struct link *) = {read_batches, place_pending, send_outcomes,
                                            send_leases};
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
    /* What waits for lane credits or for room in the fabric is woken by the lane, or by our own
     * outcomes; room made by others is looked for by the daemon's timer. */
    bool stuck = k->claimed_at < k->claimed_n || k->got_at < k->got_n || k->big_out.first ||
                 lane_tx_blocked(k->lane);
    if (stuck)
        return true;
    if (k->local->tasks.n > 0 && !local_arm_bell(k->local))
        return false;
    if (k->in_flight < k->want && !local_arm_queue(k->local, k->want_queue))
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

int link_open(struct link **out, const struct link_params *p)
{
    struct participant_info info = {
        .pid = p->pid, .roles = p->roles, .name = p->name, .remote = true};
    struct link *k = calloc(1, sizeof *k);
    int rc;
    if (!k)
        return err_set(-ENOMEM, "no memory for a link");
    k->seg = p->seg;
    k->lease_window = p->lease_window;
    k->submit_window = p->submit_window;
    if (p->roles & FAB_PRODUCER) {
        k->id = calloc(p->submit_window, sizeof *k->id);
        if (!k->id) {
            free(k);
            return err_set(-ENOMEM, "no memory for a window of %u tasks", p->submit_window);
        }
    }
    rc = participant_add(p->seg, &info, &k->generation);
    if (rc < 0) {
        free(k->id);
        free(k);
        return rc;
    }
    k->participant = (uint32_t)rc;
    struct seg_link *sl = &p->seg->participant[k->participant].link;
    snprintf(sl->peer, sizeof sl->peer, "%s", p->peer);
    snprintf(sl->provider, sizeof sl->provider, "%s", p->provider);
    snprintf(sl->mode, sizeof sl->mode, "%s", p->mode == LANE_WRITE ? "write" : "send");
    rc = local_open(&k->local, p->seg, k->participant, k->generation, p->daemon_fd, -1, -1);
    if (rc < 0) {
        participant_dead(p->seg, k->participant);
        participant_remove(p->seg, k->participant);
        free(k->id);
        free(k);
        return rc;
    }
    *out = k;
    return 0;
}

void link_close(struct link *k, const struct wake_out *out, uint32_t me, bool crashed)
{
    const struct segment *seg = k->seg;
    uint32_t participant = k->participant;
    struct undertaker_report rep;
    /* what never left was never started: it does not count as a crash */
    while (k->claimed_at < k->claimed_n)
        (void)!local_release(&k->local->base, &k->claimed[k->claimed_at++]);
    while (k->pending_first)
        pop_pending(k);
    big_drop(&k->big_out);
    big_in_drop(&k->big_in);
    k->local->base.ops->close(&k->local->base);
    free(k->lease);
    free(k->id);
    free_terms(k);
    free(k);
    undertaker_recover(seg, out, me, participant, crashed, &rep);
}

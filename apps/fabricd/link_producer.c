/* SPDX-License-Identifier: MIT
 *
 * link_producer.c - the producer's half of a link: SUBMIT, CANCEL, TERMS in; OUTCOME out. See
 * link.h.
 *
 * What the fabric has no room for waits in the pending list, in order.
 *
 * A task's slot stays as it is after its outcome was sent, until the user has taken it: by then the
 * link may have broken, or fabricd been killed, and the segment is all that is left. So whatever
 * the handle has no outcome of is either in a slot that has its ref, or never got that far.
 * resume.c has the exchange after a new link.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/link_parts.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/pages.h"

struct pending {
    struct pending *next;
    struct record rec;
    uint8_t *data; /* owned */
};

struct link_terms {
    uint64_t ref;
    struct fab_terms terms;
};

/* ---- the table ---- */

static struct link_task *task_of(struct link *k, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    return k->task && i < k->submit_window && k->task[i].generation == (uint32_t)(ref >> 32)
               ? &k->task[i]
               : NULL;
}

static void answered(struct link *k, struct link_task *t, enum link_task_state as)
{
    t->state = as;
    k->unanswered--;
}

/* The user has taken its outcome. */
static int taken(struct link *k, struct link_task *t, uint64_t ref)
{
    if (link_still_leaving(k, REC_OUTCOME, ref))
        return err_set(-EPROTO, "an outcome is said to be taken that was not sent");
    (void)local_drop(k->local, t->id); /* false: somebody wrote over its slot */
    CRASH_POINT("producer.dropped");
    t->state = TASK_NONE;
    return 0;
}

/* ---- OUTCOME out ---- */

/* The task whose outcome o is. The ref lies in shared memory; what the slot was given to does not.
 */
static struct link_task *task_told(struct link *k, const struct fab_outcome *o, uint64_t *ref)
{
    uint32_t slot = (uint32_t)o->id;
    *ref = k->seg->ref[slot];
    struct link_task *t = task_of(k, *ref);
    for (uint32_t i = 0; (!t || t->id != o->id) && i < k->submit_window; i++)
        if (k->task[i].id == o->id && k->task[i].state == TASK_PLACED) {
            t = &k->task[i];
            *ref = (uint64_t)t->generation << 32 | i;
        }
    return t && t->id == o->id && t->state == TASK_PLACED ? t : NULL;
}

/* 1: in the lane, or nobody's; 0: no room now; < 0. */
static int send_outcome(struct link *k, const struct fab_outcome *o)
{
    uint64_t ref;
    struct link_task *t = task_told(k, o, &ref);
    if (!t) {
        (void)local_drop(k->local, o->id);
        return 1;
    }
    struct record r = {.type = REC_OUTCOME,
                       .priority = (uint8_t)o->status,
                       .attempts = o->attempts,
                       .len = o->len,
                       .ref = ref};
    int rc = link_put_any(k, &r, fab_data(o));
    if (rc == 1)
        answered(k, t, TASK_TOLD); /* the slot stays until it is taken: the link may break */
    CRASH_POINT("producer.told");
    return rc;
}

long producer_send(struct link *k)
{
    long n = 0;
    if (k->exchange != EXCHANGE_OVER)
        return resume_send(k);
    while (k->placed_n > 0) {
        struct record r = {.type = REC_PLACED, .ref = k->placed[k->placed_n - 1]};
        int rc = link_put(k, &r);
        if (rc <= 0)
            return rc;
        k->placed_n--;
    }
    for (;;) {
        while (k->got_at < k->got_n) {
            int rc = send_outcome(k, &k->got[k->got_at]);
            if (rc <= 0)
                return rc < 0 ? rc : n;
            k->got_at++;
            n++;
        }
        k->got_n = k->got_at = 0;
        if (k->local->tasks.n == 0 || !lane_tx_room(k->lane, REC_HEAD + 8))
            return n;
        k->got_n = (uint32_t)local_read_any(k->local, k->got, LINK_BATCH);
        if (k->got_n == 0)
            return n;
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
    struct link_task *t = task_of(k, ref);
    int rc = link_put(k, &r);
    if (rc == 1 && t)
        answered(k, t, TASK_NONE);
    return rc;
}

/* ---- terms: they come before their task ---- */

int producer_on_terms(struct link *k, const struct record *r)
{
    uint32_t i = (uint32_t)r->ref;
    struct fab_terms t;
    int rc = rec_get_terms(r, &t);
    if (rc < 0)
        return rc;
    if (i >= k->submit_window || !k->task)
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
                         .tag = r->tag,
                         .terms = terms_for(k, r->ref)};
    fab_id id = 0;
    if (!answer_fits(k))
        return 0;
    if (r->type == REC_CANCEL) /* withdrawn while it waited here */
        return answer(k, r->ref, FAB_CANCELLED, "");
    if (!data && r->len) /* its bytes were let go by */
        return answer(k, r->ref, FAB_FAILED, err_text(link_too_large(k, r->len)));
    k->local->ref = r->ref;
    k->local->given = data && local_is_block(k->local, data) ? data : NULL;
    long rc = local_submit(&k->local->base, &t, 1, &id, 0);
    k->local->given = NULL;
    if (rc == -EAGAIN)
        return 0;
    if (rc < 0) {
        k->refused += (r->flags & REC_NO_WAIT) != 0;
        return answer(k, r->ref, FAB_FAILED, err_text((int)rc));
    }
    if (r->flags & REC_NO_WAIT)
        return answer(k, r->ref, FAB_COMPLETED, "");
    CRASH_POINT("link.placed");
    struct link_task *own = task_of(k, r->ref);
    own->id = id;
    own->state = TASK_PLACED;
    if (r->len > REC_PLACED_MIN && k->placed_n < LINK_BATCH)
        k->placed[k->placed_n++] = r->ref;
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
    uint8_t *keep = own ? link_unblock(k, own, r->len) : NULL;
    if (p && !own && data && r->len) {
        keep = malloc(REC_PAD(r->len));
        if (keep)
            memcpy(keep, data, r->len);
    }
    if (!p || (r->len && data && !keep)) {
        link_free(k, keep ? keep : own);
        free(p);
        return err_set(-ENOMEM, "no memory for a task that waits for room");
    }
    *p = (struct pending){.rec = *r, .data = keep};
    if (k->pending_last)
        k->pending_last->next = p;
    else
        k->pending_first = p;
    k->pending_last = p;
    k->pending_n++;
    CRASH_POINT("producer.pending");
    k->pending_bytes += keep ? r->len : 0;
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
    link_free(k, p->data);
    free(p);
}

long producer_place(struct link *k)
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

int producer_on_submit(struct link *k, const struct record *r, uint8_t *own)
{
    uint32_t i = (uint32_t)r->ref;
    struct link_task *t = k->task && i < k->submit_window ? &k->task[i] : NULL;
    int rc = 0;
    if (!(k->local->self->roles & FAB_PRODUCER))
        rc = err_set(-EPROTO, "a task from a peer that is no producer");
    else if (!t || (t->state != TASK_NONE && t->state != TASK_TOLD))
        rc = err_set(-EPROTO, "more tasks than the window of %u allows", k->submit_window);
    else if (k->exchange != EXCHANGE_OVER)
        rc = err_set(-EPROTO, "a task before it is clear which are known");
    /* a place that is used again: the user has what was there */
    if (rc == 0 && t->state == TASK_TOLD)
        rc = taken(k, t, (uint64_t)t->generation << 32 | i);
    if (rc < 0) {
        link_free(k, own);
        return rc;
    }
    *t = (struct link_task){.generation = (uint32_t)(r->ref >> 32), .state = TASK_WAITING};
    k->unanswered++;
    CRASH_POINT("producer.heard");
    const void *data = own ? own : r->payload;
    if (!k->pending_first) {
        rc = place(k, r, data);
        if (rc != 0) {
            link_free(k, own);
            return rc < 0 ? rc : 0;
        }
    }
    return to_pending(k, r, data, own);
}

int producer_on_cancel(struct link *k, const struct record *r)
{
    if ((uint32_t)r->ref >= k->submit_window)
        return err_set(-EPROTO, "a task number outside the window");
    for (struct pending *p = k->pending_first; p; p = p->next) {
        if (p->rec.ref == r->ref) {
            p->rec.type = REC_CANCEL; /* place() answers it */
            return 0;
        }
    }
    /* answered already, or started and not to be stopped: its outcome tells */
    const struct link_task *t = task_of(k, r->ref);
    if (t && t->state == TASK_PLACED)
        (void)!(r->flags & REC_WAITING ? local_withdraw(&k->local->base, t->id)
                                       : local_cancel(&k->local->base, t->id));
    CRASH_POINT("producer.cancelled");
    return 0;
}

int producer_on_taken(struct link *k, const struct record *r)
{
    for (uint32_t i = 0; i < rec_refs(r); i++) {
        uint64_t ref = rec_ref_at(r, i);
        struct link_task *t = task_of(k, ref);
        if ((uint32_t)ref >= k->submit_window ||
            (t && (t->state == TASK_WAITING || t->state == TASK_PLACED)))
            return err_set(-EPROTO, "an outcome is said to be taken that was not sent");
        /* else it was answered without a slot, on this link or one before */
        if (t && t->state == TASK_TOLD && taken(k, t, ref) < 0)
            return -EPROTO;
    }
    CRASH_POINT("link.taken");
    return 0;
}

int producer_open(struct link *k)
{
    k->task = pages_new(k->submit_window * sizeof *k->task);
    return k->task ? 0
                   : err_set(-ENOMEM, "no memory for a window of %u tasks", k->submit_window);
}

/* An outcome that was read or sent may not have arrived: it is read again, unless the handle says that it
 * has it. What waited for room is submitted again. */
void producer_move(struct link *k)
{
    while (k->pending_first)
        pop_pending(k);
    free_terms(k);
    k->terms = NULL;
    for (uint32_t i = 0; i < k->submit_window; i++) {
        struct link_task *t = &k->task[i];
        t->wanted = false;
        t->state = t->state == TASK_PLACED || t->state == TASK_TOLD ? TASK_PLACED : TASK_NONE;
        if (t->state == TASK_PLACED)
            local_list(k->local, t->id);
    }
    k->got_n = k->got_at = k->placed_n = k->unanswered = 0;
    CRASH_POINT("producer.moved");
}

void producer_close(struct link *k)
{
    while (k->pending_first)
        pop_pending(k);
    free_terms(k);
    pages_free(k->task, k->submit_window * sizeof *k->task);
}

/* SPDX-License-Identifier: MIT
 *
 * remote_submit.c - the producer's side of a remote handle.
 *
 * The daemon allows a window of outstanding tasks (submit_window, told at connecting); a submit
 * within it is accepted by writing it into the lane, one beyond it waits for an outcome.
 * FAB_NO_WAIT tasks are acknowledged by an empty outcome, so that they count in the window, too.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/terms.h"
#include "transport/remote.h"

#define LIMIT_HELD 1024u
/* While tasks are outstanding, the daemon may not know of so many taken ones that held memory beside
 * their slots (and of an eighth of the window of others). */
#define UNTOLD_BULKY_MAX 4u
/* Arguments and outcomes up to this lie in the slot. */
#define SLOT_BYTES 64u

struct rtask *remote_task(struct remote *r, uint64_t id)
{
    uint32_t i = (uint32_t)id;
    if (i >= r->window || r->task[i].generation != (uint32_t)(id >> 32) ||
        !(r->task[i].generation & 1))
        return NULL;
    return &r->task[i];
}

void remote_free_places(struct remote *r)
{
    r->free_task = REMOTE_NONE;
    for (uint32_t i = r->window; i-- > 0;)
        if (!(r->task[i].generation & 1)) {
            r->task[i].next = r->free_task;
            r->free_task = i;
        }
}

static void free_task(struct remote *r, uint32_t i)
{
    r->task[i].generation++; /* even: free */
    r->task[i].arrived = false;
    r->task[i].data = NULL;
    r->task[i].next = r->free_task;
    r->free_task = i;
}

/* The argument is not needed any more. */
static void drop_argument(struct remote *r, struct rtask *t)
{
    if (t->data && t->len > REC_PLACED_MIN)
        r->retained -= t->len;
    free(t->data);
    free(t->terms);
    t->data = NULL;
    t->terms = NULL;
    t->small = 0;
    t->len = 0;
}

/* Its argument is still being sent. */
static bool still_leaving(const struct remote *r, uint64_t ref)
{
    for (const struct big_out *b = r->big_out.first; b; b = b->next)
        if (b->head.type == REC_SUBMIT && b->head.ref == ref)
            return true;
    return false;
}

static void to_done(struct remote *r, uint32_t i)
{
    r->task[i].arrived = 1;
    r->task[i].next = REMOTE_NONE;
    if (r->done_last == REMOTE_NONE)
        r->done_first = i;
    else
        r->task[r->done_last].next = i;
    r->done_last = i;
}

/* Takes i, which stands behind prev, out of the list of arrived ones. */
static void unlink_done(struct remote *r, uint32_t i, uint32_t prev)
{
    if (prev == REMOTE_NONE)
        r->done_first = r->task[i].next;
    else
        r->task[prev].next = r->task[i].next;
    if (r->done_last == i)
        r->done_last = prev;
}

/* ---- what the daemon can forget ---- */

/* Of a handle with a client id another one may come for outcomes: they are the daemon's to keep until
 * the user has taken them. Of others it is enough that they have arrived here. A slot is free when the
 * task's place is used again, or when we say so. */
static void untold(struct remote *r, uint32_t i)
{
    struct rtask *t = &r->task[i];
    if (r->link != LINK_UP && r->link != LINK_EXCHANGE)
        return;
    if (r->tell_n == r->window) { /* many in it have been told by the use of their places */
        r->tell_n = 0;
        for (uint32_t k = 0; k < r->window; k++) {
            const struct rtask *u = &r->task[(uint32_t)r->tell[k]];
            uint32_t since = u->generation - (uint32_t)(r->tell[k] >> 32);
            if (u->untold && since <= 1)
                r->tell[r->tell_n++] = r->tell[k];
        }
    }
    r->tell[r->tell_n++] = remote_ref(r, i);
    t->untold = true;
    r->untold++;
    r->untold_bulky += t->bulky;
}

/* Of a single small task it is not worth a message of its own, as the next one will say it. */
static bool worth_telling(const struct remote *r)
{
    if (r->client[0]) /* what another handle would get again must be as little as possible */
        return true;
    if (r->outstanding == 0)
        return r->untold > r->info.untold_max || r->untold_bulky > 0;
    return r->untold > r->window / 8 || r->untold_bulky > UNTOLD_BULKY_MAX;
}

void remote_tell_taken(struct remote *r, bool now)
{
    if (r->untold == 0 || !remote_is_up(r) || !(now || worth_telling(r)))
        return;
    while (r->tell_n > 0) {
        uint64_t refs[REMOTE_LIST];
        uint32_t n = 0, left = r->tell_n;
        while (left > 0 && n < REMOTE_LIST) {
            uint64_t ref = r->tell[--left];
            const struct rtask *t = &r->task[(uint32_t)ref];
            /* in use still, or free since */
            if (t->untold && t->generation - (uint32_t)(ref >> 32) <= 1)
                refs[n++] = htole64(ref);
        }
        struct record rec = {
            .type = REC_TAKEN, .len = n * 8, .payload = (const uint8_t *)refs};
        if (n > 0 && !remote_try_put(r, &rec))
            break;
        for (uint32_t k = 0; k < n; k++) {
            struct rtask *t = &r->task[(uint32_t)le64toh(refs[k])];
            t->untold = false;
            r->untold--;
            r->untold_bulky -= t->bulky;
        }
        r->tell_n = left;
    }
    CRASH_POINT("remote.telling");
    (void)remote_flush(r);
    CRASH_POINT("remote.told");
}

int remote_outcome(struct remote *r, const struct record *rec, uint8_t *data)
{
    struct rtask *t = remote_task(r, rec->ref);
    uint32_t i = (uint32_t)rec->ref;
    if (!t || t->arrived || rec->priority < FAB_COMPLETED || rec->priority > FAB_DUPLICATE ||
        r->link != LINK_UP || still_leaving(r, rec->ref)) {
        free(data);
        return err_set(-EPROTO, "an outcome for a task that is not outstanding");
    }
    /* a dead letter appears when its outcome was taken */
    t->bulky = t->bulky || rec->len > SLOT_BYTES || rec->priority == FAB_DEAD;
    if (!data && rec->len > 8 && !t->unwaited) {
        data = malloc(REC_PAD(rec->len));
        if (!data)
            return err_set(-ENOMEM, "no memory for a result of %u bytes", rec->len);
        memcpy(data, rec->payload, rec->len);
    }
    drop_argument(r, t);
    if (t->unwaited) {
        free(data);
        free_task(r, i);
        r->unwaited--;
        return 0;
    }
    t->status = rec->priority;
    t->attempts = rec->attempts;
    t->len = rec->len;
    if (rec->len <= 8) {
        memcpy(&t->small, data ? data : rec->payload, rec->len);
        free(data); /* a small one that came as a large one */
        data = NULL;
    }
    t->data = data;
    to_done(r, i);
    CRASH_POINT("remote.arrived");
    if (!r->client[0])
        untold(r, i);
    return 0;
}

int remote_placed(struct remote *r, const struct record *rec)
{
    struct rtask *t = remote_task(r, rec->ref);
    if (!t || t->arrived || t->placed || t->len <= REC_PLACED_MIN)
        return 0; /* answered meanwhile */
    if (still_leaving(r, rec->ref))
        return err_set(-EPROTO, "an argument is said to be placed that was not sent");
    r->retained -= t->data ? t->len : 0;
    free(t->data);
    t->data = NULL;
    t->placed = true;
    return 0;
}

void remote_lose(struct remote *r, uint32_t i)
{
    struct rtask *t = &r->task[i];
    drop_argument(r, t);
    if (t->unwaited) {
        free_task(r, i);
        r->unwaited--;
        return;
    }
    t->status = FAB_LOST;
    t->attempts = 0;
    to_done(r, i);
}

void remote_lose_all(struct remote *r)
{
    for (uint32_t i = 0; r->task && i < r->window; i++)
        if (r->task[i].generation & 1 && !r->task[i].arrived)
            remote_lose(r, i);
}

/* ---- submit ---- */

static int check_task(const struct remote *r, const struct fab_task *t)
{
    if (t->queue >= r->info.queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", t->queue,
                       r->info.queues);
    if (t->priority >= FAB_PRIORITIES)
        return err_set(-EINVAL, "priority %u: use 0 to %d", t->priority, FAB_PRIORITIES - 1);
    if (t->flags & ~(unsigned)(FAB_NO_WAIT | FAB_IN_PLACE))
        return err_set(-EINVAL, "unknown task flags %#x", t->flags);
    if (t->flags & FAB_IN_PLACE && !remote_is_lent(r, t->arg, t->len))
        return err_set(-EINVAL, "an argument in place of %u bytes in memory that is not fab_arg_new()'s, or "
                                "has less than that",
                       t->len);
    if (t->len > FAB_ARG_MAX)
        return err_set(-EMSGSIZE, "an argument of %u bytes is over the limit of %u", t->len,
                       FAB_ARG_MAX);
    return t->terms ? terms_check(t->terms) : 0;
}

int remote_put_task(struct remote *r, uint32_t i)
{
    const struct rtask *t = &r->task[i];
    uint32_t small = lane_tx_max(r->lane) - REC_HEAD - REC_KERNEL - REC_TAG;
    struct record rec = {.type = REC_SUBMIT,
                         .flags = (uint8_t)((t->unwaited ? REC_NO_WAIT : 0) |
                                            (r->client[0] ? REC_TAGGED : 0)),
                         .queue = t->queue,
                         .priority = t->priority,
                         .len = t->len,
                         .ref = remote_ref(r, i),
                         .kernel = t->kernel,
                         .tag = t->tag,
                         .payload = t->len <= 8 ? (const uint8_t *)&t->small : t->data};
    if (r->big_out.first) /* a large one before it is on its way: they stay in order */
        return 0;
    if (t->terms) {
        uint8_t bytes[REC_TERMS_LEN];
        struct record terms = {
            .type = REC_TERMS, .len = sizeof bytes, .ref = rec.ref, .payload = bytes};
        rec_put_terms(bytes, t->terms);
        if (!remote_try_put(r, &terms))
            return 0;
    }
    if (t->len <= small)
        return remote_try_put(r, &rec);
    CRASH_POINT("remote.large");
    int rc = big_send(&r->big_out, &rec, t->data, NULL);
    return rc < 0 ? rc : 1;
}

/* Takes back a task that could not be submitted. When the link is gone for good,
 * remote_lose_all() has put it among those that are lost, or freed it. */
static void not_accepted(struct remote *r, uint32_t i, uint64_t ref)
{
    uint32_t prev = REMOTE_NONE;
    struct rtask *t = remote_task(r, ref);
    if (!t)
        return;
    if (t->arrived) {
        for (uint32_t at = r->done_first; at != i; at = r->task[at].next)
            prev = at;
        unlink_done(r, i, prev);
    } else {
        drop_argument(r, t);
        r->unwaited -= t->unwaited;
    }
    free_task(r, i);
}

/* Copies t into its place: what it takes to submit it, now and again. */
static int retain(struct remote *r, struct rtask *own, const struct fab_task *t)
{
    bool in_place = t->len > 8 && t->flags & FAB_IN_PLACE;
    uint8_t *data = in_place ? (uint8_t *)(uintptr_t)t->arg : NULL;
    struct fab_terms *terms = NULL;
    if (t->len > 8 && !in_place && !(data = malloc(REC_PAD(t->len))))
        goto no_memory;
    if (t->terms && !(terms = malloc(sizeof *terms)))
        goto no_memory;
    r->free_task = own->next;
    r->untold -= own->untold; /* that it is used again tells the daemon */
    r->untold_bulky -= own->untold && own->bulky;
    *own = (struct rtask){.generation = own->generation + 1, /* odd: in use */
                          .len = t->len,
                          .seq = ++r->seq,
                          .queue = t->queue,
                          .priority = t->priority,
                          .bulky = t->len > SLOT_BYTES,
                          .unwaited = (t->flags & FAB_NO_WAIT) != 0,
                          .tag = t->tag,
                          .kernel = t->kernel,
                          .data = data,
                          .terms = terms};
    if (terms)
        *terms = *t->terms;
    if (t->len && !in_place)
        memcpy(data ? (void *)data : &own->small, t->arg, t->len);
    r->retained += t->len > REC_PLACED_MIN ? t->len : 0;
    r->unwaited += own->unwaited;
    return 0;
no_memory:
    if (!in_place)
        free(data);
    return err_set(-ENOMEM, "no memory to keep an argument of %u bytes", t->len);
}

/* The task is not accepted: its argument in place stays the caller's, unless it has gone with the link. */
static void keep_lent(struct remote *r, uint64_t ref, const void *arg)
{
    struct rtask *t = remote_task(r, ref);
    if (!t || t->arrived)
        remote_lent_over(r, arg); /* lost: freed */
    else if (t->data == arg) {
        r->retained -= t->len > REC_PLACED_MIN ? t->len : 0;
        t->data = NULL;
    }
}

/* Whether a task of len bytes can be submitted now. */
static bool takes(const struct remote *r, uint32_t len)
{
    if (!remote_is_up(r) || r->list_n > 0 || r->free_task == REMOTE_NONE)
        return false;
    return len <= REC_PLACED_MIN || r->retained == 0 || r->retained + len <= RETAINED_MAX;
}

/* 1 submitted, 0 not now, < 0. */
static int submit_one(struct remote *r, const struct fab_task *t, fab_id *id)
{
    uint32_t i = r->free_task, links = r->links;
    int rc = check_task(r, t);
    if (rc < 0)
        return rc;
    if (!takes(r, t->len))
        return 0;
    rc = retain(r, &r->task[i], t);
    if (rc < 0)
        return rc;
    uint64_t ref = remote_ref(r, i);
    /* should the link end here, the task is among those that the next one asks for */
    while (remote_is_up(r) && r->links == links && (rc = remote_put_task(r, i)) == 0)
        if ((rc = remote_wait(r, UINT64_MAX)) < 0)
            break;
    /* a large one is out when we return: its bytes move in calls alone */
    while (rc >= 0 && r->big_out.first && r->links == links)
        rc = remote_wait(r, UINT64_MAX);
    if (rc < 0) {
        if (t->flags & FAB_IN_PLACE)
            keep_lent(r, ref, t->arg);
        not_accepted(r, i, ref);
        return rc;
    }
    if (t->flags & FAB_IN_PLACE) {
        remote_lent_over(r, t->arg);
        if (t->len <= 8) /* its place has the bytes */
            free((void *)(uintptr_t)t->arg);
    }
    if (id)
        *id = ref;
    r->outstanding += !(t->flags & FAB_NO_WAIT);
    return 1;
}

long remote_submit(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = 0;
    size_t done = 0;
    int rc = 0;
    if (r->broken)
        return remote_broken(r, r->broken);
    if (!r->producer)
        return err_set(-EPERM, "this handle was not opened as a producer and submits nothing");
    while (done < n) {
        rc = submit_one(r, &t[done], ids ? &ids[done] : NULL);
        if (rc < 0)
            break;
        if (rc == 1) {
            done++;
            continue;
        }
        rc = remote_progress(r); /* outcomes of FAB_NO_WAIT tasks make room */
        if (rc < 0 || (rc == 0 && done > 0))
            break;
        if (rc > 0 && takes(r, t[done].len))
            continue;
        if (done > 0)
            break;
        if (timeout_ns == 0)
            return deadline_error(0, remote_is_up(r) ? "the window of outstanding tasks (fabric.submit_window) is full"
                                                     : "the link is down");
        if (deadline == 0) {
            deadline = deadline_of(timeout_ns);
            spin_start(&r->spin);
        }
        rc = remote_wait_outcome(r, deadline);
        if (rc == -ETIMEDOUT)
            return deadline_error(timeout_ns,
                                  remote_is_up(r) ? "the window of outstanding tasks (fabric.submit_window) stayed full"
                                                  : "the link stayed down");
        if (rc < 0)
            break;
    }
    (void)remote_flush(r);
    return done ? (long)done : rc;
}

/* ---- outcomes ---- */

static void free_held(struct remote *r)
{
    while (r->held_n > 0)
        free(r->held[--r->held_n]);
}

static int hold(struct remote *r, uint8_t *data)
{
    if (r->held_n == r->held_cap) {
        uint32_t cap = r->held_cap ? r->held_cap * 2 : 16;
        uint8_t **more = realloc(r->held, cap * sizeof *more);
        if (!more)
            return -ENOMEM;
        r->held = more;
        r->held_cap = cap;
    }
    r->held[r->held_n++] = data;
    return 0;
}

/* Takes the arrived task i out of its list (prev before it) and hands its outcome over. */
static int take(struct remote *r, uint32_t i, uint32_t prev, struct fab_outcome *o)
{
    struct rtask *t = &r->task[i];
    CRASH_POINT("remote.taking");
    if (t->data && hold(r, t->data) < 0)
        return err_set(-ENOMEM, "no memory to hold a result");
    *o = (struct fab_outcome){.id = remote_ref(r, i),
                              .tag = t->tag,
                              .kernel = t->kernel,
                              .small = t->small,
                              .data = t->data,
                              .len = t->len,
                              .status = t->status,
                              .attempts = t->attempts};
    unlink_done(r, i, prev);
    r->outstanding--;
    if (r->client[0])
        untold(r, i);
    free_task(r, i);
    return 0;
}

int remote_wait_one(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = 0;
    struct rtask *t = r->task ? remote_task(r, id) : NULL;
    free_held(r);
    if (!t)
        return err_set(-ENOENT, "no such task is outstanding");
    spin_start(&r->spin);
    while (!t->arrived) {
        int rc;
        if (timeout_ns == 0) {
            remote_wire_glance(r);
            rc = remote_progress(r);
            if (!t->arrived && rc >= 0)
                return deadline_error(0, "the task is not done");
            break;
        }
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        rc = remote_wait_outcome(r, deadline);
        if (rc == -ETIMEDOUT)
            return deadline_error(timeout_ns, "the task was not done");
        if (rc < 0 && !t->arrived)
            return rc;
    }
    spin_hit(&r->spin);
    uint32_t i = (uint32_t)id, prev = REMOTE_NONE;
    for (uint32_t at = r->done_first; at != i && at != REMOTE_NONE; at = r->task[at].next)
        prev = at;
    int rc = take(r, i, prev, out);
    remote_tell_taken(r, false);
    return rc;
}

long remote_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = 0;
    size_t n = 0;
    free_held(r);
    if (r->outstanding == 0)
        return err_set(-ENOENT, "no task is outstanding");
    if (r->done_first == REMOTE_NONE && !r->broken) {
        int rc = remote_progress(r);
        if (rc < 0 && r->done_first == REMOTE_NONE)
            return rc;
    }
    spin_start(&r->spin);
    while (r->done_first == REMOTE_NONE) {
        if (timeout_ns == 0) {
            remote_wire_glance(r);
            return deadline_error(0, "no task is done");
        }
        if (deadline == 0)
            deadline = deadline_of(timeout_ns);
        int rc = remote_wait_outcome(r, deadline);
        if (rc == -ETIMEDOUT)
            return deadline_error(timeout_ns, "no task was done");
        if (rc < 0 && r->done_first == REMOTE_NONE)
            return rc;
    }
    spin_hit(&r->spin);
    while (n < max && n < LIMIT_HELD && r->done_first != REMOTE_NONE) {
        int rc = take(r, r->done_first, REMOTE_NONE, &out[n]);
        if (rc < 0)
            return n ? (long)n : rc;
        n++;
    }
    remote_tell_taken(r, false);
    return (long)n;
}

static int cancel(fab_t *f, fab_id id, uint8_t flags)
{
    struct remote *r = (struct remote *)f;
    struct rtask *t = r->task ? remote_task(r, id) : NULL;
    if (!t)
        return err_set(-ENOENT, "no such task is outstanding");
    if (t->arrived)
        return err_set(-EBUSY, "the task is done");
    struct record rec = {.type = REC_CANCEL, .flags = flags, .ref = id};
    t->cancel = true;
    t->stop = t->stop || !(flags & REC_WAITING);
    int rc = remote_put(r, &rec, UINT64_MAX);
    (void)remote_flush(r);
    return rc < 0 && rc != -ESTALE ? rc : 0; /* ESTALE: it is said on the next link */
}

int remote_cancel(fab_t *f, fab_id id)
{
    return cancel(f, id, 0);
}

int remote_withdraw(fab_t *f, fab_id id)
{
    return cancel(f, id, REC_WAITING);
}

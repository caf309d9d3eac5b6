/* SPDX-License-Identifier: MIT
 *
 * remote_submit.c - the producer's side of a remote handle.
 *
 * The daemon allows a window of outstanding tasks (submit_window, told at connecting); a submit
 * within it is accepted by writing it into the lane, one beyond it waits for an outcome.
 * FAB_NO_WAIT tasks are acknowledged by an empty outcome, so that they count in the window, too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/clock.h"
#include "core/error.h"
#include "core/terms.h"
#include "transport/remote.h"

#define LIMIT_HELD 1024u
/* rtask.status of a task whose outcome nobody wants: only its place in the window is still taken.
 */
#define UNWANTED 255u

static fab_id id_of(const struct remote *r, uint32_t i)
{
    return (fab_id)r->task[i].generation << 32 | i;
}

/* The task that id names, NULL when it is not outstanding. */
static struct rtask *task_of(struct remote *r, uint64_t id)
{
    uint32_t i = (uint32_t)id;
    if (i >= r->window || r->task[i].generation != (uint32_t)(id >> 32) ||
        !(r->task[i].generation & 1))
        return NULL;
    return &r->task[i];
}

static void free_task(struct remote *r, uint32_t i)
{
    r->task[i].generation++; /* even: free */
    r->task[i].arrived = 0;
    r->task[i].data = NULL;
    r->task[i].next = r->free_task;
    r->free_task = i;
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

int remote_outcome(struct remote *r, const struct record *rec, uint8_t *data)
{
    struct rtask *t = task_of(r, rec->ref);
    uint32_t i = (uint32_t)rec->ref;
    if (!t || t->arrived || rec->priority < FAB_COMPLETED || rec->priority > FAB_DUPLICATE) {
        free(data);
        return err_set(-EPROTO, "an outcome for a task that is not outstanding");
    }
    if (t->status == UNWANTED) {
        free(data);
        free_task(r, i);
        r->unwaited--;
        return 0;
    }
    t->status = rec->priority;
    t->attempts = rec->attempts;
    t->len = rec->len;
    t->small = 0;
    if (!data && rec->len > 8) {
        data = malloc(REC_PAD(rec->len));
        if (!data)
            return err_set(-ENOMEM, "no memory for a result of %u bytes", rec->len);
        memcpy(data, rec->payload, rec->len);
    }
    if (rec->len <= 8) {
        memcpy(&t->small, data ? data : rec->payload, rec->len);
        free(data); /* a small one that came as a large one */
        data = NULL;
    }
    t->data = data;
    to_done(r, i);
    return 0;
}

void remote_lose_all(struct remote *r)
{
    for (uint32_t i = 0; r->task && i < r->window; i++) {
        struct rtask *t = &r->task[i];
        if (!(t->generation & 1) || t->arrived)
            continue;
        if (t->status == UNWANTED) {
            free_task(r, i);
            r->unwaited--;
            continue;
        }
        t->status = FAB_LOST;
        t->len = 0;
        to_done(r, i);
    }
}

/* ---- submit ---- */

static int check_task(const struct remote *r, const struct fab_task *t)
{
    if (t->queue >= session_info(r->session)->queues)
        return err_set(-EINVAL, "queue %u: the fabric has %u", t->queue,
                       session_info(r->session)->queues);
    if (t->priority >= FAB_PRIORITIES)
        return err_set(-EINVAL, "priority %u: use 0 to %d", t->priority, FAB_PRIORITIES - 1);
    if (t->flags & ~(unsigned)FAB_NO_WAIT)
        return err_set(-EINVAL, "unknown task flags %#x", t->flags);
    if (t->len > FAB_ARG_MAX)
        return err_set(-EMSGSIZE, "an argument of %u bytes is over the limit of %u", t->len,
                       FAB_ARG_MAX);
    return t->terms ? terms_check(t->terms) : 0;
}

static int put_terms(struct remote *r, uint64_t ref, const struct fab_terms *t)
{
    uint8_t bytes[REC_TERMS_LEN];
    struct record rec = {.type = REC_TERMS, .len = sizeof bytes, .ref = ref, .payload = bytes};
    rec_put_terms(bytes, t);
    return remote_put(r, &rec, UINT64_MAX);
}

/* Takes back a task that could not be put into the lane. When the link broke meanwhile,
 * remote_lose_all() has put it among those that are lost, or freed it. */
static void not_accepted(struct remote *r, uint32_t i, uint64_t ref)
{
    uint32_t prev = REMOTE_NONE;
    if (!task_of(r, ref))
        return;
    if (r->task[i].arrived) {
        for (uint32_t at = r->done_first; at != i; at = r->task[at].next)
            prev = at;
        unlink_done(r, i, prev);
    } else if (r->task[i].status == UNWANTED) {
        r->unwaited--;
    }
    free_task(r, i);
}

/* 1 submitted, 0 the window is full, < 0. */
static int submit_one(struct remote *r, const struct fab_task *t, fab_id *id)
{
    uint32_t i = r->free_task;
    int rc = check_task(r, t);
    if (rc < 0)
        return rc;
    if (i == REMOTE_NONE)
        return 0;
    struct rtask *own = &r->task[i];
    r->free_task = own->next;
    own->generation++; /* odd: in use */
    own->arrived = 0;
    own->status = t->flags & FAB_NO_WAIT ? UNWANTED : 0;
    own->tag = t->tag;
    r->unwaited += own->status == UNWANTED;
    struct record rec = {.type = REC_SUBMIT,
                         .flags = t->flags & FAB_NO_WAIT ? REC_NO_WAIT : 0,
                         .queue = t->queue,
                         .priority = t->priority,
                         .len = t->len,
                         .ref = id_of(r, i),
                         .kernel = t->kernel};
    rc = t->terms ? put_terms(r, rec.ref, t->terms) : 0;
    if (rc >= 0)
        rc = remote_put_any(r, &rec, t->arg, UINT64_MAX);
    if (rc < 0) {
        not_accepted(r, i, rec.ref);
        return rc;
    }
    if (id)
        *id = rec.ref;
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
    if (!r->lane)
        return err_set(-EPERM, "this handle was opened as a tool and submits nothing");
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
        if (rc > 0 && r->free_task != REMOTE_NONE)
            continue;
        if (done > 0)
            break;
        if (timeout_ns == 0)
            return deadline_error(0, "the window of outstanding tasks (fabric.submit_window) is full");
        if (deadline == 0) {
            deadline = deadline_of(timeout_ns);
            spin_start(&r->spin);
        }
        rc = remote_wait_outcome(r, deadline);
        if (rc == -ETIMEDOUT)
            return deadline_error(timeout_ns, "the window of outstanding tasks (fabric.submit_window) stayed full");
        if (rc < 0)
            break;
    }
    if (rc >= 0 || !r->broken) {
        int frc = remote_flush(r);
        if (frc < 0 && done == 0)
            rc = frc;
    }
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
    if (t->data && hold(r, t->data) < 0)
        return err_set(-ENOMEM, "no memory to hold a result");
    *o = (struct fab_outcome){.id = id_of(r, i),
                              .tag = t->tag,
                              .small = t->small,
                              .data = t->data,
                              .len = t->len,
                              .status = t->status,
                              .attempts = t->attempts};
    unlink_done(r, i, prev);
    r->outstanding--;
    free_task(r, i);
    return 0;
}

int remote_wait_one(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    uint64_t deadline = 0;
    struct rtask *t = r->task ? task_of(r, id) : NULL;
    free_held(r);
    if (!t)
        return err_set(-ENOENT, "no such task is outstanding");
    spin_start(&r->spin);
    while (!t->arrived) {
        int rc;
        if (timeout_ns == 0) {
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
    return take(r, i, prev, out);
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
        if (timeout_ns == 0)
            return deadline_error(0, "no task is done");
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
    return (long)n;
}

static int cancel(fab_t *f, fab_id id, uint8_t flags)
{
    struct remote *r = (struct remote *)f;
    struct rtask *t = r->task ? task_of(r, id) : NULL;
    if (!t)
        return err_set(-ENOENT, "no such task is outstanding");
    if (t->arrived)
        return err_set(-EBUSY, "the task is done");
    struct record rec = {.type = REC_CANCEL, .flags = flags, .ref = id};
    int rc = remote_put(r, &rec, UINT64_MAX);
    if (rc == 0)
        rc = remote_flush(r);
    return rc < 0 ? rc : 0;
}

int remote_cancel(fab_t *f, fab_id id)
{
    return cancel(f, id, 0);
}

int remote_withdraw(fab_t *f, fab_id id)
{
    return cancel(f, id, REC_WAITING);
}

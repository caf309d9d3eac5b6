/* SPDX-License-Identifier: MIT
 *
 * remote_beat.c - a remote handle's two threads: the caller's, which is inside during its calls,
 * and the beat thread, which looks after the link while the caller is elsewhere.
 *
 * A visit answers what came on the control connection (heartbeats), reads the lane, sends the
 * results that were gathered and gives leases back when the daemon asked for them. It runs nothing,
 * hands nothing out, frees nothing that was lent to the caller, and does not end the link: what it
 * finds wrong is left for the caller's next call (hangup).
 *
 * Threads: see guard.h. Failure: none of its own.
 */
#include <errno.h>
#include <stdio.h>
#include "core/error.h"
#include "transport/remote.h"

static void visit(void *arg)
{
    struct remote *r = arg;
    if (r->broken || r->hangup || (r->link != LINK_UP && r->link != LINK_EXCHANGE))
        return;
    int rc = session_progress(r->session);
    if (rc == 0)
        rc = remote_progress_link(r);
    if (rc < 0)
        remote_hang_up(r, rc);
    else
        (void)remote_flush(
            r); /* results that wait for a batch to fill: the caller may be long away */
}

static struct remote *enter(const fab_t *f)
{
    struct remote *r = (struct remote *)f;
    guard_enter(&r->guard);
    return r;
}

void remote_leave(struct remote *r)
{
    while (guard_leave(&r->guard)) {
        guard_enter(&r->guard);
        visit(r);
    }
}

int remote_beat_begin(struct remote *r)
{
    r->beat.guard = &r->guard;
    r->beat.visit = visit;
    r->beat.arg = r;
    return r->lane ? beat_add(&r->beat, session_fd(r->session)) : 0;
}

void remote_beat_end(struct remote *r)
{
    beat_del(&r->beat);
}

/* ---- the handle's table ---- */

static void close_op(fab_t *f)
{
    remote_close(&enter(f)->base); /* and never leaves: no visit once the beat has ended */
}

#define GUARDED(type, name, params, ...)                                                           \
    static type name##_op params                                                                   \
    {                                                                                              \
        struct remote *r = enter(f);                                                               \
        type rc = remote_##name(__VA_ARGS__);                                                      \
        remote_leave(r);                                                                           \
        return rc;                                                                                 \
    }

GUARDED(int, queue, (fab_t * f, const char *name, uint32_t *queue), f, name, queue)
GUARDED(int, arg_new, (fab_t * f, uint32_t len, void **arg, int64_t timeout_ns), f, len, arg,
        timeout_ns)
GUARDED(long, submit,
        (fab_t * f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns), f, t, n,
        ids, timeout_ns)
GUARDED(int, wait_one, (fab_t * f, fab_id id, struct fab_outcome *out, int64_t timeout_ns), f, id,
        out, timeout_ns)
GUARDED(long, wait_any, (fab_t * f, struct fab_outcome *out, size_t max, int64_t timeout_ns), f,
        out, max, timeout_ns)
GUARDED(int, cancel, (fab_t * f, fab_id id), f, id)
GUARDED(int, withdraw, (fab_t * f, fab_id id), f, id)
GUARDED(size_t, outstanding, (const fab_t *f), f)
GUARDED(long, claim,
        (fab_t * f, uint32_t queue, struct fab_lease *l, size_t max, int64_t timeout_ns), f, queue,
        l, max, timeout_ns)
GUARDED(int, begin, (fab_t * f, const struct fab_lease *l), f, l)
GUARDED(int, complete, (fab_t * f, const struct fab_lease *l, const void *res, uint32_t len), f, l,
        res, len)
GUARDED(long, complete_many,
        (fab_t * f, const struct fab_lease *l, const struct fab_result *res, size_t n), f, l, res, n)
GUARDED(int, fail, (fab_t * f, const struct fab_lease *l, const char *message), f, l, message)
GUARDED(int, release, (fab_t * f, const struct fab_lease *l), f, l)
GUARDED(int, crash, (fab_t * f, const struct fab_lease *l, const char *text), f, l, text)
GUARDED(int, overrun, (fab_t * f, const struct fab_lease *l), f, l)
GUARDED(int, cancelled, (fab_t * f, const struct fab_lease *l), f, l)
GUARDED(int, attend, (fab_t * f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns), f,
        word, value, fd, timeout_ns)
GUARDED(int, flush_op, (fab_t * f), f)
GUARDED(int, status, (fab_t * f, char **text, int64_t timeout_ns), f, text, timeout_ns)
GUARDED(int, admin,
        (fab_t * f, const struct admin_request *q, struct admin_reply *reply, int64_t timeout_ns),
        f, q, reply, timeout_ns)

static void arg_drop_op(fab_t *f, void *arg)
{
    struct remote *r = enter(f);
    remote_arg_drop(f, arg);
    remote_leave(r);
}

const struct fab_ops remote_guarded = {
    .close = close_op,
    .queue = queue_op,
    .arg_new = arg_new_op,
    .arg_drop = arg_drop_op,
    .submit = submit_op,
    .wait = wait_one_op,
    .wait_any = wait_any_op,
    .cancel = cancel_op,
    .withdraw = withdraw_op,
    .outstanding = outstanding_op,
    .claim = claim_op,
    .begin = begin_op,
    .complete = complete_op,
    .complete_many = complete_many_op,
    .fail = fail_op,
    .release = release_op,
    .crash = crash_op,
    .overrun = overrun_op,
    .cancelled = cancelled_op,
    .attend = attend_op,
    .flush = flush_op_op,
    .status_json = status_op,
    .admin = admin_op,
};

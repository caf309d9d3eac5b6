/* SPDX-License-Identifier: MIT
 *
 * admin.c - administration: the public functions, and the run of a request; see admin.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/admin.h"
#include "core/dead.h"
#include "core/error.h"
#include "core/handle.h"
#include "core/queue.h"

int admin_run(const struct segment *s, const struct wake_out *out, uint32_t me,
              const struct admin_request *q, struct admin_reply *r)
{
    memset(r, 0, sizeof *r);
    switch (q->op) {
    case ADMIN_QUEUE_SET:
        return queue_set(s, out, q->queue, q->arg);
    case ADMIN_QUEUE_INFO:
        return queue_count(s, q->queue, r->number);
    case ADMIN_DEAD_LIST:
        return dead_list(s, q->queue, &r->text);
    case ADMIN_DEAD_SHOW:
        return dead_show(s, q->arg, &r->text);
    case ADMIN_DEAD_KICK:
        return dead_kick(s, out, me, q->arg, q->queue, &r->number[0]);
    case ADMIN_DEAD_PURGE:
        return dead_purge(s, out, me, q->arg, q->queue, &r->number[0]);
    default:
        return err_set(-ENOTSUP, "this fabric knows no request %u: use one release on all hosts",
                       q->op);
    }
}

/* Runs it where the handle says; a text that nobody wants is freed. */
static int ask(fab_t *f, const struct admin_request *q, struct admin_reply *r, int64_t timeout_ns)
{
    memset(r, 0, sizeof *r);
    return f->ops->admin(f, q, r, timeout_ns);
}

FAB_API int fab_queue_set(fab_t *f, uint32_t queue, enum fab_queue_state state, int64_t timeout_ns)
{
    struct admin_request q = {.op = ADMIN_QUEUE_SET, .queue = queue, .arg = (uint64_t)state};
    struct admin_reply r;
    int rc = ask(f, &q, &r, timeout_ns);
    free(r.text);
    return rc;
}

FAB_API int fab_queue_info(fab_t *f, uint32_t queue, struct fab_queue_info *info,
                           int64_t timeout_ns)
{
    struct admin_request q = {.op = ADMIN_QUEUE_INFO, .queue = queue};
    struct admin_reply r;
    int rc = ask(f, &q, &r, timeout_ns);
    free(r.text);
    if (rc == 0)
        *info = (struct fab_queue_info){.state = (uint32_t)r.number[0],
                                        .ready = r.number[1],
                                        .delayed = r.number[2],
                                        .leased = r.number[3]};
    return rc;
}

/* For a text, which an answer without one has not brought. */
static int ask_text(fab_t *f, const struct admin_request *q, char **text, int64_t timeout_ns)
{
    struct admin_reply r;
    int rc = ask(f, q, &r, timeout_ns);
    if (rc == 0 && !r.text)
        rc = err_set(-EPROTO, "an answer without a text");
    *text = rc == 0 ? r.text : NULL;
    return rc;
}

FAB_API int fab_dead_list(fab_t *f, uint32_t queue, char **text, int64_t timeout_ns)
{
    struct admin_request q = {.op = ADMIN_DEAD_LIST, .queue = queue};
    return ask_text(f, &q, text, timeout_ns);
}

FAB_API int fab_dead_show(fab_t *f, fab_id id, char **text, int64_t timeout_ns)
{
    struct admin_request q = {.op = ADMIN_DEAD_SHOW, .arg = id};
    return ask_text(f, &q, text, timeout_ns);
}

static long ask_number(fab_t *f, const struct admin_request *q, int64_t timeout_ns)
{
    struct admin_reply r;
    int rc = ask(f, q, &r, timeout_ns);
    free(r.text);
    return rc < 0 ? rc : (long)(r.number[0] & 0x7fffffff);
}

FAB_API long fab_dead_kick(fab_t *f, fab_id id, uint32_t queue, int64_t timeout_ns)
{
    struct admin_request q = {.op = ADMIN_DEAD_KICK, .queue = queue, .arg = id};
    return ask_number(f, &q, timeout_ns);
}

FAB_API long fab_dead_purge(fab_t *f, fab_id id, uint32_t queue, int64_t timeout_ns)
{
    struct admin_request q = {.op = ADMIN_DEAD_PURGE, .queue = queue, .arg = id};
    return ask_number(f, &q, timeout_ns);
}

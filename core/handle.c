/* SPDX-License-Identifier: MIT
 *
 * handle.c - the public functions: argument checks that hold everywhere, then the handle's own
 * table.
 */
#include <errno.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/error.h"
#include "core/handle.h"

uint64_t deadline_of(int64_t timeout_ns)
{
    if (timeout_ns == 0)
        return 0;
    return timeout_ns < 0 ? UINT64_MAX : clock_ns() + (uint64_t)timeout_ns;
}

int deadline_error(int64_t timeout_ns, const char *what)
{
    return timeout_ns == 0
               ? err_set(-EAGAIN, "%s", what)
               : err_set(-ETIMEDOUT, "%s within %.3f s", what, (double)timeout_ns / 1e9);
}

int result_fits(uint32_t len)
{
    return len <= FAB_ARG_MAX
               ? 0
               : err_set(-EMSGSIZE, "a result of %u bytes is over the limit of %u", len, FAB_ARG_MAX);
}

FAB_API void fab_close(fab_t *f)
{
    /* A forked child's copy: a farewell from here would end its parent's handle. */
    if (!f || (f->pid && f->pid != getpid()))
        return;
    f->ops->close(f);
}

FAB_API int fab_queue(fab_t *f, const char *name, uint32_t *queue)
{
    return f->ops->queue(f, name, queue);
}

FAB_API int fab_arg_new(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns)
{
    *arg = NULL;
    if (len > FAB_ARG_MAX)
        return err_set(-EMSGSIZE, "an argument of %u bytes is over the limit of %u", len, FAB_ARG_MAX);
    return f->ops->arg_new(f, len, arg, timeout_ns);
}

FAB_API void fab_arg_drop(fab_t *f, void *arg)
{
    if (arg)
        f->ops->arg_drop(f, arg);
}

FAB_API long fab_submit(fab_t *f, const struct fab_task *tasks, size_t n, fab_id *ids,
                        int64_t timeout_ns)
{
    if (n == 0)
        return 0;
    return f->ops->submit(f, tasks, n, ids, timeout_ns);
}

FAB_API int fab_wait(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns)
{
    return f->ops->wait(f, id, out, timeout_ns);
}

FAB_API long fab_wait_any(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns)
{
    if (max == 0)
        return 0;
    return f->ops->wait_any(f, out, max, timeout_ns);
}

FAB_API int fab_times(const fab_t *f, const struct fab_outcome *o, struct fab_times *t)
{
    return f->ops->times ? f->ops->times(f, o, t)
                         : err_set(-ENODATA, "a remote handle measures no stages");
}

FAB_API int fab_cancel(fab_t *f, fab_id id)
{
    return f->ops->cancel(f, id);
}

FAB_API int fab_withdraw(fab_t *f, fab_id id)
{
    return f->ops->withdraw(f, id);
}

FAB_API size_t fab_outstanding(const fab_t *f)
{
    return f->ops->outstanding(f);
}

FAB_API long fab_claim(fab_t *f, uint32_t queue, struct fab_lease *leases, size_t max,
                       int64_t timeout_ns)
{
    if (max == 0)
        return 0;
    return f->ops->claim(f, queue, leases, max, timeout_ns);
}

FAB_API int fab_begin(fab_t *f, const struct fab_lease *l)
{
    return f->ops->begin ? f->ops->begin(f, l) : 0;
}

FAB_API int fab_complete(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len)
{
    if (__builtin_expect(len > FAB_ARG_MAX, 0))
        return result_fits(len);
    return f->ops->complete(f, l, res, len);
}

FAB_API long fab_complete_many(fab_t *f, const struct fab_lease *leases, const struct fab_result *results,
                               size_t n)
{
    return n ? f->ops->complete_many(f, leases, results, n) : 0;
}

FAB_API int fab_fail(fab_t *f, const struct fab_lease *l, const char *message)
{
    return f->ops->fail(f, l, message);
}

FAB_API int fab_release(fab_t *f, const struct fab_lease *l)
{
    return f->ops->release(f, l);
}

FAB_API int fab_crash(fab_t *f, const struct fab_lease *l, const char *text)
{
    return f->ops->crash(f, l, text);
}

FAB_API int fab_overrun(fab_t *f, const struct fab_lease *l)
{
    return f->ops->overrun(f, l);
}

FAB_API int fab_cancelled(fab_t *f, const struct fab_lease *l)
{
    return f->ops->cancelled(f, l);
}

FAB_API int fab_attend(fab_t *f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns)
{
    return f->ops->attend(f, word, value, fd, timeout_ns);
}

FAB_API int fab_flush(fab_t *f)
{
    return f->ops->flush(f);
}

FAB_API int fab_wait_room(fab_t *f, int64_t timeout_ns)
{
    return f->ops->wait_room ? f->ops->wait_room(f, timeout_ns) : 0;
}

FAB_API int fab_status_json(fab_t *f, char **text, int64_t timeout_ns)
{
    return f->ops->status_json(f, text, timeout_ns);
}

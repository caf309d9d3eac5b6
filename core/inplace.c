/* SPDX-License-Identifier: MIT
 *
 * inplace.c - see inplace.h. submit.c knows nothing of it but l->given, as for links.
 */
#include <errno.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/inplace.h"

/* An own share that is used up is seen to be free again without being announced. */
#define SHARE_LOOK_NS 10000000

#define SHARE_TEXT                                                                                 \
    "this producer's arguments hold its share of segment.arena (segment.producer_share): take "    \
    "outcomes, "                                                                                   \
    "or let its tasks be done"
#define FULL_TEXT "the fabric's memory for large arguments (segment.arena) is full"

int local_arg_new(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    uint64_t deadline = deadline_of(timeout_ns);
    if (len > l->seg->arena_bytes)
        return err_set(-EMSGSIZE,
                       "%u bytes do not fit the segment's arena of %llu: raise segment.arena in "
                       "fabricd's configuration",
                       len, (unsigned long long)l->seg->arena_bytes);
    for (;;) {
        bool share = !quota_arena(l, len);
        *arg = share ? NULL : local_block(l, len ? len : 1, false);
        if (*arg) {
            quota_arena_add(l, arena_held(l->seg, l->me, *arg));
            CRASH_POINT("inplace.held");
            return 0;
        }
        uint64_t now = clock_ns();
        if (timeout_ns == 0 || now >= deadline)
            return deadline_error(timeout_ns, share ? SHARE_TEXT : FULL_TEXT);
        if (share && !l->unwaited && timeout_ns < 0) /* the caller alone makes room */
            return err_set(-EDEADLK, "waiting would never end: " SHARE_TEXT);
        int64_t most = share ? SHARE_LOOK_NS : INT64_MAX;
        int rc =
            local_wait_room(f, deadline - now < (uint64_t)most ? (int64_t)(deadline - now) : most);
        if (rc < 0 && rc != -ETIMEDOUT)
            return rc;
    }
}

void local_arg_drop(fab_t *f, void *arg)
{
    struct local *l = (struct local *)f;
    uint64_t have = arena_held(l->seg, l->me, arg);
    if (have == 0) /* none of ours, or a task's by now */
        return;
    quota_arena_sub(l, have);
    local_block_free(l, arg);
}

/* 1: accepted, the block is the task's or freed; < 0: it is the caller's still. */
static long submit_one(struct local *l, const struct fab_task *task, fab_id *id, int64_t timeout_ns)
{
    struct fab_task t = *task;
    uint64_t have = arena_held(l->seg, l->me, t.arg);
    if (have == 0 || t.len > have)
        return err_set(
            -EINVAL,
            "an argument in place of %u bytes in memory that is not fab_arg_new()'s, or has "
            "less than that",
            t.len);
    t.flags &= (uint16_t)~FAB_IN_PLACE;
    l->given = t.arg;
    quota_arena_sub(l, have); /* from now on it counts as the task's */
    long rc = local_submit(&l->base, &t, 1, id, timeout_ns);
    CRASH_POINT("inplace.submitted");
    if (rc != 1)
        quota_arena_add(l, have);
    else if (l->given) /* the slot has the bytes, or nobody wants them */
        local_block_free(l, t.arg);
    l->given = NULL;
    return rc;
}

long local_submit_any(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns)
{
    if (__builtin_expect(!(t->flags & FAB_IN_PLACE), 1)) /* it stops before the first that has it */
        return local_submit(f, t, n, ids, timeout_ns);
    size_t done = 0;
    while (done < n && (t[done].flags & FAB_IN_PLACE)) {
        long rc =
            submit_one((struct local *)f, &t[done], ids ? &ids[done] : NULL, done ? 0 : timeout_ns);
        if (rc != 1)
            return done ? (long)done : rc;
        done++;
    }
    return (long)done;
}

/* SPDX-License-Identifier: MIT
 *
 * remote_arg.c - fab_arg_new() of remote handles: memory that the handle would otherwise copy an
 * argument to, to be sent from and to be kept until fabricd has it.
 *
 * Threads: the handle's. Failure: -ENOMEM.
 */
#include <errno.h>
#include <stdlib.h>
#include "core/error.h"
#include "transport/remote.h"

int remote_arg_new(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns)
{
    struct remote *r = (struct remote *)f;
    (void)timeout_ns; /* nothing waits */
    if (r->lent_n == r->lent_cap) {
        uint32_t cap = r->lent_cap ? 2 * r->lent_cap : 8;
        struct remote_lent *more = realloc(r->lent, cap * sizeof *more);
        if (!more)
            return err_set(-ENOMEM, "no memory for an argument of %u bytes", len);
        r->lent = more;
        r->lent_cap = cap;
    }
    void *at = aligned_alloc(64, ((size_t)len + 64) & ~(size_t)63);
    if (!at)
        return err_set(-ENOMEM, "no memory for an argument of %u bytes", len);
    r->lent[r->lent_n++] = (struct remote_lent){.at = at, .len = len};
    *arg = at;
    return 0;
}

static uint32_t find(const struct remote *r, const void *arg)
{
    uint32_t i = r->lent_n; /* mostly it is the last */
    while (i > 0 && r->lent[i - 1].at != arg)
        i--;
    return i;
}

bool remote_is_lent(const struct remote *r, const void *arg, uint32_t len)
{
    uint32_t i = find(r, arg);
    return i > 0 && len <= r->lent[i - 1].len;
}

void remote_lent_over(struct remote *r, const void *arg)
{
    uint32_t i = find(r, arg);
    if (i > 0)
        r->lent[i - 1] = r->lent[--r->lent_n];
}

void remote_arg_drop(fab_t *f, void *arg)
{
    struct remote *r = (struct remote *)f;
    if (!remote_is_lent(r, arg, 0))
        return;
    remote_lent_over(r, arg);
    free(arg);
}

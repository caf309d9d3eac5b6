/* SPDX-License-Identifier: MIT
 *
 * open.c - fab_open(): from an address to a local or a remote handle.
 */
#include <errno.h>
#include <unistd.h>
#include <string.h>
#include "core/attach.h"
#include "core/error.h"
#include "core/handle.h"
#include "core/paths.h"
#include "transport/remote.h"

FAB_API int fab_open(fab_t **out, const char *address, const struct fab_options *opts)
{
    static const struct fab_options none;
    struct fab_address a;
    char text[512];
    *out = NULL;
    if (!opts)
        opts = &none;
    if (opts->client && (!opts->client[0] || strlen(opts->client) >= FAB_CLIENT_MAX))
        return err_set(-EINVAL, "a client id has 1 to %d characters", FAB_CLIENT_MAX - 1);
    if (opts->client && opts->roles && !(opts->roles & FAB_PRODUCER))
        return err_set(-EINVAL, "a client id is for producers");
    int rc = address_resolve_default(address, text, sizeof text);
    if (rc == 0)
        rc = address_parse(text, &a);
    if (rc < 0)
        return rc;
    if (a.scheme == ADDR_UNIX) {
        struct local *l;
        rc = attach_open(&l, a.path, opts);
        if (rc == 0)
            *out = &l->base;
    } else {
        rc = remote_open(out, a.scheme == ADDR_VERBS ? "verbs" : "tcp", a.host, a.port, opts);
    }
    if (rc == 0)
        (*out)->pid = getpid();
    return rc;
}

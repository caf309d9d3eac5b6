/* SPDX-License-Identifier: MIT
 *
 * cores.c - which cores to work on: those asked for, less those this process may not use.
 */
#include <errno.h>
#include "apps/fabworker/fabworker.h"
#include "core/error.h"
#include "core/log.h"

int worker_cores(const char *text, bool strict, struct cores *out)
{
    struct cores wanted, allowed, missing;
    char absent[256], usable[256];
    int rc = topo_parse(text, &wanted);
    if (rc == 0)
        rc = topo_allowed(&allowed);
    if (rc < 0)
        return rc;
    topo_split(&wanted, &allowed, out, &missing);
    topo_format(&missing, absent, sizeof absent);
    const char *s = missing.n == 1 ? "" : "s", *are = missing.n == 1 ? "is" : "are";
    if (missing.n > 0 && (strict || out->n == 0))
        return err_set(-ENODEV, "core%s %s %s not available to this process, which may use %s", s,
                       absent, are, topo_format(&allowed, usable, sizeof usable));
    if (out->n == 0)
        return err_set(-ENODEV, "no core to work on");
    if (missing.n > 0)
        log_warn("core%s %s %s not available to this process; using %s", s, absent, are,
                 topo_format(out, usable, sizeof usable));
    return 0;
}

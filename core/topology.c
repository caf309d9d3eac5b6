/* SPDX-License-Identifier: MIT
 *
 * topology.c - core lists, affinity and NUMA through libnuma.
 */
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/error.h"
#include "core/topology.h"

static int bad(const char *text, const char *what)
{
    return err_set(-EINVAL, "cores \"%s\": %s; write numbers and ranges such as 0-3,6 or \"all\"",
                   text, what);
}

/* One number at *p; advances it. */
static int number(const char **p, long *out)
{
    char *end;
    if (!isdigit((unsigned char)**p))
        return -EINVAL;
    errno = 0;
    *out = strtol(*p, &end, 10);
    *p = end;
    return errno || *out >= TOPO_CORES_MAX ? -ERANGE : 0;
}

int topo_parse(const char *text, struct cores *out)
{
    bool want[TOPO_CORES_MAX] = {false};
    const char *p = text;
    if (strcmp(text, "all") == 0)
        return topo_allowed(out);
    do {
        long from, to;
        int rc = number(&p, &from);
        to = from;
        if (rc == 0 && *p == '-') {
            p++;
            rc = number(&p, &to);
        }
        if (rc == -ERANGE)
            return bad(text, "a core number over 1023");
        if (rc < 0 || (*p && *p != ','))
            return bad(text, "not a list of cores");
        if (to < from)
            return bad(text, "a range that runs backwards");
        while (from <= to)
            want[from++] = true;
    } while (*p++ == ',');
    out->n = 0;
    for (int i = 0; i < TOPO_CORES_MAX; i++)
        if (want[i])
            out->core[out->n++] = i;
    return 0;
}

int topo_allowed(struct cores *out)
{
    cpu_set_t *set = CPU_ALLOC(TOPO_CORES_MAX);
    size_t size = CPU_ALLOC_SIZE(TOPO_CORES_MAX);
    if (!set)
        return err_set(-ENOMEM, "no memory for a core set");
    if (sched_getaffinity(0, size, set) < 0) {
        int e = errno;
        CPU_FREE(set);
        return err_set(-e, "sched_getaffinity: %s", strerror(e));
    }
    out->n = 0;
    for (int i = 0; i < TOPO_CORES_MAX; i++)
        if (CPU_ISSET_S((size_t)i, size, set))
            out->core[out->n++] = i;
    CPU_FREE(set);
    return 0;
}

void topo_split(const struct cores *wanted, const struct cores *allowed, struct cores *usable,
                struct cores *missing)
{
    int a = 0;
    usable->n = missing->n = 0;
    for (int i = 0; i < wanted->n; i++) {
        while (a < allowed->n && allowed->core[a] < wanted->core[i])
            a++;
        struct cores *to = a < allowed->n && allowed->core[a] == wanted->core[i] ? usable : missing;
        to->core[to->n++] = wanted->core[i];
    }
}

char *topo_format(const struct cores *c, char *buf, size_t cap)
{
    size_t at = 0;
    buf[0] = 0;
    for (int i = 0; i < c->n && at < cap; i++) {
        int first = c->core[i];
        while (i + 1 < c->n && c->core[i + 1] == c->core[i] + 1)
            i++;
        at += (size_t)snprintf(buf + at, cap - at, first == c->core[i] ? "%s%d" : "%s%d-%d",
                               at ? "," : "", first, c->core[i]);
    }
    return buf;
}

int topo_pin(int core)
{
    cpu_set_t *set = CPU_ALLOC(TOPO_CORES_MAX);
    size_t size = CPU_ALLOC_SIZE(TOPO_CORES_MAX);
    if (!set)
        return err_set(-ENOMEM, "no memory for a core set");
    CPU_ZERO_S(size, set);
    CPU_SET_S((size_t)core, size, set);
    int rc = sched_setaffinity(0, size, set) < 0 ? -errno : 0;
    CPU_FREE(set);
    return rc < 0 ? err_set(rc, "core %d can't be used: %s", core, strerror(-rc)) : 0;
}

static bool has_nodes(void)
{
    return numa_available() >= 0 && numa_max_node() > 0;
}

int topo_nodes(void)
{
    return has_nodes() ? numa_max_node() + 1 : 1;
}

int topo_node_of(int core)
{
    int node = has_nodes() ? numa_node_of_cpu(core) : 0;
    return node < 0 ? 0 : node;
}

int topo_bind(void *p, size_t len, int node)
{
    if (node >= topo_nodes())
        return err_set(-EINVAL, "NUMA node %d: this machine has %d", node, topo_nodes());
    if (!has_nodes())
        return 0;
    struct bitmask *mask = numa_allocate_nodemask();
    numa_bitmask_setbit(mask, (unsigned)node);
    int rc = mbind(p, len, MPOL_BIND, mask->maskp, mask->size + 1, 0) < 0 ? -errno : 0;
    numa_free_nodemask(mask);
    return rc < 0 ? err_set(rc, "binding memory to NUMA node %d: %s", node, strerror(-rc)) : 0;
}

int topo_prefer(int node)
{
    if (has_nodes())
        numa_set_preferred(node);
    return 0;
}

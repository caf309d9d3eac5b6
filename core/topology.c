/* SPDX-License-Identifier: MIT
 *
 * topology.c - core lists, affinity, NUMA nodes.
 *
 * Threads: any. libnuma reads which core belongs to which node once and keeps it, without a lock
 * of its own, so that call is made under ours. Of libnuma only what asks is used: its functions
 * that bind print to stderr when they fail, so binding goes through the system calls.
 *
 * Cores are numbered as the kernel does; those above TOPO_CORES_MAX - 1 are not used.
 */
#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "core/error.h"
#include "core/topology.h"

/* The kernel refuses a mask smaller than its own, whose size it does not tell. */
#define MASK_CORES_MAX 65536

/* ---- lists ---- */

static int bad_list(const char *text, const char *what)
{
    return err_set(-EINVAL,
                   "core list \"%.200s\": %s; write numbers and ranges such as 0-3,6 or all", text,
                   what);
}

/* Reads one core number and steps over it; NULL when it is one, else what is wrong. */
static const char *read_core(const char **text, int *core)
{
    const char *p = *text;
    int n = 0;
    if (*p < '0' || *p > '9')
        return *p ? "a number is expected where something else stands" : "a number is missing";
    for (; *p >= '0' && *p <= '9'; p++) {
        n = n * 10 + (*p - '0');
        if (n >= TOPO_CORES_MAX)
            return "core numbers end at 1023";
    }
    *text = p;
    *core = n;
    return NULL;
}
_Static_assert(TOPO_CORES_MAX == 1024, "read_core() tells people the largest number");

int topo_parse(const char *text, struct cores *out)
{
    bool wanted[TOPO_CORES_MAX] = {false};
    if (strcmp(text, "all") == 0)
        return topo_allowed(out);
    for (const char *p = text;;) {
        int first, last;
        const char *why = read_core(&p, &first);
        last = first;
        if (!why && *p == '-') {
            p++;
            why = read_core(&p, &last);
        }
        if (!why && last < first)
            why = "a range runs backwards";
        if (!why && *p && *p != ',')
            why = "a comma is expected where something else stands";
        if (why)
            return bad_list(text, why);
        for (int i = first; i <= last; i++)
            wanted[i] = true;
        if (*p++ == 0)
            break;
    }
    out->n = 0;
    for (int i = 0; i < TOPO_CORES_MAX; i++)
        if (wanted[i])
            out->core[out->n++] = i;
    return 0;
}

void topo_split(const struct cores *wanted, const struct cores *allowed, struct cores *usable,
                struct cores *missing)
{
    int at = 0;
    usable->n = missing->n = 0;
    for (int i = 0; i < wanted->n; i++) {
        int core = wanted->core[i];
        while (at < allowed->n && allowed->core[at] < core)
            at++;
        bool may = at < allowed->n && allowed->core[at] == core;
        struct cores *to = may ? usable : missing;
        to->core[to->n++] = core;
    }
}

char *topo_format(const struct cores *c, char *buf, size_t cap)
{
    size_t len = 0;
    if (cap == 0)
        return buf;
    buf[0] = 0;
    for (int i = 0; i < c->n; i++) {
        char item[32];
        int first = c->core[i];
        while (i + 1 < c->n && c->core[i + 1] == c->core[i] + 1)
            i++;
        size_t n = (size_t)snprintf(item, sizeof item, first == c->core[i] ? "%s%d" : "%s%d-%d",
                                    len ? "," : "", first, c->core[i]);
        /* room is kept for the mark, unless this is the end */
        if (len + n + (i + 1 < c->n ? sizeof "..." : 1) > cap) {
            if (len + sizeof "..." <= cap)
                memcpy(buf + len, "...", sizeof "...");
            break;
        }
        memcpy(buf + len, item, n + 1);
        len += n;
    }
    return buf;
}

/* ---- affinity ---- */

int topo_allowed(struct cores *out)
{
    for (int bits = TOPO_CORES_MAX; bits <= MASK_CORES_MAX; bits *= 2) {
        cpu_set_t *set = CPU_ALLOC(bits);
        size_t size = CPU_ALLOC_SIZE(bits);
        if (!set)
            return err_set(-ENOMEM, "no memory for a set of %d cores", bits);
        int rc = sched_getaffinity(0, size, set) < 0 ? -errno : 0;
        out->n = 0;
        for (int i = 0; rc == 0 && i < TOPO_CORES_MAX; i++)
            if (CPU_ISSET_S(i, size, set))
                out->core[out->n++] = i;
        CPU_FREE(set);
        if (rc != -EINVAL) /* EINVAL: the kernel's mask is larger */
            return rc == 0 ? 0 : err_set(rc, "sched_getaffinity: %s", strerror(-rc));
    }
    return err_set(-EINVAL, "the kernel knows more than %d cores", MASK_CORES_MAX);
}

int topo_pin(int core)
{
    cpu_set_t set;
    _Static_assert(CPU_SETSIZE >= TOPO_CORES_MAX, "every core has a bit");
    if (core < 0 || core >= TOPO_CORES_MAX)
        return err_set(-EINVAL, "core %d: core numbers go from 0 to %d", core, TOPO_CORES_MAX - 1);
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) == 0)
        return 0;
    if (errno == EINVAL)
        return err_set(-EINVAL,
                       "core %d does not exist, is offline or lies outside this process's cpuset: "
                       "choose another",
                       core);
    return err_set(-errno, "pinning to core %d: %s", core, strerror(errno));
}

/* ---- nodes ---- */

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
    static pthread_mutex_t libnuma = PTHREAD_MUTEX_INITIALIZER;
    if (!has_nodes())
        return 0;
    pthread_mutex_lock(&libnuma);
    int node = numa_node_of_cpu(core);
    pthread_mutex_unlock(&libnuma);
    return node < 0 ? 0 : node;
}

static int check_node(int node)
{
    int nodes = topo_nodes();
    if (node >= 0 && node < nodes)
        return 0;
    return err_set(-EINVAL, "NUMA node %d: this machine's nodes go from 0 to %d", node, nodes - 1);
}

/* A mask of one node for the system calls. Their count of bits is one more than it should be,
 * which the kernel takes off again. */
struct node_mask {
    unsigned long word[TOPO_CORES_MAX / (8 * sizeof(unsigned long))];
};
#define NODE_MASK_BITS (TOPO_CORES_MAX + 1)

static int one_node(struct node_mask *m, int node)
{
    const size_t bits = 8 * sizeof m->word[0];
    if (node >= TOPO_CORES_MAX)
        return err_set(-EINVAL, "NUMA node %d: nodes end at %d", node, TOPO_CORES_MAX - 1);
    memset(m, 0, sizeof *m);
    m->word[(size_t)node / bits] = 1ul << ((size_t)node % bits);
    return 0;
}

int topo_bind(void *p, size_t len, int node)
{
    struct node_mask m;
    int rc = check_node(node);
    if (rc < 0 || !has_nodes())
        return rc;
    rc = one_node(&m, node);
    if (rc < 0 || mbind(p, len, MPOL_BIND, m.word, NODE_MASK_BITS, 0) == 0)
        return rc;
    return err_set(-errno,
                   "binding %zu bytes to NUMA node %d: %s (a container needs CAP_SYS_NICE or a "
                   "seccomp profile that permits mbind)",
                   len, node, strerror(errno));
}

int topo_prefer(int node)
{
    struct node_mask m;
    int rc = check_node(node);
    if (rc < 0 || !has_nodes())
        return rc;
    rc = one_node(&m, node);
    if (rc < 0 || set_mempolicy(MPOL_PREFERRED, m.word, NODE_MASK_BITS) == 0)
        return rc;
    return err_set(-errno, "preferring memory of NUMA node %d: %s", node, strerror(errno));
}

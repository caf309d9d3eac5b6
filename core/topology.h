/* SPDX-License-Identifier: MIT
 *
 * topology.h - cores, NUMA nodes, pinning.
 *
 * Threads: any; each call asks the kernel. On a machine without NUMA (or without
 * libnuma support) everything is node 0 and binding is a no-op.
 */
#ifndef FABRIC_TOPOLOGY_H
#define FABRIC_TOPOLOGY_H

#include <stddef.h>

#define TOPO_CORES_MAX 1024

/* A set of cores, ascending. */
struct cores {
    int n;
    int core[TOPO_CORES_MAX];
};

/* "all", "0-7", "0,2,4-6", "3" -> cores. "all" is every core this process may run on.
 * -EINVAL with a message that shows the text and what is wrong with it. Duplicates are merged. */
int topo_parse(const char *text, struct cores *out) __attribute__((warn_unused_result));
/* The cores this process may run on (its affinity mask, hence its cpuset). */
int topo_allowed(struct cores *out) __attribute__((warn_unused_result));
/* wanted = usable + missing: those this process may run on and those it may not. */
void topo_split(const struct cores *wanted, const struct cores *allowed, struct cores *usable,
                struct cores *missing);
/* "0-3,5" into buf; returns buf. What does not fit is left out and "..." put in its place. */
char *topo_format(const struct cores *c, char *buf, size_t cap);
/* Pins the calling thread to one core. */
int topo_pin(int core) __attribute__((warn_unused_result));
/* The core's NUMA node; 0 when there is only one. */
int topo_node_of(int core);
/* The highest node's number + 1. */
int topo_nodes(void);
/* Binds [p, p+len), page-aligned, to node (pages not yet touched); no-op on one node. -EINVAL:
 * there is no such node. */
int topo_bind(void *p, size_t len, int node) __attribute__((warn_unused_result));
/* Makes the calling thread allocate from node while that has memory; no-op on one node. -EINVAL:
 * there is no such node. */
int topo_prefer(int node) __attribute__((warn_unused_result));

#endif

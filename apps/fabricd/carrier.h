/* SPDX-License-Identifier: MIT
 *
 * carrier.h - fabricd's libfabric domains that listen for data connections: one a provider and site
 * (listen.h).
 *
 * Threads: the loop thread; carriers_prepare() has one that ends before anything is opened. What
 * the domains report is gate.c's to handle.
 */
#ifndef FABRICD_CARRIER_H
#define FABRICD_CARRIER_H

#include "apps/fabricd/daemon.h"

/* Gets libfabric ready in a thread of its own, which takes a third of a second; then calls done on the
 * loop thread. */
int carriers_prepare(struct daemon *d, void (*done)(struct daemon *d))
    __attribute__((warn_unused_result));
/* Opens what fabric.provider asks for, at each site. With "auto" verbs may be missing; a device
 * that fabric.domain names must be at one of them. */
int carriers_open(struct daemon *d, const struct listeners *l) __attribute__((warn_unused_result));
/* The one of this provider at this site, NULL: none. */
struct carrier *carrier_for(struct daemon *d, const char *provider, uint32_t site);
/* Before sleeping: false when there is something to poll for. */
bool carriers_arm(struct daemon *d);
void carriers_close(struct daemon *d);

#endif

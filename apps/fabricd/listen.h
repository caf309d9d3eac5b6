/* SPDX-License-Identifier: MIT
 *
 * listen.h - the sockets that remote peers' control connections come to: one for each address of
 * listen.address, and for each that a name has.
 *
 * A site is an address without its port. Data connections are listened for at each site once
 * (carrier.h); a peer is told that of the site it came to, which it has just reached. What is all
 * addresses is the site of the others, too: both could not have the same listen.data_port.
 *
 * Threads: the loop's. Failure: all or nothing, with a message that names the key and a remedy; but
 * a name may have addresses that this host has not (one fabricd of several, no IPv6 here), as long
 * as it has one.
 */
#ifndef FABRICD_LISTEN_H
#define FABRICD_LISTEN_H

#include "core/conf.h"
#include "transport/loop.h"

#define LISTENERS_MAX 16u
#define SITE_MAX      64u

struct listener {
    void *owner; /* for whoever accepts */
    struct loop_src src;
    int fd;
    uint32_t site;
    char text[SITE_MAX + 16]; /* "HOST:PORT", as it is bound */
};

struct listeners {
    uint32_t n, sites;
    struct listener at[LISTENERS_MAX];
    char site[LISTENERS_MAX][SITE_MAX]; /* numeric; "": part of another */
};

/* Into zeroed memory. -EADDRINUSE: somebody listens there. */
int listen_open(struct listeners *l, const struct conf *c) __attribute__((warn_unused_result));
/* Leaves it zeroed. The owner has stopped the sources. */
void listen_close(struct listeners *l);
/* "tcp://HOST:PORT, tcp://..." */
void listen_text(const struct listeners *l, char *text, size_t cap);

#endif

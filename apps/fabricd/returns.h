/* SPDX-License-Identifier: MIT
 *
 * returns.h - workers whose links broke, so that one that comes back is recognised and its
 * reconnects are counted, for fabctl links.
 *
 * A producer's entry is kept for its return, with its count (core/kept.h). Of a worker nothing is
 * kept, and each of its handles is a new one: it is recognised by its host and name, of which a
 * thread of fabworker's has one of its own. So a worker that was killed and started again counts as
 * well, and of two of the same name on one host it is not known which came back.
 *
 * Memory: fixed, a place a link; the oldest is overwritten. Threads: the loop's. Failure: no
 * memory, at the start.
 */
#ifndef FABRICD_RETURNS_H
#define FABRICD_RETURNS_H

#include <stdint.h>

struct returns {
    struct returning {
        uint64_t who; /* hash of host and name; 0: free */
        uint32_t reconnects;
    } * at;
    uint32_t n, next;
};

int returns_open(struct returns *r, uint32_t n) __attribute__((warn_unused_result));
void returns_close(struct returns *r);
/* The link of a worker at peer ("HOST:PORT") has broken, which was its reconnects-th return. */
void returns_broken(struct returns *r, const char *peer, const char *name, uint32_t reconnects);
/* A worker comes: how often it has come back by now; 0: it is new. */
uint32_t returns_came(struct returns *r, const char *peer, const char *name);

#endif

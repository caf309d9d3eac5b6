/* SPDX-License-Identifier: MIT
 *
 * guard.h - a handle's own thread against the process's beat thread (beat.h): one of them at a
 * time.
 *
 * The owner comes in and goes out with every call, many millions of times a second; the visitor
 * comes when something was said on the control connection, a few times a second. So the owner pays
 * two plain stores and two loads, and the visitor the fence of both (membarrier):
 *
 *   owner                                visitor
 *   E1  in = 1                           V1  knock = 1, visitor = 1
 *   E2  load visitor: wait while 1       V2  membarrier: a full fence in every thread of the
 * process
 *   ...                                  V3  load in: 1 - go away; 0 - visit, knock = 0
 *   L1  in = 0         (release)         V4  visitor = 0 (release), wake
 *   L2  load knock: serve it himself
 *
 * Either E1 is before V2, and V3 sees it, or E2 is after V2 and sees V1. If V3 sees 1, L1 is after
 * V2, so L2 is, too, and sees the knock: nothing said on the control connection waits for the next
 * call. Where the kernel has no membarrier the owner pays a fence of his own.
 *
 * Threads: one owner, one visitor. Failure: none; the visitor never waits for the owner, the owner
 * waits for a visit to end, which is one pass over a link.
 */
#ifndef FABRIC_GUARD_H
#define FABRIC_GUARD_H

#include <stdbool.h>
#include "core/atomic.h"

struct guard {
    _Atomic uint32_t in, visitor, knock;
    bool fenced; /* no membarrier here: E1 and L1 are fences themselves */
};

void guard_init(struct guard *g);
/* The slow half of guard_enter(). */
void guard_wait(struct guard *g);

static inline void guard_enter(struct guard *g)
{
    if (__builtin_expect(g->fenced, 0)) {
        at_store(&g->in, 1);
    } else {
        at_store_rlx(&g->in, 1); /* E1: ordered before E2 by V2's membarrier */
        at_compiler_fence();
    }
    if (__builtin_expect(at_load(&g->visitor) != 0, 0)) /* E2; V4 */
        guard_wait(g);
}

/* True: somebody has knocked meanwhile; enter again and serve. */
static inline bool guard_leave(struct guard *g)
{
    if (__builtin_expect(g->fenced, 0)) {
        at_store(&g->in, 0);
    } else {
        at_store_rel(&g->in, 0); /* L1: V3 */
        at_compiler_fence();
    }
    if (__builtin_expect(at_load_rlx(&g->knock) == 0, 1)) /* L2: V1, by V2's membarrier */
        return false;
    return at_swap(&g->knock, 0) != 0;
}

/* For the visitor. False: the owner is inside and has been knocked for. */
bool guard_visit(struct guard *g) __attribute__((warn_unused_result));
void guard_end_visit(struct guard *g);

#endif

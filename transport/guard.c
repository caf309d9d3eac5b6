/* SPDX-License-Identifier: MIT
 *
 * guard.c - the slow halves; see guard.h.
 */
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "transport/guard.h"

#ifdef FABRIC_VIRTUAL_CLOCK /* one thread: nothing to fence, and nobody may sleep in the kernel */

void guard_init(struct guard *g)
{
    *g = (struct guard){.fenced = true};
}

static void fence(const struct guard *g)
{
    (void)g;
}

#else

void guard_init(struct guard *g)
{
    /* registering again is allowed and cheap */
    bool have = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
    *g = (struct guard){.fenced = !have};
}

static void fence(const struct guard *g)
{
    if (!g->fenced)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

#endif

void guard_wait(struct guard *g)
{
    while (at_load(&g->visitor))
        syscall(SYS_futex, &g->visitor, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
}

bool guard_visit(struct guard *g)
{
    at_store(&g->knock, 1);
    at_store(&g->visitor, 1); /* V1 */
    fence(g);                 /* V2 */
    if (at_load(&g->in)) {    /* V3; L1 */
        guard_end_visit(g);
        return false;
    }
    at_store(&g->knock, 0);
    return true;
}

void guard_end_visit(struct guard *g)
{
    at_store(&g->visitor, 0); /* V4: E2 */
    syscall(SYS_futex, &g->visitor, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

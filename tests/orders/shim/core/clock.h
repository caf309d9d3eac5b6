/* SPDX-License-Identifier: MIT
 *
 * clock.h (model) - stands in for core/clock.h: time stands still, so that an execution depends on
 * the explorer's choices alone. Ticks are 0, which also means "not timed" for a task's stamp;
 * nanoseconds are 1, so no deadline but 0 ever passes: a sleep ends by a wake-up or not at all.
 *
 * Threads: any. Failure: none.
 */
#ifndef FABRIC_CLOCK_H
#define FABRIC_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(void)
{
    return 1;
}

static inline uint64_t clock_ticks(void)
{
    return 0;
}

#endif

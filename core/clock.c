/* SPDX-License-Identifier: MIT
 *
 * clock.c - measures the tick rate. Any thread; the first to come measures, others may measure too
 * and store nearly the same value: harmless.
 */
#include "core/clock.h"
#include "core/atomic.h"

uint64_t clock_ticks_hz(void)
{
    static _Atomic uint64_t known;
    /* relaxed: a lone number, nothing is published with it */
    uint64_t hz = at_load_rlx(&known);
    if (hz)
        return hz;
    uint64_t n0 = clock_ns(), t0 = clock_ticks(), n1, t1;
    do {
        n1 = clock_ns();
        t1 = clock_ticks();
    } while (n1 - n0 < 2000000);
    hz = (uint64_t)((unsigned __int128)(t1 - t0) * 1000000000u / (n1 - n0));
    if (hz == 0)
        hz = 1;
    at_store_rlx(&known, hz);
    return hz;
}

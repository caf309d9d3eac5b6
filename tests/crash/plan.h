/* SPDX-License-Identifier: MIT
 *
 * plan.h - who dies where: the orders that the crash campaign gives to the processes it kills.
 *
 * A plan lies in memory that the driver shares with one process: an actor that it forked, or a
 * fabricd that maps the file named by $FABRIC_CRASH_PLAN. The driver writes the name and arms it;
 * the process counts its visits to that crash point and ends itself by SIGKILL at the nth.
 */
#ifndef TESTS_CRASH_PLAN_H
#define TESTS_CRASH_PLAN_H

#include "core/atomic.h"

struct crash_plan {
    char name[48];
    _Atomic uint32_t armed, nth, visits, fired;
    _Atomic uint32_t taking; /* it has begun to take an outcome; the process itself clears it */
};

/* The calling process obeys this plan from now on. */
void crash_obey(struct crash_plan *plan);
/* Orders: die at the nth visit to name. "" disarms. */
void crash_order(struct crash_plan *plan, const char *name, uint32_t nth);

#endif

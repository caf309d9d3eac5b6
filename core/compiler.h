/* SPDX-License-Identifier: MIT
 *
 * compiler.h - what the compiler is told about a function.
 */
#ifndef FABRIC_COMPILER_H
#define FABRIC_COMPILER_H

/* A part that is seldom needed of a function that must be short: kept out of it, so that it needs
 * no registers there. */
#define SELDOM __attribute__((noinline, cold))

/* A loop over the tasks of a batch: a function of its own, so that it has the registers to itself.
 */
#define LOOP_OF_ITS_OWN __attribute__((noinline))

#endif

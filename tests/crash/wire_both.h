/* SPDX-License-Identifier: MIT
 *
 * wire_both.h - a process with one remote handle that both produces and works, for wire.c: it takes one
 * task at a time, naps as long as that says, and has one of its own outstanding meanwhile.
 *
 * Threads: its own process. Failure: what it finds wrong is in struct both when it has ended.
 */
#ifndef TESTS_WIRE_BOTH_H
#define TESTS_WIRE_BOTH_H

#include <stdint.h>
#include "core/atomic.h"

/* Shared with the process. */
struct both {
    _Atomic uint32_t stop; /* by the parent: answer what is outstanding, and end */
    uint64_t answered, again; /* its own tasks; of these, run more than once */
    uint64_t ended, late;     /* leases; of these, too late */
    char why[200];            /* "": all was well */
};

/* In the process: until it is to stop. Returns its exit status. */
int both_run(struct both *b, const char *address, const char *key_file);

#endif

/* SPDX-License-Identifier: MIT
 *
 * program.h - what tests that are programs of their own have in common: how they say what failed,
 * and samples in order.
 */
#ifndef TESTS_PROGRAM_H
#define TESTS_PROGRAM_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "core/fabric.h"

/* Says that it failed, with this thread's last message; the exit status. */
static inline int fail(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, fab_errmsg());
    return 1;
}

static inline int by_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static inline void sort_u64(uint64_t *sample, size_t n)
{
    qsort(sample, n, sizeof *sample, by_u64);
}

#endif

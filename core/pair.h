/* SPDX-License-Identifier: MIT
 *
 * pair.h - two 64-bit fields that stand side by side, written or copied as one: what a task's way through
 * the fabric mostly consists of.
 */
#ifndef FABRIC_PAIR_H
#define FABRIC_PAIR_H

#include <stdint.h>
#include <string.h>

typedef uint64_t pair __attribute__((vector_size(16)));

static inline pair pair_of(uint64_t first, uint64_t second)
{
    return (pair){first, second};
}

/* at: of the first field. */
static inline void pair_put(void *at, pair p)
{
    memcpy(at, &p, sizeof p);
}

static inline void pair_copy(void *to, const void *from)
{
    memcpy(to, from, sizeof(pair));
}

#endif

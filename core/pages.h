/* SPDX-License-Identifier: MIT
 *
 * pages.h - zeroed memory in whole pages, of which only those that are touched cost anything: for large
 * tables that most of their owners use little of. (calloc() may write zeros over all of it.)
 *
 * Threads: any.
 */
#ifndef FABRIC_PAGES_H
#define FABRIC_PAGES_H

#include <stddef.h>
#include <sys/mman.h>

/* NULL: no memory. */
static inline void *pages_new(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Another place for the same content, and zeros behind it; p is no more. NULL: no memory, p is as it was. */
static inline void *pages_grow(void *p, size_t len, size_t more)
{
    p = mremap(p, len, more, MREMAP_MAYMOVE);
    return p == MAP_FAILED ? NULL : p;
}

/* NULL is allowed. */
static inline void pages_free(void *p, size_t len)
{
    if (p)
        munmap(p, len);
}

#endif

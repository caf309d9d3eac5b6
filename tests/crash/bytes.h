/* SPDX-License-Identifier: MIT
 *
 * bytes.h - the argument and the result of a campaign's task: its number in the first 4 bytes, then
 * one byte, over and over, that follows from the number. Whoever sees a task can check it.
 */
#ifndef TESTS_CRASH_BYTES_H
#define TESTS_CRASH_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline void bytes_fill(uint8_t *to, uint32_t n, uint32_t len, bool result)
{
    memset(to, (int)(n * 31 + result), len);
    memcpy(to, &n, 4);
}

/* len: what task n has; 4 at least. */
static inline bool bytes_good(const uint8_t *p, uint32_t n, uint32_t len, bool result)
{
    uint32_t m;
    memcpy(&m, p, 4);
    return m == n && (len == 4 || (p[4] == (uint8_t)(n * 31 + result) && p[len - 1] == p[4]));
}

#endif

/* SPDX-License-Identifier: MIT
 *
 * dice.h - numbers that look random and are the same for the same seed (xorshift64*: Marsaglia
 * 2003, Vigna 2016). The state is the caller's, and is never 0.
 */
#ifndef TESTS_DICE_H
#define TESTS_DICE_H

#include <stdint.h>

static inline uint64_t roll(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

#endif

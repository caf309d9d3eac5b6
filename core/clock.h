/* SPDX-License-Identifier: MIT
 *
 * clock.h - time: nanoseconds from the kernel, and ticks for stamps on the fast path.
 *
 * clock_ticks() costs half of what the kernel's clock costs. Ticks are the
 * invariant time stamp counter on x86-64 and the virtual counter on ARM64: the
 * same on all cores of a host. Their rate is measured once by the segment's creator and stored in
 * the header.
 *
 * With FABRIC_VIRTUAL_CLOCK defined, time is what the program that links this code says it is: the
 * simulation (tests/sim) builds the sources anew with it and brings these functions. With
 * FABRIC_STILL_CLOCK ticks are not read: they count how often they are asked for, which is what
 * bench/stamps_child.c, which brings the count, is built for.
 */
#ifndef FABRIC_CLOCK_H
#define FABRIC_CLOCK_H

#include <stdint.h>
#include <time.h>

#ifdef FABRIC_VIRTUAL_CLOCK
uint64_t clock_ns(void);
uint64_t clock_ticks(void);
#else
static inline uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#ifdef FABRIC_STILL_CLOCK
extern uint64_t clock_still_reads;
#endif

static inline uint64_t clock_ticks(void)
{
#if defined(FABRIC_STILL_CLOCK)
    return ++clock_still_reads;
#elif defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#else
    return clock_ns();
#endif
}
#endif

/* Ticks a second, measured against the kernel's clock over 2 ms on first use in the process. */
uint64_t clock_ticks_hz(void);

/* ticks -> ns at hz, without overflow for spans up to centuries. */
static inline uint64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)ticks * 1000000000u / hz);
}

#endif

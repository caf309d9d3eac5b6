/* SPDX-License-Identifier: MIT
 *
 * atomic.h - the only door to <stdatomic.h>.
 *
 * Every atomic of the project is read and written through these names, so that a
 * build can swap them for an instrumented version (a model explorer, crash
 * points). Names say the order; a plain at_*() is seq_cst. Each use of a weaker
 * order names, in a comment where it stands, the access it pairs with.
 */
#ifndef FABRIC_ATOMIC_H
#define FABRIC_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define at_load(p)         atomic_load_explicit((p), memory_order_seq_cst)
#define at_load_acq(p)     atomic_load_explicit((p), memory_order_acquire)
#define at_load_rlx(p)     atomic_load_explicit((p), memory_order_relaxed)
#define at_store(p, v)     atomic_store_explicit((p), (v), memory_order_seq_cst)
#define at_store_rel(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define at_store_rlx(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define at_add(p, v)       atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define at_add_rlx(p, v)   atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define at_sub(p, v)       atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define at_or(p, v)        atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define at_and(p, v)       atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define at_swap(p, v)      atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define at_cas(p, exp, v)                                                                          \
    atomic_compare_exchange_strong_explicit((p), (exp), (v), memory_order_seq_cst,                 \
                                            memory_order_seq_cst)

/* Keeps the compiler from moving accesses across; the processor may (guard.h says who stops it). */
#define at_compiler_fence() atomic_signal_fence(memory_order_seq_cst)

/* Spin hint to the core (and, on SMT, to its sibling). */
static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

/* Asks for the line in an exclusive state: the next access will write it. On x86 without
 * PREFETCHW this is a no-op by the architecture's rules. */
static inline void cpu_prefetch_write(const volatile void *p)
{
#if defined(__x86_64__)
    __asm__ volatile("prefetchw %0" ::"m"(*(const volatile char *)p));
#else
    __builtin_prefetch((const void *)p, 1, 3);
#endif
}

#define CACHE_LINE 64
/* Distance kept between words that different cores write: two lines, for the adjacent-line
 * prefetcher. */
#define HOT_LINE 128

#endif

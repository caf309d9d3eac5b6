/* SPDX-License-Identifier: MIT
 *
 * atomic.h (model) - stands in for core/atomic.h when the core's sources are compiled for the
 * order explorer: every at_*() becomes a call into the model (tests/orders/model.h), with a record
 * of the place it stands at: operation, operand as written, function. The record lets a test weaken
 * that one access.
 *
 * Threads: see model.h. Outside of a modelled thread an access goes straight to memory.
 * Failure: an access the model can't represent ends the run with a message.
 */
#ifndef FABRIC_ATOMIC_H
#define FABRIC_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "tests/orders/model.h"

/* The type of what p points to, without _Atomic: a comma expression drops the qualifier. */
#define MD_TYPE(p) __typeof__((void)0, *(p))
#define MD_AT(op, p, ord)                                                                          \
    __extension__({                                                                                \
        static struct md_site md_site_ = {(op), (p), __func__, (ord), 0, (ord), false};            \
        &md_site_;                                                                                 \
    })
#define MD_LOAD(op, p, ord)     ((MD_TYPE(p))md_load(MD_AT(op, #p, ord), (p), sizeof *(p)))
#define MD_STORE(op, p, v, ord) md_store(MD_AT(op, #p, ord), (p), sizeof *(p), (uint64_t)(v))
#define MD_RMW(op, p, v, kind, ord)                                                                \
    ((MD_TYPE(p))md_rmw(MD_AT(op, #p, ord), (p), sizeof *(p), (kind), (uint64_t)(v)))

#define at_load(p)         MD_LOAD("at_load", p, MD_SC)
#define at_load_acq(p)     MD_LOAD("at_load_acq", p, MD_ACQ)
#define at_load_rlx(p)     MD_LOAD("at_load_rlx", p, MD_RLX)
#define at_store(p, v)     MD_STORE("at_store", p, v, MD_SC)
#define at_store_rel(p, v) MD_STORE("at_store_rel", p, v, MD_REL)
#define at_store_rlx(p, v) MD_STORE("at_store_rlx", p, v, MD_RLX)
#define at_add(p, v)       MD_RMW("at_add", p, v, MD_ADD, MD_SC)
#define at_add_rlx(p, v)   MD_RMW("at_add_rlx", p, v, MD_ADD, MD_RLX)
#define at_sub(p, v)       MD_RMW("at_sub", p, v, MD_SUB, MD_SC)
#define at_or(p, v)        MD_RMW("at_or", p, v, MD_OR, MD_SC)
#define at_and(p, v)       MD_RMW("at_and", p, v, MD_AND, MD_SC)
#define at_swap(p, v)      MD_RMW("at_swap", p, v, MD_SWAP, MD_SC)
#define at_cas(p, exp, v)  md_cas(MD_AT("at_cas", #p, MD_SC), (p), sizeof *(p), (exp), (uint64_t)(v))

/* The core's spins all end by themselves, or after another thread's progress: there is nothing to
 * wait for. */
static inline void cpu_relax(void)
{
}

static inline void cpu_prefetch_write(const volatile void *p)
{
    (void)p; /* changes no value */
}

#define CACHE_LINE 64
#define HOT_LINE   128

#endif

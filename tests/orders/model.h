/* SPDX-License-Identifier: MIT
 *
 * model.h - an explorer of weak memory orders: what the replaced core/atomic.h, the scenarios and
 * the parts of the explorer call.
 *
 * One operating system thread runs everything. A scenario's threads are coroutines; each at_*()
 * is a point at which the explorer may go on with another thread, and each load may return any
 * store that coherence and happens-before allow (memory.c). Which of these happens is asked of
 * md_choose() alone (explore.c), so an execution is a list of choices: all lists within bounds are
 * walked depth first, or many are drawn at random from a seed.
 *
 * Sources of the method: Norris, Demsky: "CDSChecker: Checking Concurrent Data Structures Written
 * with C/C++ Atomics" (OOPSLA 2013); Vyukov: Relacy Race Detector; Musuvathi, Qadeer: "Iterative
 * Context Bounding for Systematic Testing of Multithreaded Programs" (PLDI 2007); Kang et al.: "A
 * Promising Semantics for Relaxed-Memory Concurrency" (POPL 2017), whose views (without promises)
 * carry coherence here; Flanagan, Freund: "FastTrack" (PLDI 2009) for races of plain accesses.
 *
 * Failure: md_fail() ends the execution, which is then printed and can be run again.
 */
#ifndef TESTS_ORDERS_MODEL_H
#define TESTS_ORDERS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MD_THREADS 4
#define MD_LOCS    320 /* atomic words one execution may touch */
#define MD_HISTORY 16  /* a load sees at most so many of the newest stores */
#define MD_SHARED  (128u << 10)

/* ---- accesses (memory.c) ---- */

enum md_order { MD_RLX, MD_ACQ, MD_REL, MD_ACQ_REL, MD_SC };
enum md_rmw { MD_ADD, MD_SUB, MD_OR, MD_AND, MD_SWAP };

/* A place in the source with an atomic access. */
struct md_site {
    const char *op, *what, *func;
    enum md_order order;
    uint32_t rule_round;     /* for which round of weakening `effective` holds */
    enum md_order effective; /* order, or weaker */
    bool weakened;
};

uint64_t md_load(struct md_site *at, const volatile void *p, size_t size);
void md_store(struct md_site *at, volatile void *p, size_t size, uint64_t v);
uint64_t md_rmw(struct md_site *at, volatile void *p, size_t size, enum md_rmw kind, uint64_t v);
bool md_cas(struct md_site *at, volatile void *p, size_t size, void *expect, uint64_t v);

/* One access, or several, made weaker. The strings are compared whole; what may be NULL (any
 * operand). */
struct md_weak {
    const char *name; /* for people and the command line */
    const char *func, *op, *what;
    enum md_order to;
    const char *scenario; /* which must catch it */
};

/* ---- threads (threads.c) ---- */

/* The caller can do nothing useful until somebody else has stored something. */
void md_yield(void);
int md_self(void); /* -1 outside of a scenario's thread */
/* Until thread t has died, or has ended: what it did happens before the return. True: it died. */
bool md_await_end(int t);
/* Ends the execution as a failure. */
void md_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
#define MD_CHECK(cond, ...)                                                                        \
    do {                                                                                           \
        if (!(cond))                                                                               \
            md_fail(__VA_ARGS__);                                                                  \
    } while (0)

/* ---- scenarios ---- */

/* What a scenario's threads share, given out by world.h: plain accesses in here are checked for
 * races. */
extern _Alignas(128) uint8_t md_shared[MD_SHARED];

struct md_bounds {
    uint32_t preempt; /* switches away from a thread that could go on */
    uint32_t stale;   /* loads that return another store than the newest */
};

struct md_scenario {
    const char *name, *what;
    void (*setup)(void);
    void (*body[MD_THREADS])(void); /* one a thread, ended by NULL */
    void (*check)(void);            /* after all threads have ended; may be NULL */
    uint32_t mortal;                /* bits: threads of which one may die, at any access */
    struct md_bounds dfs;           /* exhaustive within these; both 0: not walked depth first */
    struct md_bounds dfs_long;      /* in a long run; both 0: the same */
    uint32_t walks;                 /* random executions of a default run */
    bool must_fail;                 /* a test of the explorer */
};

extern const struct md_scenario *const md_scenarios[];
extern const struct md_weak md_weaks[];

#endif

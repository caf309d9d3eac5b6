/* SPDX-License-Identifier: MIT
 *
 * engine.h - what the explorer's own files say to each other: choices, the clocks of threads, the
 * trace of an execution.
 *
 * Threads: one; see model.h. Failure: a limit that is passed (words, steps, choices) is a failure
 * of the execution, never silently cut.
 */
#ifndef TESTS_ORDERS_ENGINE_H
#define TESTS_ORDERS_ENGINE_H

#include "tests/orders/model.h"

#define MD_STEPS 4000 /* accesses of one execution; more means that it does not end */

/* What happened before: for plain accesses a vector clock, for atomic words the oldest store that
 * may still be read (its place in the word's modification order). */
struct md_clock {
    uint32_t at[MD_THREADS];
    uint32_t words; /* views in use; the others count as 0 */
    uint16_t view[MD_LOCS];
};

/* Sets to = the later of both, element by element. */
void clock_join(struct md_clock *to, const struct md_clock *from);
void clock_copy(struct md_clock *to, const struct md_clock *from);

/* ---- explore.c ---- */

enum md_choice {
    CHOOSE_PREEMPT, /* 0: go on */
    CHOOSE_NEXT,    /* which thread, now that the last one can't or won't go on */
    CHOOSE_STORE,   /* 0: the newest */
    CHOOSE_DEATH    /* 0: live on */
};
/* One of 0 .. n-1. */
uint32_t md_choose(enum md_choice what, uint32_t n);
/* Within bounds? The choice of anything but 0 uses one up. */
bool md_may_preempt(void);
bool md_may_stale(void);

/* ---- threads.c ---- */

extern int md_cur; /* the running thread, -1 none */
extern struct md_clock md_now[MD_THREADS];

/* Before each access of a thread: others may run here, the thread may die here. */
void md_point(void);
/* After each store of a thread: those that yielded may look again. */
void md_changed(void);
/* Runs one execution. False: it failed, md_failure() says why. */
bool md_execute(const struct md_scenario *sc);
const char *md_failure(void);

/* ---- memory.c ---- */

void mem_reset(void);
/* A load without a point before it. */
uint64_t mem_load(struct md_site *at, const volatile void *p, size_t size);
/* The rule in force (NULL: none); how many of its places have been executed since. */
void mem_weaken(const struct md_weak *w);
uint32_t mem_weakened(void);
/* All places met so far. One of an inline function is met once for each file it is compiled in. */
uint32_t mem_sites(struct md_site *const **list);

/* ---- plain.c ---- */

void plain_reset(void);

/* ---- trace (trace.c) ---- */

struct md_event {
    const struct md_site *at; /* NULL: note alone */
    const char *note;
    const volatile void *p;
    uint64_t value;
    uint16_t age; /* stores that are newer than the one read */
    int8_t thread;
};
void trace_reset(void);
void trace_add(struct md_event e);
void trace_print(void);

#endif

/* SPDX-License-Identifier: MIT
 *
 * actors.h - the processes of the crash campaign: producers and workers that do everything the API
 * offers, in random order, and check what they get.
 */
#ifndef TESTS_CRASH_ACTORS_H
#define TESTS_CRASH_ACTORS_H

#include <sys/types.h>
#include "tests/crash/plan.h"

#define ACTORS     5 /* producers first, then workers */
#define PRODUCERS  2
#define TASKS_MAX  (1u << 22) /* of one round */
#define WINDOW     48
#define LARGE_MAX  150000u

/* Four tasks of the same time, mostly of both producers, have the same key. */
#define HAS_KEY(n) ((n) % 32 == 11)
#define KEY_OF(n)  ((n) / 128)
#define KEYS_MAX   (TASKS_MAX / 128)
#define KEY_WINDOW 120000000000ull /* longer than any round */

struct actor {
    struct crash_plan plan;
    pid_t pid;
    int pidfd;
    uint32_t life; /* how often it was started */
    _Atomic uint32_t working; /* has a handle, is in its loop */
    _Atomic uint64_t accepted, answered, ran, dead, cancelled, failed, ended, taken_up;
};

/* Shared by the driver and all actors. */
struct stage {
    char address[160];
    uint64_t seed;
    _Atomic uint32_t stop; /* actors finish what they have begun, close, and exit with 0 */
    _Atomic uint32_t next; /* number of the next task */
    uint32_t round;        /* keys are of one round */
    _Atomic uint32_t trouble;
    char what[400]; /* the first violation */
    struct actor actor[ACTORS];
    _Atomic uint8_t answered[TASKS_MAX], ran[TASKS_MAX];
    _Atomic uint8_t promised[KEYS_MAX];  /* a task with this key was accepted */
    _Atomic uint32_t runner[KEYS_MAX];   /* the task with it that was started, + 1 */
    _Atomic uint64_t duplicates;
};

/* Notes a violation of a promise; only the first one's text is kept. */
void stage_trouble(struct stage *st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A worker starts task n: no other of its key may have been. */
void stage_started(struct stage *st, uint32_t n);

/* Runs as actor i until told to stop; the process's exit status. */
int actor_run(struct stage *st, unsigned i);

/* Which tasks have terms, and which of these: time limits, expiries. */
#define HAS_TERMS(n)  ((n) % 16 == 3)
#define HAS_LIMIT(n)  ((n) % 64 == 3)
#define HAS_EXPIRY(n) ((n) % 64 == 19)

/* A task that kills every worker that starts it. */
#define POISONED(n) ((n) % 40000 == 20001)

/* The size of task n's argument and result, and a byte of either. */
uint32_t task_size(uint32_t n, bool result);

#endif

/* SPDX-License-Identifier: MIT
 *
 * remote.h - the processes of the remote crash campaign, and the notes that they and the driver keep
 * of every task. See remote_campaign.c.
 *
 * What must hold for each task, whoever dies:
 *
 *   a plain producer          is told each outcome once; alive at the end it has been told all
 *   one with a client id      has taken up, after its death, every task of its own that a worker was
 *                             ever given: told at least once in all (but the one that it was taking
 *                             when it died), never twice in one life, never again after a local one
 *                             took it, and the same each time
 *   any                       is told what is true: a result that was computed, of its own task
 *   two tasks with one key    are not both started
 */
#ifndef TESTS_CRASH_REMOTE_H
#define TESTS_CRASH_REMOTE_H

#include <stdbool.h>
#include <sys/types.h>
#include "tests/crash/plan.h"

/* Who they are. The wanderer has a client id and opens its handles now here, now over tcp. */
enum { WANDERER, REMOTE_PRODUCER, LOCAL_PRODUCER, REMOTE_WORKER_1, REMOTE_WORKER_2, LOCAL_WORKER, REMOTE_ACTORS };
#define IS_PRODUCER(i) ((i) <= LOCAL_PRODUCER)
#define IS_REMOTE(i)   ((i) != LOCAL_PRODUCER && (i) != LOCAL_WORKER)

#define NOTES_MAX    (1u << 20) /* tasks of one round */
#define REMOTE_WINDOW 32
#define REMOTE_LARGE  100000u

#define R_KEY(n)      ((n) % 32 == 11) /* four of the same time have the same */
#define R_KEY_OF(n)   ((n) / 128)
#define R_LIMIT(n)    ((n) % 64 == 3)
#define R_EXPIRY(n)   ((n) % 64 == 19)
#define R_TERMS(n)    ((n) % 16 == 3)
#define R_NO_WAIT(n)  ((n) % 16 == 7)
#define R_POISONED(n) ((n) % 100000 == 20001)

struct note {
    _Atomic uint32_t by;        /* note_by() of the life that submits it; 0: none yet */
    _Atomic uint32_t told_to;   /* of the life that was told last */
    _Atomic uint8_t accepted;   /* fab_submit() has said so */
    _Atomic uint8_t started, ran; /* a worker has had it; has computed its result */
    _Atomic uint8_t told, status; /* how often; as what the first time */
};

static inline uint32_t note_by(unsigned actor, uint32_t life)
{
    return (actor + 1) << 24 | (life & 0xffffff);
}

struct remote_actor {
    struct crash_plan plan;
    pid_t pid;
    int pidfd;
    uint32_t life;
    _Atomic uint64_t accepted, told, ran, dead, cancelled, ended, taken_up, links;
};

struct remote_stage {
    char local[160], remote[64], key[160];
    uint64_t seed;
    _Atomic uint32_t stop; /* 1: producers end when all is answered; 2: workers, too */
    _Atomic uint32_t next;
    uint32_t round;
    _Atomic uint32_t trouble;
    char what[400]; /* the first violation */
    struct remote_actor actor[REMOTE_ACTORS];
    _Atomic uint64_t told_again, duplicates;
    uint32_t taken_along; /* outcomes that a wanderer may have taken when it died */
    struct note note[NOTES_MAX];
    _Atomic uint32_t runner[NOTES_MAX / 128]; /* of each key: the task that was started, + 1 */
};

void remote_trouble(struct remote_stage *st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A worker was given the task with this argument; false: it is no task's. */
bool remote_started(struct remote_stage *st, const void *arg, uint32_t len, uint32_t *n);
/* All producers have ended: was everything told that had to be? */
void remote_check_told(struct remote_stage *st);
/* Runs as actor i until told to stop; the process's exit status. */
int remote_actor_run(struct remote_stage *st, unsigned i);

#endif

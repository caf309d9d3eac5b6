/* SPDX-License-Identifier: MIT
 *
 * isolate.h - fabworker --isolate: kernels run in a child process a worker thread, so that one that
 * crashes or hangs is ended and its core goes on.
 *
 * Children are made by the nursery, a process that was forked before any handle was opened, and are
 * children of the worker all the same (CLONE_PARENT): they map nothing of the fabric and have none
 * of the worker's descriptors. (An exec of this program would do, too, unless its file was replaced
 * meanwhile.) Tasks and results go through one memory file that both map, with a futex each way;
 * everything in it may be scribbled on by a kernel, so what the parent reads there is read once and
 * checked. The file is sealed against shrinking and as long as the longest argument and result need;
 * only what is touched takes memory.
 *
 *   parent                                   child
 *   args, task[0..n), done = 0; go + 1       waits for go
 *   sleeps: told, a death, a cancel, a       started = i + 1, runs, result, done = i + 1
 *   time limit                               ended = go; told + 1 at the end, and between
 *                                            tasks when results should not wait
 *
 * Nursery and children end with the worker, however it ends (PR_SET_PDEATHSIG). They are no
 * sandbox: they may do whatever their user may.
 */
#ifndef FABRIC_FABWORKER_ISOLATE_H
#define FABRIC_FABWORKER_ISOLATE_H

#include <assert.h>
#include <sys/types.h>
#include "apps/fabworker/fabworker.h"

struct isolate_task {
    uint64_t kernel;
    uint64_t arg_at, res_at; /* from the start of the file */
    int64_t res_len;         /* < 0: -errno, and the bytes are an error's text */
    uint32_t arg_len, text_len;
};

enum { ISOLATE_AWAKE, ISOLATE_ON_FUTEX, ISOLATE_ON_BELL };

struct isolate_shared {
    _Alignas(HOT_LINE) _Atomic uint32_t go; /* number of the batch to run; the child's futex */
    _Atomic uint32_t n, eager, stop;        /* eager: tell after each; stop: start no more */
    _Atomic uint32_t parked;                /* ISOLATE_*: how the parent sleeps */
    _Alignas(HOT_LINE) _Atomic uint32_t told; /* the parent's futex */
    _Atomic uint32_t started, done, ended;
    _Atomic uint64_t spent_ns; /* for the batch so far */
    _Atomic uint8_t skip[WORKER_BATCH_MAX];
    struct isolate_task task[WORKER_BATCH_MAX];
};

#define ISOLATE_ARGS  65536ull
#define ISOLATE_GROUP (1ull << 20)  /* arguments of several tasks together */
#define ISOLATE_CUT   (16ull << 20) /* results after which a batch ends early */
#define ISOLATE_RES   (ISOLATE_ARGS + FAB_ARG_MAX + 2 * ISOLATE_GROUP)
#define ISOLATE_BYTES (ISOLATE_RES + FAB_ARG_MAX + 2 * ISOLATE_CUT)
static_assert(sizeof(struct isolate_shared) <= ISOLATE_ARGS, "the head has room");

struct nursery {
    int sock;
    pid_t pid;
    pthread_mutex_t lock; /* one thread asks at a time */
};

struct isolate {
    struct isolate_shared *s;
    int fd, bell, core;
    struct nursery *nursery;
    uint32_t index; /* what the nursery knows it by */
    _Atomic uint32_t deaths; /* SIGCHLDs: the main thread adds */
    uint32_t deaths_seen;
    pid_t pid; /* 0: none */
    uint32_t batch;
    uint32_t stillborn; /* children in a row that died before they started a task */
    bool remote;        /* the handle sleeps on descriptors */
};

/* In the main thread, before others start: one for each worker, then the nursery. */
int isolate_open(struct isolate **out, int core, bool remote) __attribute__((warn_unused_result));
int nursery_open(struct nursery *y, struct worker *w, uint32_t n) __attribute__((warn_unused_result));
void nursery_close(struct nursery *y);
/* In the main thread: a child may have died, or all are stopping. */
void isolate_ring(struct isolate *iso);
/* In w's thread: runs w->lease[0..n); *ran gets how many were started. < 0: the handle is of no use
 * any more. Leases from *ran on are still held. */
int isolate_batch(struct worker *w, long n, uint32_t *ran, uint64_t *spent_ns)
    __attribute__((warn_unused_result));
/* In w's thread: the child is killed and reaped. */
void isolate_stop(struct isolate *iso);
/* After w's thread has ended. */
void isolate_close(struct isolate *iso);

/* isolate_child.c: the life of a child of process `parent`. */
_Noreturn void isolate_child(const struct isolate *iso, pid_t parent);

/* thread.c */
int worker_complete(struct worker *w, const struct fab_lease *l, const void *res, uint32_t len)
    __attribute__((warn_unused_result));
int worker_fail(struct worker *w, const struct fab_lease *l, const char *why)
    __attribute__((warn_unused_result));
#define WORKER_BATCH_MOST_NS 8000000

#endif

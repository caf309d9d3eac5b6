/* SPDX-License-Identifier: MIT
 *
 * fabworker.h - the worker program: what its threads share.
 *
 * The main thread reads options, starts one pinned thread a core and then sleeps in sigwait(): for
 * SIGINT and SIGTERM (first: stop after the task in hand; second: leave at once) and for the word
 * that the last thread has ended. Each worker thread has a handle, buffers and counters of its own;
 * what they share is below.
 */
#ifndef FABRIC_FABWORKER_H
#define FABRIC_FABWORKER_H

#include <pthread.h>
#include <signal.h>
#include "apps/common/text.h"
#include "core/atomic.h"
#include "core/fabric.h"
#include "core/kernel.h"
#include "core/topology.h"

#define WORKER_BATCH_MAX 256u
/* The longest a stop, or the end of an idle time, goes unnoticed by a thread that waits for tasks.
 */
#define WORKER_WAIT_NS 200000000ll
/* The signal by which a thread tells the main thread that it has ended. */
#define WORKER_SIGNAL SIGUSR1

struct worker_options {
    const char *cores, *server, *key_file, *queue;
    uint64_t count;  /* 0: no limit */
    int64_t idle_ns; /* exit after so long without a task; < 0: never */
    int64_t spin_ns; /* as fab_options' */
    uint32_t batch;
    bool strict, wait, print, json, isolate;
};

/* How many tasks may still be started (--count). A thread reserves before it claims and returns
 * what it did not get. */
struct budget {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool limited;
    uint64_t left;     /* not reserved by anybody */
    uint64_t reserved; /* by threads that have not run them yet */
    unsigned threads;
};

/* The state of the connection over all threads: one message a loss, one a return. */
struct connection {
    pthread_mutex_t lock;
    pthread_cond_t stopping; /* wakes threads that wait before they try again */
    unsigned lost;           /* threads without a connection that had one */
    bool said_waiting;       /* --wait: once for all threads */
    uint64_t lost_ns;
    uint64_t losses;
};

struct shared {
    const struct worker_options *o;
    struct budget budget;
    struct connection connection;
    pthread_mutex_t output;
    pthread_t main;
    _Atomic bool stop;
    _Atomic int status; /* exit status, < 0: none yet; set once, by the first that finds a reason */
    _Atomic unsigned ready; /* threads that have been connected */
    _Atomic unsigned alive; /* threads that have not ended */
    unsigned threads;
    const char *core_list;
    /* for --exit-when-idle: threads that have tasks in hand, and when the last of these ended */
    _Atomic unsigned busy;
    _Atomic uint64_t last_task_ns;
    char unknown[256]; /* the message for a kernel that we do not know */
};

struct counters {
    uint64_t tasks, completed, failed, released, dropped, crashed;
};

struct isolate;

struct worker {
    struct shared *sh;
    pthread_t thread;
    bool started;
    int core;
    char name[FAB_NAME_MAX];
    fab_t *f;
    uint32_t queue;
    struct fab_lease *lease;      /* WORKER_BATCH_MAX of them, from the core's own node */
    bool begins;                  /* it says fab_begin() before each task */
    uint32_t batch;               /* how many to claim next */
    int fast_rounds;              /* batches of short tasks in a row; < 0 after a long one */
    const struct kernel *kernel;  /* of the last task */
    struct kernel_ctx ctx, shown; /* shown: for --print */
    const struct fab_lease *running; /* what ctx is asked about */
    struct isolate *iso;             /* --isolate; NULL: kernels run in the thread */
    uint8_t *copy;                /* private copy of a long argument */
    size_t copy_cap;
    struct text lines; /* --print: of the batch in hand */
    uint64_t seed;
    uint64_t wait_ns; /* before the next try to connect again */
    struct counters counters;
};

static inline bool worker_stopping(const struct shared *sh)
{
    /* relaxed: a one-way flag; nothing that is read after it depends on it */
    return at_load_rlx(&sh->stop);
}
/* Makes all threads stop. True: this was the first reason, and status is the exit status. */
bool worker_stop(struct shared *sh, int status);

/* ---- cores.c ---- */
/* The cores to use. Says which are missing. -errno when there is none to use, or one is missing and
 * strict. */
int worker_cores(const char *text, bool strict, struct cores *out)
    __attribute__((warn_unused_result));

/* ---- budget.c ---- */
int budget_open(struct budget *b, uint64_t count, unsigned threads)
    __attribute__((warn_unused_result));
/* Reserves up to want; 0: no more tasks are to be run, or all are stopping. Waits while others may
 * give back. */
uint32_t budget_reserve(struct shared *sh, uint32_t want);
/* Of `reserved`, `ran` have been run; the rest goes back. */
void budget_settle(struct shared *sh, uint32_t reserved, uint32_t ran);
void budget_wake(struct budget *b);

/* ---- connect.c ---- */
int connection_open(struct connection *c) __attribute__((warn_unused_result));
/* Opens w->f and finds the queue, trying again as the options allow. < 0: we are to end. */
int worker_connect(struct worker *w) __attribute__((warn_unused_result));
/* The handle is of no use any more (rc, fab_errmsg()): closes it and connects again. */
int worker_reconnect(struct worker *w, int rc) __attribute__((warn_unused_result));
void connection_wake(struct connection *c);

/* ---- thread.c ---- */
void *worker_main(void *arg);
/* --exit-when-idle: no task is in hand anywhere and none came for that long. */
bool worker_idle(const struct shared *sh);
#define WORKER_RETRY_FIRST_NS 100000000ull /* nobody was there yet */
#define WORKER_AGAIN_FIRST_NS 4000000ull   /* the connection was lost */

/* ---- print.c ---- */
/* Adds the line of one task that was run: its result's bytes, or failed (why). */
void print_task(struct worker *w, const struct kernel *k, const void *arg, size_t arg_len,
                const void *res, long res_len, const char *why);
/* Writes the lines there are, whole. */
void print_flush(struct worker *w);
/* The summary: in the log, or as JSON on stdout. */
void print_summary(const struct shared *sh, const struct worker *w, int n, double seconds);

#endif

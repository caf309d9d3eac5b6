/* SPDX-License-Identifier: MIT
 *
 * peer.h - what the C programs that measure other systems share.
 *
 * A program describes its system by five operations; driver.c does the measuring, the same for all:
 * 8 bytes of argument out, feb of it (8 bytes) back, one worker process. Arguments go 0, 1, ... 63,
 * 0, ... and answers must come back in that order, each right.
 *
 * Threads: one a process, but for what a library starts of its own. Failure: whatever fails ends
 * the process with a message (peer_die); the parent's death ends the worker, and a system that
 * stops answering ends the program by alarm. These programs use nothing of the fabric's and the
 * fabric nothing of theirs.
 */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_BATCH_MAX 1024u

/* One series: a producer and a worker, connected anew. */
struct peer_run {
    const char *mode;    /* which of the program's variants */
    const char *address; /* where the server is, or where to listen */
    char name[32];       /* unique in this program's life: for queues and sockets */
    char at[2][128];     /* what the producer's open tells the worker's: endpoints */
    unsigned batch;      /* tasks a call */
    unsigned window;     /* most tasks without an answer */
};

struct peer_step {
    unsigned batch, window;
};

struct peer_ops {
    /* Connects. The producer's comes first and makes what has to be made (queues, listening
     * sockets). */
    void *(*open)(struct peer_run *r, bool worker);
    void (*close)(void *p);
    /* The producer: n tasks out; at least one answer in, blocking, and at most max. */
    void (*send)(void *p, const int64_t *arg, unsigned n);
    unsigned (*take)(void *p, uint64_t *answer, unsigned max);
    /* The worker: at least one task in, blocking, and at most max; the answers to exactly these out
     * (and their acks). */
    unsigned (*get)(void *p, int64_t *arg, unsigned max);
    void (*put)(void *p, const uint64_t *answer, unsigned n);
    /* Instead of get and put, where the library has a loop of its own: serves for ever, by
     * peer_feb. */
    void (*work)(void *p);
    bool one_way; /* nothing comes back but one count at the end */
    /* Both sides were started by somebody else: is this the worker? NULL: the driver forks the
     * worker. */
    bool (*is_worker)(void);
    const struct peer_step
        *step; /* tried for throughput, the best is told; ends with batch 0; NULL: the usual ones */
};

/* The work. An argument that was never sent ends the process. */
uint64_t peer_feb(int64_t n);

/* Measures and prints one line of JSON. Usage: PROGRAM MODE ADDRESS SECONDS. */
int peer_main(int argc, char **argv, const struct peer_ops *(*choose)(const char *mode));

void peer_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif

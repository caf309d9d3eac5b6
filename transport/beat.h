/* SPDX-License-Identifier: MIT
 *
 * beat.h - the process's beat thread: looks after links while their handles' threads are elsewhere.
 *
 * A handle makes progress in its own calls only. A kernel that runs for minutes, or a producer that
 * computes, makes none: heartbeats would go unanswered, results that were gathered would stay, and
 * leases that were not started could not be given back. So one thread in the process, with no work
 * of its own, waits for all control connections. When something comes on one whose owner is not
 * inside (guard.h), it does what the owner's next call would do first. fabricd only says something
 * there when it misses something (apps/fabricd/pulse.h), and a few times a second to measure the
 * round trip (rtt.h), so the thread sleeps while tasks flow.
 *
 * The thread starts with the first link and stays; it blocks all signals. A forked child has none,
 * and gets one with its own first link.
 *
 * Threads: beat_add() and beat_del() are the owner's, from inside its guard. A visit that is going
 * on is waited for by guard_enter(), and by beat_del(): after it returned there is none.
 *
 * Failure: -errno with a message when there is no thread or no descriptor to be had.
 */
#ifndef FABRIC_BEAT_H
#define FABRIC_BEAT_H

#include "transport/guard.h"

struct beat {
    struct guard *guard;
    void (*visit)(void *arg); /* in the beat thread, between guard_visit() and guard_end_visit() */
    void *arg;
    int fd;
    uint32_t place; /* index + 1 in the thread's table; 0: not there */
};

/* Watches fd, whose events are visits. */
int beat_add(struct beat *b, int fd) __attribute__((warn_unused_result));
/* Before fd is closed. Nothing to do for one that was not added. */
void beat_del(struct beat *b);

#endif

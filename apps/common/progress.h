/* SPDX-License-Identifier: MIT
 *
 * progress.h - a progress line on a terminal: done/total, rate, time left.
 *
 * Appears after a second, changes at most ten times a second. Whoever writes to the same terminal
 * calls progress_hide() first; the next tick draws it again.
 *
 * Threads: one.
 */
#ifndef FABRIC_APPS_PROGRESS_H
#define FABRIC_APPS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool on;    /* the descriptor is a terminal that understands escapes */
    bool shown; /* the line is on the screen */
    int fd;
    uint64_t total; /* 0: unknown */
    uint64_t start_ns, next_ns, seen_ns, seen;
    double rate; /* smoothed, per second */
};

/* wanted: false keeps it silent whatever fd is. */
void progress_open(struct progress *p, bool wanted, int fd, uint64_t total, uint64_t now_ns);
void progress_tick(struct progress *p, uint64_t done, uint64_t now_ns);
void progress_hide(struct progress *p);

#endif

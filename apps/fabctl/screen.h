/* SPDX-License-Identifier: MIT
 *
 * screen.h - what fabctl writes: results on stdout, failures on stderr, a progress line on the
 * terminal.
 *
 * Both streams are gathered in memory and written in large pieces. When they are the same file (a
 * terminal, or 2>&1), their lines keep the order in which they were added. The progress line is
 * taken off the terminal before anything else is written there.
 *
 * Threads: one.
 *
 * Failure: a write that fails sets error once and drops what follows; the caller decides what to
 * stop. SIGPIPE is to be ignored, so that a closed pipe shows as EPIPE. A signal during a write to
 * a full pipe (EINTR) ends the attempt and keeps the rest, so that the caller can look at what it
 * means.
 */
#ifndef FABRIC_FABCTL_SCREEN_H
#define FABRIC_FABCTL_SCREEN_H

#include "apps/common/progress.h"
#include "apps/common/text.h"

struct stream {
    int fd;
    struct text pending;
    size_t written; /* of pending */
    bool terminal;
    int error; /* -errno of the write that failed; 0 */
};

struct screen {
    struct stream out, err;
    bool same; /* one file behind both */
    struct progress bar;
};

void screen_open(struct screen *s);
/* The text to add a line to. Writes out first what must stand before it. */
struct text *screen_out(struct screen *s);
struct text *screen_err(struct screen *s);
/* Something waits to be written. */
bool screen_pending(const struct screen *s);
void screen_flush(struct screen *s);
void screen_close(struct screen *s);

/* "fabctl: ..." as a line on stderr; foreign bytes in it are made harmless. */
void screen_say(struct screen *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif

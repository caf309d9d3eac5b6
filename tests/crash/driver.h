/* SPDX-License-Identifier: MIT
 *
 * driver.h - what the drivers of the two crash campaigns have in common: a fabricd that obeys a
 * crash plan and is started again and again in one directory, the count of deaths, and the look at
 * a segment that everybody has left.
 */
#ifndef TESTS_CRASH_DRIVER_H
#define TESTS_CRASH_DRIVER_H

#include <stdbool.h>
#include <sys/types.h>
#include "core/segment.h"
#include "tests/crash/plan.h"

/* ---- fabricd ---- */

struct crash_fabricd {
    const char *build; /* the build directory */
    char dir[64], conf[96], plan_path[96];
    struct crash_plan *plan;
    pid_t pid; /* 0: there is none */
    int pidfd;
};

/* Makes its directory and its plan; the configuration is the caller's to write. */
int fabricd_prepare(struct crash_fabricd *d) __attribute__((warn_unused_result));
/* *ready: its stderr, for fabricd_await_ready(). */
bool fabricd_begin(struct crash_fabricd *d, int *ready) __attribute__((warn_unused_result));
/* Reads its stderr until it is ready, and closes it. False: it died before. */
bool fabricd_await_ready(int fd);
bool fabricd_start(struct crash_fabricd *d) __attribute__((warn_unused_result));
void fabricd_kill(struct crash_fabricd *d);
/* It is dead, or is about to be. */
void fabricd_bury(struct crash_fabricd *d);
/* Ends a fabricd, if there is one, and removes its directory. False: it had to be killed. */
bool fabricd_end(struct crash_fabricd *d, int ms) __attribute__((warn_unused_result));

/* ---- deaths ---- */

#define POINTS_MAX 128

struct point {
    const char *name;
    uint32_t tried, fired;
};

struct deaths {
    struct point point[POINTS_MAX];
    uint32_t points;
    uint32_t kills, poisoned, at_points, at_random, of_fabricd, pairs;
};

int pidfd_of(pid_t pid);
bool dies_within(int pidfd, int ms);
/* Waits for a process to die at its point (NULL: it has none), or kills it after ms; counts that.
 */
void see_off(struct deaths *d, pid_t pid, int pidfd, const struct crash_plan *plan, struct point *p,
             int ms, bool daemon);
/* Does the name of a point begin with one of these? NULL ends them. */
bool is_of(const char *point, const char *const *prefix);
/* One of the points that begin so: the less often one was tried, the likelier. NULL: 64 throws
 * have met none of them. */
struct point *choose_point(struct deaths *d, uint64_t *dice, const char *const *prefix);

/* ---- leaks ---- */

struct leak {
    uint32_t participants, kept, slots, in_ring, letters, states[16];
    uint64_t bytes;
};

/* Is every slot, block and entry free but fabricd's and the caller's? end_kept: what is kept for
 * its producer need not be waited for, fabricd's next tick ends it. */
bool all_free(const struct segment *s, struct leak *l, bool end_kept);

#endif

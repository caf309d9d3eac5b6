/* SPDX-License-Identifier: MIT
 *
 * loop.h - one io_uring for everything a thread waits on.
 *
 * Sources are watched descriptors, accepting sockets and timers. A source is a
 * struct the owner embeds in its own object; the loop keeps no memory a source. Callbacks run in
 * loop_run(), in the thread that owns the loop, never inside a call into the loop.
 *
 * Threads: one thread a loop; loop_wake() alone may be called from any thread or a signal handler.
 *
 * Kernel: 5.19 or later. Multishot poll and accept where the kernel has them, re-armed when the
 * kernel ends them (no IORING_CQE_F_MORE); one-shot otherwise. loop_open() says which sysctl or
 * container profile forbids io_uring when it is forbidden.
 *
 * Failure: a source whose operation fails gets its callback with a negative result. A stopped
 * source gets no callback after loop_stop() returned, even when one was on its way; its struct may
 * be freed at once (stale completions are matched by generation).
 */
#ifndef FABRIC_LOOP_H
#define FABRIC_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct loop_src;

/* result: for a watched fd the poll events (> 0) or -errno; for accept the new descriptor (>= 0,
 * owned by the callee, close-on-exec, non-blocking) or -errno; for a timer 0. */
typedef void loop_fn(struct loop_src *src, int result);

struct loop_src {
    loop_fn *fn;
    void *owner; /* free for the caller */
    int fd;
    uint32_t slot; /* the loop's: index + 1 in its table, 0 = stopped */
};

int loop_open(struct loop **out, uint32_t sources_max) __attribute__((warn_unused_result));
void loop_close(struct loop *l);

/* Watches fd for events (POLLIN...). once: one callback, then the source is stopped. */
int loop_watch(struct loop *l, struct loop_src *s, int fd, uint32_t events, bool once, loop_fn *fn)
    __attribute__((warn_unused_result));
int loop_accept(struct loop *l, struct loop_src *s, int listen_fd, loop_fn *fn)
    __attribute__((warn_unused_result));
/* After ns from now, then every period_ns if that is not 0. */
int loop_timer(struct loop *l, struct loop_src *s, uint64_t ns, uint64_t period_ns, loop_fn *fn)
    __attribute__((warn_unused_result));
void loop_stop(struct loop *l, struct loop_src *s);

/* Runs callbacks: those that are ready now (timeout_ns 0), or waits up to timeout_ns (< 0: for
 * ever) for the first. Returns how many callbacks ran. With timeout_ns == 0 and nothing pending
 * this costs no system call. */
int loop_run(struct loop *l, int64_t timeout_ns);
/* Makes a waiting loop_run() return. */
void loop_wake(struct loop *l);

#endif

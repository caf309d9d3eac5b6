/* SPDX-License-Identifier: MIT
 *
 * attend.c - a local worker's sleep while somebody else runs its kernels: until the caller's own
 * word changes, or its bell is rung because a lease was cancelled (cancel.c).
 *
 * The bell's number is read before each return, so before the caller looks at its leases: a ring
 * after that makes the next sleep end at once.
 *
 * Threads: the handle's.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/error.h"
#include "core/local.h"

int local_attend(fab_t *f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    struct futex_waitv w[2] = {
        {.val = l->attended, .uaddr = (uintptr_t)&l->self->bell_seq, .flags = FUTEX_32},
        {.val = value, .uaddr = (uintptr_t)word, .flags = FUTEX_32}};
    uint64_t until = deadline_of(timeout_ns);
    struct timespec t = {.tv_sec = (time_t)(until / 1000000000u),
                         .tv_nsec = (long)(until % 1000000000u)};
    (void)fd; /* of use where there is a loop of descriptors: remote handles */
    long rc = syscall(SYS_futex_waitv, w, word ? 2 : 1, 0, timeout_ns < 0 ? NULL : &t,
                      CLOCK_MONOTONIC);
    int error = rc < 0 ? errno : 0;
    l->attended = at_load(&l->self->bell_seq);
    if (error == ETIMEDOUT)
        return -ETIMEDOUT;
    if (error && error != EAGAIN && error != EINTR)
        return err_set(-error, "futex_waitv: %s; it needs Linux 5.16, and to be allowed",
                       strerror(error));
    return 0;
}

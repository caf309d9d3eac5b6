/* SPDX-License-Identifier: MIT
 *
 * floor_shm.c - what two processes on two cores can do with shared memory and nothing else: a cache
 * line bounced, a Vyukov ring and an SPSC ring of bare integers one way.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/atomic.h"
#include "core/clock.h"

#define RING 4096u

struct shared {
    _Alignas(HOT_LINE) _Atomic uint64_t ball;
    _Alignas(HOT_LINE) _Atomic uint64_t head;
    _Alignas(HOT_LINE) _Atomic uint64_t tail;
    _Alignas(HOT_LINE) _Atomic uint64_t stop;
    struct {
        _Atomic uint64_t seq, value;
    } cell[RING];
};

static struct shared *share(void)
{
    void *p = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static pid_t fork_far(const struct settings *st)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_far(st);
    }
    return pid;
}

/* One line, both ways in it: the least that a round trip between two cores costs. */
int floor_pingpong(const struct settings *st, struct samples *out)
{
    struct shared *m = share();
    uint64_t warm = out->n / 5, rounds = out->n + warm;
    if (!m)
        return -ENOMEM;
    pid_t pid = fork_far(st);
    if (pid == 0) {
        for (uint64_t i = 1; i <= rounds; i++) {
            while (at_load_acq(&m->ball) != 2 * i - 1)
                poll_pause(st);
            at_store_rel(&m->ball, 2 * i);
        }
        _exit(0);
    }
    pin_near(st);
    for (uint64_t i = 1; i <= rounds; i++) {
        uint64_t t = stamp();
        at_store_rel(&m->ball, 2 * i - 1);
        while (at_load_acq(&m->ball) != 2 * i)
            poll_pause(st);
        if (i > warm)
            out->ns[i - warm - 1] = stamp_ns(t, stamp());
    }
    waitpid(pid, NULL, 0);
    munmap(m, sizeof *m);
    return 0;
}

/* Vyukov's bounded MPMC queue, as published. */
static void vyukov_consume(struct shared *m)
{
    for (;;) {
        uint64_t pos = at_load_rlx(&m->head);
        for (;;) {
            uint64_t seq = at_load_acq(&m->cell[pos % RING].seq);
            if (seq == pos + 1) {
                if (at_cas(&m->head, &pos, pos + 1))
                    break;
            } else {
                if (at_load_rlx(&m->stop) == pos)
                    _exit(0);
                cpu_relax();
                pos = at_load_rlx(&m->head);
            }
        }
        (void)at_load_rlx(&m->cell[pos % RING].value);
        at_store_rel(&m->cell[pos % RING].seq, pos + RING);
    }
}

static double finish(struct shared *m, pid_t pid, uint64_t n, uint64_t start)
{
    at_store(&m->stop, n);
    waitpid(pid, NULL, 0);
    double s = (double)(clock_ns() - start) / 1e9;
    munmap(m, sizeof *m);
    return (double)n / s;
}

double floor_vyukov(const struct settings *st)
{
    struct shared *m = share();
    uint64_t n = 0, start, limit = (uint64_t)(st->seconds * 1e9);
    if (!m)
        return -1;
    m->stop = UINT64_MAX;
    for (uint64_t i = 0; i < RING; i++)
        m->cell[i].seq = i;
    pid_t pid = fork_far(st);
    if (pid == 0)
        vyukov_consume(m);
    pin_near(st);
    start = clock_ns();
    while ((n & 1023) || clock_ns() - start < limit) {
        uint64_t pos = at_load_rlx(&m->tail);
        if (at_load_acq(&m->cell[pos % RING].seq) != pos) {
            cpu_relax();
            continue;
        }
        if (!at_cas(&m->tail, &pos, pos + 1))
            continue;
        at_store_rlx(&m->cell[pos % RING].value, n);
        at_store_rel(&m->cell[pos % RING].seq, pos + 1);
        n++;
    }
    return finish(m, pid, n, start);
}

/* Lamport's ring with cached indices. */
double floor_spsc(const struct settings *st)
{
    struct shared *m = share();
    uint64_t n = 0, start, seen = 0, limit = (uint64_t)(st->seconds * 1e9);
    if (!m)
        return -1;
    m->stop = UINT64_MAX;
    pid_t pid = fork_far(st);
    if (pid == 0) {
        uint64_t head = 0, tail = 0;
        while (at_load_rlx(&m->stop) != head) {
            if (head == tail) {
                tail = at_load_acq(&m->tail);
                cpu_relax();
                continue;
            }
            (void)at_load_rlx(&m->cell[head % RING].value);
            head++;
            at_store_rel(&m->head, head);
        }
        _exit(0);
    }
    pin_near(st);
    start = clock_ns();
    while ((n & 1023) || clock_ns() - start < limit) {
        if (n - seen == RING) {
            seen = at_load_acq(&m->head);
            continue;
        }
        at_store_rlx(&m->cell[n % RING].value, n);
        n++;
        at_store_rel(&m->tail, n);
    }
    return finish(m, pid, n, start);
}

/* SPDX-License-Identifier: MIT
 *
 * beat.c - the beat thread; see beat.h.
 *
 * Invariants: the table and everything in it belong to who holds the lock, which the thread does
 * during a visit. An entry's generation tells an event that was on its way from one of the entry's
 * next user. Edge-triggered: who is inside reads the connection himself, and is not knocked for
 * twice.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "core/error.h"
#include "transport/beat.h"

#define EVENTS 16
#define STACK  (256u << 10)

struct entry {
    struct beat *beat; /* NULL: free */
    uint32_t generation;
};

static struct {
    pthread_mutex_t lock;
    pid_t pid; /* the process that the thread is in; 0: none yet */
    int epoll;
    struct entry *entry;
    uint32_t n;
} beats = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void look(uint64_t what)
{
    uint32_t place = (uint32_t)what, generation = (uint32_t)(what >> 32);
    struct beat *b;
    pthread_mutex_lock(&beats.lock);
    b = place < beats.n && beats.entry[place].generation == generation ? beats.entry[place].beat
                                                                       : NULL;
    if (b && guard_visit(b->guard)) {
        b->visit(b->arg);
        guard_end_visit(b->guard);
    }
    pthread_mutex_unlock(&beats.lock);
}

/* The thread that opened the first link may be pinned, and busy there. */
static void leave_the_core(void)
{
    cpu_set_t set;
    if (sched_getaffinity(getpid(), sizeof set, &set) == 0) /* the first thread's */
        (void)!sched_setaffinity(0, sizeof set, &set);
}

static void *beat_main(void *arg)
{
    struct epoll_event ev[EVENTS];
    int fd = beats.epoll; /* it stays for as long as the process does */
    (void)arg;
    pthread_setname_np(pthread_self(), "fab-beat");
    leave_the_core();
    for (;;) {
        int n = epoll_wait(fd, ev, EVENTS, -1);
        for (int i = 0; i < n; i++)
            look(ev[i].data.u64);
    }
    return NULL;
}

static int start_thread(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int rc = pthread_attr_init(&attr);
    if (rc)
        return -rc;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&thread, &attr, beat_main, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -rc;
}

static void take_lock(void)
{
    pthread_mutex_lock(&beats.lock);
}

static void drop_lock(void)
{
    pthread_mutex_unlock(&beats.lock);
}

/* A fork in the middle of a visit would leave the child a lock that nobody opens. */
static void mind_forks(void)
{
    (void)!pthread_atfork(take_lock, drop_lock, drop_lock); /* no memory: as without it */
}

/* Lock held. */
static int start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pid_t me = getpid();
    if (beats.pid == me)
        return 0;
    pthread_once(&once, mind_forks);
    if (beats.pid) { /* a forked child: what is in the table is its parent's */
        close(beats.epoll);
        for (uint32_t i = 0; i < beats.n; i++)
            beats.entry[i].beat = NULL;
        beats.pid = 0;
    }
    beats.epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = beats.epoll < 0 ? -errno : start_thread();
    if (rc < 0) {
        if (beats.epoll >= 0)
            close(beats.epoll);
        return err_set(rc, "no thread to answer heartbeats: %s", strerror(-rc));
    }
    beats.pid = me;
    return 0;
}

/* Lock held: a free place. */
static int find_place(uint32_t *place)
{
    uint32_t i = 0;
    while (i < beats.n && beats.entry[i].beat)
        i++;
    if (i == beats.n) {
        uint32_t more = beats.n ? 2 * beats.n : 8;
        struct entry *e = realloc(beats.entry, more * sizeof *e);
        if (!e)
            return err_set(-ENOMEM, "no memory for a link");
        memset(e + beats.n, 0, (more - beats.n) * sizeof *e);
        beats.entry = e;
        beats.n = more;
    }
    *place = i;
    return 0;
}

int beat_add(struct beat *b, int fd)
{
    uint32_t i = 0;
    pthread_mutex_lock(&beats.lock);
    int rc = start();
    if (rc == 0)
        rc = find_place(&i);
    if (rc == 0) {
        struct entry *e = &beats.entry[i];
        struct epoll_event ev = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET,
                                 .data.u64 = (uint64_t)++e->generation << 32 | i};
        if (epoll_ctl(beats.epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
            rc = err_set(-errno, "epoll: %s", strerror(errno));
        } else {
            e->beat = b;
            b->fd = fd;
            b->place = i + 1;
        }
    }
    pthread_mutex_unlock(&beats.lock);
    return rc;
}

void beat_del(struct beat *b)
{
    if (b->place == 0)
        return;
    pthread_mutex_lock(&beats.lock);
    /* in a forked child the entry, and the connection, are the parent's */
    if (beats.pid == getpid() && beats.entry[b->place - 1].beat == b) {
        beats.entry[b->place - 1].beat = NULL;
        epoll_ctl(beats.epoll, EPOLL_CTL_DEL, b->fd, NULL);
    }
    b->place = 0;
    pthread_mutex_unlock(&beats.lock);
}

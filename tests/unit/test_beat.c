/* SPDX-License-Identifier: MIT
 *
 * test_beat.c - the guard between a handle's thread and the beat thread, and the beat thread
 * itself.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/clock.h"
#include "transport/beat.h"

#define ROUNDS_NS 1000000000ull

/* ---- the guard ---- */

static struct {
    struct guard g;
    uint64_t shared, copy; /* equal whenever nobody is inside */
    uint64_t calls, served, refused, broken;
    _Atomic uint64_t visits;
    _Atomic uint32_t stop;
} one;

/* What a call does: the two are unequal for a moment. */
static void touch(void)
{
    one.broken += *(volatile uint64_t *)&one.shared != *(volatile uint64_t *)&one.copy;
    *(volatile uint64_t *)&one.shared += 1;
    cpu_relax();
    *(volatile uint64_t *)&one.copy += 1;
}

static void *visitor(void *arg)
{
    (void)arg;
    while (!at_load(&one.stop)) {
        if (guard_visit(&one.g)) {
            touch();
            at_add(&one.visits, 1);
            guard_end_visit(&one.g);
        } else {
            one.refused++;
        }
    }
    return NULL;
}

static void bounce(bool fenced)
{
    pthread_t t;
    guard_init(&one.g);
    if (fenced)
        one.g.fenced = true;
    cr_assert_eq(pthread_create(&t, NULL, visitor, NULL), 0);
    uint64_t start = clock_ns();
    /* on a busy machine the visitor may not have run yet */
    while (clock_ns() < start + ROUNDS_NS ||
           (at_load(&one.visits) == 0 && clock_ns() < start + 30 * ROUNDS_NS)) {
        for (int i = 0; i < 1000; i++) {
            guard_enter(&one.g);
            touch();
            one.calls++;
            while (guard_leave(&one.g)) {
                guard_enter(&one.g);
                touch();
                one.served++;
            }
        }
    }
    at_store(&one.stop, 1);
    pthread_join(t, NULL);
    cr_assert_eq(one.broken, 0, "both were inside %llu times", (unsigned long long)one.broken);
    cr_assert_eq(one.shared, one.calls + one.served + one.visits);
    cr_assert(one.visits > 0 && one.calls > 0);
    /* who was refused was knocked for; several knocks before a leave are one */
    cr_assert(one.refused == 0 || one.served > 0 || at_load(&one.g.knock));
}

Test(guard, lets_one_in_at_a_time)
{
    bounce(false);
}

Test(guard, lets_one_in_at_a_time_where_there_is_no_membarrier)
{
    bounce(true);
}

Test(guard, who_is_refused_is_served_by_the_owner)
{
    guard_init(&one.g);
    guard_enter(&one.g);
    cr_assert_not(guard_visit(&one.g));
    cr_assert(guard_leave(&one.g));
    guard_enter(&one.g);
    cr_assert_not(guard_leave(&one.g));
    cr_assert(guard_visit(&one.g));
    guard_end_visit(&one.g);
    guard_enter(&one.g);
    cr_assert_not(guard_leave(&one.g), "a visit that took place is no knock");
}

/* ---- the thread ---- */

static struct {
    struct guard guard;
    struct beat beat;
    int fd, said;
    _Atomic uint32_t visits;
} two;

static void on_visit(void *arg)
{
    uint64_t n, one_more = 1;
    cr_assert_eq(arg, &two);
    (void)!read(two.fd, &n, sizeof n);
    at_add(&two.visits, 1);
    (void)!write(two.said, &one_more, sizeof one_more);
}

static void say(int fd)
{
    uint64_t one_more = 1;
    cr_assert_eq(write(fd, &one_more, sizeof one_more), (ssize_t)sizeof one_more);
}

static bool visited(int ms)
{
    struct pollfd p = {.fd = two.said, .events = POLLIN};
    uint64_t n;
    return poll(&p, 1, ms) == 1 && read(two.said, &n, sizeof n) == (ssize_t)sizeof n;
}

static void begin(void)
{
    guard_init(&two.guard);
    two.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    two.said = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    two.beat = (struct beat){.guard = &two.guard, .visit = on_visit, .arg = &two};
    cr_assert_eq(beat_add(&two.beat, two.fd), 0);
}

Test(beat, visits_when_something_comes)
{
    begin();
    for (int i = 0; i < 100; i++) {
        say(two.fd);
        cr_assert(visited(5000), "visit %d", i);
    }
    cr_assert_eq(at_load(&two.visits), 100);
    beat_del(&two.beat);
}

Test(beat, knocks_when_the_owner_is_inside)
{
    begin();
    guard_enter(&two.guard);
    say(two.fd);
    for (uint64_t end = clock_ns() + 5000000000ull; !at_load(&two.guard.knock) && clock_ns() < end;)
        sched_yield();
    cr_assert_eq(at_load(&two.visits), 0);
    cr_assert(guard_leave(&two.guard));
    beat_del(&two.beat);
}

Test(beat, what_came_before_it_was_added_is_a_visit_and_what_comes_after_it_has_gone_is_none)
{
    guard_init(&two.guard);
    begin();
    beat_del(&two.beat);
    say(two.fd);
    cr_assert_not(visited(50));
    cr_assert_eq(beat_add(&two.beat, two.fd), 0);
    cr_assert(visited(5000));
    beat_del(&two.beat);
    beat_del(&two.beat); /* nothing to do */
}

/* A child has no beat thread of its parent's; it gets its own, and leaves the parent's alone. */
Test(beat, a_forked_child_gets_a_thread_of_its_own)
{
    int status;
    begin();
    /* the parent's thread is there: AddressSanitizer's own locks are not for a fork while one is being made */
    say(two.fd);
    cr_assert(visited(5000));
    pid_t pid = fork();
    if (pid == 0) {
        beat_del(&two.beat);
        close(two.fd);
        close(two.said);
        begin();
        say(two.fd);
        _exit(visited(5000) ? 0 : 1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    say(two.fd);
    cr_assert(visited(5000), "the parent's goes on");
    beat_del(&two.beat);
}

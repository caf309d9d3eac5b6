/* SPDX-License-Identifier: MIT
 *
 * test_dial.c - hosts with several addresses, some of them dead (transport/dial.h). Time is the
 * test's own: nothing here waits for a time-out. An address that swallows packets is a listening
 * socket whose queue is full.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>
#include "core/error.h"
#include "transport/dial.h"

#define T0 1000000000000ull

static struct dial d;

static void begin(void)
{
    dial_init(&d);
}

static struct sockaddr_in listener(int *fd, int backlog)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(*fd, (struct sockaddr *)&a, len), 0);
    cr_assert_eq(listen(*fd, backlog), 0);
    cr_assert_eq(getsockname(*fd, (struct sockaddr *)&a, &len), 0);
    return a;
}

static void add(const struct sockaddr_in *a)
{
    dial_add(&d, (const struct sockaddr *)a, sizeof *a);
}

/* Nobody listens there: the socket is bound, so that nobody else can. */
static void add_refusing(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, len), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    add(&a);
}

/* Fills the queue with connections until one is not made any more. */
static void add_silent(void)
{
    int fd;
    struct sockaddr_in a = listener(&fd, 0);
    for (int i = 0; i < 16; i++) {
        int c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        struct pollfd p = {.fd = c, .events = POLLOUT};
        (void)!connect(c, (struct sockaddr *)&a, sizeof a);
        if (poll(&p, 1, 100) == 0) {
            add(&a);
            return;
        }
    }
    cr_skip("this kernel's queue is never full");
}

static struct sockaddr_in add_live(void)
{
    int fd;
    struct sockaddr_in a = listener(&fd, 16);
    add(&a);
    return a;
}

/* Steps without time going on, as long as something happens. */
static int settle(uint64_t now)
{
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    int rc;
    while ((rc = dial_step(&d, now)) == -EAGAIN && poll(p, dial_polls(&d, p, &next), 100) > 0)
        ;
    return rc;
}

static void is_connected_to(int fd, const struct sockaddr_in *a)
{
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    cr_assert_geq(fd, 0, "%d", fd);
    cr_assert_eq(getpeername(fd, (struct sockaddr *)&peer, &len), 0);
    cr_assert_eq(peer.sin_port, a->sin_port);
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

TestSuite(dial, .init = begin);

Test(dial, one_that_refuses_costs_no_time)
{
    add_refusing();
    add_refusing();
    struct sockaddr_in live = add_live();
    is_connected_to(settle(T0), &live);
}

Test(dial, one_that_is_silent_costs_a_step)
{
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    add_silent();
    struct sockaddr_in live = add_live();
    unsigned before = descriptors();
    cr_assert_eq(settle(T0), -EAGAIN);
    cr_assert_eq(dial_polls(&d, p, &next), 1, "the second is not tried yet");
    cr_assert_eq(next, T0 + DIAL_STEP_NS, "whoever sleeps is told until when");
    cr_assert_eq(settle(T0 + DIAL_STEP_NS - 1), -EAGAIN);
    int fd = settle(T0 + DIAL_STEP_NS);
    is_connected_to(fd, &live);
    cr_assert_eq(descriptors(), before + 1, "the other is closed");
}

Test(dial, several_silent_ones_cost_a_step_each)
{
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    add_silent();
    add_silent();
    struct sockaddr_in live = add_live();
    cr_assert_eq(settle(T0), -EAGAIN);
    cr_assert_eq(settle(T0 + DIAL_STEP_NS), -EAGAIN);
    cr_assert_eq(dial_polls(&d, p, &next), 2, "the first is still waited for");
    is_connected_to(settle(T0 + 2 * DIAL_STEP_NS), &live);
}

Test(dial, a_slow_one_may_still_win)
{
    int fd;
    struct sockaddr_in a = listener(&fd, 16);
    add_silent();
    add_silent();
    cr_assert_eq(settle(T0), -EAGAIN);
    cr_assert_eq(settle(T0 + DIAL_STEP_NS), -EAGAIN);
    /* the first one comes through after all */
    cr_assert_eq(dup2(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), d.at[0].fd), d.at[0].fd);
    (void)!connect(d.at[0].fd, (struct sockaddr *)&a, sizeof a);
    is_connected_to(settle(T0 + DIAL_STEP_NS), &a);
}

Test(dial, a_wire_that_is_back_answers_a_fresh_try)
{
    int fd;
    struct sockaddr_in live = listener(&fd, 16);
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    add_silent();
    cr_assert_eq(settle(T0), -EAGAIN);
    unsigned before = descriptors();
    dial_again(&d);
    cr_assert_eq(descriptors(), before, "the last try is closed");
    cr_assert_eq(settle(T0 + 1), -EAGAIN);
    memcpy(&d.at[0].address, &live, sizeof live); /* it answers again, if it is asked again */
    cr_assert_eq(settle(T0 + 2), -EAGAIN, "not what was asked before");
    dial_again(&d);
    is_connected_to(settle(T0 + 3), &live);
    cr_assert_eq(dial_polls(&d, p, &next), 0);
}

Test(dial, fresh_tries_do_not_keep_the_next_address_waiting)
{
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    add_silent();
    struct sockaddr_in live = add_live();
    for (uint64_t now = T0; now < T0 + DIAL_STEP_NS; now += DIAL_STEP_NS / 8) {
        cr_assert_eq(settle(now), -EAGAIN);
        dial_again(&d);
        cr_assert_eq(dial_polls(&d, p, &next), 1, "only those whose turn has come");
        cr_assert_eq(next, T0 + DIAL_STEP_NS);
    }
    is_connected_to(settle(T0 + DIAL_STEP_NS), &live);
    cr_assert_eq(dial_winner(&d), &d.at[1]);
}

Test(dial, one_that_refused_is_tried_again)
{
    int fd;
    struct sockaddr_in live = listener(&fd, 16);
    add_refusing();
    add_silent();
    cr_assert_eq(settle(T0), -EAGAIN);
    memcpy(&d.at[0].address, &live, sizeof live);
    dial_again(&d);
    is_connected_to(settle(T0 + 1), &live);
    cr_assert_eq(dial_winner(&d), &d.at[0]);
}

Test(dial, a_connection_of_no_use_is_followed_by_others)
{
    add_silent();
    struct sockaddr_in live = add_live();
    cr_assert_eq(settle(T0), -EAGAIN);
    int fd = settle(T0 + DIAL_STEP_NS);
    is_connected_to(fd, &live);
    close(fd);
    dial_again(&d);
    is_connected_to(settle(T0 + DIAL_STEP_NS + 1), &live);
}

Test(dial, when_all_fail_it_is_said)
{
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    add_refusing();
    add_refusing();
    cr_assert_eq(settle(T0), -ECONNREFUSED);
    cr_assert_eq(dial_polls(&d, p, &next), 0);
    dial_end(&d);
    dial_init(&d);
    cr_assert_eq(settle(T0), -EHOSTUNREACH, "no address at all");
}

Test(dial, silent_ones_are_given_up_by_the_caller)
{
    struct pollfd p[DIAL_MAX];
    uint64_t next;
    add_silent();
    unsigned before = descriptors();
    cr_assert_eq(settle(T0), -EAGAIN);
    dial_polls(&d, p, &next);
    cr_assert_eq(next, UINT64_MAX, "there is nothing more to try");
    dial_end(&d);
    dial_end(&d);
    cr_assert_eq(descriptors(), before);
}

Test(dial, names_and_numbers_are_resolved)
{
    cr_assert_eq(dial_resolve(&d, "127.0.0.7", "50000"), 0);
    cr_assert_eq(d.n, 1);
    const struct sockaddr_in *a = (const struct sockaddr_in *)&d.at[0].address;
    cr_assert_eq(a->sin_addr.s_addr, htonl(0x7f000007));
    cr_assert_eq(ntohs(a->sin_port), 50000);
    cr_assert_eq(dial_resolve(&d, "no.such.host.invalid", "1"), -EHOSTUNREACH);
    cr_assert_not_null(strstr(err_text(-EHOSTUNREACH), "no.such.host.invalid: "));
}

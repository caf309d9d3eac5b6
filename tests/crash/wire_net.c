/* SPDX-License-Identifier: MIT
 *
 * wire_net.c - see wire_net.h. What a router does not forward for an interface it drops without a
 * word: so a cut is one byte written to net.ipv4.conf.<interface>.forwarding.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/crash/wire_net.h"

static int ns[3] = {-1, -1, -1}, forwards[2] = {-1, -1};
static char why[300];

const char *wire_why(void)
{
    return why;
}

static int failed(const char *what)
{
    int e = errno ? errno : EIO;
    snprintf(why, sizeof why, "%s: %s", what, strerror(e));
    return -e;
}

int wire_enter(enum wire_host h)
{
    return setns(ns[h], CLONE_NEWNET) < 0 ? failed("entering a network namespace") : 0;
}

static int run(enum wire_host h, const char *command)
{
    int rc = wire_enter(h);
    if (rc < 0 || system(command) == 0)
        return rc;
    errno = EPERM;
    return failed("ip(8)");
}

static int end_of_wire(enum wire_host h, const char *middle, int net)
{
    char there[300], here[300];
    snprintf(there, sizeof there,
             "ip link add wire-%1$s type veth peer name e%1$s && ip link set e%1$s netns "
             "/proc/%2$d/fd/%3$d && "
             "ip addr add 10.77.%4$d.1/24 dev wire-%1$s && ip link set wire-%1$s up",
             middle, getpid(), ns[h], net);
    snprintf(
        here, sizeof here,
        "ip addr add 10.77.%2$d.2/24 dev e%1$s && ip link set e%1$s up && ip link set lo up && "
        "ip route add default via 10.77.%2$d.1",
        middle, net);
    int rc = run(WIRE_MIDDLE, there);
    return rc == 0 ? run(h, here) : rc;
}

/* The descriptor keeps meaning this namespace's. */
static int open_forwarding(int i, const char *name)
{
    char path[100];
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/conf/%s/forwarding", name);
    forwards[i] = open(path, O_WRONLY | O_CLOEXEC);
    return forwards[i] < 0 ? failed(path) : 0;
}

int wire_open(void)
{
    int rc = 0;
    for (int i = 0; i < 3; i++) {
        if (unshare(CLONE_NEWNET) < 0)
            return failed("making a network namespace");
        /* inherited by ip(8), which is handed it by its path */
        ns[i] = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (ns[i] < 0)
            return failed("/proc/thread-self/ns/net");
    }
    rc = end_of_wire(WIRE_HOST_A, "a", 1);
    if (rc == 0)
        rc = end_of_wire(WIRE_HOST_B, "b", 2);
    if (rc == 0)
        rc = wire_enter(WIRE_MIDDLE);
    if (rc == 0)
        rc = open_forwarding(0, "wire-a");
    if (rc == 0)
        rc = open_forwarding(1, "wire-b");
    return rc == 0 ? wire_set(true, true) : rc;
}

int wire_set(bool from_a, bool from_b)
{
    if (pwrite(forwards[0], from_a ? "1\n" : "0\n", 2, 0) != 2 ||
        pwrite(forwards[1], from_b ? "1\n" : "0\n", 2, 0) != 2)
        return failed("forwarding");
    return 0;
}

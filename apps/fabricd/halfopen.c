/* SPDX-License-Identifier: MIT
 *
 * halfopen.c - see halfopen.h.
 */
#include <dirent.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apps/fabricd/halfopen.h"

/* A connection request has at least a head and a ticket; a part of one, libfabric does not wait for. */
#define REQUEST_MIN 40u
#define ESTABLISHED 1 /* of struct tcp_info; <netinet/tcp.h>, which names it, lacks the fields needed here */

static in_port_t port_of(const struct sockaddr_storage *a)
{
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_port;
    return a->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)a)->sin6_port : 0;
}

static bool is_silent(int fd, in_port_t port, uint32_t ms)
{
    struct sockaddr_storage a;
    struct tcp_info info;
    socklen_t len = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &len) < 0 || port_of(&a) != port)
        return false;
    len = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
        len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return false;
    /* of a connection that received nothing, the time counts from its beginning */
    return info.tcpi_state == ESTABLISHED && info.tcpi_bytes_received < REQUEST_MIN &&
           info.tcpi_last_data_recv >= ms;
}

/* How many descriptors there are, and in *top a number that all of them are below. */
static uint32_t descriptors(int *top)
{
    uint32_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    *top = 0;
    if (!dir) { /* there are none left, perhaps: then it is time to look at all */
        *top = (int)sysconf(_SC_OPEN_MAX);
        return UINT32_MAX;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        int fd = atoi(e->d_name); /* 0 for . and .. */
        *top = fd >= *top ? fd + 1 : *top;
        n++;
    }
    closedir(dir);
    return n;
}

uint32_t halfopen_end(const struct sockaddr *data, uint32_t expected, uint32_t ms)
{
    struct sockaddr_storage a = {0};
    uint32_t n = 0;
    int top;
    if (descriptors(&top) <= expected)
        return 0;
    memcpy(&a, data, data->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    in_port_t port = port_of(&a);
    for (int fd = 3; port && fd < top; fd++)
        if (is_silent(fd, port, ms) && shutdown(fd, SHUT_RDWR) == 0)
            n++;
    return n;
}

/* SPDX-License-Identifier: MIT
 *
 * wire_net.h - two hosts and the wire between them, for tests: three network namespaces, of which
 * the middle one routes from one host to the other, and drops what comes from either when told to.
 *
 *   host A 10.77.1.2 ---- (wire-a) the middle (wire-b) ---- 10.77.2.2 host B
 *
 * The hosts' own interfaces, routes and addresses stay as they are when the wire is cut; nobody
 * tells them. A namespace lives as long as its descriptor here, so a killed test leaves nothing
 * behind.
 *
 * Threads: wire_cut() any; wire_enter() moves the calling thread, and what it forks. Failure:
 * -errno, and wire_why() says why; -EPERM where namespaces can't be made.
 */
#ifndef TESTS_WIRE_NET_H
#define TESTS_WIRE_NET_H

#include <stdbool.h>

#define WIRE_A "10.77.1.2"
#define WIRE_B "10.77.2.2"

enum wire_host { WIRE_HOST_A, WIRE_HOST_B, WIRE_MIDDLE };

int wire_open(void);
const char *wire_why(void);
int wire_enter(enum wire_host h);
/* Which way packets get through. */
int wire_set(bool from_a, bool from_b);

#endif

/* SPDX-License-Identifier: MIT
 *
 * halfopen.h - connections to the data port that never say what they want.
 *
 * libfabric's tcp provider accepts whoever connects to the data port and waits for a connection request
 * without a time limit; fabricd hears of a connection only when the request with its ticket is there. So a
 * stranger could hold descriptors by the thousand until there are none for peers. Their sockets are found
 * among our descriptors, by their port and by having received nothing, and shut down; libfabric then
 * closes them.
 *
 * Threads: the loop's. Cost: a look at the list of descriptors a second (a microsecond each), and no more while there are
 * not many more than peers account for.
 */
#ifndef FABRICD_HALFOPEN_H
#define FABRICD_HALFOPEN_H

#include <stdint.h>
#include <sys/socket.h>

/* data: the address that is listened on. expected: about how many descriptors there should be. Shuts down
 * those that have been silent for ms. Returns how many. */
uint32_t halfopen_end(const struct sockaddr *data, uint32_t expected, uint32_t ms);

#endif

/* SPDX-License-Identifier: MIT
 *
 * doorman.h - lets local participants in and notices when they go.
 *
 * A client connects to the UNIX socket; the kernel says who it is (SO_PEERCRED) and the socket's
 * file permission has said whether it may. It gets a participant entry, the segment's descriptor
 * and the doorbell's. From then on the doorman watches its pidfd: when that becomes readable the
 * process is gone, its mappings with it, and the undertaker runs at once. A client that closes its
 * handle says so on the socket first. A socket that closes without that word, by a process that
 * lives, proves nothing: its pidfd decides.
 */
#ifndef FABRICD_DOORMAN_H
#define FABRICD_DOORMAN_H

#include "apps/fabricd/daemon.h"

/* -EADDRINUSE with a message when another fabricd listens at path. */
int doorman_free(const char *path) __attribute__((warn_unused_result));
int doorman_open(struct doorman **out, struct daemon *d) __attribute__((warn_unused_result));
/* Once a second: sends away who connected and said nothing for auth.handshake_timeout. */
void doorman_tick(struct doorman *dm, uint64_t now_ns);
/* Buries who has left without a word on the socket (LIFE_LEFT). */
void doorman_sweep(struct doorman *dm);
/* Watches a participant of an adopted segment, that has no connection to us. Takes pidfd over. */
int doorman_watch(struct doorman *dm, uint32_t participant, uint32_t pid, int pidfd)
    __attribute__((warn_unused_result));
/* No new participants from here on. */
void doorman_refuse(struct doorman *dm);
void doorman_close(struct doorman *dm);

#endif

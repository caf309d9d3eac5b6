/* SPDX-License-Identifier: MIT
 *
 * keeper.h - how a segment outlives its fabricd.
 *
 * The segment is a sealed memfd without a name: when the last descriptor closes it is gone. So a
 * small process of its own, the keeper, holds the segment's and the doorbell's descriptors and
 * waits on a UNIX socket beside fabricd's (SOCKET.keep). A fabricd that starts asks there first:
 *
 *   fabricd                                   keeper
 *   connect SOCKET.keep            ------->
 *                                  <-------   HERE {layout, segment id} + 2 descriptors
 *   ... lives ...                             (or BUSY {pid}: another fabricd has it)
 *   DONE, when it ends as asked    ------->   exits
 *   dies: the connection closes               counts segment.keep down; then closes the segment
 *                                             (workers go elsewhere, producers are told) and exits
 *   DRAIN, from another layout     ------->   lets the old segment run dry, closes it, exits
 *
 * Under systemd its store of descriptors does the same (FDSTORE=1, FileDescriptorStoreMax=2): see
 * notify.h.
 *
 * Trust: the keeper answers processes of its own user and root's alone (SO_PEERCRED); fabricd
 * checks the segment it gets like any other (segment_map).
 * Failure: without a keeper a fabricd that dies takes the fabric's future with it: local programs
 * finish what needs no recovery and are told after three seconds.
 */
#ifndef FABRICD_KEEPER_H
#define FABRICD_KEEPER_H

#include <stdint.h>
#include "core/segment.h"

/* The option by which fabricd starts itself as a keeper; not for people. */
#define KEEPER_OPTION "--keeper"

/* fabricd's side. */
struct keeper {
    int sock; /* to the keeper; -1: none */
};

/* Asks the keeper at socket_path for its segment. Returns 1 and the segment (mapped and checked)
 * and the doorbell; 0 when there is no keeper, or it kept nothing of use; < 0 with a message:
 * another fabricd has it, or the segment's layout is not ours (its keeper was told to drain it). */
int keeper_ask(struct keeper *k, const char *socket_path, struct segment *seg, int *bell)
    __attribute__((warn_unused_result));
/* Starts a keeper for seg. It is ready when this returns. */
int keeper_start(struct keeper *k, const char *socket_path, const struct segment *seg, int bell,
                 uint64_t keep_ns) __attribute__((warn_unused_result));
/* The fabric has ended, or (closing alone) fabricd dies without it. */
void keeper_done(struct keeper *k);

/* The keeper's side: main() of the process, started with KEEPER_OPTION. Returns its exit status. */
int keeper_main(int argc, char **argv);

#endif

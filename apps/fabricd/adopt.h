/* SPDX-License-Identifier: MIT
 *
 * adopt.h - where fabricd's segment comes from: taken over from the fabricd before it, or made new.
 *
 * A fabricd that was killed leaves its segment with the keeper (keeper.h) or with systemd
 * (notify.h). Local participants went on meanwhile. The next one maps it, checks it, finds out who
 * of the participants is still alive (pid and start time), watches those by pidfd, and has the
 * undertaker give back what the others held: remote links, which ended with the fabricd they were
 * of, that fabricd itself, and whoever died or left in between.
 *
 * Failure: each step can be cut off and is done again by the next fabricd.
 */
#ifndef FABRICD_ADOPT_H
#define FABRICD_ADOPT_H

#include "apps/fabricd/daemon.h"

/* Sets d->seg, d->out.daemon_fd, d->me and d->keeper; d->adopted when the segment is an old one. */
int adopt_or_make(struct daemon *d) __attribute__((warn_unused_result));
/* With the doorman open: who is behind the entries of an adopted segment. Nothing for a new one. */
int adopt_participants(struct daemon *d) __attribute__((warn_unused_result));
/* The fabric has ended: nobody shall keep it. */
void adopt_end(struct daemon *d);

#endif

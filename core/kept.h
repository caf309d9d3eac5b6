/* SPDX-License-Identifier: MIT
 *
 * kept.h - finding the participant whose tasks somebody may take up.
 *
 * A producer has an identity when it gave a client id, or when it is remote (a random number of the
 * handle's own, its instance). When it dies its entry is kept (LIFE_KEPT) with its tasks and
 * outcomes until a time, and taken up by
 *   - another handle with the same client id, which gets all tasks it has left; or
 *   - the same remote handle over a new link: same instance, same client id (or neither has one).
 * Identities in the segment are hashes: who can read it can't take up a remote handle's tasks by it.
 *
 * Threads: fabricd's loop. Trust: the entries can be scribbled over; whose life fabricd's own record
 * (segment.living) says otherwise is not found.
 */
#ifndef FABRIC_KEPT_H
#define FABRIC_KEPT_H

#include "core/participant.h"

/* The entry that has who's client id, or for who without one its instance. -ENOENT. */
int kept_find(const struct segment *s, const struct identity *who) __attribute__((warn_unused_result));
/* Entry id was made or taken up last by this very handle. */
bool kept_same_instance(const struct segment *s, uint32_t id, const struct identity *who);
/* Nobody is behind it any more. */
bool kept_is(const struct segment *s, uint32_t id);
/* It has a client id, or an instance. */
bool kept_has_identity(const struct segment *s, uint32_t id);
/* Some slot has a task or an outcome of it that somebody waits for. */
bool kept_has_tasks(const struct segment *s, uint32_t id);
/* The kept entry whose time ends first, those without a client id before the others. -ENOENT. */
int kept_first(const struct segment *s) __attribute__((warn_unused_result));

#endif

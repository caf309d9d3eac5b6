/* SPDX-License-Identifier: MIT
 *
 * lease.h - the ends of a lease, between claim.c (complete, fail, release), cancel.c (cancelled
 * ones) and crash.c (crashed and overrun ones). Nobody else includes it.
 *
 * The caller is the handle's thread and holds, or held until a moment ago, the lease whose state
 * word is w.
 */
#ifndef FABRIC_LEASE_H
#define FABRIC_LEASE_H

#include "core/local.h"

/* claim.c: frees a task with everything attached to it. False: the lease is not held. */
bool lease_free(struct local *l, uint32_t slot, uint64_t w);
/* claim.c: result bytes to where their length says. */
int lease_put_result(struct local *l, uint32_t slot, uint64_t w, const void *res, uint32_t len)
    __attribute__((warn_unused_result));
/* claim.c: a lease of {slot, epoch} that we thought we had may have been ended by its limit: then the
 * slot, which is still ours, is given back. */
void lease_overrun(struct local *l, uint32_t slot, uint32_t epoch);
/* claim.c: counts a late end, and gives a slot whose lease was taken by its limit back; -ESTALE. */
int lease_lost(struct local *l, const struct fab_lease *lease) __attribute__((warn_unused_result));

/* cancel.c: 0, -EINVAL: it is none of this handle's; -ESTALE: it was taken away, and lease_lost()
 * has been called. */
int lease_check(struct local *l, const struct fab_lease *lease) __attribute__((warn_unused_result));
/* cancel.c: LEASED -> the outcome `as`, whose bytes are in place, and the producer is told; a task
 * nobody waits for is freed. False: the lease is not held. */
bool lease_end(struct local *l, uint32_t slot, uint64_t w, enum slot_state as);
/* cancel.c: LEASED -> READY (in its ring) or DELAYED; CANCELLED when its producer asked for that.
 * 0, 1: cancelled; -ESTALE (the caller says lease_lost()), -EPROTO. */
int lease_back(struct local *l, uint32_t slot, uint64_t w, enum slot_state as)
    __attribute__((warn_unused_result));
/* cancel.c: the same as lease_end() with CANCELLED, counted; 0 or lease_lost()'s. */
int lease_cancel(struct local *l, const struct fab_lease *lease) __attribute__((warn_unused_result));

#endif

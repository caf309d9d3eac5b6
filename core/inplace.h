/* SPDX-License-Identifier: MIT
 *
 * inplace.h - arguments that their producer makes where they are to lie: fab_arg_new(),
 * fab_arg_drop() and FAB_IN_PLACE of local handles.
 *
 * The memory is a block of the arena, HELD by the handle until its task is accepted; it counts
 * towards the producer's share meanwhile. Arguments of a slot's size are copied into the slot all
 * the same.
 *
 * Threads: a handle's. Failure: who dies with a block leaves it HELD, and the undertaker frees it.
 */
#ifndef FABRIC_INPLACE_H
#define FABRIC_INPLACE_H

#include "core/local.h"

int local_arg_new(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns)
    __attribute__((warn_unused_result));
void local_arg_drop(fab_t *f, void *arg);
/* fab_submit() of a local handle: takes tasks with FAB_IN_PLACE, too. */
long local_submit_any(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids,
                      int64_t timeout_ns);

#endif

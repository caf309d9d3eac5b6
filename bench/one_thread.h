/* SPDX-License-Identifier: MIT
 *
 * one_thread.h - a batch of tasks by one thread with a producer's and a worker's handle: submit,
 * claim, complete, take. For counting what the fabric's code alone costs (instructions.c,
 * stamps_child.c).
 *
 * Threads: the handles'. Failure: -EIO with a message where a batch is not taken whole or an answer
 * is not the expected one.
 */
#ifndef BENCH_ONE_THREAD_H
#define BENCH_ONE_THREAD_H

#include "core/fabric.h"

#define ONE_THREAD_BATCH_MAX 16u

/* batch: 1 to ONE_THREAD_BATCH_MAX of t, which nobody else runs, and as many of res, 8 bytes each, which say
 * `answer`. Blocks for nothing. */
int one_thread_batch(fab_t *producer, fab_t *worker, const struct fab_task *t, uint64_t answer,
                     const struct fab_result *res, unsigned batch) __attribute__((warn_unused_result));

#endif

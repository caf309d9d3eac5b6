/* SPDX-License-Identifier: MIT
 *
 * one_thread.c - see one_thread.h.
 */
#include <errno.h>
#include "bench/one_thread.h"
#include "core/error.h"

int one_thread_batch(fab_t *producer, fab_t *worker, const struct fab_task *t, uint64_t answer,
                     const struct fab_result *res, unsigned batch)
{
    struct fab_lease l[ONE_THREAD_BATCH_MAX];
    struct fab_outcome o[ONE_THREAD_BATCH_MAX];
    if (fab_submit(producer, t, batch, NULL, 0) != batch ||
        fab_claim(worker, 0, l, batch, 0) != batch)
        return err_set(-EIO, "a batch was not taken whole");
    if (batch == 1 ? fab_complete(worker, l, &answer, sizeof answer) < 0
                   : fab_complete_many(worker, l, res, batch) != batch)
        return -EIO;
    for (unsigned got = 0; got < batch;) {
        long n = fab_wait_any(producer, o, batch, 0);
        if (n < 0)
            return (int)n;
        for (long i = 0; i < n; i++)
            if (o[i].small != answer || o[i].status != FAB_COMPLETED)
                return err_set(-EIO, "a wrong answer");
        got += (unsigned)n;
    }
    return 0;
}

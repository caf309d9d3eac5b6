/* SPDX-License-Identifier: MIT
 *
 * budget.c - --count: exactly so many tasks over all threads.
 *
 * A task is started only on a reservation, so that never more are run than were asked for. A thread
 * that finds nothing left waits as long as others hold reservations: they may come back unused.
 * Near the end reservations get small, so that one slow thread does not hold what another could
 * run.
 */
#include <errno.h>
#include "apps/fabworker/fabworker.h"
#include "core/error.h"

int budget_open(struct budget *b, uint64_t count, unsigned threads)
{
    b->limited = count > 0;
    b->left = count;
    b->threads = threads;
    if (pthread_mutex_init(&b->lock, NULL) || pthread_cond_init(&b->changed, NULL))
        return err_set(-ENOMEM, "no memory for a lock");
    return 0;
}

uint32_t budget_reserve(struct shared *sh, uint32_t want)
{
    struct budget *b = &sh->budget;
    if (!b->limited)
        return want;
    pthread_mutex_lock(&b->lock);
    while (b->left == 0 && b->reserved > 0 && !worker_stopping(sh))
        pthread_cond_wait(&b->changed, &b->lock);
    uint64_t share = b->left / (2 * b->threads);
    if (share == 0)
        share = 1;
    uint64_t n = want < share ? want : share;
    if (n > b->left)
        n = b->left;
    b->left -= n;
    b->reserved += n;
    pthread_mutex_unlock(&b->lock);
    return (uint32_t)n;
}

void budget_settle(struct shared *sh, uint32_t reserved, uint32_t ran)
{
    struct budget *b = &sh->budget;
    if (!b->limited)
        return;
    pthread_mutex_lock(&b->lock);
    b->reserved -= reserved;
    b->left += reserved - ran;
    /* those who wait want to hear of both: something came back, or the last one is done */
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

void budget_wake(struct budget *b)
{
    pthread_mutex_lock(&b->lock);
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

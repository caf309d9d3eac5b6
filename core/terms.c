/* SPDX-License-Identifier: MIT
 *
 * terms.c - see terms.h. Any thread.
 */
#include <errno.h>
#include "core/clock.h"
#include "core/error.h"
#include "core/ring.h"
#include "core/terms.h"

#define YEAR_NS 31536000000000000ull

int terms_check(const struct fab_terms *t)
{
    if (t->delay_ns > YEAR_NS || t->expire_ns > YEAR_NS || t->limit_ns > YEAR_NS ||
        t->backoff_ns > YEAR_NS)
        return err_set(-EINVAL, "terms: a time of more than a year");
    if (t->expire_ns && t->expire_ns <= t->delay_ns)
        return err_set(-EINVAL, "terms: it expires before it may start");
    if (t->dedup_ns > YEAR_NS)
        return err_set(-EINVAL, "terms: a window of more than a year");
    if (!t->key != !t->dedup_ns)
        return err_set(-EINVAL, t->key ? "terms: a key needs a window (dedup_ns)"
                                       : "terms: a window (dedup_ns) needs a key");
    if (t->crashes > 255)
        return err_set(-EINVAL, "terms: %u crashes; use 1 to 255, or 0 for 3", t->crashes);
    return 0;
}

void terms_put(const struct segment *s, uint32_t slot, const struct fab_terms *t)
{
    uint64_t now = clock_ns();
    *terms_of(s, slot) = (struct seg_terms){.not_before_ns = t->delay_ns ? now + t->delay_ns : 0,
                                            .expires_ns = t->expire_ns ? now + t->expire_ns : 0,
                                            .limit_ns = t->limit_ns,
                                            .backoff_ns = t->backoff_ns,
                                            .retries = t->retries,
                                            .crashes = (uint8_t)t->crashes};
}

void terms_note(const struct segment *s, const struct wake_out *out, uint32_t slot)
{
    if (!ring_put(s, s->timer_ring, slot))
        at_store(&s->head->scan_wanted, 1);
    daemon_ring(s, out);
}

uint64_t terms_pause_end(const struct seg_terms *t, uint32_t n)
{
    uint64_t now = clock_ns(), pause = t->backoff_ns; /* read once */
    if (pause == 0 || pause > YEAR_NS)
        return now;
    for (uint32_t i = 1; i < n && pause < YEAR_NS / 2; i++)
        pause *= 2;
    /* the low bits of the tick counter are as good as dice for this */
    uint64_t quarter = pause / 4;
    return now + pause - quarter + (quarter ? clock_ticks() * 0x9e3779b97f4a7c15ull % (2 * quarter) : 0);
}

const char *terms_overrun_text(void)
{
    return "an attempt took longer than the task's time limit";
}

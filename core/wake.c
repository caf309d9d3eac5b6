/* SPDX-License-Identifier: MIT
 *
 * wake.c - the side of waiting that costs a system call.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "core/crashpoint.h"
#include "core/fabric.h"
#include "core/wake.h"

/* How late a busy wait may notice that its time is over, or the fabric's. */
#define BUSY_NS 1000000
/* spin_share(): whether somebody wants the core is asked so often. CROWD times in a row: there are more
 * that poll than cores. */
#define PROBE_NS 200000u
#define CROWD    2u
/* A switch to another thread and back takes longer than SWITCH_NS; one who polls, too, has done what there
 * was for him and yields within HOG_NS. After a yield to one who did not there is none for as long, twice
 * as long each time that meets such a one again, less by a 64th with each short one. (All of it, where one
 * who computes shares the core with one who polls: a quarter less throughput than without any yields; so
 * it is a tenth.) KEEP_MAX times HOG_NS at most, and KEEP_FEW times as long as it was for one who has not
 * slept since: two who poll may take each other for hogs, when others have held up both, and meet again
 * only when both ask. */
#define SWITCH_NS 1500u
#define HOG_NS    1500000u
#define KEEP_MAX  700u
#define KEEP_FEW  4u

int futex_sleep(_Atomic uint32_t *word, uint32_t expect, uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    if (ns == 0) /* a look: the system call would give the core away */
        return at_load(word) == expect ? -ETIMEDOUT : 0;
    /* not FUTEX_PRIVATE: the word is shared between processes */
    if (syscall(SYS_futex, word, FUTEX_WAIT, expect, &t, NULL, 0) < 0 && errno == ETIMEDOUT)
        return -ETIMEDOUT;
    return 0;
}

int futex_wake(_Atomic uint32_t *word, int n)
{
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
    return woken > 0 ? (int)woken : 0;
}

void wake_net_caught(const struct segment *s, _Atomic uint32_t *seq, uint32_t expect)
{
    if (futex_sleep(seq, expect, 1000000) == -ETIMEDOUT && at_load(seq) == expect)
        at_add_rlx(&s->head->net_catches, 1); /* a statistic */
}

void daemon_ring(const struct segment *s, const struct wake_out *out)
{
    /* The daemon sets daemon_parked before its last look and clears it when it wakes: one write for
     * a sleep. */
    if (out->daemon_fd >= 0 && at_load(&s->head->daemon_parked) &&
        at_swap(&s->head->daemon_parked, 0)) {
        uint64_t one = 1;
        /* the counter is full (EAGAIN): it has been rung then */
        if (write(out->daemon_fd, &one, sizeof one) < 0)
            return;
    }
}

void queue_wake_slow(const struct segment *s, struct seg_queue *q, const struct wake_out *out,
                     uint32_t tasks)
{
    uint32_t was = at_load(&q->parked), woken = 0;
    if (at_load(&q->control) == QUEUE_PAUSED) /* W2: who ends the pause wakes, see queue.h */
        return;
    if (was & QUEUE_PARKED_WORKERS) {
        int want = tasks < INT_MAX ? (int)tasks : INT_MAX;
        at_add(&q->seq, 1);
        CRASH_POINT("wake.seq");
        woken = (uint32_t)futex_wake(&q->seq, want);
        /* The mark stays while anybody may sleep: taken away before the wake, it would hide the
         * others from whoever publishes next. */
        if (woken < (uint32_t)want) {
            at_and(&q->parked, ~QUEUE_PARKED_WORKERS);
            CRASH_POINT("wake.unparked");
            /* who has set it before that and is on its way to sleep, or there, looks again */
            at_add(&q->seq, 1);
            woken += (uint32_t)futex_wake(&q->seq, INT_MAX);
        }
    }
    if ((was & QUEUE_PARKED_DAEMON) && woken < tasks) {
        at_and(&q->parked, ~QUEUE_PARKED_DAEMON);
        daemon_ring(s, out);
    }
}

void queue_wake_all(struct seg_queue *q)
{
    at_store(&q->parked, 0);
    at_add(&q->seq, 1);
    futex_wake(&q->seq, INT_MAX);
}

void bell_ring_slow(const struct segment *s, struct seg_participant *p, const struct wake_out *out)
{
    if (!at_swap(&p->bell_parked, 0))
        return;
    if (at_load_rlx(&p->bell_kind) ==
        BELL_DAEMON) { /* written once, before the participant is LIVE */
        daemon_ring(s, out);
        return;
    }
    CRASH_POINT("bell.unparked");
    at_add(&p->bell_seq, 1);
    CRASH_POINT("bell.seq");
    futex_wake(&p->bell_seq, 1);
}

void spin_init(struct spin *sp, uint64_t ticks_hz, int64_t ns)
{
    sp->round = 0;
    sp->until = 0;
    sp->busy = ns == FAB_SPIN_ALWAYS;
    sp->crowd = 0;
    sp->slept = false;
    sp->share_at = sp->keep = 0;
    sp->probe_ticks = ticks_hz / (1000000000u / PROBE_NS);
    sp->hog_ticks = ticks_hz / (1000000000u / HOG_NS);
    sp->switch_ticks = ticks_hz / (1000000000u / SWITCH_NS);
    if (sp->busy)
        ns = BUSY_NS;
    if (ns == 0) {
        sp->ticks_min = ticks_hz / 1000000;
        sp->ticks_max = ticks_hz / 20000;
    } else {
        sp->ticks_min = sp->ticks_max =
            ns < 0 ? 0 : (uint64_t)((unsigned __int128)(uint64_t)ns * ticks_hz / 1000000000u);
    }
    sp->ticks = sp->ticks_max;
}

/* A yield went to one who computes, and was long. */
static void met_hog(struct spin *sp, uint64_t now, uint64_t took)
{
    const uint64_t most = sp->slept ? KEEP_MAX * sp->hog_ticks : KEEP_FEW * took;
    sp->keep = sp->keep * 2 > took ? sp->keep * 2 : took;
    if (sp->keep > most)
        sp->keep = most;
    sp->share_at = now + sp->keep - sp->keep * (now & 31) / 128; /* not in step with the other */
    sp->crowd = 0;
    sp->slept = false;
}

void spin_share(struct spin *sp)
{
    if (sp->crowd < CROWD && (sp->round & 15) != 1)
        return;
    uint64_t from = clock_ticks();
    if (from < sp->share_at)
        return;
    sched_yield();
    uint64_t now = clock_ticks(), took = now > from ? now - from : 0;
    if (took > sp->hog_ticks) {
        met_hog(sp, now, took);
        return;
    }
    if (took > sp->switch_ticks) {
        sp->crowd += sp->crowd < 2 * CROWD;
        sp->keep -= sp->keep / 64;
    } else {
        sp->crowd -= sp->crowd > 0;
    }
    sp->share_at = sp->crowd >= CROWD ? 0 : now + sp->probe_ticks;
}

void spin_hit(struct spin *sp)
{
    sp->ticks = sp->ticks * 2 < sp->ticks_max ? sp->ticks * 2 : sp->ticks_max;
}

void spin_miss(struct spin *sp)
{
    sp->slept = true;
    sp->ticks = sp->ticks / 2 > sp->ticks_min ? sp->ticks / 2 : sp->ticks_min;
}
